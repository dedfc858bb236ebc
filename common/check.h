// NG_CHECK ends the process on our own mistakes, in release builds too. Never for outside input.
#pragma once

namespace neurogrid {
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition);
}  // namespace neurogrid

#define NG_CHECK(condition)                                     \
  do {                                                          \
    if (!(condition)) [[unlikely]]                              \
      ::neurogrid::CheckFailed(__FILE__, __LINE__, #condition); \
  } while (false)
