#include "engine/cpu/cpu_matrix.h"

namespace neurogrid {
namespace {

PackedMatrix::Format FormatOf(MatrixFormat format) {
  switch (format) {
    case MatrixFormat::kF32:
      return PackedMatrix::Format::kF32;
    case MatrixFormat::kBf16:
      return PackedMatrix::Format::kBf16;
    case MatrixFormat::kInt8:
      return PackedMatrix::Format::kInt8;
    case MatrixFormat::kInt8A8:
      return PackedMatrix::Format::kInt8A8;
    case MatrixFormat::kStored:
    case MatrixFormat::kStoredA8:
      break;  // PackStored's
  }
  NG_CHECK(false);
}

BlockInputs BlockInputsOf(MatrixFormat format) {
  return format == MatrixFormat::kStoredA8 ? BlockInputs::k8Bits : BlockInputs::k16Bits;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Matrix>> CpuMatrix::Pack(const Packing& packing,
                                                        const MatrixSpec& spec,
                                                        Ops::RowSource rows) {
  NG_ASSIGN_OR_RETURN(PackedMatrix packed, PackedMatrix::Pack(packing, FormatOf(spec.format),
                                                              spec.outputs, spec.inputs, rows));
  return std::unique_ptr<Matrix>(new CpuMatrix(spec, false, std::move(packed)));
}

absl::StatusOr<std::unique_ptr<Matrix>> CpuMatrix::PackGated(const Packing& packing,
                                                             const MatrixSpec& spec,
                                                             Ops::RowSource gate,
                                                             Ops::RowSource up) {
  NG_ASSIGN_OR_RETURN(
      PackedMatrix packed,
      PackedMatrix::PackGated(packing, FormatOf(spec.format), spec.outputs, spec.inputs, gate, up));
  return std::unique_ptr<Matrix>(new CpuMatrix(spec, true, std::move(packed)));
}

absl::StatusOr<std::unique_ptr<Matrix>> CpuMatrix::PackStored(
    const Packing& packing, const MatrixSpec& spec, absl::Span<const WeightStore::Entry> parts) {
  NG_ASSIGN_OR_RETURN(PackedMatrix packed, PackedMatrix::PackStored(packing, spec.inputs, parts,
                                                                    BlockInputsOf(spec.format)));
  return std::unique_ptr<Matrix>(new CpuMatrix(spec, false, std::move(packed)));
}

absl::StatusOr<std::unique_ptr<Matrix>> CpuMatrix::PackGatedStored(const Packing& packing,
                                                                   const MatrixSpec& spec,
                                                                   const WeightStore::Entry& gate,
                                                                   const WeightStore::Entry& up) {
  NG_ASSIGN_OR_RETURN(
      PackedMatrix packed,
      PackedMatrix::PackGatedStored(packing, spec.inputs, gate, up, BlockInputsOf(spec.format)));
  return std::unique_ptr<Matrix>(new CpuMatrix(spec, true, std::move(packed)));
}

}  // namespace neurogrid
