// For tests whose many shapes would take hours under a tool that watches every access of a GPU.
#pragma once

#include <cstdlib>

namespace neurogrid {

/// Whether NG_SANITIZED is set, as it is under compute-sanitizer: such tests then take some of
/// their shapes, through the same code.
inline bool Sanitized() { return std::getenv("NG_SANITIZED") != nullptr; }

}  // namespace neurogrid
