// Matrix products of activations with packed weights.
#pragma once

#include <cstdint>

#include "common/buffer.h"
#include "common/status.h"
#include "common/tensor.h"
#include "engine/cpu/cpu_context.h"
#include "engine/cpu/packed_matrix.h"
#include "engine/model/model_config.h"

namespace neurogrid {

/// Space for activations in another form than the caller's: int16 for int8 weights and for blocks,
/// int8 with scales for int8-a8 and blocks-a8, an even row length when the weights have an odd
/// number of inputs.
class MatMulScratch {
 public:
  MatMulScratch() = default;
  static absl::StatusOr<MatMulScratch> Allocate(int64_t rows_max, int64_t inputs_max);
  static int64_t BytesFor(int64_t rows_max, int64_t inputs_max);
  int64_t bytes() const { return static_cast<int64_t>(values_.bytes() + numbers_.bytes()); }

  void* values(int64_t rows, int64_t inputs) const;
  float* numbers() const { return numbers_.as<float>(); }

 private:
  Buffer values_;
  Buffer numbers_;
  int64_t rows_max_ = 0;
  int64_t inputs_max_ = 0;
};

/// y[r, n] = sum over k of x[r, k] * w[n, k]  (+ bias[n])
///
///   y     [rows, outputs]  f32 or bf16; f32 when the weights are f32
///   x     [rows, inputs]   f32 for f32 weights, else bf16
///   bias  [outputs]        f32, or null
///
/// Sums in f32 in one order of k for each weight, so row r of y depends on row r of x alone, in the
/// same bits for any number of rows, threads and instruction set. y is rounded once, at the end.
/// int8 weights: row r of x becomes int16 with the scale max|x[r]| / 32767 and products are exact
/// in blocks of 512 inputs, added in f32. A row with a NaN or infinity yields NaN there.
/// int8-a8 weights: each 128 inputs of row r, spread as the weights are (Kernels::spread_inputs),
/// become int8 with the scale max|x| / 127 of theirs, their products are exact, and sums times
/// scales are added in f32.
/// Blocks: each 512 inputs of row r become int16 times a power of two, see
/// Kernels::quantize_blocks, and products are exact in each group. A NaN or infinity among them
/// yields NaN. With BlockInputs::k8Bits, each 32 inputs, or 256 for types of such blocks, become
/// int8 with the scale max|x| / 127 of theirs; a NaN or infinity among them yields NaN.
void MatMul(const CpuContext& cpu, Tensor y, ConstTensor x, const PackedMatrix& w,
            const float* bias, const MatMulScratch& scratch);

/// y += x W^T (+ bias): y is read, added to in f32 and rounded once. Shapes as MatMul.
void MatMulAdd(const CpuContext& cpu, Tensor y, ConstTensor x, const PackedMatrix& w,
               const float* bias, const MatMulScratch& scratch);

/// y[r, n] = act(gate[n] . x[r] + bias[n]) * (up[n] . x[r] + bias[outputs + n]) for a gated
/// matrix, rounded once. `bias` [2 * outputs], or null. Shapes as MatMul.
void MatMulGated(const CpuContext& cpu, Tensor y, ConstTensor x, const PackedMatrix& gate_up,
                 const float* bias, Activation activation, const MatMulScratch& scratch);

}  // namespace neurogrid
