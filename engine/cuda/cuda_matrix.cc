// Packs tiles on the host, with every thread it has, and copies them in pieces: one is under way
// while the next is packed.
#include "engine/cuda/cuda_matrix.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <thread>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/dtype.h"
#include "engine/cuda/packed_blocks.h"
#include "engine/model/block_groups.h"
#include "engine/model/read_rows.h"

namespace neurogrid {
namespace {

using kernels::BlockType;
using kernels::kTileOutputs;
using kernels::WeightFormat;
using kernels::Weights;

using Section = CudaMatrix::Section;
using Entry = WeightStore::Entry;

constexpr int64_t kPieceBytes = int64_t{8} << 20;

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
    case MatrixFormat::kStored:
      break;  // of each section
  }
  NG_CHECK(false);
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

/// One row as it lies on the device; what is behind the inputs stays zero.
void PackRow(WeightFormat format, const float* row, int64_t inputs, float scale, uint8_t* out) {
  switch (format) {
    case WeightFormat::kF32:
      std::memcpy(out, row, static_cast<size_t>(inputs) * sizeof(float));
      return;
    case WeightFormat::kBf16:
      for (int64_t k = 0; k < inputs; ++k) reinterpret_cast<bf16*>(out)[k] = ToBf16(row[k]);
      return;
    case WeightFormat::kInt8:
      for (int64_t k = 0; k < inputs; ++k) {
        const auto q = scale > 0 ? static_cast<int8_t>(std::lrint(row[k] / scale)) : int8_t{0};
        out[Weights::Int8Place(static_cast<int>(k))] = static_cast<uint8_t>(q);
      }
      return;
    case WeightFormat::kBlocks:
      break;  // PackBlocks
  }
  NG_CHECK(false);
}

/// Two pinned pieces in turn.
class Pieces {
 public:
  static absl::StatusOr<Pieces> Allocate(int64_t bytes) {
    Pieces pieces;
    for (Piece& piece : pieces.pieces_) {
      NG_ASSIGN_OR_RETURN(piece.host, PinnedBuffer::Allocate(bytes));
    }
    return pieces;
  }
  /// What to fill, once the device has read what it held before.
  absl::StatusOr<uint8_t*> Next(cudaStream_t stream) {
    at_ ^= 1;
    if (pieces_[at_].used) {
      NG_RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(stream), "a copy of weights"));
    }
    pieces_[at_].used = true;
    return pieces_[at_].host.as<uint8_t>();
  }

 private:
  struct Piece {
    PinnedBuffer host;
    bool used = false;
  };
  Piece pieces_[2];
  size_t at_ = 0;
};

/// Runs job(i) for i < count on all threads; the first error, after which no more begin.
absl::Status ParallelFor(int64_t count, absl::FunctionRef<absl::Status(int64_t)> job) {
  std::atomic<int64_t> next = 0;
  absl::Mutex mutex;
  absl::Status status;
  const auto work = [&] {
    for (int64_t i = next++; i < count; i = next++) {
      const absl::Status done = job(i);
      if (done.ok()) continue;
      const absl::MutexLock lock(&mutex);
      status.Update(done);
      next = count;
    }
  };
  const int64_t cores = std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::thread> helpers;
  for (int64_t i = 1; i < std::min(cores, count); ++i) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  return status;
}

/// Packs all tiles of a section and copies them to its memory.
absl::Status Fill(Section& section, TilePacker pack, std::vector<float>& scales,
                  cudaStream_t stream) {
  const Weights& w = section.weights;
  const int64_t tiles = w.packed_outputs() / kTileOutputs;
  const int64_t tile_bytes = w.tile_bytes();
  const int64_t at_once = std::clamp<int64_t>(kPieceBytes / tile_bytes, 1, tiles);
  NG_ASSIGN_OR_RETURN(Pieces pieces, Pieces::Allocate(at_once * tile_bytes));
  for (int64_t first = 0; first < tiles; first += at_once) {
    const int64_t count = std::min(at_once, tiles - first);
    NG_ASSIGN_OR_RETURN(uint8_t * piece, pieces.Next(stream));
    NG_RETURN_IF_ERROR(ParallelFor(count, [&](int64_t i) {
      uint8_t* out = piece + i * tile_bytes;
      std::memset(out, 0, static_cast<size_t>(tile_bytes));
      return pack(first + i, out, scales.data() + (first + i) * kTileOutputs);
    }));
    NG_RETURN_IF_ERROR(CudaStatus(
        cudaMemcpyAsync(section.data.as<uint8_t>() + first * tile_bytes, piece,
                        static_cast<size_t>(count * tile_bytes), cudaMemcpyHostToDevice, stream),
        "a copy of weights"));
  }
  return CudaStatus(cudaStreamSynchronize(stream), "a copy of weights");
}

absl::Status UploadVector(const std::vector<float>& values, CudaBuffer& buffer,
                          cudaStream_t stream) {
  const auto bytes = static_cast<int64_t>(values.size() * sizeof(float));
  NG_ASSIGN_OR_RETURN(buffer, CudaBuffer::Allocate(bytes));
  NG_RETURN_IF_ERROR(
      CudaStatus(cudaMemcpyAsync(buffer.data(), values.data(), static_cast<size_t>(bytes),
                                 cudaMemcpyHostToDevice, stream),
                 "a copy of weights"));
  return CudaStatus(cudaStreamSynchronize(stream), "a copy of weights");
}

/// The section's share of a bias of all rows; of a gated matrix, gate and up.
absl::Status UploadBias(const MatrixSpec& spec, Section& section, cudaStream_t stream) {
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
  NG_RETURN_IF_ERROR(UploadVector(bias, section.bias, stream));
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
                                    TilePacker pack, cudaStream_t stream) {
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
  NG_ASSIGN_OR_RETURN(section.data, CudaBuffer::Allocate(w.bytes()));
  w.data = section.data.data();
  std::vector<float> scales(static_cast<size_t>(w.packed_outputs()));
  NG_RETURN_IF_ERROR(Fill(section, pack, scales, stream));
  if (w.format == WeightFormat::kInt8) {
    NG_RETURN_IF_ERROR(UploadVector(scales, section.scales, stream));
    w.scales = section.scales.as<float>();
  }
  NG_RETURN_IF_ERROR(UploadBias(spec, section, stream));
  return section;
}

/// Rows [first, first + 16) of `rows`, or 8 of it and 8 of `up`, that exist below form.outputs.
absl::StatusOr<Section> MakeRowSection(const SectionForm& form, const MatrixSpec& spec,
                                       Ops::RowSource rows, const Ops::RowSource* up,
                                       cudaStream_t stream) {
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
  return MakeSection(form, spec, up != nullptr, pack, stream);
}

/// A stored row, or none.
struct StoredSource {
  const Entry* part = nullptr;
  int64_t row = 0;
};

/// Tiles of blocks; source(tile, n) is what stands in packed row n of a tile.
absl::StatusOr<Section> MakeBlockSection(
    const SectionForm& form, const MatrixSpec& spec, bool gated,
    absl::FunctionRef<StoredSource(int64_t tile, int n)> source, cudaStream_t stream) {
  const auto pack = [&](int64_t tile, uint8_t* out, float*) {
    for (int n = 0; n < kTileOutputs; ++n) {
      const StoredSource from = source(tile, n);
      if (from.part == nullptr) continue;
      PackBlocks(form.block_type, from.part->tensor.dtype, StoredRow(*from.part, from.row),
                 spec.inputs, n, out);
    }
    return absl::OkStatus();
  };
  return MakeSection(form, spec, gated, pack, stream);
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
                                          absl::Span<const Entry> parts, cudaStream_t stream) {
  if (form.format == WeightFormat::kBlocks) {
    const auto source = [&](int64_t tile, int n) {
      return FindRow(parts, tile * kTileOutputs + n);
    };
    return MakeBlockSection(form, spec, /*gated=*/false, source, stream);
  }
  const auto rows = [&](int64_t first, int64_t count, float* out) {
    for (int64_t i = 0; i < count; ++i) {
      const StoredSource from = FindRow(parts, first + i);
      ReadRows(*from.part, from.row, 1, out + i * spec.inputs);
    }
    return absl::OkStatus();
  };
  return MakeRowSection(form, spec, rows, nullptr, stream);
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
    sum += section.data.bytes() + section.scales.bytes() + section.bias.bytes();
  }
  return sum;
}

absl::StatusOr<std::unique_ptr<Matrix>> CudaMatrix::Pack(const MatrixSpec& spec,
                                                         Ops::RowSource rows,
                                                         const Ops::RowSource* up,
                                                         cudaStream_t stream) {
  std::unique_ptr<CudaMatrix> matrix(new CudaMatrix(spec, up != nullptr));
  const SectionForm form{.format = FormatOf(spec.format), .outputs = spec.outputs};
  NG_ASSIGN_OR_RETURN(Section section, MakeRowSection(form, spec, rows, up, stream));
  matrix->sections_.push_back(std::move(section));
  return matrix;
}

absl::StatusOr<std::unique_ptr<Matrix>> CudaMatrix::PackStored(const MatrixSpec& spec,
                                                               absl::Span<const Entry> parts,
                                                               cudaStream_t stream) {
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
                        MakeStoredSection(form, spec, parts.subspan(first, i - first), stream));
    matrix->sections_.push_back(std::move(section));
    first_output += form.outputs;
  }
  return matrix;
}

absl::StatusOr<std::unique_ptr<Matrix>> CudaMatrix::PackGatedStored(const MatrixSpec& spec,
                                                                    const Entry& gate,
                                                                    const Entry& up,
                                                                    cudaStream_t stream) {
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
    return add(MakeBlockSection(form, spec, /*gated=*/true, source, stream));
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
  return add(MakeRowSection(form, spec, gate_rows, &up_source, stream));
}

}  // namespace neurogrid
