// Barriers: the missing one shows under some seed, the divergent one fails by name.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "kernels/mma.cuh"
#include "kernels/simt.cuh"
#include "tests/simt/toy_kernels.h"

namespace neurogrid::kernels {
namespace {

using Catch::Matchers::ContainsSubstring;

/// Each thread hands its number to its neighbour through shared memory.
template <bool kBarrier>
void PassOn(int* out) {
  int* shared = SharedMemory<int>();
  const int thread = static_cast<int>(threadIdx.x);
  shared[thread] = thread;
  if (kBarrier) __syncthreads();
  out[thread] = shared[(thread + 1) % static_cast<int>(blockDim.x)];
}

/// Within a warp, with the warp's own barrier.
template <bool kBarrier>
void PassOnInWarp(int* out) {
  int* shared = SharedMemory<int>();
  const int thread = static_cast<int>(threadIdx.x);
  shared[thread] = thread;
  if (kBarrier) __syncwarp();
  out[thread] = shared[thread ^ 5];
}

/// Two rounds through one place: the barrier between reading and writing again.
template <bool kBarrier>
void TwoRounds(int* out) {
  int* shared = SharedMemory<int>();
  const int thread = static_cast<int>(threadIdx.x);
  int sum = 0;
  for (int round = 0; round < 2; ++round) {
    shared[thread] = 100 * round + thread;
    __syncthreads();
    sum += shared[63 - thread];
    if (kBarrier) __syncthreads();
  }
  out[thread] = sum;
}

void HalfTheBlockWaits(int* out) {
  if (threadIdx.x < 32) __syncthreads();
  out[threadIdx.x] = 0;
}
void BarrierInABranchOfAWarp(int* out) {
  if (threadIdx.x % 2 == 0) {
    __syncthreads();
  } else {
    __syncwarp();
  }
  out[threadIdx.x] = 0;
}
void TwoWarpFunctionsAtOnce(int* out) {
  out[threadIdx.x] = threadIdx.x < 7 ? __shfl_sync(kFullMask, 1, 0) : __any_sync(kFullMask, 1);
}
void PartOfAWarp(int* out) { out[threadIdx.x] = __shfl_sync(0xffu, 1, 0); }
void ALaneLeavesEarly(int* out) {
  if (threadIdx.x == 9) return;
  out[threadIdx.x] = static_cast<int>(__ballot_sync(kFullMask, 1));
}
void OneThreadDoesNotWait(int* out) {
  if (threadIdx.x == 40) return;
  WaitForPredecessor();
  out[threadIdx.x] = 0;
}
template <bool kWaits>
void CopyBeforeTheEnd(const int* from) {
  CopyAsync16(SharedMemory<int>() + 4 * threadIdx.x, from, true);
  CommitCopies();
  if (kWaits) WaitForCopies<0>();
}

/// Results over seeds 0 .. 19, each once.
template <typename Kernel>
std::vector<std::vector<int>> ResultsOverSeeds(Kernel kernel) {
  std::vector<std::vector<int>> results;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    simt::SetSeed(seed);
    Device<int> out(64);
    REQUIRE(RunBlock(64, 64 * sizeof(int), kernel, out.data()).empty());
    const std::vector<int> found = out.Read();
    if (std::find(results.begin(), results.end(), found) == results.end()) {
      results.push_back(found);
    }
  }
  simt::SetSeed(0);
  return results;
}

}  // namespace

TEST_CASE("a kernel with its barriers gives one result under every seed", "[simt]") {
  const std::vector<std::vector<int>> passed = ResultsOverSeeds(PassOn<true>);
  REQUIRE(passed.size() == 1);
  for (int i = 0; i < 64; ++i) CHECK(passed[0][static_cast<size_t>(i)] == (i + 1) % 64);
  CHECK(ResultsOverSeeds(PassOnInWarp<true>).size() == 1);
  CHECK(ResultsOverSeeds(TwoRounds<true>).size() == 1);
}

TEST_CASE("a missing barrier changes the result under some seed", "[simt]") {
  CHECK(ResultsOverSeeds(PassOn<false>).size() > 1);
  CHECK(ResultsOverSeeds(PassOnInWarp<false>).size() > 1);
  CHECK(ResultsOverSeeds(TwoRounds<false>).size() > 1);
}

TEST_CASE("a divergent barrier fails and names kernel, block and thread", "[simt]") {
  Device<int> out(64);
  const std::string half = RunBlock(64, 0, HalfTheBlockWaits, out.data());
  CHECK_THAT(half, ContainsSubstring("Toy, block (0,0,0), thread (0,0,0): waits at __syncthreads"));
  CHECK_THAT(half, ContainsSubstring("has ended"));
  CHECK_THAT(RunBlock(64, 0, BarrierInABranchOfAWarp, out.data()),
             ContainsSubstring("waits at __syncthreads, but thread") &&
                 ContainsSubstring("waits at __syncwarp"));
}

TEST_CASE("warp functions want all lanes of a warp at one function", "[simt]") {
  Device<int> out(32);
  CHECK_THAT(RunBlock(32, 0, TwoWarpFunctionsAtOnce, out.data()),
             ContainsSubstring("__ballot_sync meets __shfl_sync"));
  CHECK_THAT(RunBlock(32, 0, PartOfAWarp, out.data()), ContainsSubstring("full mask"));
  CHECK_THAT(RunBlock(32, 0, ALaneLeavesEarly, out.data()), ContainsSubstring("has ended"));
  CHECK_THAT(RunBlock(33, 0, PartOfAWarp, out.data()), ContainsSubstring("a multiple of 32"));
}

TEST_CASE("a thread waits for the kernels before its own and for its copies", "[simt]") {
  Device<int> out(64);
  REQUIRE(Launch({"Toy", dim3(1), dim3(64), 0, nullptr}, OneThreadDoesNotWait, out.data()) ==
          cudaSuccess);
  cudaDeviceSynchronize();
  CHECK_THAT(simt::TakeFailure(),
             ContainsSubstring("thread (40,0,0): ends without a call of WaitForPredecessor"));
  CHECK(RunBlock(64, 1024, CopyBeforeTheEnd<true>, out.data()).empty());
  CHECK_THAT(RunBlock(64, 1024, CopyBeforeTheEnd<false>, out.data()),
             ContainsSubstring("ends before its copies have arrived"));
}

TEST_CASE("a failure stays until it is taken", "[simt]") {
  Device<int> out(64);
  REQUIRE(Launch({"Toy", dim3(1), dim3(64), 0, nullptr}, HalfTheBlockWaits, out.data()) ==
          cudaSuccess);
  CHECK(cudaDeviceSynchronize() == cudaErrorLaunchFailure);
  CHECK_THAT(cudaGetErrorString(cudaErrorLaunchFailure), ContainsSubstring("Toy, block"));
  CHECK(Launch({"Toy", dim3(1), dim3(64), 0, nullptr}, PassOn<true>, out.data()) ==
        cudaErrorLaunchFailure);
  CHECK(cudaDeviceSynchronize() == cudaErrorLaunchFailure);
  CHECK(!simt::TakeFailure().empty());
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
}

}  // namespace neurogrid::kernels
