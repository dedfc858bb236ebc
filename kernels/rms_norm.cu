#include "kernels/launch.h"
#include "kernels/rms_norm.h"
#include "kernels/simt.cuh"
#include "kernels/vec.cuh"

namespace neurogrid::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kHeadsPerBlock = 4;

struct NormShared {
  BlockScratch<float> scratch;
};

template <typename T>
__device__ __forceinline__ T Normed(T x, float factor, float weight, bool rounds_before_weight) {
  float value = __fmul_rn(ToFloat(x), factor);
  if (rounds_before_weight) value = Rounded<T>(value);
  return FromFloat<T>(__fmul_rn(value, weight));
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    RmsNormKernel(T* y, const T* x, int columns, NormParameters norm) {
  WaitForPredecessor();
  ReleaseSuccessor();
  BlockScratch<float>& scratch = SharedObject<NormShared>().scratch;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * columns;
  const int thread = static_cast<int>(threadIdx.x);
  float squares = 0;
  for (int c = thread; c < columns; c += kThreads) {
    const float value = ToFloat(x[first + c]);
    squares = fmaf(value, value, squares);
  }
  const float mean = BlockSum<kThreads>(squares, scratch) / static_cast<float>(columns);
  const float factor = 1.0f / sqrtf(mean + norm.epsilon);
  for (int c = thread; c < columns; c += kThreads) {
    y[first + c] = Normed(x[first + c], factor, norm.weight[c], norm.rounds_before_weight);
  }
}

/// A warp for each of `count` heads; all lanes of a warp leave together.
template <typename T>
__global__ void __launch_bounds__(kHeadsPerBlock* kWarpThreads)
    RmsNormHeadsKernel(T* x, int64_t count, int columns, int first_column, int heads, int head_dim,
                       NormParameters norm) {
  WaitForPredecessor();
  ReleaseSuccessor();
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarpThreads;
  const int64_t head = static_cast<int64_t>(blockIdx.x) * kHeadsPerBlock + thread / kWarpThreads;
  if (head >= count) return;
  T* values = x + head / heads * columns + first_column + head % heads * head_dim;
  float squares = 0;
  for (int c = lane; c < head_dim; c += kWarpThreads) {
    const float value = ToFloat(values[c]);
    squares = fmaf(value, value, squares);
  }
  const float mean = WarpSum(squares) / static_cast<float>(head_dim);
  const float factor = 1.0f / sqrtf(mean + norm.epsilon);
  for (int c = lane; c < head_dim; c += kWarpThreads) {
    values[c] = Normed(values[c], factor, norm.weight[c], norm.rounds_before_weight);
  }
}

}  // namespace

template <typename T>
cudaError_t RmsNorm(T* y, const T* x, int rows, int columns, const NormParameters& norm,
                    cudaStream_t stream) {
  const LaunchShape shape{"RmsNorm", dim3(static_cast<unsigned>(rows)), dim3(kThreads), 0, stream};
  return Launch(shape, RmsNormKernel<T>, y, x, columns, norm);
}

template <typename T>
cudaError_t RmsNormHeads(T* x, int rows, int columns, int first_column, int heads, int head_dim,
                         const NormParameters& norm, cudaStream_t stream) {
  const int64_t count = static_cast<int64_t>(rows) * heads;
  const auto blocks = static_cast<unsigned>((count + kHeadsPerBlock - 1) / kHeadsPerBlock);
  const LaunchShape shape{"RmsNormHeads", dim3(blocks), dim3(kHeadsPerBlock * kWarpThreads), 0,
                          stream};
  return Launch(shape, RmsNormHeadsKernel<T>, x, count, columns, first_column, heads, head_dim,
                norm);
}

template cudaError_t RmsNorm(float*, const float*, int, int, const NormParameters&, cudaStream_t);
template cudaError_t RmsNorm(bf16*, const bf16*, int, int, const NormParameters&, cudaStream_t);
template cudaError_t RmsNormHeads(float*, int, int, int, int, int, const NormParameters&,
                                  cudaStream_t);
template cudaError_t RmsNormHeads(bf16*, int, int, int, int, int, const NormParameters&,
                                  cudaStream_t);

}  // namespace neurogrid::kernels
