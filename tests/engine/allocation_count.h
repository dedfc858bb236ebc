// Counts what operator new hands out, on every thread.
#pragma once

#include <cstdint>

#include "absl/functional/function_ref.h"

namespace neurogrid {

/// Bytes that `work` took from operator new, whether or not it gave them back.
int64_t AllocatedBytesOf(absl::FunctionRef<void()> work);

}  // namespace neurogrid
