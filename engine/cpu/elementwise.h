// Ops on single rows: norms, embedding lookup, helpers over logits.
#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "common/tensor.h"
#include "engine/cpu/cpu_context.h"

namespace neurogrid {

/// y[r, c] = w[c] * x[r, c] / sqrt(mean over c of x[r, c]^2 + epsilon)
///
///   y, x  [rows, hidden]  f32 or bf16, the same; y may be x
///   w     [hidden]        f32; the offset of (1 + w) norms already added
///
/// Sums in f32. `rounds_before_weight`: the quotient is rounded to the dtype before the weight, as
/// Llama's reference does; otherwise only the product is. Row r depends on row r alone. Zhang and
/// Sennrich 2019, Root Mean Square Layer Normalization, eq. 4.
void RmsNorm(const CpuContext& cpu, Tensor y, ConstTensor x, const float* w, float epsilon,
             bool rounds_before_weight);

/// The same for `columns` values of x from `x_first` on, to y from `y_first` on.
void RmsNormValues(const CpuContext& cpu, Tensor y, int64_t y_first, ConstTensor x, int64_t x_first,
                   const float* w, int64_t columns, float epsilon, bool rounds_before_weight);

/// y[r] = scale * table[tokens[r]]
///
///   y       [rows, hidden]   f32 or bf16
///   table   [vocab, hidden]  f32, f16 or bf16
///   tokens  [rows]           ids below vocab
void EmbedTokens(const CpuContext& cpu, Tensor y, ConstTensor table,
                 absl::Span<const int32_t> tokens, float scale);

/// The largest value of a row and its lowest index; `has_nan` when any value is a NaN, and then
/// neither of the others means anything.
struct RowMaximum {
  float value = 0;
  int64_t index = 0;
  bool has_nan = false;
};
RowMaximum MaximumOf(absl::Span<const float> values);

/// Sum over i of exp((values[i] - maximum) * inverse_temperature), in a fixed order in f32 of 16
/// lanes, lanes added in f64. exp is good to 2 ulps and gives 0 below e^-87.
double SumOfExponentials(InstructionSet instructions, absl::Span<const float> values, float maximum,
                         float inverse_temperature);

}  // namespace neurogrid
