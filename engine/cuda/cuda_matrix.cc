// Which rows make which tile, and how they lie in it.
#include "engine/cuda/cuda_matrix.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "common/dtype.h"
#include "engine/cuda/packed_blocks.h"
#include "engine/model/block_groups.h"
#include "engine/model/read_rows.h"
#include "engine/model/stage_memory.h"

namespace neurogrid {
namespace {

using kernels::BlockType;
using kernels::kTileOutputs;
using kernels::WeightFormat;
using kernels::Weights;

using Section = CudaMatrix::Section;
using Entry = WeightStore::Entry;

/// Fills a tile of zeros, and its scales [16] where the format has one for each row. Called from
/// several threads.
using TilePacker = absl::FunctionRef<absl::Status(int64_t tile, uint8_t* out, float* scales)>;

WeightFormat FormatOf(MatrixFormat format) {
  switch (format) {
    case MatrixFormat::kF32:
      return WeightFormat::kF32;
    case MatrixFormat::kBf16:
      return WeightFormat::kBf16;
    case MatrixFormat::kInt8:
      return WeightFormat::kInt8;
    case MatrixFormat::kInt8A8:
    case MatrixFormat::kStoredA8:
      break;  // refused by CudaOps
    case MatrixFormat::kStored:
      break;  // of each section
  }
  NG_CHECK(false);
}

// The loops below are written so that compilers make vectors of them: they are most of a load.

/// max|row| / 127, or a NaN for a row with a value that is not finite.
float ScaleOf(const float* row, int64_t inputs) {
  int32_t largest = 0;  // without their sign, bits of floats are ordered as the floats are
  for (int64_t k = 0; k < inputs; ++k) {
    largest = std::max(largest, std::bit_cast<int32_t>(row[k]) & 0x7fffffff);
  }
  const float value = std::bit_cast<float>(largest);
  return std::isfinite(value) ? value / 127.0f : std::nanf("");
}

void PackBf16(const float* row, int64_t inputs, uint16_t* out) {
  for (int64_t k = 0; k < inputs; ++k) {  // ToBf16
    const auto bits = std::bit_cast<uint32_t>(row[k]);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const uint32_t nan = (bits >> 16) | 0x40u;
    out[k] = static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
  }
}

/// row / scale to the nearest integer, ties to even, in the order of Weights::Int8Place; zeros for
/// a scale that is not above 0.
void PackInt8(const float* row, int64_t inputs, float scale, uint8_t* out) {
  if (!(scale > 0)) return;
  // Added to a number below 2^22 this leaves its nearest integer in the low bits.
  constexpr float kToInteger = 0x1.8p23f;
  constexpr int64_t kStep = 16;
  uint8_t codes[kStep];
  int64_t k = 0;
  for (; k + kStep <= inputs; k += kStep) {
    for (int64_t i = 0; i < kStep; ++i) {
      codes[i] = static_cast<uint8_t>(std::bit_cast<uint32_t>(row[k + i] / scale + kToInteger));
    }
    for (int i = 0; i < kStep; ++i) out[k + Weights::Int8Place(i)] = codes[i];
  }
  for (; k < inputs; ++k) {
    out[Weights::Int8Place(static_cast<int>(k))] =
        static_cast<uint8_t>(std::bit_cast<uint32_t>(row[k] / scale + kToInteger));
  }
}

/// One row as it lies on the device; what is behind the inputs stays zero.
void PackRow(WeightFormat format, const float* row, int64_t inputs, float scale, uint8_t* out) {
  switch (format) {
    case WeightFormat::kF32:
      std::memcpy(out, row, static_cast<size_t>(inputs) * sizeof(float));
      return;
    case WeightFormat::kBf16:
      return PackBf16(row, inputs, reinterpret_cast<uint16_t*>(out));
    case WeightFormat::kInt8:
      return PackInt8(row, inputs, scale, out);
    case WeightFormat::kBlocks:
      break;  // PackBlocks
  }
  NG_CHECK(false);
}

int64_t FloatBytes(int64_t count) { return count * static_cast<int64_t>(sizeof(float)); }

/// The section's share of a bias of all rows; of a gated matrix, gate and up.
absl::Status UploadBias(const MatrixSpec& spec, Section& section, WeightUpload& upload) {
  if (spec.bias.empty()) return absl::OkStatus();
  Weights& w = section.weights;
  std::vector<float> bias(static_cast<size_t>(w.packed_outputs()));
  for (int part = 0; part < (w.gated ? 2 : 1); ++part) {
    for (int n = 0; n < w.outputs; ++n) {
      const int64_t from = section.first_output + part * spec.outputs + n;
      bias[static_cast<size_t>(Weights::PackedRow(w.gated, part == 1, n))] =
          spec.bias[static_cast<size_t>(from)];
    }
  }
  NG_ASSIGN_OR_RETURN(section.bias, upload.Allocate(FloatBytes(w.packed_outputs())));
  NG_RETURN_IF_ERROR(upload.Send(section.bias, bias));
  w.bias = section.bias.as<float>();
  return absl::OkStatus();
}

struct SectionForm {
  WeightFormat format;
  BlockType block_type = BlockType::kWide;
  int64_t first_output = 0;
  int64_t outputs = 0;
};

absl::StatusOr<Section> MakeSection(const SectionForm& form, const MatrixSpec& spec, bool gated,
                                    TilePacker pack, WeightUpload& upload) {
  if (spec.inputs % 8 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("a matrix of ", spec.inputs, " inputs: CUDA kernels take multiples of 8"));
  }
  Section section;
  section.first_output = form.first_output;
  Weights& w = section.weights;
  w.format = form.format;
  w.block_type = form.block_type;
  w.outputs = static_cast<int>(form.outputs);
  w.inputs = static_cast<int>(spec.inputs);
  w.gated = gated;
  NG_ASSIGN_OR_RETURN(section.data, upload.Allocate(w.bytes()));
  w.data = section.data.data();
  std::vector<float> scales(static_cast<size_t>(w.packed_outputs()));
  NG_RETURN_IF_ERROR(
      upload.SendTiles(section.data, w.tile_bytes(), [&](int64_t tile, uint8_t* out) {
        return pack(tile, out, scales.data() + tile * kTileOutputs);
      }));
  if (w.format == WeightFormat::kInt8) {
    NG_ASSIGN_OR_RETURN(section.scales, upload.Allocate(FloatBytes(w.packed_outputs())));
    NG_RETURN_IF_ERROR(upload.Send(section.scales, scales));
    w.scales = section.scales.as<float>();
  }
  NG_RETURN_IF_ERROR(UploadBias(spec, section, upload));
  return section;
}

/// Rows [first, first + 16) of `rows`, or 8 of it and 8 of `up`, that exist below form.outputs.
absl::StatusOr<Section> MakeRowSection(const SectionForm& form, const MatrixSpec& spec,
                                       Ops::RowSource rows, const Ops::RowSource* up,
                                       WeightUpload& upload) {
  const int64_t tile_rows = up == nullptr ? kTileOutputs : kTileOutputs / 2;
  const int64_t row_bytes =
      int64_t{Weights::PaddedInputs(form.format, static_cast<int>(spec.inputs))} *
      Weights::ElementBytes(form.format);
  const auto pack = [&](int64_t tile, uint8_t* out, float* scales) -> absl::Status {
    thread_local std::vector<float> values;
    values.resize(static_cast<size_t>(tile_rows * spec.inputs));
    const int64_t first = tile * tile_rows;
    const int64_t count = std::min(tile_rows, form.outputs - first);
    for (int part = 0; part < (up == nullptr ? 1 : 2); ++part) {
      NG_RETURN_IF_ERROR((part == 0 ? rows : *up)(first, count, values.data()));
      for (int64_t n = 0; n < count; ++n) {
        const float* row = values.data() + n * spec.inputs;
        const int64_t place = part * tile_rows + n;
        if (form.format == WeightFormat::kInt8) scales[place] = ScaleOf(row, spec.inputs);
        PackRow(form.format, row, spec.inputs, scales[place], out + place * row_bytes);
      }
    }
    return absl::OkStatus();
  };
  return MakeSection(form, spec, up != nullptr, pack, upload);
}

/// A stored row, or none.
struct StoredSource {
  const Entry* part = nullptr;
  int64_t row = 0;
};

/// Tiles of blocks; source(tile, n) is what stands in packed row n of a tile.
absl::StatusOr<Section> MakeBlockSection(
    const SectionForm& form, const MatrixSpec& spec, bool gated,
    absl::FunctionRef<StoredSource(int64_t tile, int n)> source, WeightUpload& upload) {
  const auto pack = [&](int64_t tile, uint8_t* out, float*) {
    for (int n = 0; n < kTileOutputs; ++n) {
      const StoredSource from = source(tile, n);
      if (from.part == nullptr) continue;
      PackBlocks(form.block_type, from.part->tensor.dtype, StoredRow(*from.part, from.row),
                 spec.inputs, n, out);
    }
    return absl::OkStatus();
  };
  return MakeSection(form, spec, gated, pack, upload);
}

/// Row `row` of the parts one below the other.
StoredSource FindRow(absl::Span<const Entry> parts, int64_t row) {
  for (const Entry& part : parts) {
    if (row < part.tensor.shape[0]) return {&part, row};
    row -= part.tensor.shape[0];
  }
  return {};
}

/// Consecutive parts of one form: of one block type, or none of a block type.
absl::StatusOr<Section> MakeStoredSection(const SectionForm& form, const MatrixSpec& spec,
                                          absl::Span<const Entry> parts, WeightUpload& upload) {
  if (form.format == WeightFormat::kBlocks) {
    const auto source = [&](int64_t tile, int n) {
      return FindRow(parts, tile * kTileOutputs + n);
    };
    return MakeBlockSection(form, spec, /*gated=*/false, source, upload);
  }
  const auto rows = [&](int64_t first, int64_t count, float* out) {
    for (int64_t i = 0; i < count; ++i) {
      const StoredSource from = FindRow(parts, first + i);
      ReadRows(*from.part, from.row, 1, out + i * spec.inputs);
    }
    return absl::OkStatus();
  };
  return MakeRowSection(form, spec, rows, nullptr, upload);
}

SectionForm FormOf(const Entry& part) {
  const DType dtype = part.tensor.dtype;
  if (!IsBlockType(dtype)) return {.format = WeightFormat::kBf16};
  return {.format = WeightFormat::kBlocks, .block_type = BlockTypeOf(dtype)};
}

}  // namespace

int64_t CudaMatrix::bytes() const {
  int64_t sum = 0;
  for (const Section& section : sections_) {
    for (const CudaBuffer* buffer : {&section.data, &section.scales, &section.bias}) {
      sum += GpuAllocationBytes(buffer->bytes());
    }
  }
  return sum;
}

absl::StatusOr<std::unique_ptr<Matrix>> CudaMatrix::Pack(const MatrixSpec& spec,
                                                         Ops::RowSource rows,
                                                         const Ops::RowSource* up,
                                                         WeightUpload& upload) {
  std::unique_ptr<CudaMatrix> matrix(new CudaMatrix(spec, up != nullptr));
  const SectionForm form{.format = FormatOf(spec.format), .outputs = spec.outputs};
  NG_ASSIGN_OR_RETURN(Section section, MakeRowSection(form, spec, rows, up, upload));
  matrix->sections_.push_back(std::move(section));
  return matrix;
}

absl::StatusOr<std::unique_ptr<Matrix>> CudaMatrix::PackStored(const MatrixSpec& spec,
                                                               absl::Span<const Entry> parts,
                                                               WeightUpload& upload) {
  std::unique_ptr<CudaMatrix> matrix(new CudaMatrix(spec, /*gated=*/false));
  int64_t first_output = 0;
  for (size_t i = 0; i < parts.size();) {
    SectionForm form = FormOf(parts[i]);
    form.first_output = first_output;
    const size_t first = i;
    for (; i < parts.size(); ++i) {
      const SectionForm other = FormOf(parts[i]);
      if (other.format != form.format || other.block_type != form.block_type) break;
      form.outputs += parts[i].tensor.shape[0];
    }
    NG_ASSIGN_OR_RETURN(Section section,
                        MakeStoredSection(form, spec, parts.subspan(first, i - first), upload));
    matrix->sections_.push_back(std::move(section));
    first_output += form.outputs;
  }
  return matrix;
}

absl::StatusOr<std::unique_ptr<Matrix>> CudaMatrix::PackGatedStored(const MatrixSpec& spec,
                                                                    const Entry& gate,
                                                                    const Entry& up,
                                                                    WeightUpload& upload) {
  std::unique_ptr<CudaMatrix> matrix(new CudaMatrix(spec, /*gated=*/true));
  const auto add = [&](absl::StatusOr<Section> made) -> absl::StatusOr<std::unique_ptr<Matrix>> {
    NG_ASSIGN_OR_RETURN(Section section, std::move(made));
    matrix->sections_.push_back(std::move(section));
    return std::move(matrix);
  };
  SectionForm form = FormOf(gate);
  const SectionForm up_form = FormOf(up);
  form.outputs = spec.outputs;
  if (form.format == WeightFormat::kBlocks && up_form.format == WeightFormat::kBlocks) {
    if (up_form.block_type != form.block_type) form.block_type = BlockType::kWide;
    const auto source = [&](int64_t tile, int n) -> StoredSource {
      constexpr int kHalf = kTileOutputs / 2;
      const int64_t row = tile * kHalf + n % kHalf;
      if (row >= spec.outputs) return {};
      return {n < kHalf ? &gate : &up, row};
    };
    return add(MakeBlockSection(form, spec, /*gated=*/true, source, upload));
  }
  form.format = WeightFormat::kBf16;
  const auto rows_of = [](const Entry& part) {
    return [&part](int64_t first, int64_t count, float* out) {
      ReadRows(part, first, count, out);
      return absl::OkStatus();
    };
  };
  const auto gate_rows = rows_of(gate);
  const auto up_rows = rows_of(up);
  const Ops::RowSource up_source = up_rows;
  return add(MakeRowSection(form, spec, gate_rows, &up_source, upload));
}

}  // namespace neurogrid
