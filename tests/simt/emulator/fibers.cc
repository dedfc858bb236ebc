#include "tests/simt/emulator/fibers.h"

#include <sys/mman.h>

#include <cstdlib>
#include <utility>

namespace simt {
namespace {

namespace context = boost::context;

constexpr size_t kStackBytes = 128 * 1024;
/// Tops of stacks at a power of two from each other would meet in few sets of the caches.
constexpr size_t kStackPitch = kStackBytes + 17 * 64;
constexpr size_t kSlabStacks = 32;
constexpr size_t kHugePage = size_t{2} << 20;

struct NeverFreed {
  void deallocate(context::stack_context&) {}
};

/// From slabs on huge pages: 256 threads in turn touch more small pages than a TLB holds.
char* TakeStack() {
  static char* next = nullptr;
  static size_t left = 0;
  if (left == 0) {
    constexpr size_t kBytes = (kSlabStacks * kStackPitch + kHugePage - 1) / kHugePage * kHugePage;
    next = static_cast<char*>(std::aligned_alloc(kHugePage, kBytes));
    if (next == nullptr) std::abort();
    madvise(next, kBytes, MADV_HUGEPAGE);  // as fast as may be where refused
    left = kSlabStacks;
  }
  --left;
  return std::exchange(next, next + kStackPitch);
}

/// Whose turn it was before the one that has just begun.
Place* before = nullptr;

}  // namespace

void HandOver(Place& from, Place& to) {
  before = &from;
  context::fiber came;
  {
    const StackSwitch switched(to.stack);
    came = std::move(to.fiber).resume();
  }
  before->fiber = std::move(came);
}

void MakeFiber(Place& place, const std::function<void()>& work) {
  place.stack = {TakeStack(), kStackBytes};
  context::stack_context stack;
  stack.size = kStackBytes;
  stack.sp = static_cast<char*>(const_cast<void*>(place.stack.bottom)) + kStackBytes;
  place.fiber =
      context::fiber(std::allocator_arg, context::preallocated(stack.sp, stack.size, stack),
                     NeverFreed(), [work](context::fiber&& came) {
                       StackSwitch::Arrived();
                       before->fiber = std::move(came);
                       work();
                       return context::fiber();
                     });
}

}  // namespace simt
