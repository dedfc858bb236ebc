// Maps of matrices for copies by boxes on sm_90 (wgmma.cuh).
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

namespace neurogrid::kernels {

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);
/// The driver's function; null where it has none. By name, so that no driver is needed to link.
inline EncodeTiled TensorMapEncoder() {
  static const EncodeTiled encoder = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result{};
    constexpr unsigned kSince = 12000;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, kSince,
                                         cudaEnableDefault, &result) != cudaSuccess ||
        result != cudaDriverEntryPointSuccess) {
      function = nullptr;
    }
    return reinterpret_cast<EncodeTiled>(function);
  }();
  return encoder;
}

/// A row-major matrix, seen in boxes of 128 bytes by `box_rows` rows, pieces permuted as wgmma.cuh
/// says; zeros outside of it.
struct MatrixView {
  const void* data;
  bool bytes;  // or bf16
  int rows;
  int columns;
};
inline cudaError_t EncodeTensorMap(const MatrixView& m, int box_rows, CUtensorMap& map) {
  constexpr unsigned kBoxBytes = 128;
  const unsigned element = m.bytes ? 1 : 2;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(m.columns), static_cast<cuuint64_t>(m.rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(m.columns) * element};
  const cuuint32_t box[2] = {kBoxBytes / element, static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult result = TensorMapEncoder()(
      &map, m.bytes ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2,
      const_cast<void*>(m.data), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace neurogrid::kernels
