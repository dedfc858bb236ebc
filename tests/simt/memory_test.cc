// Memory: poison, guard zones, streams that keep their work, graphs.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>

#include "kernels/simt.cuh"
#include "tests/simt/toy_kernels.h"

namespace neurogrid::kernels {
namespace {

using Catch::Matchers::ContainsSubstring;

void WriteSharedAt(float* out, int index) {
  float* shared = SharedMemory<float>();
  if (threadIdx.x == 0) shared[index] = 1;
  __syncthreads();
  out[threadIdx.x] = shared[threadIdx.x];
}
struct Static {
  float values[32];
};
void WriteStaticAt(float* out, int index) {
  Static& shared = SharedObject<Static>();
  if (threadIdx.x == 0) shared.values[index] = 1;
  __syncthreads();
  out[threadIdx.x] = shared.values[threadIdx.x];
}
void AddOne(float* values) {
  WaitForPredecessor();
  values[threadIdx.x] += 1;
}
void CountUp(int* sum, int* largest, unsigned* bits) {
  WaitForPredecessor();
  const int thread = static_cast<int>(threadIdx.x);
  atomicAdd(sum, thread);
  atomicMax(largest, thread);
  atomicOr(bits, 1u << (thread % 32));
}

}  // namespace

TEST_CASE("memory that was never written reads as NaN", "[simt]") {
  const Device<float> unset(8);
  for (const float value : unset.Read()) CHECK(std::isnan(value));
  Device<float> out(32);
  REQUIRE(RunBlock(32, 32 * sizeof(float), WriteSharedAt, out.data(), 3).empty());
  CHECK(std::isnan(out.Read()[0]));
  CHECK(out.Read()[3] == 1);
  REQUIRE(RunBlock(32, 0, WriteStaticAt, out.data(), 5).empty());
  CHECK(std::isnan(out.Read()[3]));
  CHECK(out.Read()[5] == 1);
}

#if !defined(__SANITIZE_ADDRESS__)  // which ends the process at the write itself
namespace {
void WriteAt(float* out, int index) {
  if (threadIdx.x == 0) out[index] = 1;
}
}  // namespace

TEST_CASE("a write outside of an allocation is found after the kernel", "[simt]") {
  Device<float> out(32);
  CHECK(RunBlock(32, 0, WriteAt, out.data(), 31).empty());
  CHECK_THAT(RunBlock(32, 0, WriteAt, out.data(), 32),
             ContainsSubstring("Toy: something wrote behind an allocation of 128 bytes"));
}

TEST_CASE("a write before an allocation is found after the kernel", "[simt]") {
  Device<float> out(32);
  CHECK_THAT(RunBlock(32, 0, WriteAt, out.data(), -1),
             ContainsSubstring("something wrote before an allocation"));
}

TEST_CASE("a write behind shared memory fails the block", "[simt]") {
  Device<float> out(32);
  CHECK_THAT(RunBlock(32, 32 * sizeof(float), WriteSharedAt, out.data(), 32),
             ContainsSubstring("behind shared memory"));
  CHECK_THAT(RunBlock(32, 0, WriteStaticAt, out.data(), 32),
             ContainsSubstring("behind shared memory"));
}

#endif

TEST_CASE("a copy outside of an allocation fails", "[simt]") {
  Device<float> out(4);
  const std::vector<float> values(5);
  CHECK(cudaMemcpy(out.data(), values.data(), 20, cudaMemcpyHostToDevice) ==
        cudaErrorLaunchFailure);
  CHECK_THAT(simt::TakeFailure(), ContainsSubstring("a copy of 20 bytes writes beyond"));
}

TEST_CASE("a stream does nothing until somebody waits for it", "[simt]") {
  Device<float> out(std::vector<float>(32, 0));
  std::vector<float> found(32, -1);
  cudaStream_t stream;
  REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  REQUIRE(Launch({"AddOne", dim3(1), dim3(32), 0, stream}, AddOne, out.data()) == cudaSuccess);
  REQUIRE(cudaMemcpyAsync(found.data(), out.data(), 128, cudaMemcpyDeviceToHost, stream) ==
          cudaSuccess);
  CHECK(found[0] == -1);
  cudaEvent_t event;
  REQUIRE(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
  REQUIRE(cudaEventRecord(event, stream) == cudaSuccess);
  CHECK(cudaEventQuery(event) == cudaErrorNotReady);
  CHECK(cudaEventSynchronize(event) == cudaSuccess);
  CHECK(found[0] == 1);
  cudaEventDestroy(event);
  cudaStreamDestroy(stream);
}

TEST_CASE("a graph runs what was captured, each time it is launched", "[simt]") {
  Device<float> out(std::vector<float>(32, 0));
  cudaStream_t stream;
  REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  cudaGraph_t graph;
  cudaGraphExec_t runnable;
  REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  REQUIRE(Launch({"AddOne", dim3(1), dim3(32), 0, stream}, AddOne, out.data()) == cudaSuccess);
  REQUIRE(Launch({"AddOne", dim3(1), dim3(32), 0, stream}, AddOne, out.data()) == cudaSuccess);
  REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  REQUIRE(cudaGraphInstantiate(&runnable, graph, 0) == cudaSuccess);
  CHECK(out.Read()[0] == 0);
  for (int i = 0; i < 3; ++i) REQUIRE(cudaGraphLaunch(runnable, stream) == cudaSuccess);
  REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
  CHECK(out.Read()[31] == 6);
  cudaGraphExecDestroy(runnable);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

TEST_CASE("atomics count every thread of every block once", "[simt]") {
  for (uint64_t seed = 0; seed < 3; ++seed) {
    simt::SetSeed(seed);
    Device<int> sum(std::vector<int>{0});
    Device<int> largest(std::vector<int>{0});
    Device<unsigned> bits(std::vector<unsigned>{0});
    REQUIRE(Launch({"CountUp", dim3(2, 3), dim3(64), 0, nullptr}, CountUp, sum.data(),
                   largest.data(), bits.data()) == cudaSuccess);
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
    CHECK(sum.Read()[0] == 6 * 63 * 64 / 2);
    CHECK(largest.Read()[0] == 63);
    CHECK(bits.Read()[0] == 0xffffffffu);
  }
  simt::SetSeed(0);
}

}  // namespace neurogrid::kernels
