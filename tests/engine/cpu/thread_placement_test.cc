#include "engine/cpu/thread_placement.h"

#include <immintrin.h>
#include <sched.h>

#include <atomic>
#include <optional>
#include <thread>

#include "catch2/catch_test_macros.hpp"

namespace neurogrid {
namespace {

cpu_set_t AffinityOfThisThread() {
  cpu_set_t set;
  CPU_ZERO(&set);
  REQUIRE(sched_getaffinity(0, sizeof set, &set) == 0);
  return set;
}

/// The calling thread is put on one processor, then may run on `allowed` while this lives.
class StartedOn {
 public:
  StartedOn(int processor, const cpu_set_t& allowed) : before_(AffinityOfThisThread()) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(processor, &one);
    REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);
    REQUIRE(sched_setaffinity(0, sizeof allowed, &allowed) == 0);
  }
  ~StartedOn() { sched_setaffinity(0, sizeof before_, &before_); }
  StartedOn(const StartedOn&) = delete;
  StartedOn& operator=(const StartedOn&) = delete;

 private:
  cpu_set_t before_;
};

int FirstOf(const cpu_set_t& set) {
  int first = 0;
  while (!CPU_ISSET(first, &set)) ++first;
  return first;
}

TEST_CASE("a thread leaves the processor on which another one is at work", "[cpu][threads]") {
  const cpu_set_t allowed = AffinityOfThisThread();
  if (CPU_COUNT(&allowed) < 2) SKIP("one processor alone");
  const int first = FirstOf(allowed);
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  ThreadPlacement placement(2);
  std::thread([&] {
    const StartedOn there(first, one);
    placement.BeginChunk(0);
  }).join();
  REQUIRE(placement.processor(0) == first);

  SECTION("and may run everywhere afterwards, as before") {
    const StartedOn here(first, allowed);
    placement.BeginChunk(1);
    CHECK(placement.processor(1) != first);  // also where the system was faster
    const cpu_set_t after = AffinityOfThisThread();
    CHECK(CPU_EQUAL(&after, &allowed));
  }
  SECTION("unless it may run nowhere else") {
    const StartedOn here(first, one);
    placement.BeginChunk(1);
    const cpu_set_t after = AffinityOfThisThread();
    CHECK(CPU_EQUAL(&after, &one));
  }
  SECTION("and stays where the other one sleeps") {
    placement.Sleep(0);
    const StartedOn here(first, one);
    placement.BeginChunk(1);
    CHECK(placement.processor(1) == first);
  }
}

/// A thread that is worker 0 and in a chunk: at work, or held up as by another program.
class Chunk {
 public:
  explicit Chunk(ThreadPlacement& placement)
      : thread_([this, &placement] {
          placement.Join(0);
          placement.BeginChunk(0);
          held_up_ = true;
          go_on_.wait(false);
          while (!ends_) ++loops_;
          placement.EndChunks(0);
          ended_ = true;
          ended_.notify_one();
          leaves_.wait(false);
        }) {
    while (!held_up_) _mm_pause();
  }
  ~Chunk() {
    GoOn();
    End();
    leaves_ = true;
    leaves_.notify_one();
    thread_.join();
  }
  Chunk(const Chunk&) = delete;
  Chunk& operator=(const Chunk&) = delete;

  void GoOn() {
    go_on_ = true;
    go_on_.notify_one();
  }
  void RunABit() const {
    for (const int64_t before = loops_; loops_ == before;) _mm_pause();
  }
  void End() {
    ends_ = true;
    ended_.wait(false);
  }
  cpu_set_t Affinity() {
    cpu_set_t set;
    CPU_ZERO(&set);
    REQUIRE(pthread_getaffinity_np(thread_.native_handle(), sizeof set, &set) == 0);
    return set;
  }

 private:
  std::atomic<bool> held_up_ = false, go_on_ = false, ends_ = false, ended_ = false,
                    leaves_ = false;
  std::atomic<int64_t> loops_ = 0;
  std::thread thread_;
};

TEST_CASE("a thread that is held up in a chunk is brought to one that waits", "[cpu][threads]") {
  ThreadPlacement placement(2);
  Chunk chunk(placement);
  const cpu_set_t before = chunk.Affinity();
  const std::optional<ThreadPlacement::Late> late = placement.FindLate(1);
  REQUIRE(late.has_value());
  CHECK(late->worker == 0);

  SECTION("and may run everywhere afterwards, as before") {
    bool brought = placement.Bring(*late);
    // It needs some 50 us to come to a stop.
    for (int i = 0; i < 1'000'000 && !brought; ++i)
      brought = placement.Bring(*placement.FindLate(1));
    CHECK(brought);
    const cpu_set_t after = chunk.Affinity();
    CHECK(CPU_EQUAL(&after, &before));
  }
  SECTION("but not one that runs") {
    chunk.GoOn();
    chunk.RunABit();
    CHECK_FALSE(placement.Bring(*late));
  }
  SECTION("nor one that has ended meanwhile") {
    chunk.GoOn();
    chunk.End();
    CHECK_FALSE(placement.Bring(*late));
    CHECK_FALSE(placement.FindLate(1).has_value());
  }
}

}  // namespace
}  // namespace neurogrid
