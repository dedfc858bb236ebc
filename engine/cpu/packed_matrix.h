// Weights in the order the matmul reads them: one contiguous stream for each group of 64 outputs.
#pragma once

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "common/buffer.h"
#include "common/status.h"
#include "engine/cpu/thread_pool.h"

namespace neurogrid {

/// A weight [outputs, inputs] of y = W x, cut into panels of 64 outputs:
///
///   kBf16  [outputs / 64][inputs / 2][64][2]  bf16
///   kInt8  the same in int8, and a scale for each output: w = q * scale, scale = max|w| / 127
///   kF32   [outputs / 64][inputs][64]         f32
///
/// Outputs beyond the last and an odd last input are zeros.
class PackedMatrix {
 public:
  enum class Format { kF32, kBf16, kInt8 };

  /// Fills out[count][inputs] with rows [first_row, first_row + count). Called from several
  /// threads.
  using RowSource = absl::FunctionRef<absl::Status(int64_t first_row, int64_t count, float* out)>;

  static constexpr int kPanelOutputs = 64;

  PackedMatrix() = default;

  /// ResourceExhausted without memory, or the first error of `rows`.
  static absl::StatusOr<PackedMatrix> Pack(ThreadPool& pool, Format format, int64_t outputs,
                                           int64_t inputs, RowSource rows);

  /// Two matrices [outputs, inputs] in one: a panel holds 32 rows of `gate`, then the same 32 rows
  /// of `up`, so that one panel yields 32 values of SiLU(gate x) * (up x). outputs() counts those
  /// values.
  static absl::StatusOr<PackedMatrix> PackGated(ThreadPool& pool, Format format, int64_t outputs,
                                                int64_t inputs, RowSource gate, RowSource up);

  /// What Pack (gated false) and PackGated allocate.
  static int64_t BytesFor(Format format, int64_t outputs, int64_t inputs, bool gated);

  Format format() const { return format_; }
  int64_t outputs() const { return outputs_; }
  int64_t inputs() const { return inputs_; }
  bool gated() const { return gated_; }
  int64_t bytes() const { return static_cast<int64_t>(panels_data_.bytes() + scales_.bytes()); }

  int64_t panels() const { return panels_; }
  /// Bytes of one panel.
  int64_t panel_bytes() const { return panel_bytes_; }
  const uint8_t* panel(int64_t index) const {
    return panels_data_.as<uint8_t>() + index * panel_bytes_;
  }
  /// [64] scales of a panel's outputs; null unless kInt8.
  const float* panel_scales(int64_t index) const {
    return format_ == Format::kInt8 ? scales_.as<float>() + index * kPanelOutputs : nullptr;
  }

  /// The values of one row as the matmul sees them: out[inputs]. Not for gated matrices.
  void ReadRow(int64_t row, float* out) const;

 private:
  static absl::StatusOr<PackedMatrix> Allocate(Format format, int64_t outputs, int64_t inputs,
                                               bool gated);

  Buffer panels_data_;
  Buffer scales_;
  Format format_ = Format::kBf16;
  int64_t outputs_ = 0;
  int64_t inputs_ = 0;
  bool gated_ = false;
  int64_t panels_ = 0;
  int64_t panel_bytes_ = 0;
};

}  // namespace neurogrid
