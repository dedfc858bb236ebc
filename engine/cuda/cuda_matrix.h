// A weight matrix on the device, in the layout of kernels/weights.h.
#pragma once

#include "engine/cuda/cuda_memory.h"
#include "engine/ops.h"
#include "kernels/weights.h"

namespace neurogrid {

class CudaMatrix : public Matrix {
 public:
  /// ResourceExhausted without memory, InvalidArgument for inputs that no kernel takes, or the
  /// first error of `rows`. `up` is null for a plain matrix.
  static absl::StatusOr<std::unique_ptr<Matrix>> Pack(const MatrixSpec& spec, Ops::RowSource rows,
                                                      const Ops::RowSource* up,
                                                      cudaStream_t stream);
  static const kernels::Weights& WeightsOf(const Matrix& matrix) {
    return static_cast<const CudaMatrix&>(matrix).weights_;
  }
  int64_t bytes() const override { return data_.bytes() + scales_.bytes() + bias_.bytes(); }

 private:
  CudaMatrix(const MatrixSpec& spec, bool gated) : Matrix(spec, gated) {}
  absl::Status Fill(Ops::RowSource rows, bool up, cudaStream_t stream);
  absl::Status UploadVectors(const MatrixSpec& spec, cudaStream_t stream);

  CudaBuffer data_;
  CudaBuffer scales_;
  CudaBuffer bias_;
  std::vector<float> host_scales_;  // while packing
  kernels::Weights weights_;
};

}  // namespace neurogrid
