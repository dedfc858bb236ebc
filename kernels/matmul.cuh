// What the kernels of a matmul share: one chunk of K on the tensor core, and the epilogue.
#pragma once

#include "kernels/matmul.h"
#include "kernels/mma.cuh"
#include "kernels/simt.cuh"
#include "kernels/vec.cuh"

namespace neurogrid::kernels {

inline constexpr int kChunkBytes = 128;  // of one row of weights

template <WeightFormat kFormat>
inline constexpr int kChunkInputs = kChunkBytes / Weights::ElementBytes(kFormat);

/// Where 16-byte piece `piece` of a row of 128 bytes lies in shared memory: eight rows at the same
/// piece touch all banks once.
__device__ __forceinline__ int Swizzled(int row, int piece) {
  return row * kChunkBytes + ((piece ^ (row & 7)) << 4);
}

/// Bytes 0 and 2 of r, two's complement, as two bf16, exactly: 128 + the low seven bits, minus 128
/// or 256.
__device__ __forceinline__ uint32_t WidenEvenBytes(uint32_t r) {
  constexpr uint32_t kOnes = 0x43004300u;  // 128 twice
  const uint32_t magnitude = AndOr(r, 0x007f007fu, kOnes);
  const uint32_t offset = AndOr(r, 0x00800080u, kOnes);
  __nv_bfloat162 a;
  __nv_bfloat162 b;
  memcpy(&a, &magnitude, sizeof(a));
  memcpy(&b, &offset, sizeof(b));
  a = __hsub2(a, b);
  uint32_t result;
  memcpy(&result, &a, sizeof(result));
  return result;
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
    if constexpr (kFormat == WeightFormat::kInt8) {
      uint32_t r[kM][4];
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        LdMatrix(r[m], w + Swizzled(16 * m + lane % 16, 2 * pair + lane / 16));
      }
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        uint2 b[kN];
#pragma unroll
        for (int n = 0; n < kN; ++n) {
          const int column = 32 * pair + 16 * step + 4 * (lane % 4);
          b[n] = *reinterpret_cast<const uint2*>(x.Piece(8 * n + lane / 4, column & ~7) +
                                                 (column & 4));
        }
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          const uint32_t a[4] = {WidenEvenBytes(r[m][2 * step]), WidenEvenBytes(r[m][2 * step + 1]),
                                 WidenEvenBytes(r[m][2 * step] >> 8),
                                 WidenEvenBytes(r[m][2 * step + 1] >> 8)};
#pragma unroll
          for (int n = 0; n < kN; ++n) Mma(sums[m][n], a, b[n].x, b[n].y);
        }
      }
    } else {
      uint32_t b[kN][4];
#pragma unroll
      for (int n = 0; n < kN; ++n) {
        LdMatrix(b[n], x.Piece(8 * n + lane % 8, 32 * pair + lane / 8 * 8));
      }
#pragma unroll
      for (int step = 0; step < 2; ++step) {
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          uint32_t a[4];
          LdMatrix(a, w + Swizzled(16 * m + lane % 16, 4 * pair + 2 * step + lane / 16));
#pragma unroll
          for (int n = 0; n < kN; ++n) Mma(sums[m][n], a, b[n][2 * step], b[n][2 * step + 1]);
        }
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

__device__ __forceinline__ float Silu(float x) { return x / (1.0f + expf(-x)); }
__device__ __forceinline__ float GeluTanh(float x) {
  constexpr float kRootOf2OverPi = 0.79788456080286535588f;
  const float cube = __fmul_rn(0.044715f, __fmul_rn(x, __fmul_rn(x, x)));
  return __fmul_rn(__fmul_rn(0.5f, x), 1.0f + tanhf(__fmul_rn(kRootOf2OverPi, x + cube)));
}

__device__ __forceinline__ void StoreOne(const Output& out, int64_t row, int column, float value) {
  if (column >= out.columns) return;
  const int64_t at = row * out.stride + column;
  if (out.is_f32) {
    float* y = static_cast<float*>(out.y) + at;
    *y = out.epilogue == Epilogue::kAdd ? *y + value : value;
  } else {
    bf16* y = static_cast<bf16*>(out.y) + at;
    *y = FromFloat<bf16>(out.epilogue == Epilogue::kAdd ? ToFloat(*y) + value : value);
  }
}

/// The sums of packed rows 16 tile + g (low) and 16 tile + g + 8 (high), g < 8, of one row of y.
__device__ __forceinline__ void StorePair(const Output& out, int64_t row, int tile, int g,
                                          float low, float high) {
  const int first = kTileOutputs * tile + g;
  const int second = first + kTileOutputs / 2;
  if (out.scales != nullptr) {
    low = __fmul_rn(low, out.scales[first]);
    high = __fmul_rn(high, out.scales[second]);
  }
  if (out.bias != nullptr) {
    low += out.bias[first];
    high += out.bias[second];
  }
  if (out.epilogue == Epilogue::kSiluGated || out.epilogue == Epilogue::kGeluGated) {
    const float gate = out.epilogue == Epilogue::kSiluGated ? Silu(low) : GeluTanh(low);
    StoreOne(out, row, kTileOutputs / 2 * tile + g, __fmul_rn(gate, high));
  } else {
    StoreOne(out, row, first, low);
    StoreOne(out, row, second, high);
  }
}

cudaError_t MatMulFewRows(const MatMulOperands& operands, const Weights& w, cudaStream_t stream);
bool FewRowsFit(const Weights& w, int rows);
cudaError_t MatMulTiles(bool wide, const MatMulOperands& operands, const Weights& w,
                        cudaStream_t stream);
cudaError_t MatMulF32(const MatMulOperands& operands, const Weights& w, cudaStream_t stream);

}  // namespace neurogrid::kernels
