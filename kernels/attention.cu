// Chooses the way of a batch's attention.
#include "kernels/attention.h"
#include "kernels/attention_ways.h"

namespace neurogrid::kernels {
namespace {

using Operands = AttentionOperands<__nv_bfloat16>;

/// Whether code for sm_90a runs on the current device.
bool IsSm90() {
  static const bool is = [] {
    int device = 0;
    int major = 0;
    int minor = 0;
    return cudaGetDevice(&device) == cudaSuccess &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) ==
               cudaSuccess &&
           cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) ==
               cudaSuccess &&
           major == 9 && minor == 0;
  }();
  return is;
}

}  // namespace

cudaError_t Attention(const Operands& o, const AttentionWorkView& work, cudaStream_t stream) {
  const int dim = o.kv.head_dim;
  const bool whole_groups = o.kv.kv_heads > 0 && o.query_heads % o.kv.kv_heads == 0 &&
                            o.query_heads / o.kv.kv_heads <= kGroupMax;
  if (!whole_groups || dim % 8 != 0 || dim > kHeadDimMax) return cudaErrorInvalidValue;
  const cudaError_t error = IsSm90() && HasSm90Attention(o) ? AttendTilesSm90(o, work, stream)
                                                            : AttendTiles(o, work, stream);
  return error == cudaSuccess ? AttendFewRows(o, work, stream) : error;
}

}  // namespace neurogrid::kernels
