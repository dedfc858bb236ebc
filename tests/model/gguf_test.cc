// GGUF headers, whole and broken.
#include "engine/model/gguf.h"

#include <catch2/catch_test_macros.hpp>
#include <functional>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/model/checkpoint.h"
#include "tests/support/golden.h"
#include "tests/support/model_files.h"

namespace neurogrid {
namespace {

std::string ErrorOf(const std::string& bytes) {
  const TemporaryFolder folder;
  const auto gguf = Gguf::Open(folder.Write("m.gguf", bytes));
  return gguf.ok() ? "no error" : std::string(gguf.status().message());
}

struct Bad {
  std::string what;   // what is wrong
  std::string bytes;  // of the file
  std::string says;   // part of the message
};

std::string WithKey(uint32_t type, const std::string& value) {
  return GgufWriter().Key("some.key", type, value).File();
}

std::string ArrayOf(uint32_t type, uint64_t count, const std::string& items) {
  return Bytes(type) + Bytes(count) + items;
}

GgufWriter Plain() {
  GgufWriter writer;
  return writer.Text("general.architecture", "llama");
}

void CheckAll(const std::vector<Bad>& files) {
  for (const Bad& file : files) {
    CAPTURE(file.what);
    const std::string error = ErrorOf(file.bytes);
    CAPTURE(error);
    CHECK(absl::StrContains(error, file.says));
    CHECK(absl::StrContains(error, "m.gguf"));
  }
}

TEST_CASE("broken GGUF counts and metadata are named", "[gguf][U3][R18]") {
  GgufWriter old;
  old.version = 1;
  GgufWriter swapped;
  swapped.version = 0x03000000;
  GgufWriter tensors;
  tensors.tensor_count = uint64_t{1} << 60;
  GgufWriter keys;
  keys.key_count = uint64_t{1} << 60;
  GgufWriter one_more = Plain();
  one_more.key_count = 2;
  const std::string huge = Bytes(uint64_t{1} << 63);
  CheckAll({
      {"only a magic", "GGUF", "ends at byte 4 inside the version"},
      {"version 1", old.File(), "version is 1 but must be 2 or 3"},
      {"big-endian", swapped.File(), "big-endian"},
      {"2^60 tensors", tensors.File(), "1152921504606846976 tensors; at most 65536"},
      {"2^60 keys", keys.File(), "1152921504606846976 keys; at most 65536"},
      {"a key too few", one_more.File().substr(0, 73), "inside a key"},
      {"string of 2^63", WithKey(8, huge), "some.key says it has 9223372036854775808 bytes"},
      {"string past the end", WithKey(8, Bytes(uint64_t{4096})), "are left in the file"},
      {"nested array", WithKey(9, ArrayOf(9, 1, "")), "array of arrays"},
      {"array of 2^60", WithKey(9, ArrayOf(4, uint64_t{1} << 60, "")), "all arrays together"},
      {"array past the end", WithKey(9, ArrayOf(4, 1000000, "")), "1000000 items of 4 bytes"},
      {"strings past the end", WithKey(9, ArrayOf(8, 1000000, "")), "1000000 strings"},
      {"unknown value type", WithKey(77, ""), "unknown value type 77"},
      {"bool of 2", WithKey(7, "\x02"), "bool of value 2"},
      {"u64 beyond 63 bits", WithKey(10, Bytes(~uint64_t{0})), "beyond 63 bits"},
      {"key twice", GgufWriter().U32("a", 1).U32("a", 1).File(), "\"a\" stands twice"},
      {"empty key", GgufWriter().U32("", 1).File(), "empty or not printable"},
      {"control byte in key", GgufWriter().U32("a\n", 1).File(), "not printable"},
      {"split file of another name", Plain().U32("split.count", 3).File(),
       "split.count is 3, so the name must end in -00001-of-00003.gguf"},
  });
}

TEST_CASE("broken GGUF tensors are named", "[gguf][U3][R19][R20][R21][R22]") {
  const std::string data(64, 'x');
  const auto one = [&](const std::vector<uint64_t>& dims, uint32_t type,
                       std::optional<uint64_t> offset = std::nullopt) {
    return Plain().Tensor("t", dims, type, data, offset).File();
  };
  const auto aligned = [&](uint32_t alignment) {
    return Plain().U32("general.alignment", alignment).Tensor("t", {16}, 0, data).File();
  };
  const uint64_t half = uint64_t{1} << 32;
  CheckAll({
      {"dtype 9999", one({16}, 9999), "\"t\" has the type 9999"},
      {"dtype not read", one({256}, 16), "type 16 (IQ2_XXS)"},
      {"no dimension", one({}, 0), "has 0 dimensions"},
      {"5 dimensions", one({1, 1, 1, 1, 1}, 0), "has 5 dimensions"},
      {"a dimension of 0", one({0}, 0), "dimension of 0"},
      {"size wraps to 0", one({half, half}, 0), "more elements than"},
      {"size wraps to small", one({half, half, 1, 16}, 0), "more elements than"},
      {"rows not of whole blocks", one({33}, 2), "no multiple of the 32 of a Q4_0 block"},
      {"offset not aligned", one({4}, 0, 8), "no multiple of the alignment 32"},
      {"past the end", one({17}, 0), "needs 68 bytes from offset 0 but the data section has 64"},
      {"offset near 2^64", one({4}, 0, ~uint64_t{31}), "from offset 18446744073709551584"},
      {"alignment 0", aligned(0), "general.alignment is 0"},
      {"alignment 3", aligned(3), "general.alignment is 3"},
      {"alignment 2^31", aligned(1u << 31), "general.alignment is 2147483648"},
      {"name of 65 bytes", Plain().Tensor(std::string(65, 'n'), {16}, 0, data).File(),
       "says it has 65 bytes; at most 64"},
      {"name twice", Plain().Tensor("t", {16}, 0, data).Tensor("t", {16}, 0, data).File(),
       "\"t\" stands twice"},
      {"overlap", Plain().Tensor("t", {16}, 0, data).Tensor("u", {16}, 0, data, 32).File(),
       "\"u\" overlaps"},
      {"no quantization version", one({32}, 2), "general.quantization_version is missing"},
  });
}

TEST_CASE("65,536 tensors with one long common prefix open in linear time", "[gguf][R23]") {
  GgufWriter writer;
  writer.alignment = 1;
  writer.U32("general.alignment", 1);
  const std::string prefix(56, 'p');
  for (int i = 0; i < 65536; ++i) {
    writer.Tensor(absl::StrCat(prefix, i), {1}, 0, "abcd");
  }
  const TemporaryFolder folder;
  const auto gguf = Gguf::Open(folder.Write("m.gguf", writer.File()));
  REQUIRE(gguf.ok());
  CHECK((*gguf)->tensors().size() == 65536);
}

TEST_CASE("a file cut at any byte is an error, never a crash", "[gguf]") {
  const std::string whole =
      Plain()
          .Key("list", 9, ArrayOf(8, 2, GgufWriter::String("a") + GgufWriter::String("bc")))
          .Tensor("t", {16}, 0, std::string(64, 'x'))
          .File();
  REQUIRE(ErrorOf(whole) == "no error");
  for (size_t size = 1; size < whole.size(); ++size) {
    CAPTURE(size);
    CHECK(ErrorOf(whole.substr(0, size)) != "no error");
  }
}

TEST_CASE("access names key, found kind and expected kind", "[gguf]") {
  const TemporaryFolder folder;
  const auto gguf =
      Gguf::Open(folder.Write("m.gguf", Plain().U32("n", 7).F32("x", 0.5f).File())).value();
  CHECK(gguf->Integer("n").value() == 7);
  CHECK(gguf->Number("n").value() == 7.0);
  CHECK(gguf->Number("x").value() == 0.5);
  CHECK(gguf->String("general.architecture").value() == "llama");
  CHECK(absl::IsNotFound(gguf->Integer("absent").status()));
  CHECK(absl::StrContains(gguf->Integer("x").status().message(),
                          "x is a number but must be an integer"));
}

/// Keys of a llama of 1 layer, one of which may be left out or replaced.
std::string LlamaKeys(const std::string& without, const std::function<void(GgufWriter&)>& add) {
  GgufWriter writer = Plain();
  const std::pair<const char*, uint32_t> numbers[] = {{"llama.context_length", 64},
                                                      {"llama.embedding_length", 8},
                                                      {"llama.block_count", 1},
                                                      {"llama.feed_forward_length", 12},
                                                      {"llama.attention.head_count", 2},
                                                      {"llama.attention.head_count_kv", 1},
                                                      {"llama.vocab_size", 6}};
  for (const auto& [key, value] : numbers) {
    if (key != without) writer.U32(key, value);
  }
  writer.F32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  add(writer);
  return writer.File();
}

std::string OpenError(const std::string& bytes) {
  const TemporaryFolder folder;
  const auto model = Checkpoint::Open(folder.Write("m.gguf", bytes));
  return model.ok() ? "no error" : std::string(model.status().message());
}

TEST_CASE("GGUF keys that are missing, wrong or not understood are named", "[gguf][config]") {
  const auto with = [](const std::string& without, const auto& add) {
    return OpenError(LlamaKeys(without, add));
  };
  const auto nothing = [](GgufWriter&) {};
  CHECK(absl::StrContains(with("llama.block_count", nothing), "llama.block_count is missing"));
  CHECK(absl::StrContains(with("", nothing), "model.embed_tokens.weight is missing"));
  CHECK(absl::StrContains(with("llama.attention.head_count",
                               [](GgufWriter& w) { w.U32("llama.attention.head_count", 0); }),
                          "llama.attention.head_count is 0 but must be in [1, 1024]"));
  CHECK(
      absl::StrContains(with("llama.attention.head_count",
                             [](GgufWriter& w) { w.U32("llama.attention.head_count", 3); }),
                        "llama.embedding_length is 8, no multiple of the attention.head_count 3"));
  CHECK(absl::StrContains(
      with("", [](GgufWriter& w) { w.Text("llama.rope.scaling.type", "longrope"); }),
      "llama.rope.scaling.type is \"longrope\""));
  CHECK(absl::StrContains(with("", [](GgufWriter& w) { w.U32("llama.expert_count", 8); }),
                          "experts are not supported"));
  CHECK(absl::StrContains(with("", [](GgufWriter& w) { w.F32("llama.logit_scale", 2); }),
                          "llama.logit_scale is not known"));
  CHECK(absl::StrContains(with("", [](GgufWriter& w) { w.U32("llama.rope.dimension_count", 2); }),
                          "llama.rope.dimension_count is 2 but must equal"));
  CHECK(absl::StrContains(OpenError(GgufWriter().Text("general.architecture", "mamba").File()),
                          "architecture \"mamba\" is not known; known are llama"));
}

}  // namespace
}  // namespace neurogrid
