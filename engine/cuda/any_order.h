// --determinism off: each product by whichever is faster for its weights and about its rows, our
// kernel or cuBLASLt. Bits then depend on the number of rows, and on what was faster at load.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <tuple>

#include "engine/cuda/lt.h"
#include "kernels/matmul.h"

namespace neurogrid {

class AnyOrder {
 public:
  /// Unimplemented where the library is not.
  static absl::StatusOr<std::unique_ptr<AnyOrder>> Open(cudaStream_t stream);

  /// Steps will have at most so many rows; before Choose.
  void Reserve(int rows_max) { rows_max_ = std::max(rows_max_, rows_max); }
  /// Times both on weights of this shape, once for each shape; bf16 alone.
  absl::Status Choose(const kernels::Weights& w);

  bool Prefers(const kernels::MatMulOperands& operands, const kernels::Weights& w) const;
  /// By the library, whatever is preferred; cudaErrorNotSupported, with nothing queued, where it
  /// does not take the product.
  cudaError_t Multiply(const kernels::MatMulOperands& operands, const kernels::Weights& w);

 private:
  using Shape = std::tuple<int, int, bool, bool, bool>;
  static Shape ShapeOf(const kernels::Weights& w, bool y_is_f32) {
    return {w.packed_outputs(), w.inputs, w.gated, w.bias != nullptr, y_is_f32};
  }

  explicit AnyOrder(cudaStream_t stream) : stream_(stream) {}
  absl::StatusOr<bool> IsLibraryFaster(const kernels::Weights& w, int rows, bool y_is_f32);

  cudaStream_t stream_;
  std::unique_ptr<Lt> lt_;
  int rows_max_ = 0;
  CudaBuffer sums_;  // [rows, packed outputs] f32, of products that the library cannot finish
  std::map<Shape, std::map<int, bool>> prefers_;  // the library, by rows
};

}  // namespace neurogrid
