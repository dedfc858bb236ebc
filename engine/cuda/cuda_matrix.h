// A weight matrix on the device, in the layout of kernels/weights.h.
#pragma once

#include <vector>

#include "absl/types/span.h"
#include "engine/cuda/cuda_memory.h"
#include "engine/cuda/weight_upload.h"
#include "engine/model/weight_store.h"
#include "engine/ops.h"
#include "kernels/weights.h"

namespace neurogrid {

class CudaMatrix : public Matrix {
 public:
  /// Consecutive outputs of one format. Stored rows of several types are several of them.
  struct Section {
    kernels::Weights weights;
    int64_t first_output = 0;
    CudaBuffer data;
    CudaBuffer scales;
    CudaBuffer bias;
  };

  /// The weights are on their way when these return. ResourceExhausted without memory,
  /// InvalidArgument for inputs that no kernel takes, or the first error of `rows`. `up` is null
  /// for a plain matrix.
  static absl::StatusOr<std::unique_ptr<Matrix>> Pack(const MatrixSpec& spec, Ops::RowSource rows,
                                                      const Ops::RowSource* up,
                                                      WeightUpload& upload);
  /// The rows of all parts, one below the other: block types without loss, others in bf16.
  static absl::StatusOr<std::unique_ptr<Matrix>> PackStored(
      const MatrixSpec& spec, absl::Span<const WeightStore::Entry> parts, WeightUpload& upload);
  /// Two block types share tiles in BlockType::kWide, a block type and a plain one in bf16.
  static absl::StatusOr<std::unique_ptr<Matrix>> PackGatedStored(const MatrixSpec& spec,
                                                                 const WeightStore::Entry& gate,
                                                                 const WeightStore::Entry& up,
                                                                 WeightUpload& upload);

  static const std::vector<Section>& SectionsOf(const Matrix& matrix) {
    return static_cast<const CudaMatrix&>(matrix).sections_;
  }
  int64_t bytes() const override;

 private:
  CudaMatrix(const MatrixSpec& spec, bool gated) : Matrix(spec, gated) {}

  std::vector<Section> sections_;
};

}  // namespace neurogrid
