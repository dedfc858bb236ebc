// The ways through attention for bf16, one by one: what Attention chooses from.
#pragma once

#include "kernels/attention.h"

namespace neurogrid::kernels {

/// Items, then merges. With operands.rotation where FewRowsRotate says so.
bool FewRowsRotate(const AttentionOperands<__nv_bfloat16>& operands, const AttentionWorkView& work);
cudaError_t AttendFewRows(const AttentionOperands<__nv_bfloat16>& operands,
                          const AttentionWorkView& work, cudaStream_t stream);

/// The same by a device that runs `device_blocks` blocks at a time (0: the current one): a head's
/// splits are cut into as many runs, and their states merged.
cudaError_t AttendFewRowsBy(int device_blocks, const AttentionOperands<__nv_bfloat16>& operands,
                            const AttentionWorkView& work, cudaStream_t stream);

/// Every row by itself, without tensor cores: for GPUs before sm_80, with bits of their own.
cudaError_t AttendRows(const AttentionOperands<__nv_bfloat16>& operands,
                       const AttentionWorkView& work, cudaStream_t stream);

/// Tiles of more rows, on any GPU from sm_80 on.
cudaError_t AttendTiles(const AttentionOperands<__nv_bfloat16>& operands,
                        const AttentionWorkView& work, cudaStream_t stream);

/// The same with wgmma, for GPUs of compute capability 9.0 and what HasSm90Attention takes.
cudaError_t AttendTilesSm90(const AttentionOperands<__nv_bfloat16>& operands,
                            const AttentionWorkView& work, cudaStream_t stream);

/// Its part at head_dim 256.
cudaError_t AttendWideTilesSm90(const AttentionOperands<__nv_bfloat16>& operands,
                                const AttentionWorkView& work, cudaStream_t stream);

/// head_dim 256, or 64 or 128 without a soft cap, whose tanhf for 128 scores of a thread is long
/// code that no known model needs.
inline bool HasSm90Attention(const AttentionOperands<__nv_bfloat16>& operands) {
  const int dim = operands.kv.head_dim;
  return dim == 256 || ((dim == 64 || dim == 128) && !(operands.softcap > 0));
}

}  // namespace neurogrid::kernels
