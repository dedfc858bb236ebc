// The kernels in AVX2 and FMA.
#include "engine/cpu/kernels_attention.h"
#include "engine/cpu/kernels_convolution.h"
#include "engine/cpu/kernels_matmul.h"
#include "engine/cpu/kernels_rows.h"

namespace neurogrid {

const Kernels kAvx2Kernels = {
    .multiply_panel = MultiplyPanel,
    .quantize_row = QuantizeRow,
    .quantize_groups = QuantizeGroups,
    .sum_groups = SumGroups,
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

}  // namespace neurogrid
