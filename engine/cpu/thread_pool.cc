#include "engine/cpu/thread_pool.h"

#include <immintrin.h>
#include <sched.h>

#include <algorithm>
#include <limits>

#include "common/check.h"

namespace neurogrid {
namespace {

constexpr int kSpins = 1000;  // of `pause`: about 25 us

constexpr unsigned kFlushDenormals = 0x8040;  // FTZ and DAZ of MXCSR

/// Denormals are zeros while this lives.
class FlushDenormals {
 public:
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | kFlushDenormals); }
  ~FlushDenormals() { _mm_setcsr(saved_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  unsigned saved_;
};

/// Returns when `value` is no longer `old`.
void WaitForChange(const std::atomic<uint32_t>& value, uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    _mm_pause();
  }
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  NG_CHECK(threads >= 1);
  helpers_.reserve(static_cast<size_t>(threads - 1));
  for (int worker = 1; worker < threads; ++worker) {
    helpers_.emplace_back([this, worker] { HelperLoop(worker); });
  }
}

ThreadPool::~ThreadPool() {
  stopping_.store(true, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void ThreadPool::ParallelFor(int64_t chunks, Job job) {
  NG_CHECK(chunks >= 0 && chunks <= std::numeric_limits<uint32_t>::max());
  if (chunks == 0) return;
  const FlushDenormals flush;
  if (chunks == 1 || helpers_.empty()) {
    for (int64_t chunk = 0; chunk < chunks; ++chunk) job(chunk, 0);
    return;
  }
  job_ = &job;
  chunks_ = chunks;
  unfinished_.store(static_cast<uint32_t>(chunks), std::memory_order_relaxed);
  untaken_.store(static_cast<uint32_t>(chunks), std::memory_order_release);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  RunChunks(0);
  uint32_t left;
  while ((left = unfinished_.load(std::memory_order_acquire)) != 0)
    WaitForChange(unfinished_, left);
}

bool ThreadPool::TakeChunk(int64_t& chunk) {
  // Compare and swap rather than subtract: a late thread must not take the count of the next job
  // below zero. Having taken a chunk it may read the job, which cannot end before that chunk is
  // done.
  uint32_t left = untaken_.load(std::memory_order_acquire);
  while (left != 0) {
    if (untaken_.compare_exchange_weak(left, left - 1, std::memory_order_acquire)) {
      chunk = chunks_ - left;
      return true;
    }
  }
  return false;
}

void ThreadPool::RunChunks(int worker) {
  int64_t chunk;
  while (TakeChunk(chunk)) {
    (*job_)(chunk, worker);
    if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished_.notify_one();
  }
}

void ThreadPool::HelperLoop(int worker) {
  const FlushDenormals flush;
  for (;;) {
    // Read before looking for work: a job published after that makes the wait return at once.
    const uint32_t seen = generation_.load(std::memory_order_acquire);
    if (stopping_.load(std::memory_order_relaxed)) return;
    RunChunks(worker);
    WaitForChange(generation_, seen);
  }
}

int UsableCores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof(cores), &cores) == 0) return std::max(1, CPU_COUNT(&cores));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace neurogrid
