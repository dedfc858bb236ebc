#include "engine/weight_loader.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "engine/model/block_groups.h"
#include "engine/model/read_rows.h"
#include "engine/model/stage_memory.h"
#include "engine/workspace.h"

namespace neurogrid {
namespace {

MatrixFormat FormatOf(Precision precision) {
  switch (precision) {
    case Precision::kF32:
      return MatrixFormat::kF32;
    case Precision::kBf16:
    case Precision::kAuto:  // of tensors that are no blocks
    case Precision::kBlocksA8:
      return MatrixFormat::kBf16;
    case Precision::kInt8:
      return MatrixFormat::kInt8;
    case Precision::kInt8A8:
      return MatrixFormat::kInt8A8;
  }
  NG_CHECK(false);
}

/// Whether a stage reads the tensor `name`: for progress alone.
bool IsRead(absl::string_view name, const ModelConfig& config, const TensorNames& names,
            const LayerRange& layers) {
  const bool last = IsLastStage(config, layers);
  if (absl::ConsumePrefix(&name, "model.layers.")) {
    int layer = 0;
    return absl::SimpleAtoi(name.substr(0, name.find('.')), &layer) && layers.contains(layer);
  }
  if (!absl::ConsumeSuffix(&name, ".weight")) return false;
  if (name == names.embedding) return IsFirstStage(layers) || (last && config.tied_embeddings);
  return last && (name == names.final_norm || name == names.head);
}

}  // namespace

std::string LayerPart(int layer, absl::string_view part) {
  return part.empty() ? "" : absl::StrCat("model.layers.", layer, ".", part);
}

WeightLoader::WeightLoader(const ModelConfig& config, const TensorNames& names,
                           const WeightStore& weights, Ops& ops, const StageOptions& options,
                           const Stage::Progress& progress)
    : weights_(weights), ops_(ops), precision_(options.precision), progress_(progress) {
  for (const auto& [name, entry] : weights_.entries()) {
    if (IsRead(name, config, names, options.layers)) {
      file_bytes_total_ += entry.tensor.bytes();
    }
  }
}

void WeightLoader::Advance(int64_t file_bytes) {
  file_bytes_done_ = std::min(file_bytes_done_ + file_bytes, file_bytes_total_);
  if (progress_) progress_(file_bytes_done_, file_bytes_total_);
}

std::unique_ptr<Matrix> WeightLoader::Count(std::unique_ptr<Matrix> matrix, int64_t file_bytes) {
  device_bytes_ += matrix->bytes();
  Advance(file_bytes);
  return matrix;
}

absl::StatusOr<DeviceVector> WeightLoader::Uploaded(const std::vector<float>& values,
                                                    const Shape& shape, int64_t file_bytes) {
  DeviceVector vector;
  NG_ASSIGN_OR_RETURN(vector.memory, ops_.Upload(values));
  vector.view = ConstTensor(vector.memory->data(), DType::kF32, shape);
  device_bytes_ += VectorBytes(shape.elements());
  Advance(file_bytes);
  return vector;
}

absl::StatusOr<DeviceVector> WeightLoader::Vector(const std::string& name, int64_t size,
                                                  float offset) {
  NG_ASSIGN_OR_RETURN(const WeightStore::Entry entry,
                      weights_.Find(name + ".weight", Shape({size})));
  std::vector<float> values(static_cast<size_t>(size));
  ReadRows(entry, 0, 1, values.data());
  for (float& value : values) value += offset;
  return Uploaded(values, Shape({size}), entry.tensor.bytes());
}

absl::StatusOr<DeviceVector> WeightLoader::VectorIfPresent(const std::string& name, int64_t size,
                                                           float offset) {
  if (name.empty() || !HasWeight(name)) return DeviceVector();
  return Vector(name, size, offset);
}

absl::StatusOr<DeviceVector> WeightLoader::Taps(const std::string& name, int64_t channels,
                                                int64_t taps) {
  NG_ASSIGN_OR_RETURN(const WeightStore::Entry entry,
                      weights_.Find(name + ".weight", Shape({channels, 1, taps})));
  std::vector<float> by_channel(static_cast<size_t>(channels * taps));
  ReadRows(entry, 0, channels, by_channel.data());
  std::vector<float> by_tap(by_channel.size());
  for (size_t i = 0; i < by_channel.size(); ++i) {
    const size_t channel = i / static_cast<size_t>(taps);
    const size_t tap = i % static_cast<size_t>(taps);
    by_tap[tap * static_cast<size_t>(channels) + channel] = by_channel[i];
  }
  return Uploaded(by_tap, Shape({taps, channels}), entry.tensor.bytes());
}

absl::StatusOr<DeviceVector> WeightLoader::BiasIfPresent(const std::string& name, int64_t size) {
  if (!weights_.Has(name + ".bias")) return DeviceVector();
  NG_ASSIGN_OR_RETURN(const std::vector<float> values, Bias({{name, size}}));
  return Uploaded(values, Shape({size}), 0);
}

absl::StatusOr<WeightLoader::Part> WeightLoader::Find(const LinearPart& part, int64_t first,
                                                      int64_t inputs) {
  NG_ASSIGN_OR_RETURN(WeightStore::Entry entry, weights_.Find(absl::StrCat(part.name, ".weight"),
                                                              Shape({part.outputs, inputs})));
  return Part{.weight = std::move(entry), .first = first, .outputs = part.outputs};
}

/// Whether the part's blocks go to memory as they are.
bool WeightLoader::StaysStored(const Part& part) const {
  return KeepsBlocks(precision_) && IsBlockType(part.weight.tensor.dtype);
}

MatrixFormat WeightLoader::StoredFormat() const {
  return precision_ == Precision::kBlocksA8 ? MatrixFormat::kStoredA8 : MatrixFormat::kStored;
}

/// The parts' biases one after the other, zeros where a part has none; empty when none has.
absl::StatusOr<std::vector<float>> WeightLoader::Bias(const std::vector<LinearPart>& parts) {
  std::vector<float> bias;
  bool present = false;
  for (const LinearPart& part : parts) {
    const std::string name = absl::StrCat(part.name, ".bias");
    const size_t first = bias.size();
    bias.resize(first + static_cast<size_t>(part.outputs));
    if (!weights_.Has(name)) continue;
    present = true;
    NG_ASSIGN_OR_RETURN(const WeightStore::Entry entry, weights_.Find(name, Shape({part.outputs})));
    ReadRows(entry, 0, 1, bias.data() + first);
    Advance(entry.tensor.bytes());
  }
  if (!present) bias.clear();
  return bias;
}

absl::StatusOr<std::unique_ptr<Matrix>> WeightLoader::Linear(const std::vector<LinearPart>& parts,
                                                             int64_t inputs) {
  MatrixSpec spec{.format = FormatOf(precision_), .inputs = inputs};
  std::vector<Part> found;
  int64_t file_bytes = 0;
  for (const LinearPart& part : parts) {
    NG_ASSIGN_OR_RETURN(Part entry, Find(part, spec.outputs, inputs));
    spec.outputs += part.outputs;
    file_bytes += entry.weight.tensor.bytes();
    found.push_back(std::move(entry));
  }
  NG_ASSIGN_OR_RETURN(spec.bias, Bias(parts));
  if (std::any_of(found.begin(), found.end(), [&](const Part& p) { return StaysStored(p); })) {
    spec.format = StoredFormat();
    std::vector<WeightStore::Entry> stored;
    for (Part& part : found) stored.push_back(std::move(part.weight));
    NG_ASSIGN_OR_RETURN(std::unique_ptr<Matrix> matrix, ops_.PackStored(spec, stored));
    return Count(std::move(matrix), file_bytes);
  }
  const auto rows = [&](int64_t first, int64_t count, auto* out) -> absl::Status {
    for (const Part& part : found) {
      const int64_t begin = std::max(first, part.first);
      const int64_t end = std::min(first + count, part.first + part.outputs);
      if (begin >= end) continue;
      ReadRows(part.weight, begin - part.first, end - begin, out + (begin - first) * inputs);
    }
    return absl::OkStatus();
  };
  NG_ASSIGN_OR_RETURN(std::unique_ptr<Matrix> matrix, ops_.Pack(spec, rows));
  return Count(std::move(matrix), file_bytes);
}

absl::StatusOr<std::unique_ptr<Matrix>> WeightLoader::Gated(const std::string& gate,
                                                            const std::string& up, int64_t outputs,
                                                            int64_t inputs) {
  const std::vector<LinearPart> parts = {{gate, outputs}, {up, outputs}};
  NG_ASSIGN_OR_RETURN(const Part gate_part, Find(parts[0], 0, inputs));
  NG_ASSIGN_OR_RETURN(const Part up_part, Find(parts[1], 0, inputs));
  MatrixSpec spec{.format = FormatOf(precision_), .outputs = outputs, .inputs = inputs};
  NG_ASSIGN_OR_RETURN(spec.bias, Bias(parts));
  const int64_t file_bytes = gate_part.weight.tensor.bytes() + up_part.weight.tensor.bytes();
  if (StaysStored(gate_part) || StaysStored(up_part)) {
    spec.format = StoredFormat();
    NG_ASSIGN_OR_RETURN(std::unique_ptr<Matrix> matrix,
                        ops_.PackGatedStored(spec, gate_part.weight, up_part.weight));
    return Count(std::move(matrix), file_bytes);
  }
  const auto rows_of = [](const Part& part) {
    return [&part](int64_t first, int64_t count, auto* out) {
      ReadRows(part.weight, first, count, out);
      return absl::OkStatus();
    };
  };
  NG_ASSIGN_OR_RETURN(std::unique_ptr<Matrix> matrix,
                      ops_.PackGated(spec, rows_of(gate_part), rows_of(up_part)));
  return Count(std::move(matrix), file_bytes);
}

absl::StatusOr<std::unique_ptr<Matrix>> WeightLoader::Table(const std::string& name, int64_t rows,
                                                            int64_t columns) {
  if (KeepsBlocks(precision_)) return Linear({{name, rows}}, columns);
  NG_ASSIGN_OR_RETURN(const WeightStore::Entry entry,
                      weights_.Find(name + ".weight", Shape({rows, columns})));
  const MatrixSpec spec{
      .format = precision_ == Precision::kF32 ? MatrixFormat::kF32 : MatrixFormat::kBf16,
      .outputs = rows,
      .inputs = columns};
  NG_ASSIGN_OR_RETURN(std::unique_ptr<Matrix> matrix,
                      ops_.Pack(spec, [&](int64_t first, int64_t count, auto* out) {
                        ReadRows(entry, first, count, out);
                        return absl::OkStatus();
                      }));
  return Count(std::move(matrix), entry.tensor.bytes());
}

}  // namespace neurogrid
