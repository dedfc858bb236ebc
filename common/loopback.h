#pragma once

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"

namespace neurogrid {

/// 127.0.0.0/8, ::1 and localhost: hosts that only this machine reaches.
inline bool IsLoopback(absl::string_view host) {
  return host == "localhost" || host == "::1" || absl::StartsWith(host, "127.");
}

}  // namespace neurogrid
