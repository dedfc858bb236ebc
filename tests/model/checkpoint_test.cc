// Opening models: the same numbers and the same bits from every kind of file.
#include "engine/model/checkpoint.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cstring>
#include <filesystem>
#include <tuple>
#include <vector>

#include "engine/model/read_rows.h"
#include "tests/support/golden.h"
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
    ReadRowsBf16(source, 0, view.rows, rounded.data());
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
