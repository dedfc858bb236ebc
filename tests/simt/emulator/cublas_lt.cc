// The stand-in for cuBLASLt, and the engine's way to it.
#include <cublasLt.h>
#include <cuda_bf16.h>

#include "engine/cuda/lt_library.h"

namespace {

constexpr int kAlgorithm = 5;

using Layout = cublasLtMatrixLayoutOpaque_t;

bool Fits(const cublasLtMatmulDescOpaque_t& desc, const Layout& a, const Layout& b,
          const Layout& d) {
  return desc.a_transposed && a.type == CUDA_R_16BF && b.type == CUDA_R_16BF && a.rows == b.rows &&
         a.columns == d.rows && b.columns == d.columns &&
         a.stride >= static_cast<int64_t>(a.rows) && b.stride >= static_cast<int64_t>(b.rows) &&
         d.stride >= static_cast<int64_t>(d.rows);
}

void Multiply(const Layout& a_layout, const Layout& b_layout, const Layout& d_layout,
              const __nv_bfloat16* a, const __nv_bfloat16* b, void* d, float alpha, float beta) {
  for (uint64_t column = 0; column < d_layout.columns; ++column) {
    for (uint64_t row = 0; row < d_layout.rows; ++row) {
      double sum = 0;
      for (uint64_t k = 0; k < a_layout.rows; ++k) {
        sum += double{__bfloat162float(a[row * static_cast<uint64_t>(a_layout.stride) + k])} *
               __bfloat162float(b[column * static_cast<uint64_t>(b_layout.stride) + k]);
      }
      const uint64_t at = column * static_cast<uint64_t>(d_layout.stride) + row;
      if (d_layout.type == CUDA_R_32F) {
        float& value = static_cast<float*>(d)[at];
        value = static_cast<float>(alpha * sum + (beta != 0 ? beta * double{value} : 0));
      } else {
        __nv_bfloat16& value = static_cast<__nv_bfloat16*>(d)[at];
        const double old = beta != 0 ? beta * double{__bfloat162float(value)} : 0;
        value = __float2bfloat16(static_cast<float>(alpha * sum + old));
      }
    }
  }
}

}  // namespace

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = new cublasLtContext();
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t,
                                        cudaDataType_t) {
  *desc = new cublasLtMatmulDescOpaque_t();
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t, const void* value,
                                              size_t bytes) {
  if (bytes != sizeof(cublasOperation_t)) return CUBLAS_STATUS_INVALID_VALUE;
  desc->a_transposed = *static_cast<const cublasOperation_t*>(value) == CUBLAS_OP_T;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
  delete desc;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType_t type,
                                          uint64_t rows, uint64_t columns, int64_t stride) {
  *layout = new Layout{type, rows, columns, stride};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = new cublasLtMatmulPreferenceOpaque_t();
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t,
                                                    const void* value, size_t bytes) {
  if (bytes != sizeof(uint64_t)) return CUBLAS_STATUS_INVALID_VALUE;
  preference->workspace_bytes = *static_cast<const uint64_t*>(value);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete preference;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t, int wanted,
                                              cublasLtMatmulHeuristicResult_t* results,
                                              int* count) {
  *count = 0;
  if (c != d || !Fits(*desc, *a, *b, *d)) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (wanted < 1) return CUBLAS_STATUS_INVALID_VALUE;
  results[0] = {{kAlgorithm}, 0, CUBLAS_STATUS_SUCCESS, 1};
  *count = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* algorithm, void*, size_t,
                              cudaStream_t stream) {
  if (c != d || c_layout != d_layout || algorithm->number != kAlgorithm) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (!Fits(*desc, *a_layout, *b_layout, *d_layout)) return CUBLAS_STATUS_NOT_SUPPORTED;
  const auto run = [a_shape = *a_layout, b_shape = *b_layout, d_shape = *d_layout, a, b, d,
                    one = *static_cast<const float*>(alpha),
                    old = *static_cast<const float*>(beta)] {
    cudaGridDependencySynchronize();
    if (simt::thread_index.x != 0) return;
    Multiply(a_shape, b_shape, d_shape, static_cast<const __nv_bfloat16*>(a),
             static_cast<const __nv_bfloat16*>(b), d, one, old);
  };
  const cudaError_t error =
      simt::EnqueueKernel({"cublasLtMatmul", {1, 1, 1}, {simt::kWarpSize, 1, 1}, 0}, stream, run);
  return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

namespace neurogrid {

absl::StatusOr<const LtFunctions*> FindLt() {
  static const LtFunctions functions = {
      cublasLtCreate,
      cublasLtDestroy,
      cublasLtMatmulDescCreate,
      cublasLtMatmulDescSetAttribute,
      cublasLtMatmulDescDestroy,
      cublasLtMatrixLayoutCreate,
      cublasLtMatrixLayoutDestroy,
      cublasLtMatmulPreferenceCreate,
      cublasLtMatmulPreferenceSetAttribute,
      cublasLtMatmulPreferenceDestroy,
      cublasLtMatmulAlgoGetHeuristic,
      cublasLtMatmul,
  };
  return &functions;
}

}  // namespace neurogrid
