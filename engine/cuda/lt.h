// Matrix products by cuBLASLt: what our own are measured against, and what runs in their stead
// where the order of arithmetic is free.
#pragma once

#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "engine/cuda/cuda_memory.h"
#include "engine/cuda/lt_library.h"

namespace neurogrid {

/// y[r, n] = sum over k of x[r, k] * w[n, k], and y before where `adds`; bf16, sums in f32.
struct LtProduct {
  const void* w = nullptr;  // [outputs, inputs] in rows of w_stride elements
  int64_t outputs = 0;
  int64_t inputs = 0;
  int64_t w_stride = 0;
  const void* x = nullptr;  // [rows, inputs]
  int64_t rows = 0;
  void* y = nullptr;  // [rows, outputs] in rows of y_stride elements
  int64_t y_stride = 0;
  bool y_is_f32 = false;
  bool adds = false;
};

class Lt {
 public:
  /// Unimplemented where the library is not, ResourceExhausted without its workspace.
  static absl::StatusOr<std::unique_ptr<Lt>> Open(cudaStream_t stream);
  ~Lt();

  /// Times what the library proposes for this product, keeps the fastest for products of these
  /// weights and this type of y with about so many rows, and returns its seconds. y is
  /// overwritten. Unimplemented when nothing is proposed.
  absl::StatusOr<double> Tune(const LtProduct& product);
  /// Seconds of what was kept for exactly this product; 0 without.
  double SecondsOf(const LtProduct& product) const;

  /// Queues it as kept by Tune for the next larger number of rows, or the largest.
  /// cudaErrorNotSupported, with nothing queued, when that does not take it.
  cudaError_t Multiply(const LtProduct& product);

 private:
  struct Kept {
    cublasLtMatmulAlgo_t algorithm;
    double seconds = 0;
  };
  using Key = std::tuple<int64_t, int64_t, int64_t, bool>;
  class Layouts;

  Lt(const LtFunctions& f, cudaStream_t stream) : f_(f), stream_(stream) {}
  absl::StatusOr<std::vector<cublasLtMatmulAlgo_t>> Proposed(const LtProduct& product);
  cublasStatus_t Queue(const LtProduct& product, const Layouts& layouts,
                       const cublasLtMatmulAlgo_t& algorithm);
  static Key KeyOf(const LtProduct& p) { return {p.outputs, p.inputs, p.w_stride, p.y_is_f32}; }

  const LtFunctions& f_;
  cudaStream_t stream_;
  CudaBuffer workspace_;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t desc_ = nullptr;
  std::map<Key, std::map<int64_t, Kept>> kept_;  // by rows
};

}  // namespace neurogrid
