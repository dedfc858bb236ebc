#include "engine/cuda/lt.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/cuda/timing.h"

namespace neurogrid {
namespace {

constexpr int64_t kWorkspaceBytes = int64_t{64} << 20;

absl::Status LtStatus(cublasStatus_t status, absl::string_view what) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("cuBLASLt: ", what, ": status ", static_cast<int>(status)));
}

}  // namespace

/// The shapes of a product as the library reads them, column by column: w^T x^T = y^T.
class Lt::Layouts {
 public:
  Layouts(const LtFunctions& f, const LtProduct& p) : f_(f) {
    Make(w, CUDA_R_16BF, p.inputs, p.outputs, p.w_stride);
    Make(x, CUDA_R_16BF, p.inputs, p.rows, p.inputs);
    Make(y, p.y_is_f32 ? CUDA_R_32F : CUDA_R_16BF, p.outputs, p.rows, p.y_stride);
  }
  ~Layouts() {
    for (cublasLtMatrixLayout_t layout : {w, x, y}) {
      if (layout != nullptr) f_.layout_destroy(layout);
    }
  }
  Layouts(const Layouts&) = delete;
  Layouts& operator=(const Layouts&) = delete;

  cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
  cublasLtMatrixLayout_t w = nullptr;
  cublasLtMatrixLayout_t x = nullptr;
  cublasLtMatrixLayout_t y = nullptr;

 private:
  void Make(cublasLtMatrixLayout_t& layout, cudaDataType_t type, int64_t rows, int64_t columns,
            int64_t stride) {
    if (status != CUBLAS_STATUS_SUCCESS) return;
    status = f_.layout_create(&layout, type, static_cast<uint64_t>(rows),
                              static_cast<uint64_t>(columns), stride);
  }

  const LtFunctions& f_;
};

absl::StatusOr<std::unique_ptr<Lt>> Lt::Open(cudaStream_t stream) {
  NG_ASSIGN_OR_RETURN(const LtFunctions* f, FindLt());
  std::unique_ptr<Lt> lt(new Lt(*f, stream));
  NG_RETURN_IF_ERROR(LtStatus(f->create(&lt->handle_), "a handle"));
  NG_RETURN_IF_ERROR(
      LtStatus(f->desc_create(&lt->desc_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "a description"));
  const cublasOperation_t transposed = CUBLAS_OP_T;  // of the weights
  NG_RETURN_IF_ERROR(
      LtStatus(f->desc_set(lt->desc_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)),
               "a description"));
  NG_ASSIGN_OR_RETURN(lt->workspace_, CudaBuffer::Allocate(kWorkspaceBytes));
  return lt;
}

Lt::~Lt() {
  if (desc_ != nullptr) f_.desc_destroy(desc_);
  if (handle_ != nullptr) f_.destroy(handle_);
}

absl::StatusOr<std::vector<cublasLtMatmulAlgo_t>> Lt::Proposed(const LtProduct& product) {
  constexpr int kProposals = 8;
  const Layouts layouts(f_, product);
  NG_RETURN_IF_ERROR(LtStatus(layouts.status, "a layout"));
  cublasLtMatmulPreference_t preference;
  NG_RETURN_IF_ERROR(LtStatus(f_.preference_create(&preference), "a preference"));
  const uint64_t bytes = kWorkspaceBytes;
  cublasLtMatmulHeuristicResult_t results[kProposals];
  int count = 0;
  cublasStatus_t status = f_.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                            &bytes, sizeof(bytes));
  if (status == CUBLAS_STATUS_SUCCESS) {
    status = f_.heuristic(handle_, desc_, layouts.w, layouts.x, layouts.y, layouts.y, preference,
                          kProposals, results, &count);
  }
  f_.preference_destroy(preference);
  std::vector<cublasLtMatmulAlgo_t> algorithms;
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) return algorithms;
  NG_RETURN_IF_ERROR(LtStatus(status, "proposals"));
  for (int i = 0; i < count; ++i) {
    if (results[i].state == CUBLAS_STATUS_SUCCESS) algorithms.push_back(results[i].algo);
  }
  return algorithms;
}

cublasStatus_t Lt::Queue(const LtProduct& p, const Layouts& layouts,
                         const cublasLtMatmulAlgo_t& algorithm) {
  if (layouts.status != CUBLAS_STATUS_SUCCESS) return layouts.status;
  const float one = 1;
  const float old = p.adds ? 1 : 0;
  return f_.matmul(handle_, desc_, &one, p.w, layouts.w, p.x, layouts.x, &old, p.y, layouts.y, p.y,
                   layouts.y, &algorithm, workspace_.data(), kWorkspaceBytes, stream_);
}

absl::StatusOr<double> Lt::Tune(const LtProduct& product) {
  NG_ASSIGN_OR_RETURN(const std::vector<cublasLtMatmulAlgo_t> algorithms, Proposed(product));
  const Layouts layouts(f_, product);
  Kept best;
  for (const cublasLtMatmulAlgo_t& algorithm : algorithms) {
    const absl::StatusOr<double> seconds = neurogrid::SecondsOf(stream_, [&] {
      return Queue(product, layouts, algorithm) == CUBLAS_STATUS_SUCCESS ? cudaSuccess
                                                                         : cudaErrorNotSupported;
    });
    NG_RETURN_IF_ERROR(CudaStatus(cudaGetLastError(), "cuBLASLt"));
    if (!seconds.ok() || (best.seconds > 0 && *seconds >= best.seconds)) continue;
    best = {algorithm, *seconds};
  }
  if (best.seconds <= 0) {
    return absl::UnimplementedError(absl::StrCat("cuBLASLt has no product of ", product.rows,
                                                 " rows and weights [", product.outputs, ", ",
                                                 product.inputs, "]"));
  }
  kept_[KeyOf(product)][product.rows] = best;
  return best.seconds;
}

double Lt::SecondsOf(const LtProduct& product) const {
  const auto shape = kept_.find(KeyOf(product));
  if (shape == kept_.end()) return 0;
  const auto kept = shape->second.find(product.rows);
  return kept == shape->second.end() ? 0 : kept->second.seconds;
}

cudaError_t Lt::Multiply(const LtProduct& product) {
  const auto shape = kept_.find(KeyOf(product));
  if (shape == kept_.end()) return cudaErrorNotSupported;
  auto kept = shape->second.lower_bound(product.rows);
  if (kept == shape->second.end()) --kept;
  const Layouts layouts(f_, product);
  switch (Queue(product, layouts, kept->second.algorithm)) {
    case CUBLAS_STATUS_SUCCESS:
      return cudaSuccess;
    case CUBLAS_STATUS_NOT_SUPPORTED:
    case CUBLAS_STATUS_INVALID_VALUE:
      return cudaErrorNotSupported;
    default:
      return cudaErrorUnknown;
  }
}

}  // namespace neurogrid
