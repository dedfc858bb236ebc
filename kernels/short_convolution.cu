#include "kernels/launch.h"
#include "kernels/short_convolution.h"
#include "kernels/simt.cuh"
#include "kernels/vec.cuh"

namespace neurogrid::kernels {
namespace {

constexpr int kThreads = 128;
constexpr int kChunkRows = 16;

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

template <typename T>
__global__ void __launch_bounds__(kThreads)
    ConvolveKernel(ConvolutionOperands<T> o, const ConvolutionChunk* chunks) {
  WaitForPredecessor();
  ReleaseSuccessor();
  const ConvolutionChunk chunk = chunks[blockIdx.x];
  const int column = static_cast<int>(blockIdx.y * kThreads + threadIdx.x);
  if (column >= o.columns) return;
  for (int row = chunk.first; row < chunk.first + chunk.rows; ++row) {
    float z = o.bias == nullptr ? 0.0f : o.bias[column];
    for (int j = 0; j < o.taps_count; ++j) {
      const T g = ProductOf(o, chunk, row - (o.taps_count - 1) + j, column);
      z = fmaf(o.taps[j * o.columns + column], ToFloat(g), z);
    }
    const int64_t at = static_cast<int64_t>(chunk.first_row) + row;
    const T c = o.bcu[at * 3 * o.columns + o.columns + column];
    o.out[at * o.columns + column] = FromFloat<T>(__fmul_rn(ToFloat(c), Rounded<T>(z)));
  }
  if (chunk.slot >= 0) WriteState(o, chunk, column);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    WriteStatesKernel(ConvolutionOperands<T> o, const ConvolutionChunk* states) {
  WaitForPredecessor();
  ReleaseSuccessor();
  const int column = static_cast<int>(blockIdx.y * kThreads + threadIdx.x);
  if (column < o.columns) WriteState(o, states[blockIdx.x], column);
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
  cudaError_t error =
      Launch({"ShortConvolution", dim3(static_cast<unsigned>(chunks_count), column_blocks),
              dim3(kThreads), 0, stream},
             ConvolveKernel<T>, o, chunks);
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
