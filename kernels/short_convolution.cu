#include "kernels/launch.h"
#include "kernels/short_convolution.cuh"
#include "kernels/short_convolution.h"

namespace neurogrid::kernels {
namespace {

constexpr int kThreads = 128;
constexpr int kChunkRows = 4;
constexpr int kWideChunksMin = 64;  // fewer are served sooner by more threads (H200)
constexpr int kTapsFew = 3;         // of every published LFM2
constexpr int kTapsMax = 16;

/// The product of row `row` of the chunk's sequence; before row 0 from its source.
template <typename T>
__device__ __forceinline__ T ProductOf(const ConvolutionOperands<T>& o,
                                       const ConvolutionChunk& chunk, int row, int column) {
  if (row >= 0) {
    const T* b = o.bcu + (static_cast<int64_t>(chunk.first_row) + row) * 3 * o.columns + column;
    return GatedProduct(b[0], b[2 * o.columns]);
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

/// kWidth neighbouring columns, as one vector where there are that many in 16 bytes.
template <typename T, int kWidth>
struct Columns {
  T at[kWidth];

  __device__ __forceinline__ static Columns Load(const T* from) {
    Columns columns;
    if constexpr (kWidth == Vec<T>::kCount) {
      const Vec<T> values = LoadVec(from);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) columns.at[i] = values.at[i];
    } else {
      columns.at[0] = *from;
    }
    return columns;
  }
  __device__ __forceinline__ void Store(T* to) const {
    if constexpr (kWidth == Vec<T>::kCount) {
      Vec<T> values;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) values.at[i] = at[i];
      StoreVec(to, values);
    } else {
      *to = at[0];
    }
  }
};

template <typename T, int kWidth>
__device__ __forceinline__ Columns<T, kWidth> ProductsOf(const ConvolutionOperands<T>& o,
                                                         const ConvolutionChunk& chunk, int row,
                                                         int column) {
  using Values = Columns<T, kWidth>;
  Values products{};
  if (row >= 0) {
    const T* b = o.bcu + (static_cast<int64_t>(chunk.first_row) + row) * 3 * o.columns + column;
    const Values bs = Values::Load(b);
    const Values us = Values::Load(b + 2 * o.columns);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) products.at[i] = GatedProduct(bs.at[i], us.at[i]);
  } else if (chunk.source >= 0) {
    const int at = o.taps_count - 1 + row;
    products = Values::Load(o.state + chunk.source * o.slot_stride + at * o.columns + column);
  }
  return products;
}

/// For at most kTaps taps of kWidth columns, which stay in registers. Everything that the rows of
/// the chunk need is on its way before the first is computed.
template <typename T, int kTaps, int kWidth>
__global__ void __launch_bounds__(kThreads)
    ConvolveKernel(ConvolutionOperands<T> o, const ConvolutionChunk* chunks) {
  ReleaseSuccessor();
  using Values = Columns<T, kWidth>;
  const ConvolutionChunk chunk = chunks[blockIdx.x];
  const int column = static_cast<int>(blockIdx.y * kThreads + threadIdx.x) * kWidth;
  if (column >= o.columns) return WaitForPredecessor();
  const int unused = kTaps - o.taps_count;  // of the places in front
  Columns<float, kWidth> taps[kTaps] = {};
#pragma unroll
  for (int j = 0; j < kTaps; ++j) {
    if (j < unused) continue;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      taps[j].at[i] = o.taps[(j - unused) * o.columns + column + i];
    }
  }
  Columns<float, kWidth> bias{};
#pragma unroll
  for (int i = 0; i < kWidth && o.bias != nullptr; ++i) bias.at[i] = o.bias[column + i];

  WaitForPredecessor();
  constexpr int kBefore = kTaps - 1;
  Values products[kBefore + kChunkRows] = {};  // of the rows before the chunk, then of its own
  Values gates[kChunkRows];
#pragma unroll
  for (int j = 0; j < kBefore + kChunkRows; ++j) {
    if (j < unused || j >= kBefore + chunk.rows) continue;
    products[j] = ProductsOf<T, kWidth>(o, chunk, chunk.first - kBefore + j, column);
  }
  const int64_t first = static_cast<int64_t>(chunk.first_row) + chunk.first;
#pragma unroll
  for (int row = 0; row < kChunkRows; ++row) {
    if (row >= chunk.rows) continue;
    gates[row] = Values::Load(o.bcu + ((first + row) * 3 + 1) * o.columns + column);
  }
#pragma unroll
  for (int row = 0; row < kChunkRows; ++row) {
    if (row >= chunk.rows) continue;
    Values out;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      float z = bias.at[i];
#pragma unroll
      for (int j = 0; j < kTaps; ++j) {
        if (j >= unused) z = AddTap(z, taps[j].at[i], products[row + j].at[i]);
      }
      out.at[i] = Gated(gates[row].at[i], z);
    }
    out.Store(o.out + (first + row) * o.columns + column);
  }
  if (chunk.slot < 0) return;
  T* slot = o.state + chunk.slot * o.slot_stride + column;
#pragma unroll
  for (int j = 0; j < kBefore + kChunkRows; ++j) {  // the last kBefore before the chunk's end
    const int place = j - chunk.rows;
    if (place >= unused && place < kBefore) products[j].Store(slot + (place - unused) * o.columns);
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
  constexpr int kWidth = Vec<T>::kCount;
  const auto launch = [&](const char* name, int count, int width, auto* kernel, const auto* work) {
    const int column_blocks = (o.columns + kThreads * width - 1) / (kThreads * width);
    return Launch({name, dim3(static_cast<unsigned>(count), static_cast<unsigned>(column_blocks)),
                   dim3(kThreads), 0, stream},
                  kernel, o, work);
  };
  if (o.taps_count > kTapsMax) return cudaErrorInvalidValue;
  const char* name = "ShortConvolution";
  cudaError_t error;
  if (o.taps_count > kTapsFew) {
    error = launch(name, chunks_count, 1, ConvolveKernel<T, kTapsMax, 1>, chunks);
  } else if (o.columns % kWidth != 0 || chunks_count < kWideChunksMin) {
    error = launch(name, chunks_count, 1, ConvolveKernel<T, kTapsFew, 1>, chunks);
  } else {
    error = launch(name, chunks_count, kWidth, ConvolveKernel<T, kTapsFew, kWidth>, chunks);
  }
  if (error != cudaSuccess || states_count == 0) return error;
  return launch("ShortConvolution, states", states_count, 1, WriteStatesKernel<T>, states);
}

template cudaError_t ShortConvolution(const ConvolutionOperands<float>&, const ConvolutionChunk*,
                                      int, const ConvolutionChunk*, int, cudaStream_t);
template cudaError_t ShortConvolution(const ConvolutionOperands<bf16>&, const ConvolutionChunk*,
                                      int, const ConvolutionChunk*, int, cudaStream_t);

}  // namespace neurogrid::kernels
