// Chooses the way of a batch's attention.
#include "kernels/attention.h"
#include "kernels/attention_ways.h"
#include "kernels/device_limits.h"

namespace neurogrid::kernels {
namespace {

using Operands = AttentionOperands<__nv_bfloat16>;

}  // namespace

bool AttentionRotates(const Operands& o, const AttentionWorkView& work) {
  return UsesTensorCores() && work.more_tiles_count == 0 && FewRowsRotate(o, work);
}

cudaError_t Attention(const Operands& o, const AttentionWorkView& work, cudaStream_t stream) {
  const int dim = o.kv.head_dim;
  const bool whole_groups = o.kv.kv_heads > 0 && o.query_heads % o.kv.kv_heads == 0 &&
                            o.query_heads / o.kv.kv_heads <= kGroupMax;
  if (!whole_groups || dim % 8 != 0 || dim > kHeadDimMax) return cudaErrorInvalidValue;
  if (o.rotation.table != nullptr && !AttentionRotates(o, work)) return cudaErrorInvalidValue;
  if (!UsesTensorCores()) return AttendRows(o, work, stream);
  const cudaError_t error = RunsSm90() && HasSm90Attention(o) ? AttendTilesSm90(o, work, stream)
                                                              : AttendTiles(o, work, stream);
  return error == cudaSuccess ? AttendFewRows(o, work, stream) : error;
}

}  // namespace neurogrid::kernels
