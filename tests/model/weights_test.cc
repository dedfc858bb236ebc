// safetensors files and folders, whole and broken; every tensor against the config.
#include <catch2/catch_test_macros.hpp>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/model/checkpoint.h"
#include "engine/model/read_rows.h"
#include "engine/model/safetensors.h"
#include "tests/support/golden.h"
#include "tests/support/model_files.h"

namespace neurogrid {
namespace {

std::string FileError(const std::string& bytes) {
  const TemporaryFolder folder;
  const auto file = OpenSafetensors(folder.Write("m.safetensors", bytes));
  return file.ok() ? "no error" : std::string(file.status().message());
}

std::string Entry(const std::string& shape, const std::string& offsets,
                  const std::string& dtype = "F32") {
  return absl::StrCat("{\"dtype\":\"", dtype, "\",\"shape\":", shape, ",\"data_offsets\":", offsets,
                      "}");
}

/// A file of one tensor "t" and 16 bytes of data.
std::string One(const std::string& shape, const std::string& offsets,
                const std::string& dtype = "F32") {
  return SafetensorsBytes("{\"t\":" + Entry(shape, offsets, dtype) + "}", std::string(16, 'x'));
}

std::string Two(const std::string& first, const std::string& second) {
  return SafetensorsBytes("{\"t\":" + first + ",\"u\":" + second + "}", std::string(16, 'x'));
}

TEST_CASE("a broken safetensors file is named with what is wrong",
          "[safetensors][U1][U2][R20][R21]") {
  const std::string lie(100, 'x');
  const std::pair<std::string, const char*> cases[] = {
      {Bytes(uint64_t{1} << 63) + "{}", "header has 9223372036854775808 bytes"},
      {Bytes(uint64_t{100'000'001}) + "{}", "header has 100000001 bytes"},
      {Bytes(uint64_t{0}) + "{}", "header has 0 bytes"},
      {Bytes(uint64_t{50}) + "{}", "inside the file of 10"},
      {"abc", "has 3 bytes; a header needs 8"},
      {SafetensorsBytes("[]", ""), "does not start with \"{\""},
      {SafetensorsBytes("{\"t\":", ""), "malformed"},
      {SafetensorsBytes("{} x", ""), "text after the end"},
      {Two(Entry("[2]", "[0,8]"), Entry("[3]", "[4,16]")),
       "\"u\" starts at byte 4 of the data but 8 is next: an overlap"},
      {Two(Entry("[1]", "[0,4]"), Entry("[2]", "[8,16]")),
       "\"u\" starts at byte 8 of the data but 4 is next: a gap"},
      {One("[3]", "[0,12]"), "tensors end at byte 12 of the data but the file has 16"},
      {One("[5]", "[0,20]"), "\"t\" ends at byte 20 of the data but the file has 16"},
      {One("[4]", "[4,20]"), "\"t\" starts at byte 4"},
      {One("[4]", "[-4,12]"), "data_offsets value -4"},
      {One("[4]", "[0,NaN]"), "data_offsets value NaN"},
      {One("[4]", "[0,1.6e1]"), "data_offsets value"},
      {One("[4]", "[16,0]"), "has the data_offsets [16, 0)"},
      {One("[4]", "[0]"), "not two numbers"},
      {One("[1,1,1,1,4]", "[0,16]"), "\"t\" has a shape of more than 4 numbers"},
      {One("[4294967296,4294967296]", "[0,16]"), "beyond 63 bits"},
      {One("[3]", "[0,16]"), "F32 [3] needs 12 bytes"},
      {One("[2]", "[0,16]", "F64"), "has the dtype \"F64\""},
      {One("[16]", "[0,16]", "F8_E4M3"), "has the dtype \"F8_E4M3\""},
      {SafetensorsBytes(
           "{\"t\":" + Entry("[2]", "[0,8]") + ",\"t\":" + Entry("[2]", "[8,16]") + "}", lie),
       "\"t\" stands twice"},
      {SafetensorsBytes("{\"t\":{\"dtype\":\"F32\"}}", ""), "lacks dtype, shape or data_offsets"},
      {SafetensorsBytes("{\"t\":{\"evil\":1}}", ""), "unknown or repeated key \"evil\""},
      {SafetensorsBytes("{\"" + std::string(1025, 'n') + "\":{}}", ""), "name of 1025 bytes"},
      {SafetensorsBytes("{\"__metadata__\":{\"a\":1}}", ""), "expected '\"'"},
  };
  for (const auto& [bytes, says] : cases) {
    const std::string error = FileError(bytes);
    CAPTURE(says, error);
    CHECK(absl::StrContains(error, says));
    CHECK(absl::StrContains(error, "m.safetensors"));
  }
}

TEST_CASE("good safetensors headers open", "[safetensors]") {
  CHECK(FileError(One("[4]", "[0,16]")) == "no error");
  CHECK(FileError(One("[8]", "[0,16]", "BF16")) == "no error");
  CHECK(FileError(SafetensorsBytes("{\"__metadata__\":{\"format\":\"p\\u0074\"}}   ", "")) ==
        "no error");
  CHECK(FileError(Two(Entry("[0,4]", "[0,0]"), Entry("[4]", "[0,16]"))) == "no error");
  CHECK(FileError(Two(Entry("[]", "[0,4]"), Entry("[3]", "[4,16]"))) == "no error");
}

TEST_CASE("a header of a hundred thousand tensors opens", "[safetensors][U1]") {
  std::string header = "{";
  for (int i = 0; i < 100'000; ++i) {
    absl::StrAppend(&header, i ? "," : "", "\"t", i, "\":", Entry("[0]", "[0,0]"));
  }
  CHECK(FileError(SafetensorsBytes(header + "}", "")) == "no error");
}

TEST_CASE("files of another kind are told by their content", "[weights][U4][R24]") {
  const std::pair<std::string, const char*> cases[] = {
      {std::string("PK\x03\x04", 4) + std::string(30, 'x'), "a zip file"},
      {"\x80\x04\x95" + std::string(30, 'x'), "a Python pickle"},
      {"\n<!DOCTYPE html><html>Sign in</html>", "an HTML page"},
      {"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "git lfs pull"},
  };
  for (const auto& [bytes, says] : cases) {
    CAPTURE(says);
    CHECK(absl::StrContains(FileError(bytes), says));
    const TemporaryFolder folder;
    const auto gguf = Checkpoint::Open(folder.Write("m.gguf", bytes));
    CHECK(absl::StrContains(gguf.status().message(), says));
  }
}

/// A folder with the micro llama, changed in one way.
std::string FolderError(const std::vector<FloatTensor>& tensors,
                        const std::string& config = MicroConfig(),
                        std::vector<std::string>* warnings = nullptr) {
  const TemporaryFolder folder;
  folder.Write("config.json", config);
  folder.Write("model.safetensors", SafetensorsOf(tensors));
  const auto model = Checkpoint::Open(folder.path());
  if (!model.ok()) return std::string(model.status().message());
  if (warnings != nullptr) *warnings = (*model)->warnings();
  return "no error";
}

TEST_CASE("every missing and every wrong shape is named", "[weights][U6][R26]") {
  const std::vector<FloatTensor> whole = MicroLlama();
  REQUIRE(FolderError(whole) == "no error");
  for (size_t i = 0; i < whole.size(); ++i) {
    CAPTURE(whole[i].name);
    std::vector<FloatTensor> missing = whole;
    missing.erase(missing.begin() + static_cast<int64_t>(i));
    CHECK(absl::StrContains(FolderError(missing), whole[i].name + " is missing"));

    std::vector<FloatTensor> longer = whole;
    longer[i].shape[0] += 1;
    longer[i].values.resize(longer[i].values.size() * 2);
    longer[i].values.resize(static_cast<size_t>(
        longer[i].shape[0] * (longer[i].shape.size() == 2 ? longer[i].shape[1] : 1)));
    const std::string error = FolderError(longer);
    CAPTURE(error);
    CHECK(absl::StrContains(error, "model.safetensors: " + whole[i].name + " is ["));
    CHECK(absl::StrContains(error, "but the config implies ["));

    if (whole[i].shape.size() == 2 && whole[i].shape[0] != whole[i].shape[1]) {
      std::vector<FloatTensor> transposed = whole;
      std::swap(transposed[i].shape[0], transposed[i].shape[1]);
      CHECK(absl::StrContains(FolderError(transposed), whole[i].name + " is ["));
    }
    std::vector<FloatTensor> typed = whole;
    typed[i].dtype = "I16";
    CHECK(absl::StrContains(FolderError(typed),
                            absl::StrCat("\"", whole[i].name, "\" has the dtype \"I16\"")));
  }
}

TEST_CASE("an extra tensor under a layer is an error, elsewhere a warning", "[weights][U6]") {
  std::vector<FloatTensor> tensors = MicroLlama();
  tensors.push_back({"model.layers.0.self_attn.q_proj.bias", {8}, std::vector<float>(8)});
  CHECK(absl::StrContains(FolderError(tensors),
                          "model.layers.0.self_attn.q_proj.bias F32 [8] is not expected"));
  tensors.back() = {"model.layers.1.input_layernorm.weight", {8}, std::vector<float>(8)};
  CHECK(absl::StrContains(FolderError(tensors), "model.layers.1.input_layernorm.weight"));
  tensors.back() = {"visual.patch", {8}, std::vector<float>(8)};
  std::vector<std::string> warnings;
  CHECK(FolderError(tensors, MicroConfig(), &warnings) == "no error");
  REQUIRE(warnings.size() == 1);
  CHECK(absl::StrContains(warnings[0], "tensor visual.patch is not used"));
  tensors.back() = {"model.layers.0.self_attn.rotary_emb.inv_freq", {2}, {1, 2}};
  CHECK(FolderError(tensors, MicroConfig(), &warnings) == "no error");
  CHECK(warnings.empty());
}

TEST_CASE("biases are expected when the config says so", "[weights]") {
  std::string config = MicroConfig();
  config = absl::StrReplaceAll(config, {{"{", "{\"attention_bias\":true,\"mlp_bias\":true,"}});
  std::vector<FloatTensor> tensors = MicroLlama();
  CHECK(absl::StrContains(FolderError(tensors, config), "q_proj.bias is missing"));
  const std::vector<FloatTensor> plain = tensors;
  for (const FloatTensor& tensor : plain) {
    if (!absl::StrContains(tensor.name, "_proj")) continue;
    tensors.push_back({absl::StrReplaceAll(tensor.name, {{".weight", ".bias"}}),
                       {tensor.shape[0]},
                       std::vector<float>(static_cast<size_t>(tensor.shape[0]))});
  }
  CHECK(FolderError(tensors, config) == "no error");
}

TEST_CASE("a tied head is shared when equal and used with a warning when not", "[weights]") {
  const std::string tied = absl::StrReplaceAll(
      MicroConfig(), {{"\"tie_word_embeddings\":false", "\"tie_word_embeddings\":true"}});
  const auto open = [&](const std::vector<FloatTensor>& tensors) {
    const TemporaryFolder folder;
    folder.Write("config.json", tied);
    folder.Write("model.safetensors", SafetensorsOf(tensors));
    return Checkpoint::Open(folder.path()).value();
  };
  std::vector<FloatTensor> tensors = MicroLlama();
  const auto different = open(tensors);
  CHECK_FALSE(different->config().tied_embeddings);
  REQUIRE(different->warnings().size() == 1);
  CHECK(absl::StrContains(different->warnings()[0], "lm_head.weight is used"));
  tensors[2].values = tensors[0].values;
  const auto equal = open(tensors);
  CHECK(equal->config().tied_embeddings);
  CHECK_FALSE(equal->weights().Has("lm_head.weight"));
  tensors.erase(tensors.begin() + 2);
  const auto absent = open(tensors);
  CHECK(absent->config().tied_embeddings);
  CHECK(absent->warnings().empty());
}

/// The micro llama in two shards, and its index, which each case bends.
struct ShardedFolder {
  TemporaryFolder folder;
  std::vector<FloatTensor> first, second;
  std::string map;

  ShardedFolder() {
    const std::vector<FloatTensor> all = MicroLlama();
    first.assign(all.begin(), all.begin() + 5);
    second.assign(all.begin() + 5, all.end());
    for (const FloatTensor& tensor : first) Map(tensor.name, "a.safetensors");
    for (const FloatTensor& tensor : second) Map(tensor.name, "b.safetensors");
  }
  void Map(const std::string& tensor, const std::string& shard) {
    absl::StrAppend(&map, map.empty() ? "" : ",", "\"", tensor, "\":\"", shard, "\"");
  }
  std::string Error() {
    folder.Write("config.json", MicroConfig());
    folder.Write("a.safetensors", SafetensorsOf(first));
    if (!second.empty()) folder.Write("b.safetensors", SafetensorsOf(second));
    folder.Write("model.safetensors.index.json", "{\"weight_map\":{" + map + "}}");
    const auto model = Checkpoint::Open(folder.path());
    return model.ok() ? "no error" : std::string(model.status().message());
  }
};

TEST_CASE("an index stays inside its folder and tells the truth", "[weights][U5][R25]") {
  CHECK(ShardedFolder().Error() == "no error");
  for (const char* name : {"../b.safetensors", "/etc/passwd", "sub/b.safetensors", ".hidden", ""}) {
    CAPTURE(name);
    ShardedFolder bent;
    bent.map = absl::StrReplaceAll(bent.map, {{"b.safetensors", name}});
    CHECK(absl::StrContains(bent.Error(), "is not the plain name of a file"));
  }
  ShardedFolder absent;
  absent.map = absl::StrReplaceAll(absent.map, {{"b.safetensors", "c.safetensors"}});
  CHECK(absl::StrContains(absent.Error(), "c.safetensors: No such file"));

  ShardedFolder doubled;
  doubled.second.push_back(doubled.first[0]);
  CHECK(absl::StrContains(doubled.Error(), "but the index says it is in a.safetensors"));

  ShardedFolder moved;
  moved.second.erase(moved.second.begin());
  CHECK(absl::StrContains(moved.Error(), "k_proj.weight is missing although the index says"));
}

TEST_CASE("a link that leads out of the folder is refused, but not a hub cache's",
          "[weights][U5]") {
  namespace fs = std::filesystem;
  ShardedFolder linked;
  const TemporaryFolder outside;
  const std::string target = outside.Write("b.safetensors", SafetensorsOf(linked.second));
  linked.second.clear();
  fs::create_symlink(target, linked.folder.path() + "/b.safetensors");
  CHECK(absl::StrContains(linked.Error(), "b.safetensors is a link that leads out of the folder"));

  const TemporaryFolder hub;
  hub.Write("blobs/abc", SafetensorsOf(MicroLlama()));
  hub.Write("snapshots/main/config.json", MicroConfig());
  fs::create_symlink("../../blobs/abc", hub.path() + "/snapshots/main/model.safetensors");
  CHECK(Checkpoint::Open(hub.path() + "/snapshots/main").ok());
}

TEST_CASE("a folder without safetensors says what it lacks", "[weights]") {
  const TemporaryFolder folder;
  const auto error = [&] {
    return std::string(Checkpoint::Open(folder.path()).status().message());
  };
  CHECK(absl::StrContains(error(), "config.json: No such file"));
  folder.Write("config.json", MicroConfig());
  CHECK(absl::StrContains(error(), "has neither model.safetensors nor"));
  folder.Write("consolidated.safetensors", "not read");
  folder.Write("pytorch_model.bin", "not read");
  CHECK(absl::StrContains(error(), "never loaded"));
  folder.Write("model.safetensors", SafetensorsOf(MicroLlama()));
  CHECK(Checkpoint::Open(folder.path()).ok());
  folder.Write("config.json", "{\"model_type\":");
  CHECK(absl::StrContains(error(), "config.json is not valid JSON"));
  folder.Write("config.json", std::string(2 << 20, ' '));
  CHECK(absl::StrContains(error(), "config.json has 2097152 bytes; at most 1048576"));
  CHECK(absl::StrContains(Checkpoint::Open("/no/such/model").status().message(),
                          "there is no model at /no/such/model"));
}

TEST_CASE("two fine-tunes of one model have different digests", "[checkpoint]") {
  const auto digest = [](const std::vector<FloatTensor>& tensors) {
    const TemporaryFolder folder;
    folder.Write("config.json", MicroConfig());
    folder.Write("model.safetensors", SafetensorsOf(tensors));
    return Checkpoint::Open(folder.path()).value()->digest();
  };
  std::vector<FloatTensor> tensors = MicroLlama();
  const std::string first = digest(tensors);
  CHECK(first.size() == 64);
  CHECK(first == digest(tensors));
  for (float& value : tensors[4].values) value += 1;
  CHECK(first != digest(tensors));
}

TEST_CASE("configs that differ in the seventh digit of a number have different digests",
          "[checkpoint]") {
  const auto digest = [](const std::string& theta) {
    const TemporaryFolder folder;
    std::string config = MicroConfig();
    config.insert(1, "\"rope_theta\":" + theta + ",");
    folder.Write("config.json", config);
    folder.Write("model.safetensors", SafetensorsOf(MicroLlama()));
    return Checkpoint::Open(folder.path()).value()->digest();
  };
  CHECK(digest("1000000") == digest("1e6"));
  CHECK(digest("1000000") != digest("1000001"));
}

}  // namespace
}  // namespace neurogrid
