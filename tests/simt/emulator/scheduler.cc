// Runs one kernel at a time, block by block, each thread as a fiber that goes on until it meets a
// barrier and then hands the turn to another.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "tests/simt/emulator/control.h"
#include "tests/simt/emulator/fibers.h"
#include "tests/simt/emulator/poison.h"
#include "tests/simt/emulator/ready_threads.h"
#include "tests/simt/emulator/simt.h"

namespace simt {
namespace {

constexpr size_t kGuardBytes = 4096;
constexpr unsigned char kPoison = 0xFF;
constexpr int kThreadsMax = 1024;

enum class Wait : uint8_t { kReady, kWarp, kBlock, kDone };

struct Copy {
  void* to;
  const void* from;
  int bytes;
};

void Arrive(const Copy& copy) {
  const auto bytes = static_cast<size_t>(copy.bytes);
  if (copy.from == nullptr) {
    std::memset(copy.to, 0, bytes);
  } else {
    std::memcpy(copy.to, copy.from, bytes);
  }
}

/// Unwinds a thread of a launch that has failed.
struct Abandoned {};

/// What each turn reads comes first, in one line of the cache.
struct alignas(64) Thread {
  Place place;
  Index3 index;
  int number = 0;
  const char* op = nullptr;         // what it waits at
  bool waited = false;              // for the kernels before
  std::vector<Copy> copies;         // not arrived yet, oldest first
  std::vector<size_t> copy_groups;  // where each ends in `copies`
};

/// Shared memory with a guard zone behind it.
class Arena {
 public:
  Arena() = default;
  Arena(Arena&& other) noexcept
      : memory_(std::exchange(other.memory_, nullptr)),
        capacity_(other.capacity_),
        bytes_(other.bytes_) {}
  Arena& operator=(Arena&&) = delete;
  ~Arena() { Free(); }

  /// `bytes` of poison.
  void Fill(size_t bytes) {
    if (memory_ == nullptr || bytes_ != bytes) Resize(bytes);
    std::memset(memory_, kPoison, bytes);
  }
  unsigned char* data() const { return memory_; }
  size_t bytes() const { return bytes_; }
  bool GuardIntact() const {
    const Unpoisoned guard(memory_ + bytes_, kGuardBytes);
    return GuardZone::IsIntact(memory_ + bytes_, kGuardBytes);
  }

 private:
  void Resize(size_t bytes) {
    constexpr size_t kAlignment = 128;
    const size_t whole = (bytes + kGuardBytes + kAlignment - 1) / kAlignment * kAlignment;
    if (memory_ != nullptr && whole <= capacity_) {
      Unpoison(memory_ + bytes_, kGuardBytes);
    } else {
      Free();
      capacity_ = whole;
      memory_ = static_cast<unsigned char*>(std::aligned_alloc(kAlignment, whole));
    }
    bytes_ = bytes;
    GuardZone::Fill(memory_ + bytes, kGuardBytes);
    Poison(memory_ + bytes, kGuardBytes);
  }
  void Free() {
    if (memory_ == nullptr) return;
    Unpoison(memory_ + bytes_, kGuardBytes);
    std::free(memory_);
  }

  unsigned char* memory_ = nullptr;
  size_t capacity_ = 0;
  size_t bytes_ = 0;
};

struct StaticBlock {
  const void* key;
  Arena arena;
};

/// Lanes that have come to a warp function, and what they brought.
struct WarpWait {
  int lanes = 0;
  const char* op = nullptr;
  std::array<const void*, kWarpSize> in = {};
  std::array<void*, kWarpSize> out = {};
};

struct Launch {
  LaunchShape shape;
  const std::function<void()>* body = nullptr;
  int threads = 0;  // of a block
  ReadyThreads ready;
  int waiting_in_block = 0;
  std::array<Wait, kThreadsMax> waits = {};  // [threads]
  std::vector<WarpWait> warps;
  std::vector<StaticBlock> statics;
  Thread* current = nullptr;
  bool failed = false;
};

/// Of any block. Their fibers live on from launch to launch, so they are never destroyed.
Thread* const threads = new Thread[kThreadsMax];

std::recursive_mutex launch_mutex;
uint64_t seed = 0;
uint64_t kernels_run = 0;
std::string failure;
Launch* running = nullptr;
Place launcher;  // RunKernel's own, while threads have the turn

Arena& DynamicArena() {
  static Arena arena;
  return arena;
}

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

/// Whoever is ready goes on, or when nobody is, or the launch has failed, RunBlock.
void PassOn(Place& from) {
  const int next = running->failed ? -1 : running->ready.Take();
  if (next < 0) {
    if (&from != &launcher) HandOver(from, launcher);
    return;
  }
  Thread& thread = threads[next];
  running->current = &thread;
  thread_index = thread.index;
  if (&from != &thread.place) HandOver(from, thread.place);
}

/// Returns when this thread may go on.
void Leave(Thread& thread) {
  PassOn(thread.place);
  if (running->failed) throw Abandoned();
}

void RunThread(Thread& thread) {
  try {
    if (!running->failed) {
      (*running->body)();
      if (!thread.waited) FailLaunch(thread, "ends without a call of WaitForPredecessor");
      if (!thread.copies.empty()) FailLaunch(thread, "ends before its copies have arrived");
    }
  } catch (const Abandoned&) {
    // What its launch found is already told.
  }
  running->waits[static_cast<size_t>(thread.number)] = Wait::kDone;
}

void MakeReady(int thread) {
  running->waits[static_cast<size_t>(thread)] = Wait::kReady;
  running->ready.Add(thread);
}

void StartBlock(Launch& launch) {
  const Extent3 extent = launch.shape.block;
  DynamicArena().Fill(launch.shape.shared_bytes);
  for (StaticBlock& block : launch.statics) block.arena.Fill(block.arena.bytes());
  launch.waiting_in_block = 0;
  launch.warps.assign(static_cast<size_t>(launch.threads / kWarpSize), {});
  launch.ready.StartBlock();
  for (int i = 0; i < launch.threads; ++i) {
    Thread& thread = threads[i];
    const auto n = static_cast<unsigned>(i);
    thread.number = i;
    thread.index = {n % extent.x, n / extent.x % extent.y, n / (extent.x * extent.y)};
    thread.waited = false;
    thread.copies.clear();
    thread.copy_groups.clear();
    MakeReady(i);
    if (thread.place.fiber) continue;
    MakeFiber(thread.place, [&thread] {
      while (true) {
        RunThread(thread);
        PassOn(thread.place);
      }
    });
  }
}

/// Nobody can go on and some have not ended: names one of each kind.
void ReportDivergence(const Launch& launch) {
  const Thread* waiting = nullptr;
  const Thread* other = nullptr;
  const auto done = [&](const Thread& thread) {
    return launch.waits[static_cast<size_t>(thread.number)] == Wait::kDone;
  };
  for (int i = 0; i < launch.threads; ++i) {
    const Thread& thread = threads[i];
    if (done(thread) || (waiting != nullptr && thread.op != waiting->op)) {
      other = &thread;
    } else if (waiting == nullptr) {
      waiting = &thread;
    }
  }
  if (waiting == nullptr) return;
  std::string what = std::string("waits at ") + waiting->op;
  if (other != nullptr) {
    what += ", but thread " + std::to_string(other->number);
    what += done(*other) ? " has ended" : std::string(" waits at ") + other->op;
  }
  FailLaunch(*waiting, what);
}

bool RunBlock(Launch& launch) {
  StartBlock(launch);
  PassOn(launcher);
  if (!launch.failed) ReportDivergence(launch);
  bool intact = DynamicArena().GuardIntact();
  for (const StaticBlock& block : launch.statics) intact = intact && block.arena.GuardIntact();
  if (!launch.failed && !intact) FailLaunch(threads[0], "something wrote behind shared memory");
  for (int i = 0; launch.failed && i < launch.threads; ++i) {
    if (launch.waits[static_cast<size_t>(i)] != Wait::kDone)
      HandOver(launcher, threads[i].place);  // unwinds it
  }
  return !launch.failed;
}

bool CheckShape(const LaunchShape& shape) {
  const size_t count = size_t{shape.block.x} * shape.block.y * shape.block.z;
  std::string what;
  if (count == 0 || count % kWarpSize != 0 || count > kThreadsMax) {
    what = std::to_string(count) + " threads a block: a multiple of 32 up to 1024 is wanted";
  } else if (size_t{shape.grid.x} * shape.grid.y * shape.grid.z == 0) {
    what = "an empty grid";
  } else if (shape.grid.y > 65535 || shape.grid.z > 65535) {
    what = "a grid of more than 65535 blocks in y or z";
  } else if (shape.shared_bytes > SharedBytesMax()) {
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
  const int lane = self.number % kWarpSize;
  self.op = op;
  WarpWait& wait = launch.warps[static_cast<size_t>(warp)];
  if (wait.lanes == 0) wait.op = op;
  if (wait.op != op && std::strcmp(wait.op, op) != 0) {
    FailThread((std::string(op) + " meets " + wait.op + " of another lane").c_str());
  }
  wait.in[static_cast<size_t>(lane)] = in;
  wait.out[static_cast<size_t>(lane)] = out;
  if (++wait.lanes < kWarpSize) {
    launch.waits[static_cast<size_t>(self.number)] = Wait::kWarp;
    Leave(self);
    return;
  }
  wait.lanes = 0;
  combine(wait.in.data(), wait.out.data());
  for (int other = 0; other < kWarpSize; ++other) {
    if (other != lane) MakeReady(warp * kWarpSize + other);
  }
}

void BlockBarrier() {
  Launch& launch = *running;
  Thread& self = *launch.current;
  self.op = "__syncthreads";
  if (++launch.waiting_in_block < launch.threads) {
    launch.waits[static_cast<size_t>(self.number)] = Wait::kBlock;
    Leave(self);
    return;
  }
  launch.waiting_in_block = 0;
  for (int i = 0; i < launch.threads; ++i) {
    if (i != self.number) MakeReady(i);
  }
  // The last to come is not always the first to go on.
  MakeReady(self.number);
  Leave(self);
}

void FailThread(const char* what) {
  FailLaunch(*running->current, what);
  throw Abandoned();
}

void CopyAsync(void* to, const void* from, int bytes) {
  const Copy copy{to, from, bytes};
  // Neither what the place held before nor what it gets may be relied upon until it is waited for.
  if (seed != 0 && running->ready.dice().Below(2) == 0) {
    Arrive(copy);
  } else {
    running->current->copies.push_back(copy);
  }
}
void WaitForPredecessor() { running->current->waited = true; }
void CommitCopies() {
  Thread& self = *running->current;
  self.copy_groups.push_back(self.copies.size());
}
void WaitForCopies(int groups) {
  Thread& self = *running->current;
  const auto arrive = static_cast<std::ptrdiff_t>(self.copy_groups.size()) - groups;
  if (arrive <= 0) return;
  const auto groups_end = self.copy_groups.begin() + arrive;
  const size_t copies = *(groups_end - 1);
  const auto copies_end = self.copies.begin() + static_cast<std::ptrdiff_t>(copies);
  std::for_each(self.copies.begin(), copies_end, Arrive);
  self.copies.erase(self.copies.begin(), copies_end);
  self.copy_groups.erase(self.copy_groups.begin(), groups_end);
  for (size_t& end : self.copy_groups) end -= copies;
}

void* DynamicSharedMemory() { return DynamicArena().data(); }

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
  const auto count = static_cast<uint32_t>(shape.block.x * shape.block.y * shape.block.z);
  Launch launch{.shape = shape,
                .body = &body,
                .threads = static_cast<int>(count),
                .ready = ReadyThreads(seed, seed + kernels_run, count / kWarpSize),
                .warps = {},
                .statics = {}};
  running = &launch;
  launcher.stack = CurrentStack();
  block_extent = shape.block;
  grid_extent = shape.grid;
  const auto blocks = shape.grid.x * shape.grid.y * shape.grid.z;
  std::vector<uint32_t> order(blocks);
  std::iota(order.begin(), order.end(), 0u);
  bool good = true;
  for (uint32_t i = 0; i < blocks && good; ++i) {
    if (seed != 0) std::swap(order[i], order[i + launch.ready.dice().Below(blocks - i)]);
    const uint32_t n = order[i];
    block_index = {n % shape.grid.x, n / shape.grid.x % shape.grid.y,
                   n / (shape.grid.x * shape.grid.y)};
    good = RunBlock(launch);
  }
  running = nullptr;
  return good && CheckGuards(shape.kernel);
}

}  // namespace simt
