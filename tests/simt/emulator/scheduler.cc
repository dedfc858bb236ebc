// Runs a launch block by block, each thread as a fiber that goes on until it meets a barrier.
#include <array>
#include <boost/context/fiber.hpp>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "common/rng.h"
#include "tests/simt/emulator/control.h"
#include "tests/simt/emulator/poison.h"
#include "tests/simt/emulator/simt.h"

namespace simt {
namespace {

namespace context = boost::context;

constexpr size_t kStackBytes = 128 * 1024;
constexpr size_t kGuardBytes = 4096;
constexpr unsigned char kPoison = 0xFF;

/// Stacks outlive fibers: a launch makes thousands.
class StackPool {
 public:
  context::stack_context allocate() {
    if (free_.empty()) free_.push_back(std::make_unique<char[]>(kStackBytes));
    context::stack_context stack;
    stack.size = kStackBytes;
    stack.sp = free_.back().release() + kStackBytes;
    free_.pop_back();
    Unpoison(static_cast<char*>(stack.sp) - kStackBytes, kStackBytes);
    return stack;
  }
  void deallocate(context::stack_context& stack) {
    free_.emplace_back(static_cast<char*>(stack.sp) - kStackBytes);
  }

 private:
  std::vector<std::unique_ptr<char[]>> free_;
};

StackPool& Stacks() {
  static StackPool pool;
  return pool;
}

struct StackAllocator {
  void deallocate(context::stack_context& stack) { Stacks().deallocate(stack); }
};

enum class Wait { kReady, kWarp, kBlock, kDone };

struct Copy {
  void* to;
  const void* from;
  int bytes;
};

/// Unwinds a thread of a launch that has failed.
struct Abandoned {};

struct Thread {
  context::fiber fiber;
  context::fiber scheduler;  // while this thread runs: where its turn came from
  StackRange stack;
  Index3 index;
  int number = 0;
  Wait wait = Wait::kReady;
  const char* op = nullptr;  // what it waits at
  const void* in = nullptr;
  void* out = nullptr;
  std::vector<Copy> open_copies;
  std::deque<std::vector<Copy>> copy_groups;
};

struct Arena {
  std::unique_ptr<unsigned char[]> memory;
  size_t bytes = 0;

  void Fill(size_t wanted) {
    if (memory == nullptr || bytes != wanted) {
      memory = std::make_unique<unsigned char[]>(wanted + kGuardBytes + 128);
      bytes = wanted;
    }
    std::memset(memory.get(), kPoison, wanted + kGuardBytes + 128);
  }
  unsigned char* data() const {
    return memory.get() + (128 - reinterpret_cast<uintptr_t>(memory.get()) % 128) % 128;
  }
  bool GuardIntact() const {
    for (size_t i = 0; i < kGuardBytes; ++i) {
      if (data()[bytes + i] != kPoison) return false;
    }
    return true;
  }
};

struct StaticBlock {
  const void* key;
  Arena arena;
};

struct WarpWait {
  int lanes = 0;  // that are here
  const char* op = nullptr;
};

struct Launch {
  LaunchShape shape;
  std::vector<Thread> threads;
  std::vector<std::vector<int>> ready;  // by rank: the first that is not empty has the next turn
  std::vector<size_t> ranks;            // [warps]
  int waiting_in_block = 0;
  std::vector<WarpWait> warps;
  Arena dynamic;
  std::vector<StaticBlock> statics;
  Thread* current = nullptr;
  bool failed = false;
  uint64_t random = 0;

  size_t Below(size_t count) {
    random = neurogrid::SplitMix64(random);
    return static_cast<size_t>(random % count);
  }
};

std::recursive_mutex launch_mutex;
uint64_t seed = 0;
uint64_t kernels_run = 0;
std::string failure;
Launch* running = nullptr;
StackRange scheduler_stack;

std::string Where(const Thread& thread) {
  const auto three = [](const Index3& i) {
    return "(" + std::to_string(i.x) + "," + std::to_string(i.y) + "," + std::to_string(i.z) + ")";
  };
  return std::string(running->shape.kernel) + ", block " + three(block_index) + ", thread " +
         three(thread.index);
}

void FailLaunch(const Thread& thread, const std::string& what) {
  running->failed = true;
  SetFailure(Where(thread) + ": " + what);
}

/// Gives the turn back to the scheduler.
void Leave(Thread& thread) {
  {
    const StackSwitch to_scheduler(scheduler_stack);
    thread.scheduler = std::move(thread.scheduler).resume();
  }
  if (running->failed) throw Abandoned();
}

void RunThread(Thread& thread, const std::function<void()>& body) {
  try {
    if (!running->failed) body();
  } catch (const Abandoned&) {
    // What its launch found is already told.
  }
  thread.wait = Wait::kDone;
}

size_t RankOf(const Launch& launch, int thread) {
  return launch.ranks[static_cast<size_t>(thread / kWarpSize)];
}

void MakeReady(Thread& thread) {
  thread.wait = Wait::kReady;
  running->ready[RankOf(*running, thread.number)].push_back(thread.number);
}

void CombineWarp(int warp, Combine combine) {
  Launch& launch = *running;
  std::array<const void*, kWarpSize> in;
  std::array<void*, kWarpSize> out;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const Thread& thread = launch.threads[static_cast<size_t>(warp * kWarpSize + lane)];
    in[static_cast<size_t>(lane)] = thread.in;
    out[static_cast<size_t>(lane)] = thread.out;
  }
  combine(in.data(), out.data());
}

/// Even seeds let a warp run as far as it can before the next one has a turn, in an order of their
/// own; odd seeds mix the threads of all warps.
void RankWarps(Launch& launch, size_t warps) {
  launch.ranks.assign(warps, 0);
  launch.ready.assign(warps, {});
  if (seed == 0 || seed % 2 == 1) return;
  std::iota(launch.ranks.begin(), launch.ranks.end(), size_t{0});
  for (size_t i = 0; i < warps; ++i) {
    std::swap(launch.ranks[i], launch.ranks[i + launch.Below(warps - i)]);
  }
}

void StartBlock(Launch& launch, const std::function<void()>& body) {
  const Extent3 extent = launch.shape.block;
  const size_t count = size_t{extent.x} * extent.y * extent.z;
  launch.dynamic.Fill(launch.shape.shared_bytes);
  for (StaticBlock& block : launch.statics) block.arena.Fill(block.arena.bytes);
  launch.threads = std::vector<Thread>(count);
  launch.waiting_in_block = 0;
  launch.warps.assign(count / kWarpSize, {});
  RankWarps(launch, count / kWarpSize);
  for (size_t i = 0; i < count; ++i) {
    Thread& thread = launch.threads[i];
    thread.number = static_cast<int>(i);
    launch.ready[RankOf(launch, thread.number)].push_back(thread.number);
    const auto n = static_cast<unsigned>(i);
    thread.index = {n % extent.x, n / extent.x % extent.y, n / (extent.x * extent.y)};
    const context::stack_context stack = Stacks().allocate();
    thread.stack = {static_cast<char*>(stack.sp) - kStackBytes, kStackBytes};
    thread.fiber =
        context::fiber(std::allocator_arg, context::preallocated(stack.sp, stack.size, stack),
                       StackAllocator(), [&thread, &body](context::fiber&& scheduler) {
                         StackSwitch::Arrived();
                         thread.scheduler = std::move(scheduler);
                         RunThread(thread, body);
                         StackSwitch::LeaveForGood(scheduler_stack);
                         return std::move(thread.scheduler);
                       });
  }
}

void Resume(Launch& launch, Thread& thread) {
  launch.current = &thread;
  thread_index = thread.index;
  const StackSwitch to_thread(thread.stack);
  thread.fiber = std::move(thread.fiber).resume();
}

/// False when nobody is ready.
bool GiveTurn(Launch& launch) {
  for (std::vector<int>& ready : launch.ready) {
    if (ready.empty()) continue;
    const size_t choice = seed == 0 ? 0 : launch.Below(ready.size());
    const auto number = static_cast<size_t>(ready[choice]);
    if (seed == 0) {
      ready.erase(ready.begin());
    } else {
      ready[choice] = ready.back();
      ready.pop_back();
    }
    Resume(launch, launch.threads[number]);
    return true;
  }
  return false;
}

/// Nobody can go on and some have not ended: names one of each kind.
void ReportDivergence(Launch& launch) {
  const Thread* waiting = nullptr;
  const Thread* other = nullptr;
  for (const Thread& thread : launch.threads) {
    if (thread.wait == Wait::kDone || (waiting != nullptr && thread.op != waiting->op)) {
      other = &thread;
    } else if (waiting == nullptr) {
      waiting = &thread;
    }
  }
  std::string what = std::string("waits at ") + waiting->op;
  if (other != nullptr) {
    what += ", but thread " + std::to_string(other->number);
    what += other->wait == Wait::kDone ? " has ended" : std::string(" waits at ") + other->op;
  }
  FailLaunch(*waiting, what);
}

bool RunBlock(Launch& launch, const std::function<void()>& body) {
  StartBlock(launch, body);
  while (!launch.failed && GiveTurn(launch)) {
  }
  if (!launch.failed) {
    for (const Thread& thread : launch.threads) {
      if (thread.wait == Wait::kDone) continue;
      ReportDivergence(launch);
      break;
    }
  }
  const Thread& first = launch.threads.front();
  bool intact = launch.dynamic.GuardIntact();
  for (const StaticBlock& block : launch.statics) intact = intact && block.arena.GuardIntact();
  if (!launch.failed && !intact) FailLaunch(first, "something wrote behind shared memory");
  for (Thread& thread : launch.threads) {
    if (thread.wait != Wait::kDone) Resume(launch, thread);  // unwinds it
  }
  return !launch.failed;
}

bool CheckShape(const LaunchShape& shape) {
  const size_t threads = size_t{shape.block.x} * shape.block.y * shape.block.z;
  constexpr size_t kThreadsMax = 1024;
  constexpr size_t kSharedMax = 227 * 1024;
  std::string what;
  if (threads == 0 || threads % kWarpSize != 0 || threads > kThreadsMax) {
    what = std::to_string(threads) + " threads a block: a multiple of 32 up to 1024 is wanted";
  } else if (size_t{shape.grid.x} * shape.grid.y * shape.grid.z == 0) {
    what = "an empty grid";
  } else if (shape.grid.y > 65535 || shape.grid.z > 65535) {
    what = "a grid of more than 65535 blocks in y or z";
  } else if (shape.shared_bytes > kSharedMax) {
    what = std::to_string(shape.shared_bytes) + " bytes of shared memory";
  }
  if (!what.empty()) SetFailure(std::string(shape.kernel) + ": " + what);
  return what.empty();
}

}  // namespace

void SetSeed(uint64_t value) { seed = value; }
uint64_t KernelsRun() { return kernels_run; }
const std::string& Failure() { return failure; }
void SetFailure(const std::string& what) {
  if (failure.empty()) failure = what;
}
std::string TakeFailure() { return std::exchange(failure, std::string()); }

void WarpExchange(const char* op, const void* in, void* out, Combine combine) {
  Launch& launch = *running;
  Thread& self = *launch.current;
  const int warp = self.number / kWarpSize;
  self.op = op;
  self.in = in;
  self.out = out;
  WarpWait& wait = launch.warps[static_cast<size_t>(warp)];
  if (wait.lanes == 0) wait.op = op;
  if (wait.op != op && std::strcmp(wait.op, op) != 0) {
    FailThread((std::string(op) + " meets " + wait.op + " of another lane").c_str());
  }
  if (++wait.lanes < kWarpSize) {
    self.wait = Wait::kWarp;
    Leave(self);
    return;
  }
  wait.lanes = 0;
  CombineWarp(warp, combine);
  for (int lane = 0; lane < kWarpSize; ++lane) {
    Thread& other = launch.threads[static_cast<size_t>(warp * kWarpSize + lane)];
    if (&other != &self) MakeReady(other);
  }
}

void BlockBarrier() {
  Launch& launch = *running;
  Thread& self = *launch.current;
  self.op = "__syncthreads";
  if (++launch.waiting_in_block < static_cast<int>(launch.threads.size())) {
    self.wait = Wait::kBlock;
    Leave(self);
    return;
  }
  launch.waiting_in_block = 0;
  for (Thread& other : launch.threads) {
    if (&other != &self) MakeReady(other);
  }
  // The last to come is not always the first to go on.
  MakeReady(self);
  Leave(self);
}

void FailThread(const char* what) {
  FailLaunch(*running->current, what);
  throw Abandoned();
}

void CopyAsync(void* to, const void* from, int bytes) {
  running->current->open_copies.push_back({to, from, bytes});
}
void CommitCopies() {
  Thread& self = *running->current;
  self.copy_groups.push_back(std::exchange(self.open_copies, {}));
}
void WaitForCopies(int groups) {
  Thread& self = *running->current;
  while (static_cast<int>(self.copy_groups.size()) > groups) {
    for (const Copy& copy : self.copy_groups.front()) {
      const auto bytes = static_cast<size_t>(copy.bytes);
      if (copy.from == nullptr) {
        std::memset(copy.to, 0, bytes);
      } else {
        std::memcpy(copy.to, copy.from, bytes);
      }
    }
    self.copy_groups.pop_front();
  }
}

void* DynamicSharedMemory() { return running->dynamic.data(); }

void* StaticSharedMemory(const void* key, size_t bytes, size_t alignment) {
  if (alignment > 128) FailThread("static shared memory of more than 128 bytes alignment");
  for (StaticBlock& block : running->statics) {
    if (block.key == key) return block.arena.data();
  }
  StaticBlock block{key, {}};
  block.arena.Fill(bytes);
  running->statics.push_back(std::move(block));
  return running->statics.back().arena.data();
}

bool RunKernel(const LaunchShape& shape, const std::function<void()>& body) {
  const std::lock_guard lock(launch_mutex);
  if (!failure.empty() || !CheckShape(shape)) return false;
  ++kernels_run;
  Launch launch;
  launch.shape = shape;
  launch.random = seed * 0x9e3779b97f4a7c15u + kernels_run;
  running = &launch;
  scheduler_stack = CurrentStack();
  block_extent = shape.block;
  grid_extent = shape.grid;
  const size_t blocks = size_t{shape.grid.x} * shape.grid.y * shape.grid.z;
  std::vector<uint32_t> order(blocks);
  std::iota(order.begin(), order.end(), 0u);
  bool good = true;
  for (size_t i = 0; i < blocks && good; ++i) {
    if (seed != 0) std::swap(order[i], order[i + launch.Below(blocks - i)]);
    const uint32_t n = order[i];
    block_index = {n % shape.grid.x, n / shape.grid.x % shape.grid.y,
                   n / (shape.grid.x * shape.grid.y)};
    good = RunBlock(launch, body);
  }
  running = nullptr;
  return good && CheckGuards(shape.kernel);
}

}  // namespace simt
