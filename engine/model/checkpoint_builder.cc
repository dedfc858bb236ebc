#include "engine/model/checkpoint_builder.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/digest.h"
#include "engine/model/config_gguf.h"
#include "engine/model/config_json.h"
#include "engine/model/model_directory.h"
#include "engine/model/tensor_table.h"

namespace neurogrid {
namespace {

/// One warning for each unexpected tensor would bury the others.
constexpr int kTensorWarningsMax = 5;

bool IsPerLayer(absl::string_view name) {
  return absl::StartsWith(name, "model.layers.") || absl::StartsWith(name, "blk.");
}

std::string Words(const ConstTensor& tensor) {
  return absl::StrCat(InfoOf(tensor.dtype).name, " ", tensor.shape.ToString());
}

/// A name of the table for a tensor of a file that holds more than the language model. Empty for
/// its other parts.
std::string InnerName(const Architecture& row, const std::string& name) {
  if (row.wrapper_name.empty()) return name;
  absl::string_view rest = name;
  absl::string_view part = name;
  absl::ConsumePrefix(&part, "model.");
  if (absl::StartsWith(part, "vision_tower.") || absl::StartsWith(part, "multi_modal_projector.")) {
    return "";
  }
  if (absl::ConsumePrefix(&rest, "model.language_model.")) return absl::StrCat("model.", rest);
  absl::ConsumePrefix(&rest, "language_model.");
  return std::string(rest);
}

/// Heads of a tensor whose rows GGUF interleaves; 0 for the others.
int InterleavedHeads(const Architecture& row, const ModelConfig& config, absl::string_view name) {
  if (!row.gguf_interleaves_heads) return 0;
  const auto is_part = [name](absl::string_view part) {
    return absl::StrContains(name, absl::StrCat(".", part, "."));
  };
  if (is_part(row.tensors.query)) return config.query_heads;
  if (is_part(row.tensors.key)) return config.kv_heads;
  return 0;
}

bool IsTaps(const Architecture& row, absl::string_view name) {
  return !row.tensors.conv_taps.empty() &&
         absl::EndsWith(name, absl::StrCat(".", row.tensors.conv_taps, ".weight"));
}

/// All bits of a number: in decimal 1000000 and 1000001 would read alike.
std::string Bits(double value) { return absl::StrCat(absl::Hex(std::bit_cast<uint64_t>(value))); }

/// Every number of the config that changes what is computed, as one line.
std::string ConfigWords(const ModelConfig& c) {
  std::string words = absl::StrCat(
      c.architecture, " ", c.hidden_size, " ", c.ffn_size, " ", c.query_heads, " ", c.kv_heads, " ",
      c.head_dim, " ", c.vocab_size, " ", c.max_positions, " ", c.conv_taps, " ", c.conv_bias, " ",
      Bits(c.norm_epsilon), " ", Bits(c.norm_offset), " ", c.norm_rounds_before_weight);
  absl::StrAppend(&words, " ", Bits(c.attention_scale), " ", Bits(c.attention_softcap), " ",
                  Bits(c.final_softcap), " ", Bits(c.embedding_scale), " ",
                  static_cast<int>(c.activation), " ", c.tied_embeddings, " ", c.qkv_bias,
                  c.output_bias, c.mlp_bias);
  for (const LayerConfig& layer : c.layers) {
    absl::StrAppend(&words, "\n", static_cast<int>(layer.kind), " ", layer.window, " ", layer.rope);
  }
  for (const RopeParameters& r : c.ropes) {
    absl::StrAppend(&words, "\n", static_cast<int>(r.scaling), " ", Bits(r.theta), " ",
                    Bits(r.factor), " ", Bits(r.low_freq_factor), " ", Bits(r.high_freq_factor),
                    " ", Bits(r.original_max_positions));
    absl::StrAppend(&words, " ", Bits(r.beta_fast), " ", Bits(r.beta_slow), " ",
                    Bits(r.attention_factor), " ", r.truncate);
    for (const float divisor : r.frequency_divisors) absl::StrAppend(&words, " ", Bits(divisor));
  }
  return words;
}

/// Where each mapped file begins, so that a tensor's place can be told without its address.
std::string PlaceOf(const void* data, const std::vector<const MappedFile*>& files) {
  const uint8_t* bytes = static_cast<const uint8_t*>(data);
  for (size_t i = 0; i < files.size(); ++i) {
    const absl::Span<const uint8_t> span = files[i]->bytes();
    if (bytes >= span.data() && bytes <= span.data() + span.size()) {
      return absl::StrCat(i, "+", bytes - span.data());
    }
  }
  return "synthetic";
}

/// 64 bytes from the middle of the tensor; empty for synthetic weights, which the config fixes.
absl::string_view Sample(const WeightStore::Entry& entry) {
  if (entry.cycle_elements > 0) return "";
  const int64_t bytes = entry.tensor.bytes();
  const int64_t size = std::min<int64_t>(bytes, 64);
  return {entry.tensor.as<char>() + (bytes - size) / 2, static_cast<size_t>(size)};
}

}  // namespace

CheckpointBuilder::CheckpointBuilder(const std::string& path) : checkpoint_(new Checkpoint()) {
  checkpoint_->path_ = path;
  checkpoint_->weights_ = WeightStore(path);
}

absl::Status CheckpointBuilder::AddFolder() {
  const std::string& folder = checkpoint_->path_;
  NG_RETURN_IF_ERROR(ResolveInFolder(folder, "config.json").status());
  NG_ASSIGN_OR_RETURN(checkpoint_->config_, ReadModelConfig(folder, &checkpoint_->warnings_));
  NG_ASSIGN_OR_RETURN(row_, FindArchitecture(checkpoint_->config_.architecture));
  NG_ASSIGN_OR_RETURN(std::vector<SafetensorsFile> files, OpenShards(folder));
  for (SafetensorsFile& file : files) {
    for (SafetensorsFile::NamedTensor& named : file.tensors) {
      if (absl::EndsWith(named.name, ".rotary_emb.inv_freq")) continue;  // computed, not read
      std::string name = InnerName(*row_, named.name);
      if (name.empty()) continue;
      if (checkpoint_->weights_.Has(name)) {
        return absl::InvalidArgumentError(
            absl::StrCat(file.file.path(), ": tensor ", absl::CHexEscape(named.name),
                         " also stands in another file or under another prefix"));
      }
      checkpoint_->weights_.Add(std::move(name), {named.tensor, file.file.path()});
    }
    checkpoint_->shards_.push_back(std::move(file.file));
  }
  return absl::OkStatus();
}

absl::Status CheckpointBuilder::AddGguf() {
  NG_ASSIGN_OR_RETURN(checkpoint_->gguf_, Gguf::Open(checkpoint_->path_));
  const Gguf& gguf = *checkpoint_->gguf_;
  NG_ASSIGN_OR_RETURN(checkpoint_->config_, ConfigOfGguf(gguf, &checkpoint_->warnings_));
  const ModelConfig& config = checkpoint_->config_;
  NG_ASSIGN_OR_RETURN(row_, FindArchitecture(config.architecture));
  for (const Gguf::TensorInfo& info : gguf.tensors()) {
    if (info.name == "rope_freqs.weight") continue;  // part of the config
    std::string name = TranslateGgufName(*row_, info.name);
    // Marked, so that it never passes for a name of the table; CheckTensors says what it means.
    if (name.empty()) name = absl::StrCat(info.name, " (GGUF)");
    const int heads = InterleavedHeads(*row_, config, name);
    ConstTensor tensor = info.tensor;
    if (IsTaps(*row_, name) && tensor.shape.rank() == 2) {  // Hugging Face keeps a 1 in the middle
      tensor.shape = Shape({tensor.shape[0], 1, tensor.shape[1]});
    }
    checkpoint_->weights_.Add(std::move(name), {tensor, gguf.files()[info.part].path(), heads});
  }
  return absl::OkStatus();
}

absl::Status CheckpointBuilder::AddSynthetic(ModelConfig config, WeightStore weights,
                                             std::vector<Buffer> buffers) {
  NG_ASSIGN_OR_RETURN(row_, FindArchitecture(config.architecture));
  checkpoint_->config_ = std::move(config);
  checkpoint_->weights_ = std::move(weights);
  checkpoint_->buffers_ = std::move(buffers);
  return absl::OkStatus();
}

/// The flag says tied and a head is there all the same: equal bytes are shared, another head is
/// used.
absl::Status CheckpointBuilder::ResolveTiedHead() {
  ModelConfig& config = checkpoint_->config_;
  const std::string head_name = absl::StrCat(row_->tensors.head, ".weight");
  if (!config.tied_embeddings || !checkpoint_->weights_.Has(head_name)) return absl::OkStatus();
  const Shape shape = {config.vocab_size, config.hidden_size};
  NG_ASSIGN_OR_RETURN(const WeightStore::Entry head, checkpoint_->weights_.Find(head_name, shape));
  NG_ASSIGN_OR_RETURN(
      const WeightStore::Entry embedding,
      checkpoint_->weights_.Find(absl::StrCat(row_->tensors.embedding, ".weight"), shape));
  const bool equal = head.tensor.dtype == embedding.tensor.dtype &&
                     std::memcmp(head.tensor.data, embedding.tensor.data,
                                 static_cast<size_t>(head.tensor.bytes())) == 0;
  if (equal) {
    checkpoint_->weights_.Remove(head_name);
    return absl::OkStatus();
  }
  config.tied_embeddings = false;
  checkpoint_->warnings_.push_back(
      absl::StrCat(head.file, ": the config ties the head to the embedding but ", head_name,
                   " differs from it; ", head_name, " is used"));
  return absl::OkStatus();
}

absl::Status CheckpointBuilder::CheckTensors() {
  const ModelConfig& config = checkpoint_->config_;
  WeightStore& weights = checkpoint_->weights_;
  absl::flat_hash_set<std::string> expected;
  const auto check = [&](const std::vector<ExpectedTensor>& tensors) -> absl::Status {
    for (const ExpectedTensor& tensor : tensors) {
      const absl::Status found = weights.Find(tensor.name, tensor.shape).status();
      if (!found.ok() && checkpoint_->gguf_ != nullptr) {
        return absl::Status(found.code(), absl::StrCat(found.message(), " (in GGUF files it is ",
                                                       GgufNameOf(*row_, tensor.name), ")"));
      }
      NG_RETURN_IF_ERROR(found);
      expected.insert(tensor.name);
    }
    return absl::OkStatus();
  };
  NG_RETURN_IF_ERROR(check(OuterTensors(*row_, config)));
  for (int layer = 0; layer < config.layers_count(); ++layer) {
    NG_RETURN_IF_ERROR(check(LayerTensors(*row_, config, layer)));
  }
  std::vector<std::string> others;
  for (const auto& [name, entry] : weights.entries()) {
    if (!expected.contains(name)) others.push_back(name);
  }
  std::sort(others.begin(), others.end());
  int ignored = 0;
  for (const std::string& name : others) {
    const WeightStore::Entry& entry = weights.entries().at(name);
    const std::string shown = absl::CHexEscape(name.substr(0, 200));
    if (IsPerLayer(name)) {
      return absl::InvalidArgumentError(absl::StrCat(
          entry.file, ": ", shown, " ", Words(entry.tensor), " is not expected in a ",
          config.architecture, " model of ", config.layers_count(), " layers with this config"));
    }
    if (++ignored <= kTensorWarningsMax) {
      checkpoint_->warnings_.push_back(
          absl::StrCat(entry.file, ": tensor ", shown, " is not used"));
    }
    weights.Remove(name);
  }
  if (ignored > kTensorWarningsMax) {
    checkpoint_->warnings_.push_back(absl::StrCat(
        checkpoint_->path_, ": ", ignored - kTensorWarningsMax, " more tensors are not used"));
  }
  return absl::OkStatus();
}

void CheckpointBuilder::Describe() {
  std::map<absl::string_view, int64_t> bytes_of;
  for (const auto& [name, entry] : checkpoint_->weights_.entries()) {
    // Norms, biases and taps of convolutions are F32 whatever the rest is.
    if (entry.tensor.shape.rank() != 2) continue;
    bytes_of[InfoOf(entry.tensor.dtype).name] += entry.tensor.bytes();
  }
  std::vector<std::pair<int64_t, absl::string_view>> types;
  for (const auto& [name, bytes] : bytes_of) types.emplace_back(-bytes, name);
  std::sort(types.begin(), types.end());
  checkpoint_->weights_description_ = absl::StrCat(
      types.size() > 1 ? "mixed " : "",
      absl::StrJoin(types, "/",
                    [](std::string* out, const auto& type) { absl::StrAppend(out, type.second); }));
}

void CheckpointBuilder::ComputeDigest() {
  std::vector<const MappedFile*> files;
  for (const MappedFile& shard : checkpoint_->shards_) files.push_back(&shard);
  if (checkpoint_->gguf_ != nullptr) {
    for (const MappedFile& part : checkpoint_->gguf_->files()) files.push_back(&part);
  }
  std::vector<absl::string_view> names;
  for (const auto& [name, entry] : checkpoint_->weights_.entries()) names.push_back(name);
  std::sort(names.begin(), names.end());
  Sha256 sha;
  sha.Update(ConfigWords(checkpoint_->config_));
  for (const absl::string_view name : names) {
    const WeightStore::Entry& entry = checkpoint_->weights_.entries().at(name);
    sha.Update(absl::StrCat("\n", name, " ", Words(entry.tensor), " ", entry.interleaved_heads, " ",
                            PlaceOf(entry.tensor.data, files), " "));
    sha.Update(Sample(entry));
  }
  checkpoint_->digest_ = HexOf(sha.Finish());
}

absl::StatusOr<std::unique_ptr<Checkpoint>> CheckpointBuilder::Finish() {
  NG_RETURN_IF_ERROR(ResolveTiedHead());
  NG_RETURN_IF_ERROR(CheckTensors());
  Describe();
  ComputeDigest();
  return std::move(checkpoint_);
}

}  // namespace neurogrid
