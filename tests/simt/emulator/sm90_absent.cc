// What kernels for sm_90 answer where they are not compiled: nothing asks them on a device that
// says it is of another kind.
#include "kernels/attention_ways.h"

namespace neurogrid::kernels {

cudaError_t AttendTilesSm90(const AttentionOperands<__nv_bfloat16>&, const AttentionWorkView&,
                            cudaStream_t) {
  return cudaErrorInvalidValue;
}

}  // namespace neurogrid::kernels
