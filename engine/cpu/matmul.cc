#include "engine/cpu/matmul.h"

#include <algorithm>
#include <cstring>

#include "common/check.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/packed_groups.h"

namespace neurogrid {
namespace {

constexpr int64_t kLanes = 16;

/// Elements of a row in scratch: whole vectors, so kernels may write past an odd end.
int64_t PaddedInputs(int64_t inputs) { return (inputs + kLanes - 1) / kLanes * kLanes; }

int64_t BlocksOf(int64_t inputs) { return (inputs + kGroupBlockInputs - 1) / kGroupBlockInputs; }

/// Activations of 8 bits beside blocks whose units have so many inputs. A row's integers, then a
/// scale for each unit and the sums of each 16 and of each 32 integers; where units are of 32,
/// those sums times their scales too.
struct ByteRowsLayout {
  int64_t inputs;
  int64_t unit_inputs;

  int64_t units() const { return inputs / unit_inputs; }
  bool has_totals() const { return unit_inputs == 32; }
  int64_t bytes() const {
    const int64_t sums = inputs / 16 + inputs / 32;
    return inputs + 4 * units() + (has_totals() ? 6 : 2) * sums;
  }
};

/// Of scales and sums beside a row of int16, or of a row of bytes beside units of 256.
int64_t NumbersBytesOf(int64_t inputs) {
  return std::max(4 * (BlocksOf(inputs) + inputs / 16 + inputs / 32),
                  ByteRowsLayout{inputs, 256}.bytes());
}

/// Some 5 us of work a chunk, so that eight rows have two.
constexpr int64_t kRowsPerChunk = 4;

/// Rows of 8-bit integers in one of ByteRowsLayout.
struct RowsOfBytes {
  int64_t inputs = 0;
  const uint8_t* data = nullptr;        // [rows][inputs]
  const float* scales = nullptr;        // [rows][units]
  int64_t units = 0;                    // of a row
  const int16_t* sums_of_16 = nullptr;  // [rows][inputs / 16]
  const int16_t* sums_of_32 = nullptr;
  const float* totals_of_16 = nullptr;  // [rows][inputs / 16]; units of 32 only
  const float* totals_of_32 = nullptr;

  ByteRows Beside(int group_inputs, int64_t first_row) const {
    const int64_t groups = inputs / group_inputs;
    const float* const totals = group_inputs == 16 ? totals_of_16 : totals_of_32;
    const int16_t* const sums = group_inputs == 16 ? sums_of_16 : sums_of_32;
    return {scales + first_row * units, units, totals + first_row * groups,
            sums + first_row * groups, groups};
  }
};

/// Activations in the form the kernel reads.
struct PreparedRows {
  const uint8_t* data = nullptr;
  int64_t stride_bytes = 0;
  const float* scales = nullptr;
  A8Groups a8_groups = {};
  const float* block_scales = nullptr;  // [rows][BlocksOf(inputs)]
  const int32_t* sums_of_16 = nullptr;  // [rows][inputs / 16]
  const int32_t* sums_of_32 = nullptr;  // [rows][inputs / 32]

  RowsOfBytes of_units_of_32 = {};
  RowsOfBytes of_units_of_256 = {};

  const RowsOfBytes& BytesBeside(const GroupFormat& groups) const {
    return groups.unit_inputs() == 32 ? of_units_of_32 : of_units_of_256;
  }
  GroupedRows Beside(const GroupFormat& groups, int64_t inputs, int64_t first_row) const {
    const int64_t blocks = BlocksOf(inputs);
    const int64_t count = inputs / groups.group_inputs;
    const int32_t* sums = groups.group_inputs == 16 ? sums_of_16 : sums_of_32;
    return {block_scales + first_row * blocks, blocks, sums + first_row * count, count};
  }
};

template <typename Each>
void ForRows(const CpuContext& cpu, int64_t rows, Each each) {
  cpu.pool->ParallelFor((rows + kRowsPerChunk - 1) / kRowsPerChunk, [&](int64_t chunk, int) {
    const int64_t end = std::min(rows, (chunk + 1) * kRowsPerChunk);
    for (int64_t row = chunk * kRowsPerChunk; row < end; ++row) each(row);
  });
}

/// Integers lie in the space of `values`; scales of blocks, then sums, in that of `numbers`.
PreparedRows PrepareForGroups(const CpuContext& cpu, ConstTensor x, const PackedMatrix& w,
                              const MatMulScratch& scratch) {
  const int64_t rows = x.shape[0];
  const int64_t inputs = w.inputs();
  const int64_t blocks = BlocksOf(inputs);
  uint8_t* const values = static_cast<uint8_t*>(scratch.values(rows, inputs));
  float* const scales = scratch.numbers();
  int32_t* const sums_of_16 = reinterpret_cast<int32_t*>(scales + rows * blocks);
  int32_t* const sums_of_32 = sums_of_16 + rows * (inputs / 16);
  const Kernels& kernels = KernelsFor(cpu.instructions);
  ForRows(cpu, rows, [&](int64_t row) {
    kernels.quantize_blocks(x.as<uint16_t>() + row * inputs, inputs, values + 2 * row * inputs,
                            scales + row * blocks, sums_of_16 + row * (inputs / 16),
                            sums_of_32 + row * (inputs / 32));
  });
  return {.data = values,
          .stride_bytes = 2 * inputs,
          .block_scales = scales,
          .sums_of_16 = sums_of_16,
          .sums_of_32 = sums_of_32};
}

/// Rounds all rows into `space`, of rows * layout.bytes().
RowsOfBytes RoundToBytes(const CpuContext& cpu, ConstTensor x, const ByteRowsLayout& layout,
                         void* space) {
  const int64_t rows = x.shape[0];
  const int64_t inputs = layout.inputs;
  const int64_t of_16 = inputs / 16, of_32 = inputs / 32;
  int8_t* const values = static_cast<int8_t*>(space);
  float* const scales = reinterpret_cast<float*>(values + rows * inputs);
  float* const totals_of_16 = scales + rows * layout.units();
  float* const totals_of_32 = totals_of_16 + (layout.has_totals() ? rows * of_16 : 0);
  int16_t* const sums_of_16 =
      reinterpret_cast<int16_t*>(totals_of_32 + (layout.has_totals() ? rows * of_32 : 0));
  int16_t* const sums_of_32 = sums_of_16 + rows * of_16;
  const Kernels& kernels = KernelsFor(cpu.instructions);
  ForRows(cpu, rows, [&](int64_t row) {
    float* const row_scales = scales + row * layout.units();
    int16_t* const row_of_16 = sums_of_16 + row * of_16;
    int16_t* const row_of_32 = sums_of_32 + row * of_32;
    kernels.quantize_units(x.as<uint16_t>() + row * inputs, inputs, layout.unit_inputs,
                           values + row * inputs, row_scales, row_of_16, row_of_32);
    if (!layout.has_totals()) return;
    for (int64_t i = 0; i < of_16; ++i) {
      totals_of_16[row * of_16 + i] = static_cast<float>(row_of_16[i]) * row_scales[i / 2];
    }
    for (int64_t i = 0; i < of_32; ++i) {
      totals_of_32[row * of_32 + i] = static_cast<float>(row_of_32[i]) * row_scales[i];
    }
  });
  return {inputs,       reinterpret_cast<const uint8_t*>(values),
          scales,       layout.units(),
          sums_of_16,   sums_of_32,
          totals_of_16, totals_of_32};
}

/// A form for each kind of units among the panels.
PreparedRows PrepareBytes(const CpuContext& cpu, ConstTensor x, const PackedMatrix& w,
                          const MatMulScratch& scratch) {
  void* const values = scratch.values(x.shape[0], w.inputs());
  PreparedRows prepared = {.stride_bytes = 2 * w.inputs()};  // of panels that are no blocks
  if (w.HasUnitsOf(32)) prepared.of_units_of_32 = RoundToBytes(cpu, x, {w.inputs(), 32}, values);
  if (w.HasUnitsOf(256)) {
    prepared.of_units_of_256 = RoundToBytes(cpu, x, {w.inputs(), 256}, scratch.numbers());
  }
  return prepared;
}

/// Integers, scales and starts lie one after the other in the space of `values`: 16 inputs take 16
/// + 8 bytes of its 32 at most.
PreparedRows PrepareForA8(const CpuContext& cpu, ConstTensor x, const PackedMatrix& w,
                          const MatMulScratch& scratch) {
  const int64_t rows = x.shape[0];
  const int64_t inputs = w.inputs();
  const int64_t padded = PaddedInputs(inputs);
  const int64_t groups = (inputs + kA8GroupInputs - 1) / kA8GroupInputs;
  int8_t* const values = static_cast<int8_t*>(scratch.values(rows, inputs));
  float* const scales = reinterpret_cast<float*>(values + rows * padded);
  int32_t* const starts = reinterpret_cast<int32_t*>(scales + rows * groups);
  const Kernels& kernels = KernelsFor(cpu.instructions);
  ForRows(cpu, rows, [&](int64_t row) {
    kernels.quantize_groups(x.as<uint16_t>() + row * inputs, inputs, values + row * padded,
                            scales + row * groups, starts + row * groups);
  });
  return {.data = reinterpret_cast<const uint8_t*>(values),
          .stride_bytes = padded,
          .a8_groups = {scales, starts, groups}};
}

PreparedRows Prepare(const CpuContext& cpu, ConstTensor x, const PackedMatrix& w,
                     const MatMulScratch& scratch) {
  const int64_t rows = x.shape[0];
  const int64_t inputs = w.inputs();
  const uint8_t* source = x.as<uint8_t>();
  if (w.format() == PackedMatrix::Format::kF32) return {source, inputs * 4};
  if (w.format() == PackedMatrix::Format::kGroups) {
    return w.block_inputs() == BlockInputs::k8Bits ? PrepareBytes(cpu, x, w, scratch)
                                                   : PrepareForGroups(cpu, x, w, scratch);
  }
  if (w.format() == PackedMatrix::Format::kInt8A8) return PrepareForA8(cpu, x, w, scratch);
  const bool is_int = w.format() == PackedMatrix::Format::kInt8;
  if (!is_int && inputs % 2 == 0) return {source, inputs * 2};
  const int64_t padded = PaddedInputs(inputs);
  int16_t* values = static_cast<int16_t*>(scratch.values(rows, inputs));
  const Kernels& kernels = KernelsFor(cpu.instructions);
  ForRows(cpu, rows, [&](int64_t row) {
    const uint16_t* from = x.as<uint16_t>() + row * inputs;
    int16_t* to = values + row * padded;
    if (is_int) {
      scratch.numbers()[row] = kernels.quantize_row(from, inputs, to);
    } else {
      std::memcpy(to, from, static_cast<size_t>(inputs) * 2);
      to[inputs] = 0;
    }
  });
  return {reinterpret_cast<const uint8_t*>(values), padded * 2,
          is_int ? scratch.numbers() : nullptr};
}

Epilogue EpilogueOf(Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return Epilogue::kSiluGated;
    case Activation::kGeluTanh:
      return Epilogue::kGeluGated;
  }
  NG_CHECK(false);
}

/// How rows are cut into jobs: few enough rows for the sums' space, equal to within a row.
int64_t RowBlocks(int64_t rows) { return (rows + kPanelRowsMax - 1) / kPanelRowsMax; }

void Multiply(const CpuContext& cpu, Epilogue epilogue, Tensor y, ConstTensor x,
              const PackedMatrix& w, const float* bias, const MatMulScratch& scratch) {
  const bool is_f32 = w.format() == PackedMatrix::Format::kF32;
  NG_CHECK(x.shape.rank() == 2 && x.shape[1] == w.inputs());
  NG_CHECK(y.shape == Shape({x.shape[0], w.outputs()}));
  NG_CHECK(x.dtype == (is_f32 ? DType::kF32 : DType::kBF16));
  NG_CHECK(y.dtype == DType::kF32 || (y.dtype == DType::kBF16 && !is_f32));
  const int64_t rows = x.shape[0];
  if (rows == 0) return;
  const PreparedRows prepared = Prepare(cpu, x, w, scratch);
  const Kernels& kernels = KernelsFor(cpu.instructions);
  const int64_t blocks = RowBlocks(rows);
  const int64_t y_size = y.dtype == DType::kBF16 ? 2 : 4;
  // Neighbouring chunks share a panel, so its second reader finds it in a cache.
  cpu.pool->ParallelFor(w.panels() * blocks, [&](int64_t chunk, int) {
    const PackedMatrix::Panel panel = w.panel(chunk / blocks);
    const int64_t block = chunk % blocks;
    const int64_t first_row = rows * block / blocks;
    const int64_t first_output = panel.first_output;
    PanelJob job = {};
    job.format = panel.format;
    job.epilogue = epilogue;
    job.groups = panel.groups;
    job.panel = panel.data;
    const int64_t next = (chunk + 1) / blocks;
    const bool leaves = next > chunk / blocks && next < w.panels();
    job.next_panel = leaves ? w.panel(next).data : nullptr;
    job.w_scales = panel.scales;
    job.bias = bias == nullptr ? nullptr : bias + first_output;
    job.up_bias = bias == nullptr || !w.gated() ? nullptr : job.bias + w.outputs();
    const bool plain = w.format() == PackedMatrix::Format::kGroups && panel.groups == nullptr;
    job.x_is_bytes = panel.groups != nullptr && w.block_inputs() == BlockInputs::k8Bits;
    const RowsOfBytes* const bytes =
        job.x_is_bytes ? &prepared.BytesBeside(*panel.groups) : nullptr;
    job.x_stride_bytes = job.x_is_bytes ? w.inputs() : prepared.stride_bytes;
    job.x = job.x_is_bytes ? bytes->data : plain ? x.as<uint8_t>() : prepared.data;
    job.x += first_row * job.x_stride_bytes;
    job.x_scales = prepared.scales == nullptr ? nullptr : prepared.scales + first_row;
    job.x_groups = prepared.a8_groups;
    job.x_groups.scales += first_row * job.x_groups.count;
    job.x_groups.starts += first_row * job.x_groups.count;
    if (job.x_is_bytes) {
      job.x_bytes = bytes->Beside(panel.groups->group_inputs, first_row);
    } else if (panel.groups != nullptr) {
      job.x_blocks = prepared.Beside(*panel.groups, w.inputs(), first_row);
    }
    const int step_inputs = PackedMatrix::StepInputs(panel.format);
    job.steps = (w.inputs() + step_inputs - 1) / step_inputs;
    job.rows = static_cast<int>(rows * (block + 1) / blocks - first_row);
    job.y = y.as<uint8_t>() + (first_row * w.outputs() + first_output) * y_size;
    job.y_stride_bytes = w.outputs() * y_size;
    job.y_is_bf16 = y.dtype == DType::kBF16;
    job.outputs = panel.outputs;
    kernels.multiply_panel(job);
  });
}

}  // namespace

int64_t MatMulScratch::BytesFor(int64_t rows_max, int64_t inputs_max) {
  return rows_max *
         (PaddedInputs(inputs_max) * int64_t{sizeof(int16_t)} + NumbersBytesOf(inputs_max));
}

absl::StatusOr<MatMulScratch> MatMulScratch::Allocate(int64_t rows_max, int64_t inputs_max) {
  MatMulScratch scratch;
  scratch.rows_max_ = rows_max;
  scratch.inputs_max_ = inputs_max;
  const int64_t values = rows_max * PaddedInputs(inputs_max) * int64_t{sizeof(int16_t)};
  NG_ASSIGN_OR_RETURN(scratch.values_, Buffer::Allocate(static_cast<size_t>(values)));
  NG_ASSIGN_OR_RETURN(scratch.numbers_,
                      Buffer::Allocate(static_cast<size_t>(rows_max * NumbersBytesOf(inputs_max))));
  return scratch;
}

void* MatMulScratch::values(int64_t rows, int64_t inputs) const {
  NG_CHECK(rows <= rows_max_ && inputs <= inputs_max_);
  return values_.data();
}

void MatMul(const CpuContext& cpu, Tensor y, ConstTensor x, const PackedMatrix& w,
            const float* bias, const MatMulScratch& scratch) {
  NG_CHECK(!w.gated());
  Multiply(cpu, Epilogue::kStore, y, x, w, bias, scratch);
}

void MatMulAdd(const CpuContext& cpu, Tensor y, ConstTensor x, const PackedMatrix& w,
               const float* bias, const MatMulScratch& scratch) {
  NG_CHECK(!w.gated());
  Multiply(cpu, Epilogue::kAdd, y, x, w, bias, scratch);
}

void MatMulGated(const CpuContext& cpu, Tensor y, ConstTensor x, const PackedMatrix& gate_up,
                 const float* bias, Activation activation, const MatMulScratch& scratch) {
  NG_CHECK(gate_up.gated());
  Multiply(cpu, EpilogueOf(activation), y, x, gate_up, bias, scratch);
}

}  // namespace neurogrid
