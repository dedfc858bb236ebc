// What the kernels of a matmul share: one chunk of K on the tensor core, and the epilogue.
#pragma once

#include "kernels/matmul.h"
#include "kernels/mma.cuh"
#include "kernels/simt.cuh"
#include "kernels/vec.cuh"
#include "kernels/widen.cuh"

namespace neurogrid::kernels {

inline constexpr int kChunkBytes = 128;  // of one row of weights

template <WeightFormat kFormat>
inline constexpr int kChunkInputs = kChunkBytes / Weights::ElementBytes(kFormat);

/// Where 16-byte piece `piece` of a row of 128 bytes lies in shared memory: eight rows at the same
/// piece touch all banks once.
__device__ __forceinline__ int Swizzled(int row, int piece) {
  return row * kChunkBytes + ((piece ^ (row & 7)) << 4);
}

/// sums += one chunk of 16 kM rows of weights, at w in swizzled rows, times 8 kN rows of
/// activations. x.Piece(row, column) points to eight activations in shared memory. Each step takes
/// the same 16 inputs in every kernel.
template <WeightFormat kFormat, int kM, int kN, typename Activations>
__device__ __forceinline__ void MultiplyChunk(float (&sums)[kM][kN][4], const uint8_t* w,
                                              const Activations& x, int lane) {
  constexpr int kPairs = kFormat == WeightFormat::kInt8 ? 4 : 2;  // of steps: 32 inputs
#pragma unroll
  for (int pair = 0; pair < kPairs; ++pair) {
    uint32_t b[kN][4];
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      LdMatrix(b[n], x.Piece(8 * n + lane % 8, 32 * pair + lane / 8 * 8));
    }
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      uint32_t a[2][4];
      if constexpr (kFormat == WeightFormat::kInt8) {
        uint32_t r[4];
        LdMatrix(r, w + Swizzled(16 * m + lane % 16, 2 * pair + lane / 16));
        WidenStep(a[0], r[0], r[1]);
        WidenStep(a[1], r[2], r[3]);
      } else {
        LdMatrix(a[0], w + Swizzled(16 * m + lane % 16, 4 * pair + lane / 16));
        LdMatrix(a[1], w + Swizzled(16 * m + lane % 16, 4 * pair + 2 + lane / 16));
      }
#pragma unroll
      for (int step = 0; step < 2; ++step) {
#pragma unroll
        for (int n = 0; n < kN; ++n) Mma(sums[m][n], a[step], b[n][2 * step], b[n][2 * step + 1]);
      }
    }
  }
}

/// Where sums go.
struct Output {
  void* y;
  const float* scales;
  const float* bias;
  int columns;
  int64_t stride;  // from one row of y to the next
  bool is_f32;
  Epilogue epilogue;

  Output(const MatMulOperands& operands, const Weights& w)
      : y(operands.y),
        scales(w.scales),
        bias(w.bias),
        columns(w.outputs),
        stride(operands.y_stride > 0 ? operands.y_stride : w.outputs),
        is_f32(operands.y_is_f32),
        epilogue(operands.epilogue) {}
};

/// Without a division: it took as many instructions as all else of an epilogue.
__device__ __forceinline__ float Silu(float x) { return __fmul_rn(x, Reciprocal(1.0f + expf(-x))); }
__device__ __forceinline__ float GeluTanh(float x) {
  constexpr float kRootOf2OverPi = 0.79788456080286535588f;
  const float cube = __fmul_rn(0.044715f, __fmul_rn(x, __fmul_rn(x, x)));
  return __fmul_rn(__fmul_rn(0.5f, x), 1.0f + tanhf(__fmul_rn(kRootOf2OverPi, x + cube)));
}

/// What rows 16 tile + g and 16 tile + g + 8 of the weights bring to every row of y: loaded early.
struct Channels {
  float low_scale = 1;
  float high_scale = 1;
  float low_bias = 0;
  float high_bias = 0;
};
__device__ __forceinline__ Channels LoadChannels(const Output& out, int tile, int g) {
  const int low = kTileOutputs * tile + g;
  const int high = low + kTileOutputs / 2;
  Channels channels;
  if (out.scales != nullptr) {
    channels.low_scale = out.scales[low] * kInt8Units;
    channels.high_scale = out.scales[high] * kInt8Units;
  }
  if (out.bias != nullptr) {
    channels.low_bias = out.bias[low];
    channels.high_bias = out.bias[high];
  }
  return channels;
}

/// The value of y that is added to; zero where none is.
__device__ __forceinline__ float LoadOld(const Output& out, int64_t row, int column) {
  if (out.epilogue != Epilogue::kAdd || column >= out.columns) return 0;
  const int64_t at = row * out.stride + column;
  return out.is_f32 ? static_cast<const float*>(out.y)[at]
                    : ToFloat(static_cast<const bf16*>(out.y)[at]);
}

__device__ __forceinline__ void StoreOne(const Output& out, int64_t row, int column, float value,
                                         float old) {
  if (column >= out.columns) return;
  const int64_t at = row * out.stride + column;
  if (out.epilogue == Epilogue::kAdd) value = old + value;
  if (out.is_f32) {
    static_cast<float*>(out.y)[at] = value;
  } else {
    static_cast<bf16*>(out.y)[at] = FromFloat<bf16>(value);
  }
}

/// The sums of packed rows 16 tile + g (low) and 16 tile + g + 8 (high), g < 8, of one row of y.
__device__ __forceinline__ void StorePair(const Output& out, int64_t row, int tile, int g,
                                          float low, float high, const Channels& channels,
                                          float old_low, float old_high) {
  const int first = kTileOutputs * tile + g;
  const int second = first + kTileOutputs / 2;
  if (out.scales != nullptr) {
    low = __fmul_rn(low, channels.low_scale);
    high = __fmul_rn(high, channels.high_scale);
  }
  if (out.bias != nullptr) {
    low += channels.low_bias;
    high += channels.high_bias;
  }
  if (out.epilogue == Epilogue::kSiluGated || out.epilogue == Epilogue::kGeluGated) {
    const float gate = out.epilogue == Epilogue::kSiluGated ? Silu(low) : GeluTanh(low);
    StoreOne(out, row, kTileOutputs / 2 * tile + g, __fmul_rn(gate, high), 0);
  } else {
    StoreOne(out, row, first, low, old_low);
    StoreOne(out, row, second, high, old_high);
  }
}
__device__ __forceinline__ void StorePair(const Output& out, int64_t row, int tile, int g,
                                          float low, float high) {
  const int first = kTileOutputs * tile + g;
  StorePair(out, row, tile, g, low, high, LoadChannels(out, tile, g), LoadOld(out, row, first),
            LoadOld(out, row, first + kTileOutputs / 2));
}

cudaError_t MatMulTiles(bool wide, const MatMulOperands& operands, const Weights& w,
                        cudaStream_t stream);
cudaError_t MatMulBlocks(const MatMulOperands& operands, const Weights& w, cudaStream_t stream);
cudaError_t MatMulBlocksBy(MatMulKernel kernel, const MatMulOperands& operands, const Weights& w,
                           cudaStream_t stream);
cudaError_t MatMulF32(const MatMulOperands& operands, const Weights& w, cudaStream_t stream);

}  // namespace neurogrid::kernels
