// Opening models: the same numbers and the same bits from every kind of file.
#include "engine/model/checkpoint.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cstring>
#include <filesystem>
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

TEST_CASE("GGUF keys give the config of config.json", "[checkpoint]") {
  ModelConfig from_json = OpenGolden("tiny/llama")->config();
  ModelConfig from_gguf = OpenGolden("gguf/llama-F32.gguf")->config();
  CHECK(from_json.eos_ids == std::vector<int32_t>{2, 262});
  CHECK(from_gguf.eos_ids == std::vector<int32_t>{2});  // generation_config.json has no copy there
  from_gguf.eos_ids = from_json.eos_ids;
  from_gguf.generation = from_json.generation;
  CHECK(from_gguf == from_json);
}

}  // namespace
}  // namespace neurogrid
