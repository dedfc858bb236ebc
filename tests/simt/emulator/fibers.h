// Fibers that hand the turn to each other and serve every launch: to make them anew, and to pass
// through a scheduler between any two, was most of the emulator's time.
#pragma once

#include <boost/context/fiber.hpp>
#include <functional>

#include "tests/simt/emulator/poison.h"

namespace simt {

/// Where somebody waits for the turn: a fiber, or the code that runs the launch.
struct Place {
  boost::context::fiber fiber;
  StackRange stack;
};

/// Hands the turn from `from`, which is the caller's, to `to`; returns when somebody hands it back.
void HandOver(Place& from, Place& to);

/// A fiber on a stack of its own. It calls `work` when it is first given the turn; `work` never
/// returns, and the stack stays until the process ends.
void MakeFiber(Place& place, const std::function<void()>& work);

}  // namespace simt
