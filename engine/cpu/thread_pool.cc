#include "engine/cpu/thread_pool.h"

#include <immintrin.h>
#include <sched.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "common/check.h"
#include "common/cpu_quota.h"

namespace neurogrid {
namespace {

constexpr int kSpins = 500;  // of `pause`: about 12 us

constexpr int kChunksPerLook = 4;  // at processors: 50 ns, and the smallest chunks take 1 us

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

/// Whether `value` is another than `old` soon.
bool ChangesSoon(const std::atomic<uint32_t>& value, uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return true;
    _mm_pause();
  }
  return false;
}

/// Keeps a thread on some processors. Where that is refused it goes on anywhere.
void KeepOn(const std::vector<int>& processors, std::thread& thread) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int processor : processors) CPU_SET(processor, &set);
  pthread_setaffinity_np(thread.native_handle(), sizeof set, &set);
}

/// The node of a thread among `threads`: of all processors, node after node, that at its part.
const std::vector<int>& NodeOf(int worker, int threads,
                               const std::vector<std::vector<int>>& nodes) {
  size_t processors = 0;
  for (const std::vector<int>& node : nodes) processors += node.size();
  size_t left = processors * static_cast<size_t>(worker) / static_cast<size_t>(threads);
  for (const std::vector<int>& node : nodes) {
    if (left < node.size()) return node;
    left -= node.size();
  }
  return nodes.back();
}

}  // namespace

ThreadPool::ThreadPool(int threads, const std::vector<std::vector<int>>& nodes)
    : shares_(static_cast<size_t>(std::max(threads, 0))), placement_(std::max(threads, 0)) {
  NG_CHECK(threads >= 1);
  helpers_.reserve(static_cast<size_t>(threads - 1));
  for (int worker = 1; worker < threads; ++worker) {
    helpers_.emplace_back([this, worker] { HelperLoop(worker); });
    if (nodes.size() > 1) KeepOn(NodeOf(worker, threads, nodes), helpers_.back());
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
  placement_.Join(0);
  placement_.BeginChunk(0);  // before another thread comes and finds this one's old processor
  job_ = &job;
  unfinished_.store(static_cast<uint32_t>(chunks), std::memory_order_relaxed);
  const auto count = static_cast<uint64_t>(chunks);
  const size_t threads = shares_.size();
  for (size_t i = threads; i-- > 0;)
    shares_[i].untaken.store(count * i / threads << 32 | count * (i + 1) / threads,
                             std::memory_order_release);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  RunChunks(0);
  uint32_t left;
  while ((left = unfinished_.load(std::memory_order_acquire)) != 0)
    WaitForChange(0, unfinished_, left);
}

bool ThreadPool::TakeChunk(int worker, int64_t& chunk) {
  // Compare and swap: a late thread may find a share of the next job here, and must then take a
  // chunk of it or nothing. Having taken one it may read the job, which cannot end before that
  // chunk is done.
  constexpr uint64_t kEnd = 0xffffffff;
  constexpr uint64_t kOneTaken = uint64_t{1} << 32;
  const size_t threads = shares_.size();
  for (size_t i = 0; i < threads; ++i) {
    std::atomic<uint64_t>& share = shares_[(static_cast<size_t>(worker) + i) % threads].untaken;
    uint64_t untaken = share.load(std::memory_order_acquire);
    while (untaken >> 32 < (untaken & kEnd)) {
      const uint64_t rest = i == 0 ? untaken + kOneTaken : untaken - 1;
      if (share.compare_exchange_weak(untaken, rest, std::memory_order_acquire)) {
        chunk = static_cast<int64_t>(i == 0 ? untaken >> 32 : rest & kEnd);
        return true;
      }
    }
  }
  return false;
}

void ThreadPool::RunChunks(int worker) {
  int64_t chunk;
  for (int taken = 0; TakeChunk(worker, chunk); ++taken) {
    if (taken % kChunksPerLook == 0) placement_.BeginChunk(worker);
    (*job_)(chunk, worker);
    if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished_.notify_one();
  }
  placement_.EndChunks(worker);
}

void ThreadPool::WaitForChange(int worker, const std::atomic<uint32_t>& value, uint32_t old) {
  if (ChangesSoon(value, old)) return;
  const std::optional<ThreadPlacement::Late> late = placement_.FindLate(worker);
  if (ChangesSoon(value, old)) return;
  if (late.has_value()) placement_.Bring(*late);
  placement_.Sleep(worker);
  value.wait(old, std::memory_order_acquire);
}

void ThreadPool::HelperLoop(int worker) {
  const FlushDenormals flush;
  placement_.Join(worker);
  for (;;) {
    // Read before looking for work: a job published after that makes the wait return at once.
    const uint32_t seen = generation_.load(std::memory_order_acquire);
    if (stopping_.load(std::memory_order_relaxed)) return;
    RunChunks(worker);
    WaitForChange(worker, generation_, seen);
  }
}

int UsableCores(const std::string& root) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  const int cores = sched_getaffinity(0, sizeof(allowed), &allowed) == 0
                        ? CPU_COUNT(&allowed)
                        : static_cast<int>(std::thread::hardware_concurrency());
  return std::max(1, static_cast<int>(std::min<double>(cores, std::ceil(CpuQuota(root)))));
}

}  // namespace neurogrid
