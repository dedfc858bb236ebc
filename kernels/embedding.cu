#include "kernels/embedding.h"
#include "kernels/launch.h"
#include "kernels/simt.cuh"
#include "kernels/vec.cuh"

namespace neurogrid::kernels {
namespace {

constexpr int kThreads = 128;

__device__ float WeightAt(const Weights& table, int64_t row, int column) {
  const int64_t first = row * table.stride();
  switch (table.format) {
    case WeightFormat::kF32:
      return static_cast<const float*>(table.data)[first + column];
    case WeightFormat::kBf16:
      return ToFloat(static_cast<const bf16*>(table.data)[first + column]);
    case WeightFormat::kInt8:
      return static_cast<float>(
                 static_cast<const int8_t*>(table.data)[first + Weights::Int8Place(column)]) *
             table.scales[row];
  }
  return 0;
}

template <typename T>
__global__ void EmbedKernel(T* y, Weights table, const int32_t* tokens, float scale) {
  ReleaseSuccessor();
  const int64_t row = blockIdx.x;
  const int column = static_cast<int>(blockIdx.y * kThreads + threadIdx.x);
  WaitForPredecessor();
  if (column >= table.inputs) return;
  y[row * table.inputs + column] = FromFloat<T>(WeightAt(table, tokens[row], column) * scale);
}

}  // namespace

template <typename T>
cudaError_t Embed(T* y, const Weights& table, const int32_t* tokens, int rows, float scale,
                  cudaStream_t stream) {
  const auto column_blocks = static_cast<unsigned>((table.inputs + kThreads - 1) / kThreads);
  const LaunchShape shape{"Embed", dim3(static_cast<unsigned>(rows), column_blocks), dim3(kThreads),
                          0, stream};
  return Launch(shape, EmbedKernel<T>, y, table, tokens, scale);
}

template cudaError_t Embed(float*, const Weights&, const int32_t*, int, float, cudaStream_t);
template cudaError_t Embed(bf16*, const Weights&, const int32_t*, int, float, cudaStream_t);

}  // namespace neurogrid::kernels
