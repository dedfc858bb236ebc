// Packs rows on the host and copies them in pieces, one under way while the next is packed.
#include "engine/cuda/cuda_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/dtype.h"

namespace neurogrid {
namespace {

using kernels::WeightFormat;
using kernels::Weights;

constexpr int64_t kPieceBytes = int64_t{4} << 20;

WeightFormat FormatOf(MatrixFormat format) {
  switch (format) {
    case MatrixFormat::kF32:
      return WeightFormat::kF32;
    case MatrixFormat::kBf16:
      return WeightFormat::kBf16;
    case MatrixFormat::kInt8:
      return WeightFormat::kInt8;
    case MatrixFormat::kStored:
      break;  // Ops refuses it
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
  }
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
  /// Zeros to fill, once the device has read what they held before.
  absl::StatusOr<uint8_t*> Next(cudaStream_t stream) {
    at_ ^= 1;
    if (pieces_[at_].used) {
      NG_RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(stream), "a copy of weights"));
    }
    pieces_[at_].used = true;
    std::memset(pieces_[at_].host.as<uint8_t>(), 0, static_cast<size_t>(pieces_[at_].host.bytes()));
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

}  // namespace

/// Tiles of 16 packed rows at a time: of a gated matrix this part's eight rows in each.
absl::Status CudaMatrix::Fill(Ops::RowSource rows, bool up, cudaStream_t stream) {
  const int tile_rows = gated() ? kernels::kTileOutputs / 2 : kernels::kTileOutputs;
  const int64_t row_bytes = int64_t{weights_.stride()} * Weights::ElementBytes(weights_.format);
  const int64_t piece_bytes = tile_rows * row_bytes;
  const int64_t tiles_at_once = gated() ? 1 : std::max<int64_t>(1, kPieceBytes / piece_bytes);
  NG_ASSIGN_OR_RETURN(Pieces pieces, Pieces::Allocate(tiles_at_once * piece_bytes));
  std::vector<float> values(static_cast<size_t>(tiles_at_once * tile_rows * inputs()));
  for (int64_t first = 0; first < outputs(); first += tiles_at_once * tile_rows) {
    const int64_t count = std::min(tiles_at_once * tile_rows, outputs() - first);
    NG_RETURN_IF_ERROR(rows(first, count, values.data()));
    NG_ASSIGN_OR_RETURN(uint8_t * piece, pieces.Next(stream));
    const int packed = Weights::PackedRow(gated(), up, static_cast<int>(first));
    for (int64_t n = 0; n < count; ++n) {
      const float* row = values.data() + n * inputs();
      float& scale = host_scales_[static_cast<size_t>(packed + n)];
      if (weights_.format == WeightFormat::kInt8) scale = ScaleOf(row, inputs());
      PackRow(weights_.format, row, inputs(), scale, piece + n * row_bytes);
    }
    NG_RETURN_IF_ERROR(CudaStatus(
        cudaMemcpyAsync(data_.as<uint8_t>() + packed * row_bytes, piece,
                        static_cast<size_t>(count * row_bytes), cudaMemcpyHostToDevice, stream),
        "a copy of weights"));
  }
  return CudaStatus(cudaStreamSynchronize(stream), "a copy of weights");
}

absl::Status CudaMatrix::UploadVectors(const MatrixSpec& spec, cudaStream_t stream) {
  const auto upload = [&](const std::vector<float>& values,
                          CudaBuffer& buffer) -> absl::StatusOr<const float*> {
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(float));
    NG_ASSIGN_OR_RETURN(buffer, CudaBuffer::Allocate(bytes));
    NG_RETURN_IF_ERROR(
        CudaStatus(cudaMemcpyAsync(buffer.data(), values.data(), static_cast<size_t>(bytes),
                                   cudaMemcpyHostToDevice, stream),
                   "a copy of weights"));
    NG_RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(stream), "a copy of weights"));
    return buffer.as<float>();
  };
  if (weights_.format == WeightFormat::kInt8) {
    NG_ASSIGN_OR_RETURN(weights_.scales, upload(host_scales_, scales_));
  }
  if (!spec.bias.empty()) {
    std::vector<float> bias(static_cast<size_t>(weights_.packed_outputs()));
    for (size_t i = 0; i < spec.bias.size(); ++i) {
      const bool up = static_cast<int64_t>(i) >= outputs();
      const int n = static_cast<int>(i) - (up ? weights_.outputs : 0);
      bias[static_cast<size_t>(Weights::PackedRow(gated(), up, n))] = spec.bias[i];
    }
    NG_ASSIGN_OR_RETURN(weights_.bias, upload(bias, bias_));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Matrix>> CudaMatrix::Pack(const MatrixSpec& spec,
                                                         Ops::RowSource rows,
                                                         const Ops::RowSource* up,
                                                         cudaStream_t stream) {
  if (spec.inputs % 8 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("a matrix of ", spec.inputs, " inputs: CUDA kernels take multiples of 8"));
  }
  std::unique_ptr<CudaMatrix> matrix(new CudaMatrix(spec, up != nullptr));
  Weights& w = matrix->weights_;
  w.format = FormatOf(spec.format);
  w.outputs = static_cast<int>(spec.outputs);
  w.inputs = static_cast<int>(spec.inputs);
  w.gated = up != nullptr;
  const int64_t bytes = int64_t{w.packed_outputs()} * w.stride() * Weights::ElementBytes(w.format);
  NG_ASSIGN_OR_RETURN(matrix->data_, CudaBuffer::Allocate(bytes));
  NG_RETURN_IF_ERROR(CudaStatus(
      cudaMemsetAsync(matrix->data_.data(), 0, static_cast<size_t>(bytes), stream), "weights"));
  w.data = matrix->data_.data();
  matrix->host_scales_.resize(static_cast<size_t>(w.packed_outputs()));
  NG_RETURN_IF_ERROR(matrix->Fill(rows, /*up=*/false, stream));
  if (up != nullptr) NG_RETURN_IF_ERROR(matrix->Fill(*up, /*up=*/true, stream));
  NG_RETURN_IF_ERROR(matrix->UploadVectors(spec, stream));
  matrix->host_scales_ = {};
  return matrix;
}

}  // namespace neurogrid
