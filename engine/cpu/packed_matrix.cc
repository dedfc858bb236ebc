#include "engine/cpu/packed_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "common/check.h"
#include "common/dtype.h"
#include "engine/cpu/fill_panel.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/packed_groups.h"
#include "engine/model/read_rows.h"

namespace neurogrid {
namespace {

constexpr int kOutputs = PackedMatrix::kPanelOutputs;
constexpr int kGatedOutputs = kOutputs / 2;  // values a gated panel yields
constexpr int64_t kLineBytes = 64;
constexpr int64_t kAheadBytes = 256;  // of a row's blocks, asked for before they are wanted

using Format = PackedMatrix::Format;

int64_t StepsOf(Format format, int64_t inputs) {
  const int64_t step = PackedMatrix::StepInputs(format);
  return (inputs + step - 1) / step;
}

int64_t StepBytesOf(Format format) { return (format == Format::kInt8 ? 2 : 4) * kOutputs; }

int64_t PanelsOf(int64_t outputs, bool gated) {
  const int64_t values = gated ? kGatedOutputs : kOutputs;
  return (outputs + values - 1) / values;
}

/// Any instruction set gives the same bits; this one is always there.
void SpreadInputs(float* row, int64_t inputs) { kAvx2Kernels.spread_inputs(row, inputs); }

/// The first error of several threads.
class FirstError {
 public:
  void Set(const absl::Status& status) {
    const absl::MutexLock lock(&mutex_);
    status_.Update(status);
  }
  absl::Status status() const {
    const absl::MutexLock lock(&mutex_);
    return status_;
  }

 private:
  mutable absl::Mutex mutex_;
  absl::Status status_;
};

/// Packs panels of rows that are stored in one block type, or in two.
class GroupPacker {
 public:
  explicit GroupPacker(const GroupFormat& format) : format_(format), numbers_(kOutputs) {}

  /// Output n of the panel has the stored blocks at rows[n], of type dtypes[n]; null: zeros.
  void Pack(const uint8_t* const* rows, const DType* dtypes, int64_t inputs, uint8_t* panel) {
    const int unit_inputs = format_.unit_inputs();
    const GroupFormat* formats[kOutputs];
    const DTypeInfo* infos[kOutputs];
    for (int n = 0; n < kOutputs; ++n) {
      formats[n] = &GroupFormatOf(dtypes[n]);
      infos[n] = &InfoOf(dtypes[n]);
    }
    for (int64_t k = 0; k < inputs; k += unit_inputs) {
      int firsts[kOutputs];
      for (int n = 0; n < kOutputs; ++n) {
        const DTypeInfo& info = *infos[n];
        firsts[n] = static_cast<int>(k % info.block_elements);
        BlockNumbers& numbers = numbers_[static_cast<size_t>(n)];
        if (rows[n] == nullptr) {
          numbers = BlockNumbers{};
        } else if (firsts[n] == 0) {
          const uint8_t* const block = rows[n] + k / info.block_elements * info.block_bytes;
          // No prefetcher follows 64 rows at a time.
          for (int64_t at = 0; at < info.block_bytes; at += kLineBytes) {
            __builtin_prefetch(block + kAheadBytes + at);
          }
          DecodeBlock(dtypes[n], block, numbers);
        }
      }
      const UnitPlace unit = PlaceOfUnit(format_, panel, inputs, k);
      if (format_.scales == GroupScales::kFloat) {
        WriteWideUnit(formats, numbers_.data(), firsts, unit);
      } else {
        WriteUnit(format_, numbers_.data(), unit);
      }
    }
  }

 private:
  const GroupFormat& format_;
  std::vector<BlockNumbers> numbers_;  // [64]
};

/// Row `row` of the parts one below the other.
struct PartRow {
  const WeightStore::Entry* part = nullptr;
  int64_t row = 0;
};
PartRow FindRow(absl::Span<const WeightStore::Entry> parts, int64_t row) {
  for (const WeightStore::Entry& part : parts) {
    if (row < part.tensor.shape[0]) return {&part, row};
    row -= part.tensor.shape[0];
  }
  return {};
}

/// Writes a panel of one format, whose slot n is slots[n]: nothing, or a row.
void FillStoredPanel(const PackedMatrix::Panel& panel, const PartRow* slots, int64_t inputs,
                     uint8_t* data) {
  if (panel.format == Format::kGroups) {
    const uint8_t* rows[kOutputs] = {};
    DType dtypes[kOutputs];
    for (int n = 0; n < kOutputs; ++n) {
      const bool present = slots[n].part != nullptr;
      dtypes[n] = present ? slots[n].part->tensor.dtype : slots[0].part->tensor.dtype;
      if (present) rows[n] = StoredRow(*slots[n].part, slots[n].row);
    }
    GroupPacker(*panel.groups).Pack(rows, dtypes, inputs, data);
    return;
  }
  std::vector<bf16> rows(static_cast<size_t>(kOutputs * inputs));
  for (int n = 0; n < kOutputs; ++n) {
    if (slots[n].part == nullptr) continue;
    ReadRows(*slots[n].part, slots[n].row, 1, rows.data() + n * inputs);
  }
  FillBf16Panel(rows.data(), inputs, data);
}

const GroupFormat* GroupsOf(DType dtype) {
  return IsBlockType(dtype) ? &GroupFormatOf(dtype) : nullptr;
}

/// What holds rows of both types in one panel; null: bf16.
const GroupFormat* GroupsOfBoth(DType gate, DType up) {
  if (gate == up) return GroupsOf(gate);
  return IsBlockType(gate) && IsBlockType(up) ? &WideGroupFormat() : nullptr;
}

Format FormatOf(const GroupFormat* groups) {
  return groups == nullptr ? Format::kBf16 : Format::kGroups;
}

}  // namespace

int PackedMatrix::StepInputs(Format format) {
  if (format == Format::kF32) return 1;
  return format == Format::kInt8A8 ? 4 : 2;
}

int64_t PackedMatrix::BytesFor(Format format, int64_t outputs, int64_t inputs, bool gated) {
  const int64_t panels = PanelsOf(outputs, gated);
  const int64_t scales = IsInt(format) ? panels * kOutputs * int64_t{sizeof(float)} : 0;
  return panels * StepsOf(format, inputs) * StepBytesOf(format) + scales;
}

void PackedMatrix::AddSection(Format format, const GroupFormat* groups, int64_t outputs) {
  NG_CHECK(outputs > 0 && inputs_ > 0);
  Section section{format, groups, 0, outputs_, outputs, panels_, 0, 0};
  section.panel_bytes = groups == nullptr ? StepsOf(format, inputs_) * StepBytesOf(format)
                                          : inputs_ / groups->unit_inputs() * groups->unit_bytes();
  section.panels = PanelsOf(outputs, gated_);
  if (!sections_.empty()) {
    const Section& last = sections_.back();
    section.offset = last.offset + last.panels * last.panel_bytes;
  }
  outputs_ += section.outputs;
  panels_ += section.panels;
  if (sections_.empty() || format == Format::kGroups) format_ = format;
  sections_.push_back(section);
}

absl::Status PackedMatrix::Allocate(const Packing& packing) {
  const Section& last = sections_.back();
  const int64_t bytes = last.offset + last.panels * last.panel_bytes;
  NG_ASSIGN_OR_RETURN(panels_data_, packing.Allocate(static_cast<size_t>(bytes)));
  if (IsInt(format_)) {
    const size_t scales = static_cast<size_t>(panels_) * kOutputs;
    NG_ASSIGN_OR_RETURN(scales_, packing.Allocate(scales * sizeof(float)));
  }
  return absl::OkStatus();
}

const PackedMatrix::Section& PackedMatrix::SectionOfPanel(int64_t index) const {
  size_t i = sections_.size() - 1;
  while (sections_[i].first_panel > index) --i;
  return sections_[i];
}

bool PackedMatrix::HasUnitsOf(int inputs) const {
  return std::any_of(sections_.begin(), sections_.end(), [inputs](const Section& section) {
    return section.groups != nullptr && section.groups->unit_inputs() == inputs;
  });
}

uint8_t* PackedMatrix::PanelData(const Section& section, int64_t index) const {
  return panels_data_.as<uint8_t>() + section.offset +
         (index - section.first_panel) * section.panel_bytes;
}

PackedMatrix::Panel PackedMatrix::panel(int64_t index) const {
  const Section& section = SectionOfPanel(index);
  const int64_t first = (index - section.first_panel) * panel_values();
  Panel panel{section.format,
              section.groups,
              PanelData(section, index),
              nullptr,
              section.first_output + first,
              static_cast<int>(std::min(panel_values(), section.outputs - first))};
  if (IsInt(section.format)) panel.scales = scales_.as<float>() + index * kOutputs;
  return panel;
}

/// A panel has as many rows of each source, one source's after the other's. T: of rows before they
/// are packed; bf16 of sources that round, for kBf16.
template <typename T>
absl::Status PackedMatrix::Fill(const Packing& packing, absl::Span<const RowSource> sources) {
  const Section& section = sections_[0];
  const int64_t slots = panel_values();
  std::vector<std::vector<T>> scratch(static_cast<size_t>(packing.pool.threads()));
  FirstError error;
  packing.pool.ParallelFor(panels_, [&](int64_t panel, int worker) {
    if (!error.status().ok()) return;
    std::vector<T>& rows = scratch[static_cast<size_t>(worker)];
    rows.resize(static_cast<size_t>(kOutputs * inputs_));
    const int64_t present = std::min(slots, outputs_ - panel * slots);
    T* out = rows.data();
    for (const RowSource& source : sources) {
      error.Set(source(panel * slots, present, out));
      std::fill(out + present * inputs_, out + slots * inputs_, T());
      out += slots * inputs_;
    }
    uint8_t* const data = PanelData(section, panel);
    if constexpr (std::is_same_v<T, bf16>) {
      FillBf16Panel(rows.data(), inputs_, data);
    } else {
      if (format_ == Format::kInt8A8) {
        for (int n = 0; n < kOutputs; ++n) SpreadInputs(rows.data() + n * inputs_, inputs_);
      }
      FillPanel(format_, rows.data(), inputs_, data, scales_.as<float>() + panel * kOutputs);
    }
  });
  return error.status();
}

absl::StatusOr<PackedMatrix> PackedMatrix::PackRows(const Packing& packing, Format format,
                                                    int64_t outputs, int64_t inputs,
                                                    absl::Span<const RowSource> sources) {
  PackedMatrix matrix(inputs, sources.size() == 2);
  matrix.AddSection(format, nullptr, outputs);
  NG_RETURN_IF_ERROR(matrix.Allocate(packing));
  const bool rounded = format == Format::kBf16 &&
                       std::all_of(sources.begin(), sources.end(),
                                   [](const RowSource& source) { return source.rounds(); });
  NG_RETURN_IF_ERROR(rounded ? matrix.Fill<bf16>(packing, sources)
                             : matrix.Fill<float>(packing, sources));
  return matrix;
}

absl::StatusOr<PackedMatrix> PackedMatrix::Pack(const Packing& packing, Format format,
                                                int64_t outputs, int64_t inputs, RowSource rows) {
  return PackRows(packing, format, outputs, inputs, {rows});
}

absl::StatusOr<PackedMatrix> PackedMatrix::PackGated(const Packing& packing, Format format,
                                                     int64_t outputs, int64_t inputs,
                                                     RowSource gate, RowSource up) {
  return PackRows(packing, format, outputs, inputs, {gate, up});
}

absl::StatusOr<PackedMatrix> PackedMatrix::PackStored(const Packing& packing, int64_t inputs,
                                                      absl::Span<const WeightStore::Entry> parts,
                                                      BlockInputs block_inputs) {
  PackedMatrix matrix(inputs, false);
  matrix.block_inputs_ = block_inputs;
  for (size_t i = 0; i < parts.size();) {
    const GroupFormat* groups = GroupsOf(parts[i].tensor.dtype);
    int64_t outputs = 0;
    for (; i < parts.size() && GroupsOf(parts[i].tensor.dtype) == groups; ++i) {
      outputs += parts[i].tensor.shape[0];
    }
    matrix.AddSection(FormatOf(groups), groups, outputs);
  }
  NG_RETURN_IF_ERROR(matrix.Allocate(packing));
  packing.pool.ParallelFor(matrix.panels_, [&](int64_t index, int) {
    const Panel panel = matrix.panel(index);
    PartRow slots[kOutputs];
    for (int n = 0; n < panel.outputs; ++n) slots[n] = FindRow(parts, panel.first_output + n);
    FillStoredPanel(panel, slots, inputs, matrix.PanelData(matrix.SectionOfPanel(index), index));
  });
  return matrix;
}

absl::StatusOr<PackedMatrix> PackedMatrix::PackGatedStored(const Packing& packing, int64_t inputs,
                                                           const WeightStore::Entry& gate,
                                                           const WeightStore::Entry& up,
                                                           BlockInputs block_inputs) {
  NG_CHECK(gate.tensor.shape == up.tensor.shape);
  const GroupFormat* groups = GroupsOfBoth(gate.tensor.dtype, up.tensor.dtype);
  PackedMatrix matrix(inputs, true);
  matrix.block_inputs_ = block_inputs;
  matrix.AddSection(FormatOf(groups), groups, gate.tensor.shape[0]);
  NG_RETURN_IF_ERROR(matrix.Allocate(packing));
  packing.pool.ParallelFor(matrix.panels_, [&](int64_t index, int) {
    const Panel panel = matrix.panel(index);
    PartRow slots[kOutputs];
    for (int n = 0; n < panel.outputs; ++n) {
      slots[n] = {&gate, panel.first_output + n};
      slots[kGatedOutputs + n] = {&up, panel.first_output + n};
    }
    FillStoredPanel(panel, slots, inputs, matrix.PanelData(matrix.sections_[0], index));
  });
  return matrix;
}

void PackedMatrix::ReadRow(int64_t row, float* out) const {
  NG_CHECK(!gated_ && row >= 0 && row < outputs_);
  size_t section = sections_.size() - 1;
  while (sections_[section].first_output > row) --section;
  const int64_t place = row - sections_[section].first_output;
  const Panel held = panel(sections_[section].first_panel + place / kOutputs);
  const int n = static_cast<int>(place % kOutputs);
  if (held.format == Format::kGroups) return ReadGroups(*held.groups, held.data, n, inputs_, out);
  for (int64_t k = 0; k < inputs_; ++k) {
    const int64_t paired = (k / 2 * kOutputs + n) * 2 + k % 2;
    switch (held.format) {
      case Format::kF32:
        out[k] = reinterpret_cast<const float*>(held.data)[k * kOutputs + n];
        break;
      case Format::kBf16:
        out[k] = ToFloat(reinterpret_cast<const bf16*>(held.data)[paired]);
        break;
      case Format::kInt8:
        out[k] =
            static_cast<float>(reinterpret_cast<const int8_t*>(held.data)[paired]) * held.scales[n];
        break;
      case Format::kInt8A8:
        out[k] = static_cast<float>(held.data[(k / 4 * kOutputs + n) * 4 + k % 4] - 128) *
                 held.scales[n];
        break;
      case Format::kGroups:
        break;
    }
  }
  if (held.format == Format::kInt8A8) SpreadInputs(out, inputs_);  // back again
}

}  // namespace neurogrid
