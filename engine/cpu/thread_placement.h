// Where the threads of a pool run: each on a processor of its own, as far as there are any.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

namespace neurogrid {

/// Moves threads of a pool where the system would leave them for many milliseconds.
///
/// Beside another busy program, a thread that waits leaves its processor, the system fills it with
/// the thread that was waited for, and wakes the first one beside that: both then share a processor
/// and the other program has one alone, until the system evens out (every 32 ms and more). So a
/// thread that finds itself on the processor of another one at work goes elsewhere. And one that a
/// program keeps from its processor in the middle of a chunk is brought to that of a thread which
/// has nothing left to do. A thread's affinity is the same afterwards, and only its pool's own work
/// moves it. Where the system refuses, threads stay where they are.
class ThreadPlacement {
 public:
  explicit ThreadPlacement(int threads);

  /// The calling thread is `worker` until another one says so.
  void Join(int worker);
  /// By `worker`, before its first chunk of a job and some of the others.
  void BeginChunk(int worker);
  /// When it found no chunk: from now on nobody brings it anywhere.
  void EndChunks(int worker);
  /// Before it sleeps: its processor is free for others.
  void Sleep(int worker) {
    places_[Index(worker)].processor.store(kNone, std::memory_order_relaxed);
  }

  /// One that is in a chunk, and the processor time that it had so far.
  struct Late {
    int worker;
    int64_t ran_ns;
  };
  /// Another one than `waiting`; none, too, while some thread is being moved.
  std::optional<Late> FindLate(int waiting);
  /// Takes `late` to the calling thread's processor if it has not run since FindLate and may run
  /// there. False: it was left alone.
  bool Bring(const Late& late);

  /// The processor that `worker` was last seen on; below 0: it sleeps.
  int processor(int worker) const {
    return places_[Index(worker)].processor.load(std::memory_order_relaxed);
  }

 private:
  static constexpr int kNone = -1;
  static constexpr int kLine = 128;  // as ThreadPool's

  struct Place {
    alignas(kLine) std::atomic<int> processor = kNone;  // read by all at BeginChunk
    alignas(kLine) std::atomic<bool> in_chunk = false;
    std::atomic<pthread_t> thread = {};
  };

  static size_t Index(int worker) { return static_cast<size_t>(worker); }
  bool IsTaken(int processor, int worker) const;
  void GoElsewhere(int worker);

  std::vector<Place> places_;         // [threads]
  std::atomic<bool> moving_ = false;  // held by who looks at another thread or changes affinities
};

}  // namespace neurogrid
