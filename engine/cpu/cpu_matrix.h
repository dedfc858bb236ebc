// A packed weight and its bias, as CpuOps keeps them.
#pragma once

#include <memory>
#include <vector>

#include "common/status.h"
#include "engine/cpu/packed_matrix.h"
#include "engine/model/stage_memory.h"
#include "engine/ops.h"

namespace neurogrid {

class CpuMatrix : public Matrix {
 public:
  static absl::StatusOr<std::unique_ptr<Matrix>> Pack(const Packing& packing,
                                                      const MatrixSpec& spec, Ops::RowSource rows);
  static absl::StatusOr<std::unique_ptr<Matrix>> PackGated(const Packing& packing,
                                                           const MatrixSpec& spec,
                                                           Ops::RowSource gate, Ops::RowSource up);
  static absl::StatusOr<std::unique_ptr<Matrix>> PackStored(
      const Packing& packing, const MatrixSpec& spec, absl::Span<const WeightStore::Entry> parts);
  static absl::StatusOr<std::unique_ptr<Matrix>> PackGatedStored(const Packing& packing,
                                                                 const MatrixSpec& spec,
                                                                 const WeightStore::Entry& gate,
                                                                 const WeightStore::Entry& up);
  /// `matrix` was made by this class.
  static const CpuMatrix& Of(const Matrix& matrix) { return static_cast<const CpuMatrix&>(matrix); }

  const PackedMatrix& packed() const { return packed_; }
  /// [outputs]; of a gated matrix [2 * outputs], the gate's first. Null without one.
  const float* bias() const { return bias_.empty() ? nullptr : bias_.data(); }
  int64_t bytes() const override {
    return packed_.bytes() + VectorBytes(static_cast<int64_t>(bias_.size()));
  }

 private:
  CpuMatrix(const MatrixSpec& spec, bool gated, PackedMatrix packed)
      : Matrix(spec, gated), packed_(std::move(packed)), bias_(spec.bias) {}

  PackedMatrix packed_;
  std::vector<float> bias_;
};

}  // namespace neurogrid
