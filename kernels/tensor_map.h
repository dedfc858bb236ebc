// Maps of matrices for copies by boxes on sm_90 (wgmma.cuh).
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

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

/// A row-major matrix, seen in boxes of box_bytes by `box_rows` rows; zeros outside of it. 16-byte
/// pieces of a box are permuted: in 128 bytes as wgmma.cuh says, in 64 by half the row's number.
struct MatrixView {
  const void* data;
  bool bytes;  // or bf16
  int rows;
  int columns;
  int64_t stride = 0;   // elements from row to row; 0: columns
  int box_bytes = 128;  // or 64
};
inline cudaError_t EncodeTensorMap(const MatrixView& m, int box_rows, CUtensorMap& map) {
  const unsigned element = m.bytes ? 1 : 2;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(m.columns), static_cast<cuuint64_t>(m.rows)};
  const auto stride = static_cast<cuuint64_t>(m.stride > 0 ? m.stride : m.columns);
  const cuuint64_t strides[1] = {stride * element};
  const auto box_bytes = static_cast<unsigned>(m.box_bytes);
  const cuuint32_t box[2] = {box_bytes / element, static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult result = TensorMapEncoder()(
      &map, m.bytes ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2,
      const_cast<void*>(m.data), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      box_bytes == 128 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace neurogrid::kernels
