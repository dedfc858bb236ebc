#include "engine/cpu/thread_placement.h"

#include <sched.h>
#include <time.h>

namespace neurogrid {
namespace {

/// Processor time of a thread; nothing where the system does not say.
std::optional<int64_t> TimeOf(pthread_t thread) {
  constexpr int64_t kNsPerS = 1'000'000'000;
  clockid_t clock;
  timespec time;
  if (pthread_getcpuclockid(thread, &clock) != 0) return std::nullopt;
  if (clock_gettime(clock, &time) != 0) return std::nullopt;
  return time.tv_sec * kNsPerS + time.tv_nsec;
}

/// A lock for whoever finds it open.
class TryHold {
 public:
  explicit TryHold(std::atomic<bool>& lock) : lock_(lock), held_(!lock.exchange(true)) {}
  ~TryHold() {
    if (held_) lock_.store(false);
  }
  TryHold(const TryHold&) = delete;
  TryHold& operator=(const TryHold&) = delete;

  bool held() const { return held_; }

 private:
  std::atomic<bool>& lock_;
  bool held_;
};

}  // namespace

ThreadPlacement::ThreadPlacement(int threads) : places_(Index(threads)) {}

void ThreadPlacement::Join(int worker) {
  places_[Index(worker)].thread.store(pthread_self(), std::memory_order_relaxed);
}

bool ThreadPlacement::IsTaken(int processor, int worker) const {
  for (size_t i = 0; i < places_.size(); ++i) {
    if (i != Index(worker) && places_[i].processor.load(std::memory_order_relaxed) == processor)
      return true;
  }
  return false;
}

void ThreadPlacement::BeginChunk(int worker) {
  Place& own = places_[Index(worker)];
  if (!own.in_chunk.load(std::memory_order_relaxed)) {
    own.in_chunk.store(true);
  }
  const int processor = sched_getcpu();
  if (IsTaken(processor, worker)) return GoElsewhere(worker);
  if (own.processor.load(std::memory_order_relaxed) != processor) {
    own.processor.store(processor, std::memory_order_relaxed);
  }
}

void ThreadPlacement::GoElsewhere(int worker) {
  const TryHold hold(moving_);
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (!hold.held() || sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  cpu_set_t untaken = allowed;
  for (size_t i = 0; i < places_.size(); ++i) {
    const int taken = places_[i].processor.load(std::memory_order_relaxed);
    if (i != Index(worker) && taken >= 0 && taken < CPU_SETSIZE) CPU_CLR(taken, &untaken);
  }
  if (CPU_COUNT(&untaken) == 0 || sched_setaffinity(0, sizeof untaken, &untaken) != 0) return;
  places_[Index(worker)].processor.store(sched_getcpu(), std::memory_order_relaxed);
  sched_setaffinity(0, sizeof allowed, &allowed);
}

void ThreadPlacement::EndChunks(int worker) {
  // Sequentially consistent, as all that `in_chunk` and `moving_` say to each other: whoever holds
  // `moving_` either sees here that this thread is done or is seen.
  places_[Index(worker)].in_chunk.store(false);
  while (moving_.load()) sched_yield();
}

std::optional<ThreadPlacement::Late> ThreadPlacement::FindLate(int waiting) {
  const TryHold hold(moving_);
  if (!hold.held()) return std::nullopt;
  for (size_t i = 1; i < places_.size(); ++i) {
    const size_t other = (Index(waiting) + i) % places_.size();
    if (!places_[other].in_chunk.load()) continue;
    const std::optional<int64_t> ran_ns = TimeOf(places_[other].thread.load());
    if (ran_ns.has_value()) return Late{static_cast<int>(other), *ran_ns};
  }
  return std::nullopt;
}

bool ThreadPlacement::Bring(const Late& late) {
  const TryHold hold(moving_);
  const Place& place = places_[Index(late.worker)];
  if (!hold.held() || !place.in_chunk.load()) return false;
  const pthread_t thread = place.thread.load();
  const int processor = sched_getcpu();
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (TimeOf(thread) != late.ran_ns || processor < 0 || processor >= CPU_SETSIZE ||
      pthread_getaffinity_np(thread, sizeof allowed, &allowed) != 0 ||
      !CPU_ISSET(processor, &allowed)) {
    return false;
  }
  cpu_set_t here;
  CPU_ZERO(&here);
  CPU_SET(processor, &here);
  if (pthread_setaffinity_np(thread, sizeof here, &here) != 0) return false;
  pthread_setaffinity_np(thread, sizeof allowed, &allowed);
  return true;
}

}  // namespace neurogrid
