// Opening models: the same numbers and the same bits from every kind of file.
#include "engine/model/checkpoint.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cstring>
#include <filesystem>
#include <tuple>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/model/read_rows.h"
#include "engine/model/tensor_table.h"
#include "tests/support/golden.h"
#include "tests/support/model_files.h"
#include "tests/support/test_data.h"

namespace neurogrid {
namespace {

std::unique_ptr<Checkpoint> OpenGolden(const std::string& name) {
  absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = Checkpoint::Open(Golden(name));
  CAPTURE(checkpoint.status().ToString());
  REQUIRE(checkpoint.ok());
  return *std::move(checkpoint);
}

std::vector<float> Values(const WeightStore::Entry& entry) {
  const MatrixView view = MatrixOf(entry.tensor.shape);
  std::vector<float> values(static_cast<size_t>(view.rows * view.columns));
  ReadRows(entry, 0, view.rows, values.data());
  return values;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST_CASE("the tiny llama opens whole, in shards and as GGUF with the same bits", "[checkpoint]") {
  const auto whole = OpenGolden("tiny/llama");
  CHECK(whole->weights_description() == "F32");
  CHECK(whole->weights().entries().size() == 4 * 9 + 3);
  CHECK(whole->warnings().empty());
  CHECK(whole->gguf() == nullptr);
  for (const char* name : {"tiny/llama/sharded", "gguf/llama-F32.gguf"}) {
    CAPTURE(name);
    const auto other = OpenGolden(name);
    REQUIRE(other->weights().entries().size() == whole->weights().entries().size());
    for (const auto& [tensor, entry] : whole->weights().entries()) {
      CAPTURE(tensor);
      const auto found = other->weights().Find(tensor, entry.tensor.shape);
      REQUIRE(found.ok());
      CHECK(SameBits(Values(*found), Values(entry)));
    }
  }
}

TEST_CASE("the tiny model of every family opens, each tensor of it expected", "[checkpoint]") {
  // Tensors of a layer of attention, of one of convolution, and outside the layers.
  const std::tuple<const char*, int, int, int> models[] = {
      {"mistral-window", 9, 0, 3}, {"nemo", 9, 0, 3},   {"qwen2", 12, 0, 2},
      {"qwen3", 11, 0, 2},         {"lfm2", 11, 8, 2},  {"lfm2-bias", 11, 11, 2},
      {"gemma2", 11, 0, 2},        {"gemma3", 13, 0, 2}};
  for (const auto& [name, attention, convolution, outside] : models) {
    CAPTURE(name);
    const auto model = OpenGolden(std::string("tiny/") + name);
    int expected = outside;
    for (const LayerConfig& layer : model->config().layers) {
      expected += layer.kind == BlockKind::kAttention ? attention : convolution;
    }
    CHECK(static_cast<int>(model->weights().entries().size()) == expected);
    CHECK(model->warnings().empty());
  }
}

std::vector<FloatTensor> TensorsOf(const Checkpoint& model) {
  std::vector<FloatTensor> tensors;
  for (const auto& [name, entry] : model.weights().entries()) {
    FloatTensor tensor{name, {}, Values(entry)};
    for (int i = 0; i < entry.tensor.shape.rank(); ++i) {
      tensor.shape.push_back(entry.tensor.shape[i]);
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

TEST_CASE("a tensor of any family that is missing or misshapen is named", "[checkpoint]") {
  const std::string name = GENERATE("qwen2", "lfm2-bias", "gemma3");
  CAPTURE(name);
  const std::vector<FloatTensor> whole = TensorsOf(*OpenGolden("tiny/" + name));
  const TemporaryFolder folder;
  folder.Write("config.json", ReadFile(Golden("tiny/" + name + "/config.json")));
  const auto error = [&](const std::vector<FloatTensor>& tensors) {
    folder.Write("model.safetensors", SafetensorsOf(tensors));
    return std::string(Checkpoint::Open(folder.path()).status().message());
  };
  REQUIRE(error(whole).empty());
  for (size_t i = 0; i < whole.size(); ++i) {
    const std::string& tensor = whole[i].name;
    if (!absl::StrContains(tensor, ".0.") && !absl::StrContains(tensor, ".1.")) continue;
    CAPTURE(tensor);
    std::vector<FloatTensor> missing = whole;
    missing.erase(missing.begin() + static_cast<int64_t>(i));
    CHECK(absl::StrContains(error(missing), folder.path() + ": " + tensor + " is missing"));
    std::vector<FloatTensor> longer = whole;
    longer[i].shape[0] += 1;
    longer[i].values.resize(longer[i].values.size() / whole[i].shape[0] * longer[i].shape[0]);
    CHECK(absl::StrContains(error(longer), "model.safetensors: " + tensor + " is ["));
    std::vector<FloatTensor> extra = whole;
    extra[i].name = absl::StrCat(tensor.substr(0, tensor.rfind('.')), ".gamma");
    extra.push_back(whole[i]);
    CHECK(absl::StrContains(error(extra), extra[i].name + " F32 ["));
  }
}

/// The tiny gemma3 as the language part of a model that sees images: its names behind `prefix`
/// instead of "model.", with parts that are not used.
std::unique_ptr<Checkpoint> OpenWrapped(const TemporaryFolder& folder, const std::string& prefix,
                                        const std::string& before_vision) {
  std::vector<FloatTensor> tensors = TensorsOf(*OpenGolden("tiny/gemma3"));
  for (FloatTensor& tensor : tensors) {
    tensor.name = absl::StrCat(prefix, tensor.name.substr(std::strlen("model.")));
  }
  for (const char* part : {"vision_tower.encoder.weight", "multi_modal_projector.weight"}) {
    tensors.push_back({before_vision + part, {2}, {1, 2}});
  }
  folder.Write("model.safetensors", SafetensorsOf(tensors));
  Json config = ParseJson(R"({"model_type":"gemma3","vision_config":{},
                              "architectures":["Gemma3ForConditionalGeneration"]})")
                    .value();
  config.Set("text_config", ReadJson(Golden("tiny/gemma3/config.json")));
  folder.Write("config.json", ToString(config));
  return Checkpoint::Open(folder.path()).value();
}

TEST_CASE("the language part of a Gemma 3 that sees images opens under either prefix",
          "[checkpoint]") {
  const auto plain = OpenGolden("tiny/gemma3");
  const std::pair<const char*, const char*> prefixes[] = {{"language_model.model.", ""},
                                                          {"model.language_model.", "model."}};
  for (const auto& [prefix, before_vision] : prefixes) {
    CAPTURE(prefix);
    const TemporaryFolder folder;
    const auto wrapped = OpenWrapped(folder, prefix, before_vision);
    CHECK(wrapped->warnings().empty());
    CHECK(wrapped->config().layers == plain->config().layers);
    CHECK(wrapped->config().ropes == plain->config().ropes);
    REQUIRE(wrapped->weights().entries().size() == plain->weights().entries().size());
    for (const auto& [name, entry] : plain->weights().entries()) {
      CAPTURE(name);
      const auto found = wrapped->weights().Find(name, entry.tensor.shape);
      REQUIRE(found.ok());
      CHECK(SameBits(Values(*found), Values(entry)));
    }
  }
}

TEST_CASE("a GGUF copy has the numbers and the bits of the safetensors of each family",
          "[checkpoint][gguf]") {
  for (const std::string name : {"llama", "qwen3", "lfm2", "gemma3"}) {
    CAPTURE(name);
    const auto folder = OpenGolden("tiny/" + name);
    const auto copy = OpenGolden("gguf/" + name + "-F32.gguf");
    CHECK(copy->warnings().empty());
    ModelConfig numbers = copy->config();
    CHECK(numbers.norm_offset == 0);
    // What has no key there: end tokens of generation_config.json and its sampling defaults.
    numbers.norm_offset = folder->config().norm_offset;
    numbers.eos_ids = folder->config().eos_ids;
    numbers.bos_id = folder->config().bos_id;
    numbers.generation = folder->config().generation;
    CHECK(numbers == folder->config());
    REQUIRE(copy->weights().entries().size() == folder->weights().entries().size());
    for (const auto& [tensor, entry] : folder->weights().entries()) {
      CAPTURE(tensor);
      const auto found = copy->weights().Find(tensor, entry.tensor.shape);
      REQUIRE(found.ok());
      std::vector<float> expected = Values(entry);
      if (folder->config().norm_offset != 0 && entry.tensor.shape.rank() == 1) {
        for (float& value : expected) value += 1;
      }
      CHECK(SameBits(Values(*found), expected));
    }
  }
}

TEST_CASE("a tensor that a GGUF file lacks is told by that file's name for it", "[checkpoint]") {
  for (const char* name : {"llama", "qwen2", "qwen3", "lfm2", "lfm2-bias", "gemma2", "gemma3"}) {
    const auto model = OpenGolden(std::string("tiny/") + name);
    const Architecture& row = *FindArchitecture(model->config().architecture).value();
    for (const auto& [tensor, entry] : model->weights().entries()) {
      CAPTURE(name, tensor);
      CHECK(TranslateGgufName(row, GgufNameOf(row, tensor)) == tensor);
    }
  }
  GgufWriter writer;
  writer.Text("general.architecture", "lfm2").F32("lfm2.attention.layer_norm_rms_epsilon", 1e-5f);
  for (const auto& [key, value] :
       std::vector<std::pair<std::string, uint32_t>>{{"context_length", 64},
                                                     {"embedding_length", 1},
                                                     {"block_count", 1},
                                                     {"feed_forward_length", 8},
                                                     {"attention.head_count", 1},
                                                     {"attention.key_length", 2},
                                                     {"attention.value_length", 2},
                                                     {"rope.dimension_count", 2},
                                                     {"shortconv.l_cache", 3},
                                                     {"vocab_size", 2}}) {
    writer.U32("lfm2." + key, value);
  }
  writer.Tensor("token_embd.weight", {1, 2}, 0, std::string(8, '\0'));
  const TemporaryFolder folder;
  const auto model = Checkpoint::Open(folder.Write("m.gguf", writer.File()));
  CAPTURE(model.status().ToString());
  CHECK(absl::StrContains(model.status().message(),
                          "m.gguf: model.embedding_norm.weight is missing; the config implies [1] "
                          "(in GGUF files it is token_embd_norm.weight)"));
}

TEST_CASE("end tokens of a GGUF file are those of its keys and of known control tokens",
          "[checkpoint][gguf]") {
  CHECK(OpenGolden("tiny/llama")->config().eos_ids == std::vector<int32_t>{2, 262});
  CHECK(OpenGolden("gguf/llama-F32.gguf")->config().eos_ids == std::vector<int32_t>{2});
}

TEST_CASE("the tiny llama3-rope opens and is tied", "[checkpoint]") {
  const auto model = OpenGolden("tiny/llama3-rope");
  CHECK(model->config().tied_embeddings);
  CHECK_FALSE(model->weights().Has("lm_head.weight"));
}

TEST_CASE("the bf16 copy keeps its bits and equals the rounded float32 copy", "[checkpoint]") {
  const auto wide = OpenGolden("tiny/llama");
  const auto narrow = OpenGolden("tiny/llama/bf16");
  CHECK(narrow->weights_description() == "BF16");
  CHECK(narrow->digest() != wide->digest());
  for (const auto& [name, entry] : narrow->weights().entries()) {
    CAPTURE(name);
    const auto source = wide->weights().Find(name, entry.tensor.shape).value();
    const MatrixView view = MatrixOf(entry.tensor.shape);
    std::vector<bf16> rounded(static_cast<size_t>(view.rows * view.columns));
    ReadRows(source, 0, view.rows, rounded.data());
    CHECK(std::memcmp(rounded.data(), entry.tensor.data, rounded.size() * sizeof(bf16)) == 0);
  }
}

TEST_CASE("SmolLM2 opens from its GGUF file", "[checkpoint]") {
  const std::optional<std::string> path = SmolLm2();
  if (!path) SKIP("SmolLM2-135M-Instruct.Q4_1.gguf is not in the cache folder");
  const auto model = Checkpoint::Open(*path).value();
  CHECK(model->weights_description() == "mixed Q4_1/Q8_0");
  CHECK(model->config().hidden_size == 576);
  CHECK(model->config().query_heads == 9);
  CHECK(model->config().kv_heads == 3);
  CHECK(model->config().layers_count() == 30);
  CHECK(model->config().ropes[0].theta == 100000.0);
  CHECK(model->config().tied_embeddings);
  CHECK(model->config().eos_ids == std::vector<int32_t>{0, 2});  // <|endoftext|>, <|im_end|>
  CHECK(model->warnings().empty());
}

}  // namespace
}  // namespace neurogrid
