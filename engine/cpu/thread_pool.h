// Threads that split a loop. A parameter of every kernel call; nothing here is global.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "common/memory_nodes.h"
#include "engine/cpu/thread_placement.h"

namespace neurogrid {

/// A fixed set of threads that take the chunks of one job at a time.
///
/// Each thread has an equal share of neighbouring chunks and takes them in order; one that has none
/// left takes the last of another's share. So a thread reads neighbouring memory, the same in every
/// job over the same chunks; one that the system holds up delays a job by its own chunk at most,
/// and a late one not at all. Where the machine has several memory nodes, neighbouring threads stay
/// on the processors of one, so that what a thread touched first in one job is near it in the next;
/// the caller alone stays where it is. Waiting threads spin for about 25 us, then sleep; beside
/// other programs `ThreadPlacement` keeps them apart. Every chunk runs with denormals flushed to
/// zero (FTZ and DAZ), whoever runs it: the bf16 dot product instruction does so too, and
/// arithmetic must not depend on which thread took a chunk.
class ThreadPool {
 public:
  using Job = absl::FunctionRef<void(int64_t chunk, int worker)>;

  /// `threads` >= 1 counts the caller of ParallelFor, so 1 starts no thread. `nodes`: the
  /// processors of each memory node; they get threads by their number.
  explicit ThreadPool(int threads, const std::vector<std::vector<int>>& nodes = ProcessorsByNode());
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(helpers_.size()) + 1; }

  /// Runs job(chunk, worker) once for each chunk in [0, chunks), in any order, and returns when all
  /// are done. `worker` is below threads() and no two calls running at once share it; the caller is
  /// 0. One caller at a time; a job neither throws nor calls ParallelFor. At most 2^32 - 1 chunks.
  void ParallelFor(int64_t chunks, Job job);

 private:
  void HelperLoop(int worker);
  void RunChunks(int worker);
  bool TakeChunk(int worker, int64_t& chunk);
  void WaitForChange(int worker, const std::atomic<uint32_t>& value, uint32_t old);

  static constexpr int kLine = 128;  // Two cache lines: the prefetcher fetches them in pairs.

  /// The chunks [first, end) that nobody took yet of a thread's share: first << 32 | end.
  struct alignas(kLine) Share {
    std::atomic<uint64_t> untaken = 0;
  };

  std::vector<Share> shares_;  // [threads]
  ThreadPlacement placement_;
  // Written by the caller while no chunk is out, read by whoever holds a chunk.
  alignas(kLine) const Job* job_ = nullptr;
  alignas(kLine) std::atomic<uint32_t> unfinished_ = 0;  // chunks not yet done
  alignas(kLine) std::atomic<uint32_t> generation_ = 0;  // jobs published; helpers wait on it
  std::atomic<bool> stopping_ = false;
  std::vector<std::thread> helpers_;
};

/// Cores this process may run on and has the time of, at least 1: more threads than its control
/// groups give time to would all stop together for the rest of each period. `root`: as CpuQuota's.
int UsableCores(const std::string& root = "");

}  // namespace neurogrid
