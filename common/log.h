// Log lines for operators. Values from outside are escaped and cut; prompts never appear here.
#pragma once

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace neurogrid {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

/// Starts logging to standard error; call once, in main. Lines below `level` are dropped.
void StartLogging(absl::string_view program, LogLevel level);

/// Writes one line, at most 4 KiB; control characters are escaped.
void LogLine(LogLevel level, absl::string_view text);

template <typename... Parts>
void LogInfo(const Parts&... parts) {
  LogLine(LogLevel::kInfo, absl::StrCat(parts...));
}
template <typename... Parts>
void LogWarning(const Parts&... parts) {
  LogLine(LogLevel::kWarning, absl::StrCat(parts...));
}
template <typename... Parts>
void LogError(const Parts&... parts) {
  LogLine(LogLevel::kError, absl::StrCat(parts...));
}
template <typename... Parts>
void LogDebug(const Parts&... parts) {
  LogLine(LogLevel::kDebug, absl::StrCat(parts...));
}

}  // namespace neurogrid
