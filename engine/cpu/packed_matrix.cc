#include "engine/cpu/packed_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "common/check.h"
#include "common/dtype.h"

namespace neurogrid {
namespace {

constexpr int kOutputs = PackedMatrix::kPanelOutputs;
constexpr int kGatedOutputs = kOutputs / 2;  // values a gated panel yields
constexpr int64_t kBlockInputs = 16;         // one line of each row at a time

using Format = PackedMatrix::Format;

int64_t StepsOf(Format format, int64_t inputs) {
  return format == Format::kF32 ? inputs : (inputs + 1) / 2;
}

int64_t StepBytesOf(Format format) { return (format == Format::kInt8 ? 2 : 4) * kOutputs; }

int64_t PanelsOf(int64_t outputs, bool gated) {
  const int64_t values = gated ? kGatedOutputs : kOutputs;
  return (outputs + values - 1) / values;
}

/// Writes [64][inputs] floats as one panel; `convert` turns output n's value into an element.
template <typename Element, int kPerStep, typename Convert>
void Interleave(const float* rows, int64_t inputs, Element* panel, Convert convert) {
  for (int64_t block = 0; block < inputs; block += kBlockInputs) {
    const int64_t end = std::min(inputs, block + kBlockInputs);
    for (int n = 0; n < kOutputs; ++n) {
      const float* row = rows + n * inputs;
      for (int64_t k = block; k < end; ++k) {
        panel[(k / kPerStep * kOutputs + n) * kPerStep + k % kPerStep] = convert(n, row[k]);
      }
    }
  }
}

/// max|row| / 127, or a NaN for a row with a value that is not finite.
float ScaleOf(const float* row, int64_t inputs) {
  float largest = 0;
  for (int64_t k = 0; k < inputs; ++k) {
    if (!std::isfinite(row[k])) return std::nanf("");
    largest = std::max(largest, std::fabs(row[k]));
  }
  return largest / 127.0f;
}

void FillPanel(Format format, const float* rows, int64_t inputs, uint8_t* panel, float* scales) {
  switch (format) {
    case Format::kF32:
      Interleave<float, 1>(rows, inputs, reinterpret_cast<float*>(panel),
                           [](int, float value) { return value; });
      return;
    case Format::kBf16:
      Interleave<bf16, 2>(rows, inputs, reinterpret_cast<bf16*>(panel),
                          [](int, float value) { return ToBf16(value); });
      return;
    case Format::kInt8:
      for (int n = 0; n < kOutputs; ++n) scales[n] = ScaleOf(rows + n * inputs, inputs);
      Interleave<int8_t, 2>(
          rows, inputs, reinterpret_cast<int8_t*>(panel), [scales](int n, float value) {
            return scales[n] > 0 ? static_cast<int8_t>(std::lrint(value / scales[n])) : int8_t{0};
          });
      return;
  }
}

/// Reads the rows of one panel and packs them.
class Packer {
 public:
  Packer(int threads, int64_t inputs) : rows_(static_cast<size_t>(threads)), inputs_(inputs) {}

  /// Rows [first, first + count) that exist below `outputs` go to slots [slot, ...) of the panel.
  absl::Status Read(int worker, PackedMatrix::RowSource source, int64_t first, int64_t count,
                    int64_t outputs, int slot) {
    std::vector<float>& rows = rows_[static_cast<size_t>(worker)];
    rows.resize(static_cast<size_t>(kOutputs * inputs_));
    float* out = rows.data() + slot * inputs_;
    const int64_t present = std::min(count, outputs - first);
    std::fill(out + present * inputs_, out + count * inputs_, 0.0f);
    return source(first, present, out);
  }

  const float* rows(int worker) const { return rows_[static_cast<size_t>(worker)].data(); }

  void Fail(const absl::Status& status) {
    const absl::MutexLock lock(&mutex_);
    status_.Update(status);
  }
  bool failed() {
    const absl::MutexLock lock(&mutex_);
    return !status_.ok();
  }
  absl::Status status() {
    const absl::MutexLock lock(&mutex_);
    return status_;
  }

 private:
  std::vector<std::vector<float>> rows_;  // [threads] of [64][inputs]
  int64_t inputs_;
  absl::Mutex mutex_;
  absl::Status status_;
};

}  // namespace

int64_t PackedMatrix::BytesFor(Format format, int64_t outputs, int64_t inputs, bool gated) {
  const int64_t panels = PanelsOf(outputs, gated);
  const int64_t scales = format == Format::kInt8 ? panels * kOutputs * int64_t{sizeof(float)} : 0;
  return panels * StepsOf(format, inputs) * StepBytesOf(format) + scales;
}

absl::StatusOr<PackedMatrix> PackedMatrix::Allocate(Format format, int64_t outputs, int64_t inputs,
                                                    bool gated) {
  NG_CHECK(outputs > 0 && inputs > 0);
  PackedMatrix matrix;
  matrix.format_ = format;
  matrix.outputs_ = outputs;
  matrix.inputs_ = inputs;
  matrix.gated_ = gated;
  matrix.panels_ = PanelsOf(outputs, gated);
  matrix.panel_bytes_ = StepsOf(format, inputs) * StepBytesOf(format);
  NG_ASSIGN_OR_RETURN(matrix.panels_data_,
                      Buffer::Allocate(static_cast<size_t>(matrix.panels_ * matrix.panel_bytes_)));
  if (format == Format::kInt8) {
    const size_t scales = static_cast<size_t>(matrix.panels_) * kOutputs;
    NG_ASSIGN_OR_RETURN(matrix.scales_, Buffer::Allocate(scales * sizeof(float)));
  }
  return matrix;
}

absl::StatusOr<PackedMatrix> PackedMatrix::Pack(ThreadPool& pool, Format format, int64_t outputs,
                                                int64_t inputs, RowSource rows) {
  NG_ASSIGN_OR_RETURN(PackedMatrix matrix, Allocate(format, outputs, inputs, false));
  Packer packer(pool.threads(), inputs);
  pool.ParallelFor(matrix.panels_, [&](int64_t panel, int worker) {
    if (packer.failed()) return;
    const absl::Status status = packer.Read(worker, rows, panel * kOutputs, kOutputs, outputs, 0);
    if (!status.ok()) return packer.Fail(status);
    FillPanel(format, packer.rows(worker), inputs,
              matrix.panels_data_.as<uint8_t>() + panel * matrix.panel_bytes_,
              matrix.scales_.as<float>() + panel * kOutputs);
  });
  NG_RETURN_IF_ERROR(packer.status());
  return matrix;
}

absl::StatusOr<PackedMatrix> PackedMatrix::PackGated(ThreadPool& pool, Format format,
                                                     int64_t outputs, int64_t inputs,
                                                     RowSource gate, RowSource up) {
  NG_ASSIGN_OR_RETURN(PackedMatrix matrix, Allocate(format, outputs, inputs, true));
  Packer packer(pool.threads(), inputs);
  pool.ParallelFor(matrix.panels_, [&](int64_t panel, int worker) {
    if (packer.failed()) return;
    const int64_t first = panel * kGatedOutputs;
    absl::Status status = packer.Read(worker, gate, first, kGatedOutputs, outputs, 0);
    if (status.ok()) {
      status = packer.Read(worker, up, first, kGatedOutputs, outputs, kGatedOutputs);
    }
    if (!status.ok()) return packer.Fail(status);
    FillPanel(format, packer.rows(worker), inputs,
              matrix.panels_data_.as<uint8_t>() + panel * matrix.panel_bytes_,
              matrix.scales_.as<float>() + panel * kOutputs);
  });
  NG_RETURN_IF_ERROR(packer.status());
  return matrix;
}

void PackedMatrix::ReadRow(int64_t row, float* out) const {
  NG_CHECK(!gated_ && row >= 0 && row < outputs_);
  const uint8_t* data = panel(row / kOutputs);
  const int64_t n = row % kOutputs;
  for (int64_t k = 0; k < inputs_; ++k) {
    const int64_t paired = (k / 2 * kOutputs + n) * 2 + k % 2;
    switch (format_) {
      case Format::kF32:
        out[k] = reinterpret_cast<const float*>(data)[k * kOutputs + n];
        break;
      case Format::kBf16:
        out[k] = ToFloat(reinterpret_cast<const bf16*>(data)[paired]);
        break;
      case Format::kInt8:
        out[k] = static_cast<float>(reinterpret_cast<const int8_t*>(data)[paired]) *
                 panel_scales(row / kOutputs)[n];
        break;
    }
  }
}

}  // namespace neurogrid
