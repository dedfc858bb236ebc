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

/// Of scales and sums beside a row of int16: those of PrepareForGroups are the most.
int64_t NumbersBytesOf(int64_t inputs) {
  return 4 * (BlocksOf(inputs) + inputs / 16 + inputs / 32);
}

/// Some 5 us of work a chunk, so that eight rows have two.
constexpr int64_t kRowsPerChunk = 4;

/// Activations in the form the kernel reads.
struct PreparedRows {
  const uint8_t* data = nullptr;
  int64_t stride_bytes = 0;
  const float* scales = nullptr;
  A8Groups a8_groups = {};
  const float* block_scales = nullptr;  // [rows][BlocksOf(inputs)]
  const int32_t* sums_of_16 = nullptr;  // [rows][inputs / 16]
  const int32_t* sums_of_32 = nullptr;  // [rows][inputs / 32]

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
  if (w.format() == PackedMatrix::Format::kGroups) return PrepareForGroups(cpu, x, w, scratch);
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
    const uint8_t* const rows_of_x = plain ? x.as<uint8_t>() : prepared.data;
    job.x = rows_of_x + first_row * prepared.stride_bytes;
    job.x_stride_bytes = prepared.stride_bytes;
    job.x_scales = prepared.scales == nullptr ? nullptr : prepared.scales + first_row;
    job.x_groups = prepared.a8_groups;
    job.x_groups.scales += first_row * job.x_groups.count;
    job.x_groups.starts += first_row * job.x_groups.count;
    if (panel.groups != nullptr) {
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
