// Models in several GGUF files.
#include <catch2/catch_test_macros.hpp>
#include <cstring>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/model/gguf.h"
#include "tests/support/golden.h"
#include "tests/support/model_files.h"

namespace neurogrid {
namespace {

constexpr uint32_t kU16 = 2;

/// Three parts, the first with the metadata, each with one tensor of 4 numbers that say its part.
struct Parts {
  TemporaryFolder folder;
  std::vector<GgufWriter> parts = std::vector<GgufWriter>(3);
  uint32_t tensors = 3;
  std::string second_tensor = "t1";
  uint16_t second_number = 1;
  uint16_t second_count = 3;
  uint32_t second_type = 0;

  static std::string Name(int number) { return absl::StrCat("m-0000", number, "-of-00003.gguf"); }

  std::string Write() {
    for (uint16_t i = 0; i < 3; ++i) {
      GgufWriter& part = parts[i];
      const bool second = i == 1;
      if (i == 0) part.Text("general.architecture", "llama");
      part.Key("split.no", kU16, Bytes(second ? second_number : i));
      part.Key("split.count", kU16, Bytes(second ? second_count : uint16_t{3}));
      part.U32("split.tensors.count", tensors);
      const float values[32] = {static_cast<float>(i)};
      part.Tensor(second ? second_tensor : absl::StrCat("t", i), {32}, second ? second_type : 0,
                  std::string(reinterpret_cast<const char*>(values), sizeof values));
      folder.Write(Name(i + 1), part.File());
    }
    return folder.path() + "/" + Name(1);
  }
  std::string Error() {
    const auto gguf = Gguf::Open(Write());
    return gguf.ok() ? "no error" : std::string(gguf.status().message());
  }
};

TEST_CASE("a model in parts opens by the name of any part", "[gguf][split]") {
  Parts parts;
  parts.Write();
  for (const int number : {1, 2, 3}) {
    CAPTURE(number);
    const auto gguf = Gguf::Open(parts.folder.path() + "/" + Parts::Name(number)).value();
    CHECK(absl::EndsWith(gguf->path(), Parts::Name(1)));
    CHECK(gguf->String("general.architecture").value() == "llama");
    REQUIRE(gguf->files().size() == 3);
    REQUIRE(gguf->tensors().size() == 3);
    for (size_t i = 0; i < 3; ++i) {
      const Gguf::TensorInfo& info = gguf->tensors()[i];
      CHECK(info.name == absl::StrCat("t", i));
      CHECK(info.part == i);
      float first = -1;
      std::memcpy(&first, info.tensor.data, sizeof first);
      CHECK(first == static_cast<float>(i));
    }
  }
}

TEST_CASE("parts that do not belong together are named", "[gguf][split]") {
  const auto error = [](auto bend) {
    Parts parts;
    bend(parts);
    return parts.Error();
  };
  CHECK(error([](Parts&) {}) == "no error");
  CHECK(absl::StrContains(error([](Parts& p) { p.second_number = 2; }),
                          "m-00002-of-00003.gguf: split.no is 2 but must be 1"));
  CHECK(absl::StrContains(error([](Parts& p) { p.second_count = 4; }),
                          "m-00002-of-00003.gguf: split.count is 4 but must be 3"));
  CHECK(absl::StrContains(error([](Parts& p) { p.tensors = 4; }),
                          "split.tensors.count is 4 but the 3 parts have 3 tensors"));
  CHECK(absl::StrContains(error([](Parts& p) { p.second_tensor = "t0"; }),
                          "m-00002-of-00003.gguf: tensor t0 also stands in an earlier part"));
  CHECK(absl::StrContains(error([](Parts& p) { p.second_type = 2; }),
                          "m-00001-of-00003.gguf: general.quantization_version is missing"));
}

TEST_CASE("a missing part is named, also the first", "[gguf][split]") {
  Parts parts;
  const std::string first = parts.Write();
  const auto error = [](const std::string& path) {
    return std::string(Gguf::Open(path).status().message());
  };
  std::filesystem::remove(parts.folder.path() + "/" + Parts::Name(3));
  CHECK(absl::StrContains(error(first), "m-00003-of-00003.gguf: No such file"));
  std::filesystem::remove(first);
  CHECK(absl::StrContains(error(parts.folder.path() + "/" + Parts::Name(2)),
                          "m-00001-of-00003.gguf: No such file"));
}

TEST_CASE("a file named as a later part is never passed over for a first that stands alone",
          "[gguf][split]") {
  GgufWriter whole;
  whole.Text("general.architecture", "llama");
  SECTION("which says nothing of parts") {}
  SECTION("which says that it is the only one") {
    whole.Key("split.count", kU16, Bytes(uint16_t{1}));
  }
  const TemporaryFolder folder;
  folder.Write(Parts::Name(1), whole.File());
  CHECK(Gguf::Open(folder.path() + "/" + Parts::Name(1)).ok());
  const std::string later = folder.Write(Parts::Name(2), whole.File());
  CHECK(absl::StrContains(Gguf::Open(later).status().message(),
                          "m-00002-of-00003.gguf: its name says part 2 of 3, but split.count of " +
                              folder.path() + "/m-00001-of-00003.gguf names no other parts"));
}

TEST_CASE("a split count beyond the limit opens nothing", "[gguf][split]") {
  GgufWriter writer;
  writer.Key("split.count", kU16, Bytes(uint16_t{5000}));
  const TemporaryFolder folder;
  const std::string path = folder.Write("m-00001-of-05000.gguf", writer.File());
  CHECK(absl::StrContains(Gguf::Open(path).status().message(),
                          "split.count is 5000 but must be in [1, 4096]"));
}

}  // namespace
}  // namespace neurogrid
