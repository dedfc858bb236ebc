#include "kernels/launch.h"
#include "kernels/short_convolution.h"
#include "kernels/simt.cuh"
#include "kernels/vec.cuh"

namespace neurogrid::kernels {
namespace {

constexpr int kThreads = 128;
constexpr int kChunkRows = 16;
constexpr int kTapsFew = 3;  // of every published LFM2
constexpr int kTapsMax = 16;

/// The product of row `row` of the chunk's sequence; before row 0 from its source.
template <typename T>
__device__ __forceinline__ T ProductOf(const ConvolutionOperands<T>& o,
                                       const ConvolutionChunk& chunk, int row, int column) {
  if (row >= 0) {
    const T* b = o.bcu + (static_cast<int64_t>(chunk.first_row) + row) * 3 * o.columns + column;
    return FromFloat<T>(__fmul_rn(ToFloat(b[0]), ToFloat(b[2 * o.columns])));
  }
  if (chunk.source < 0) return FromFloat<T>(0);
  const int at = o.taps_count - 1 + row;
  return o.state[chunk.source * o.slot_stride + at * o.columns + column];
}

/// Writes the last products to the slot, oldest first. In place too: what is read lies behind what
/// is written.
template <typename T>
__device__ __forceinline__ void WriteState(const ConvolutionOperands<T>& o,
                                           const ConvolutionChunk& chunk, int column) {
  const int kept = o.taps_count - 1;
  T* slot = o.state + chunk.slot * o.slot_stride + column;
  for (int i = 0; i < kept; ++i) {
    slot[i * o.columns] = ProductOf(o, chunk, chunk.whole_rows - kept + i, column);
  }
}

/// For at most kTaps taps, which stay in registers with the products that they meet.
template <typename T, int kTaps>
__global__ void __launch_bounds__(kThreads)
    ConvolveKernel(ConvolutionOperands<T> o, const ConvolutionChunk* chunks) {
  ReleaseSuccessor();
  const ConvolutionChunk chunk = chunks[blockIdx.x];
  const int column = static_cast<int>(blockIdx.y * kThreads + threadIdx.x);
  if (column >= o.columns) return WaitForPredecessor();
  const int unused = kTaps - o.taps_count;  // of the places in front
  float taps[kTaps] = {};
#pragma unroll
  for (int j = 0; j < kTaps; ++j) {
    if (j >= unused) taps[j] = o.taps[(j - unused) * o.columns + column];
  }
  const float bias = o.bias == nullptr ? 0.0f : o.bias[column];

  WaitForPredecessor();
  T products[kTaps] = {};  // of the kTaps rows that end with the current one
#pragma unroll
  for (int j = 0; j < kTaps - 1; ++j) {
    const int row = chunk.first - (kTaps - 1) + j;
    if (j >= unused) products[j] = ProductOf(o, chunk, row, column);
  }
  for (int row = chunk.first; row < chunk.first + chunk.rows; ++row) {
    const int64_t at = static_cast<int64_t>(chunk.first_row) + row;
    const T c = o.bcu[at * 3 * o.columns + o.columns + column];
    products[kTaps - 1] = ProductOf(o, chunk, row, column);
    float z = bias;
#pragma unroll
    for (int j = 0; j < kTaps; ++j) {
      if (j >= unused) z = fmaf(taps[j], ToFloat(products[j]), z);
    }
    o.out[at * o.columns + column] = FromFloat<T>(__fmul_rn(ToFloat(c), Rounded<T>(z)));
#pragma unroll
    for (int j = 0; j < kTaps - 1; ++j) products[j] = products[j + 1];
  }
  if (chunk.slot < 0) return;
  T* slot = o.state + chunk.slot * o.slot_stride + column;
#pragma unroll
  for (int j = 0; j < kTaps - 1; ++j) {
    if (j >= unused) slot[(j - unused) * o.columns] = products[j];
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    WriteStatesKernel(ConvolutionOperands<T> o, const ConvolutionChunk* states) {
  ReleaseSuccessor();
  const ConvolutionChunk chunk = states[blockIdx.x];
  const int column = static_cast<int>(blockIdx.y * kThreads + threadIdx.x);
  WaitForPredecessor();
  if (column < o.columns) WriteState(o, chunk, column);
}

}  // namespace

void AddSequence(const ConvolutionSequence& s, std::vector<ConvolutionChunk>& chunks,
                 std::vector<ConvolutionChunk>& states) {
  if (s.rows == 0) return;
  const bool alone = s.rows <= kChunkRows;
  for (int first = 0; first < s.rows; first += kChunkRows) {
    const int rows = s.rows - first < kChunkRows ? s.rows - first : kChunkRows;
    chunks.push_back({s.first_row, first, rows, s.rows, s.source, alone ? s.slot : -1});
  }
  if (!alone && s.slot >= 0) states.push_back({s.first_row, 0, 0, s.rows, s.source, s.slot});
}

template <typename T>
cudaError_t ShortConvolution(const ConvolutionOperands<T>& o, const ConvolutionChunk* chunks,
                             int chunks_count, const ConvolutionChunk* states, int states_count,
                             cudaStream_t stream) {
  const auto column_blocks = static_cast<unsigned>((o.columns + kThreads - 1) / kThreads);
  const LaunchShape shape{"ShortConvolution",
                          dim3(static_cast<unsigned>(chunks_count), column_blocks), dim3(kThreads),
                          0, stream};
  if (o.taps_count > kTapsMax) return cudaErrorInvalidValue;
  cudaError_t error = o.taps_count <= kTapsFew
                          ? Launch(shape, ConvolveKernel<T, kTapsFew>, o, chunks)
                          : Launch(shape, ConvolveKernel<T, kTapsMax>, o, chunks);
  if (error == cudaSuccess && states_count > 0) {
    error = Launch(
        {"ShortConvolution, states", dim3(static_cast<unsigned>(states_count), column_blocks),
         dim3(kThreads), 0, stream},
        WriteStatesKernel<T>, o, states);
  }
  return error;
}

template cudaError_t ShortConvolution(const ConvolutionOperands<float>&, const ConvolutionChunk*,
                                      int, const ConvolutionChunk*, int, cudaStream_t);
template cudaError_t ShortConvolution(const ConvolutionOperands<bf16>&, const ConvolutionChunk*,
                                      int, const ConvolutionChunk*, int, cudaStream_t);

}  // namespace neurogrid::kernels
