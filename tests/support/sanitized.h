// For tests whose many shapes would take hours under a tool that watches every access of a GPU.
#pragma once

#include <cstdlib>

namespace neurogrid {

/// Whether NG_SANITIZED is set, as it is under compute-sanitizer: such tests then take some of
/// their shapes, through the same code.
inline bool Sanitized() { return std::getenv("NG_SANITIZED") != nullptr; }

/// In a build with AddressSanitizer another order of threads, or another model of the same kernels,
/// meets no other address: the release build has them all.
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kAddressSanitizer = true;
#else
inline constexpr bool kAddressSanitizer = false;
#endif

}  // namespace neurogrid
