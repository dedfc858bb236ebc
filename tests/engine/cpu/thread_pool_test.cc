#include "engine/cpu/thread_pool.h"

#include <immintrin.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <vector>

#include "catch2/catch_test_macros.hpp"
#include "catch2/generators/catch_generators.hpp"
#include "tests/support/golden.h"

namespace neurogrid {
namespace {

TEST_CASE("a thread pool runs every chunk once", "[cpu][threads]") {
  const int threads = GENERATE(1, 2, 3, 8);
  const int64_t chunks = GENERATE(0, 1, 2, 7, 1000);
  CAPTURE(threads, chunks);
  ThreadPool pool(threads);
  CHECK(pool.threads() == threads);
  std::vector<int> runs(static_cast<size_t>(chunks));
  pool.ParallelFor(chunks, [&](int64_t chunk, int) { ++runs[static_cast<size_t>(chunk)]; });
  CHECK(runs == std::vector<int>(static_cast<size_t>(chunks), 1));
}

TEST_CASE("a pool has no more threads than control groups give time to", "[cpu]") {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  REQUIRE(sched_getaffinity(0, sizeof allowed, &allowed) == 0);
  const int cores = CPU_COUNT(&allowed);
  const TemporaryFolder root;
  CHECK(UsableCores(root.path()) == cores);
  root.Write("proc/self/cgroup", "0::/\n");
  const auto with_quota = [&](const std::string& microseconds) {
    root.Write("sys/fs/cgroup/cpu.max", microseconds + " 100000\n");
    return UsableCores(root.path());
  };
  CHECK(with_quota("20000") == 1);
  CHECK(with_quota("100000") == 1);
  CHECK(with_quota("150000") == std::min(cores, 2));
  CHECK(with_quota("max") == cores);
}

TEST_CASE("a thread takes its share in order, then the last chunks of another's",
          "[cpu][threads]") {
  ThreadPool pool(2);
  for (int job = 0; job < 100; ++job) {
    std::vector<int64_t> order;  // by one thread at a time: the other waits in chunk 0
    std::atomic<int> done = 0;
    pool.ParallelFor(8, [&](int64_t chunk, int) {
      if (chunk == 0) {
        while (done < 7) _mm_pause();
        return;
      }
      order.push_back(chunk);
      ++done;
    });
    // A thread that comes from the job before may take one of another's before it sees its own.
    if (order.front() == 3) std::rotate(order.begin(), order.begin() + 1, order.begin() + 5);
    CHECK(order == std::vector<int64_t>{4, 5, 6, 7, 3, 2, 1});
  }
}

TEST_CASE("neighbouring threads stay on the processors of one memory node", "[cpu][threads]") {
  cpu_set_t allowed;
  REQUIRE(sched_getaffinity(0, sizeof allowed, &allowed) == 0);
  int first = 0;
  while (!CPU_ISSET(first, &allowed)) ++first;
  int last = CPU_SETSIZE - 1;
  while (!CPU_ISSET(last, &allowed)) --last;
  const auto first_of_each = [&](const std::vector<std::vector<int>>& nodes) {
    ThreadPool pool(4, nodes);
    std::vector<int> processors(4);
    std::atomic<int> running = 0;
    std::atomic<int> seen = 0;
    pool.ParallelFor(4, [&](int64_t, int worker) {
      ++running;
      while (running < 4) _mm_pause();  // so that each thread takes one
      cpu_set_t own;
      CPU_ZERO(&own);
      sched_getaffinity(0, sizeof own, &own);
      ++seen;
      while (seen < 4) _mm_pause();  // one that has ended may bring others to its processor
      processors[static_cast<size_t>(worker)] = CPU_COUNT(&own) == 1 && CPU_ISSET(last, &own) ? 2
                                                : CPU_COUNT(&own) == 1 && CPU_ISSET(first, &own)
                                                    ? 1
                                                    : 0;
    });
    return processors;
  };
  if (first == last) SKIP("one processor alone");
  CHECK(first_of_each({{first}, {last}}) == std::vector<int>{0, 1, 2, 2});
  CHECK(first_of_each({{first}, {last, last, last}}) == std::vector<int>{0, 2, 2, 2});
  CHECK(first_of_each({{first}}) == std::vector<int>{0, 0, 0, 0});
  CHECK(first_of_each({}) == std::vector<int>{0, 0, 0, 0});
}

TEST_CASE("a thread pool gives concurrent chunks different workers", "[cpu][threads]") {
  ThreadPool pool(4);
  std::vector<std::atomic<int>> busy(4);
  std::atomic<int> clashes = 0;
  for (int job = 0; job < 200; ++job) {
    pool.ParallelFor(40, [&](int64_t, int worker) {
      if (busy[static_cast<size_t>(worker)].fetch_add(1) != 0) ++clashes;
      busy[static_cast<size_t>(worker)].fetch_sub(1);
    });
  }
  CHECK(clashes == 0);
}

TEST_CASE("one job ends before the next begins", "[cpu][threads]") {
  ThreadPool pool(3);
  std::vector<int64_t> values(64, 0);
  for (int job = 0; job < 5000; ++job) {
    // Plain memory, written by whichever thread comes: the pool orders jobs.
    const int64_t shift = job % 64;
    pool.ParallelFor(
        64, [&](int64_t chunk, int) { ++values[static_cast<size_t>((chunk + shift) % 64)]; });
  }
  CHECK(values == std::vector<int64_t>(64, 5000));
}

TEST_CASE("chunks run with denormals flushed and the caller keeps its own mode", "[cpu][threads]") {
  const int threads = GENERATE(1, 3);
  ThreadPool pool(threads);
  constexpr unsigned kSticky = 0x3f;  // exceptions seen so far
  const unsigned before = _mm_getcsr() & ~kSticky;
  volatile float smallest = 1.2e-38f;
  std::vector<float> products(100, -1);
  pool.ParallelFor(
      100, [&](int64_t chunk, int) { products[static_cast<size_t>(chunk)] = smallest * 0.25f; });
  CHECK(products == std::vector<float>(100, 0));
  CHECK((_mm_getcsr() & ~kSticky) == before);
  CHECK(smallest * 0.25f != 0);
}

}  // namespace
}  // namespace neurogrid
