// Weights in the order the matmul reads them: one contiguous stream for each group of 64 outputs.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/buffer.h"
#include "common/status.h"
#include "engine/cpu/thread_pool.h"
#include "engine/model/block_groups.h"
#include "engine/model/row_source.h"
#include "engine/model/weight_store.h"

namespace neurogrid {

/// What packing needs beside the weights: threads, and memory of `arena` or, without one, of the
/// system.
struct Packing {
  ThreadPool& pool;
  BufferArena* arena;

  Packing(ThreadPool& threads, BufferArena* memory = nullptr) : pool(threads), arena(memory) {}
  absl::StatusOr<Buffer> Allocate(size_t bytes) const {
    return arena == nullptr ? Buffer::Allocate(bytes) : arena->Allocate(bytes);
  }
};

/// What activations are rounded to beside blocks.
enum class BlockInputs { k16Bits, k8Bits };

/// A weight [outputs, inputs] of y = W x, cut into panels of 64 outputs:
///
///   kBf16    [outputs / 64][inputs / 2][64][2]  bf16
///   kInt8    the same in int8, and a scale for each output: w = q * scale, scale = max|w| / 127
///   kInt8A8  [outputs / 64][inputs / 4][64][4]  q + 128 in uint8, and scales as kInt8, of rows
///   that
///            went through Kernels::spread_inputs, as activations will
///   kF32     [outputs / 64][inputs][64]         f32
///   kGroups  integers with scales for each group of inputs: packed_groups.h
///
/// Outputs beyond the last, and inputs that fill the last two or four, are zeros.
class PackedMatrix {
 public:
  enum class Format { kF32, kBf16, kInt8, kInt8A8, kGroups };

  /// 64 outputs, fewer at the end of a part; half as many where gated.
  struct Panel {
    Format format;
    const GroupFormat* groups;  // kGroups only
    const uint8_t* data;
    const float* scales;  // [64]; kInt8 and kInt8A8 only
    int64_t first_output;
    int outputs;
  };

  static constexpr int kPanelOutputs = 64;

  PackedMatrix() = default;

  /// ResourceExhausted without memory, or the first error of `rows`.
  static absl::StatusOr<PackedMatrix> Pack(const Packing& packing, Format format, int64_t outputs,
                                           int64_t inputs, RowSource rows);

  /// Two matrices [outputs, inputs] in one: a panel holds 32 rows of `gate`, then the same 32 rows
  /// of `up`, so that one panel yields 32 values of SiLU(gate x) * (up x). outputs() counts those
  /// values.
  static absl::StatusOr<PackedMatrix> PackGated(const Packing& packing, Format format,
                                                int64_t outputs, int64_t inputs, RowSource gate,
                                                RowSource up);

  /// The rows of all parts, one below the other, as their files store them: block types without
  /// loss in groups, other types in bf16. Each type begins a panel of its own.
  static absl::StatusOr<PackedMatrix> PackStored(const Packing& packing, int64_t inputs,
                                                 absl::Span<const WeightStore::Entry> parts,
                                                 BlockInputs block_inputs = BlockInputs::k16Bits);

  /// PackGated of stored rows. Two block types share a panel in WideGroupFormat(), a block type and
  /// a plain one in bf16.
  static absl::StatusOr<PackedMatrix> PackGatedStored(
      const Packing& packing, int64_t inputs, const WeightStore::Entry& gate,
      const WeightStore::Entry& up, BlockInputs block_inputs = BlockInputs::k16Bits);

  /// What Pack (gated false) and PackGated allocate.
  static int64_t BytesFor(Format format, int64_t outputs, int64_t inputs, bool gated);

  /// Whether outputs have scales.
  static bool IsInt(Format format) { return format == Format::kInt8 || format == Format::kInt8A8; }

  /// Inputs that one step of the matmul takes.
  static int StepInputs(Format format);

  /// kGroups when any panel is: activations are bf16 then.
  Format format() const { return format_; }
  int64_t outputs() const { return outputs_; }
  int64_t inputs() const { return inputs_; }
  bool gated() const { return gated_; }
  BlockInputs block_inputs() const { return block_inputs_; }
  /// Whether some panel holds groups whose units (GroupFormat::unit_inputs) are so long.
  bool HasUnitsOf(int inputs) const;
  int64_t bytes() const { return static_cast<int64_t>(panels_data_.bytes() + scales_.bytes()); }

  int64_t panels() const { return panels_; }
  Panel panel(int64_t index) const;

  /// The values of one row as the matmul sees them: out[inputs]. Not for gated matrices.
  void ReadRow(int64_t row, float* out) const;

 private:
  /// Consecutive panels of one format.
  struct Section {
    Format format;
    const GroupFormat* groups;
    int64_t panel_bytes;
    int64_t first_output, outputs;
    int64_t first_panel, panels;
    int64_t offset;  // bytes into panels_data_
  };

  PackedMatrix(int64_t inputs, bool gated) : inputs_(inputs), gated_(gated) {}
  static absl::StatusOr<PackedMatrix> PackRows(const Packing& packing, Format format,
                                               int64_t outputs, int64_t inputs,
                                               absl::Span<const RowSource> sources);
  template <typename T>
  absl::Status Fill(const Packing& packing, absl::Span<const RowSource> sources);
  int64_t panel_values() const { return gated_ ? kPanelOutputs / 2 : kPanelOutputs; }
  void AddSection(Format format, const GroupFormat* groups, int64_t outputs);
  absl::Status Allocate(const Packing& packing);
  const Section& SectionOfPanel(int64_t index) const;
  uint8_t* PanelData(const Section& section, int64_t index) const;

  Buffer panels_data_;
  Buffer scales_;  // of int8, which is one section
  std::vector<Section> sections_;
  Format format_ = Format::kBf16;
  int64_t outputs_ = 0;
  int64_t inputs_ = 0;
  bool gated_ = false;
  BlockInputs block_inputs_ = BlockInputs::k16Bits;
  int64_t panels_ = 0;
};

}  // namespace neurogrid
