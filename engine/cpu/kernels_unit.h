// All kernels in the instructions the including file is compiled for: kernels_avx2.cc and its
// neighbours, which give them a name each.
#pragma once

#include "engine/cpu/kernels_attention.h"
#include "engine/cpu/kernels_convolution.h"
#include "engine/cpu/kernels_matmul.h"
#include "engine/cpu/kernels_rows.h"

namespace neurogrid {
namespace {

constexpr Kernels kUnit = {
    .multiply_panel = MultiplyPanel,
    .quantize_row = QuantizeRow,
    .spread_inputs = SpreadInputs,
    .quantize_groups = QuantizeGroups,
    .quantize_blocks = QuantizeBlocks,
    .quantize_units = QuantizeUnits,
    .attend = Attend,
    .merge_attention = MergeAttention,
    .finish_attention = FinishAttention,
    .rms_norm_bf16 = RmsNormBf16,
    .rms_norm_f32 = RmsNormF32,
    .rotate_bf16 = RotateBf16,
    .rotate_f32 = RotateF32,
    .convolve = Convolve,
    .softcap = Softcap,
    .sum_of_exponentials = SumExponentials,
    .sum_memory = SumMemory,
    .chain_dots = ChainDots,
    .peak_operations = kPeakOperations,
};

}  // namespace
}  // namespace neurogrid
