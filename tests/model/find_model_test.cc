// What --model means: files, folders of models, names in a hub cache.
#include "engine/model/find_model.h"

#include <catch2/catch_test_macros.hpp>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/model/hub_cache.h"
#include "engine/model/model_list.h"
#include "tests/support/golden.h"

namespace neurogrid {
namespace {

const std::string kCommit(40, 'c');

/// A whole model of no content in `folder` of `home`.
void WriteModel(const TemporaryFolder& home, const std::string& folder, size_t bytes = 5) {
  home.Write(folder + "/config.json", "{}");
  home.Write(folder + "/tokenizer.json", "{}");
  home.Write(folder + "/model.safetensors", std::string(bytes, 'x'));
}

std::string Refusal(const std::string& text, const std::string& cache = "/nowhere") {
  return std::string(FindModel(text, cache).status().message());
}

TEST_CASE("ParseHubName knows revision and file", "[model]") {
  const HubName plain = ParseHubName("Org-1/Name_2.5").value();
  CHECK(plain.repository == "Org-1/Name_2.5");
  CHECK(plain.revision == "main");
  const HubName full = ParseHubName("o/n@refs/pr/1:Q4_K_M").value();
  CHECK(full.repository == "o/n");
  CHECK(full.revision == "refs/pr/1");
  CHECK(full.file == "Q4_K_M");
  CHECK(full.ToString() == "o/n@refs/pr/1:Q4_K_M");
  for (const char* bad :
       {"", "name", "/n", "o/", "a/b/c", "../n", "o/..", "o/.n", "o/n-", "o/a--b", "o/n@",
        "o/n@../x", "o/n@/x", "o/n@a//b", "o/n:", "o n/x", "o/n\n", "~/n"}) {
    CAPTURE(bad);
    CHECK_FALSE(ParseHubName(bad).ok());
  }
}

TEST_CASE("a file and a folder of a model are what they are", "[model]") {
  const TemporaryFolder home;
  WriteModel(home, "m");
  const std::string gguf = home.Write("g.gguf", "x");
  CHECK(FindModel(home.path() + "/m", "")->path == home.path() + "/m");
  CHECK(FindModel(home.path() + "/m", "")->note.empty());
  CHECK(FindModel(gguf, "")->path == gguf);
}

TEST_CASE("the one model of a folder is found, two levels deep, and named", "[model]") {
  const TemporaryFolder home;
  WriteModel(home, "maker/name", 1'500'000);
  WriteModel(home, "maker/name/checkpoint-1");
  WriteModel(home, "too/deep/down");
  home.Write("notes.txt", "");
  home.Write("mmproj-f16.gguf", "x");
  home.Write(".hidden/x.gguf", "x");
  const FoundModel found = FindModel(home.path(), "").value();
  CHECK(found.path == home.path() + "/maker/name");
  CHECK(found.note == absl::StrCat("the one model in ", home.path(), " is maker/name (1.5 MB)"));
}

TEST_CASE("several models of a folder are listed with their sizes", "[model]") {
  const TemporaryFolder home;
  WriteModel(home, "b", 2'000'000);
  home.Write("b/consolidated.safetensors", std::string(999'999, 'x'));
  home.Write("a-00001-of-00002.gguf", std::string(1000, 'x'));
  home.Write("a-00002-of-00002.gguf", std::string(500, 'x'));
  home.Write("c/config.json", "{}");
  home.Write("c/model.safetensors.index.json", R"({"weight_map": {"t": "one", "u": "two"}})");
  home.Write("c/tokenizer.json", "{}");
  home.Write("c/one", "x");
  CHECK(Refusal(home.path()) ==
        absl::StrCat("3 models are in ", home.path(), "; name one of them:\n  ", home.path(),
                     "/a-00001-of-00002.gguf  1.5 kB\n  ", home.path(), "/b  2.0 MB\n  ",
                     home.path(), "/c  1 B, two is missing"));
  CHECK(FindModel(home.path() + "/a-00001-of-00002.gguf", "").ok());
}

TEST_CASE("a folder without a model says what it lacks, and is no name on a hub", "[model]") {
  const TemporaryFolder home;
  home.Write("x/readme", "");
  CHECK(absl::IsFailedPrecondition(FindModel(home.path(), "").status()));
  CHECK(absl::StrContains(Refusal(home.path()), "neither config.json"));
}

TEST_CASE("a name that is nothing here says what was tried", "[model]") {
  CHECK(Refusal("/nowhere/x") ==
        "there is no file or folder /nowhere/x, and it is no name on a hub either (ORG/NAME, "
        "ORG/NAME@REVISION, ORG/NAME:FILE.gguf)");
  CHECK(Refusal("o/n", "/cache") ==
        "there is no file or folder o/n, and the hub cache has no /cache/models--o--n/refs/main");
  CHECK(absl::IsNotFound(FindModel("o/n", "/cache").status()));
}

TEST_CASE("a whole model in the hub cache is found by its name", "[model]") {
  const TemporaryFolder home;
  const std::string repository = "models--o--n/";
  const std::string snapshot = absl::StrCat(repository, "snapshots/", kCommit);
  home.Write(repository + "refs/main", kCommit);
  home.Write(snapshot + "/config.json", "{}");
  home.Write(snapshot + "/model.safetensors", "x");
  CHECK(absl::StrContains(Refusal("o/n", home.path()), "tokenizer.json is missing"));
  home.Write(snapshot + "/tokenizer.json", "{}");
  const std::string path = home.path() + "/" + snapshot;
  CHECK(FindModel("o/n", home.path())->path == path);
  CHECK(FindModel("o/n@" + kCommit, home.path())->path == path);
  CHECK(absl::IsNotFound(FindModel("o/n@v2", home.path()).status()));
  CHECK(FindModel(home.path(), "")->note ==
        absl::StrCat("the one model in ", home.path(), " is o/n (1 B)"));
  CHECK(RepositoryOfSnapshot(path) == "o/n");
  CHECK(RepositoryOfSnapshot(path + "/") == "o/n");
  CHECK(RepositoryOfSnapshot(home.path()).empty());
}

TEST_CASE("a link that dangles or a reference that is no commit is no model", "[model]") {
  const TemporaryFolder home;
  const std::string snapshot = absl::StrCat(home.path(), "/models--o--n/snapshots/", kCommit);
  WriteModel(home, absl::StrCat("models--o--n/snapshots/", kCommit));
  home.Write("models--o--n/refs/main", "../../../etc");
  CHECK(absl::StrContains(Refusal("o/n", home.path()), "expected a commit"));
  home.Write("models--o--n/refs/main", kCommit);
  REQUIRE(FindModel("o/n", home.path()).ok());
  std::filesystem::remove(snapshot + "/model.safetensors");
  std::filesystem::create_symlink("../../blobs/gone", snapshot + "/model.safetensors");
  CHECK(absl::StrContains(Refusal("o/n", home.path()), "model.safetensors is missing"));
}

TEST_CASE("a GGUF of the hub cache is chosen among several", "[model]") {
  const TemporaryFolder home;
  const std::string snapshot = absl::StrCat("models--o--n/snapshots/", kCommit, "/");
  home.Write("models--o--n/refs/main", kCommit);
  const std::string q4 = home.Write(snapshot + "m-Q4_0.gguf", "x");
  CHECK(FindModel("o/n", home.path())->path == q4);
  home.Write(snapshot + "m-Q8_0.gguf", "xx");
  home.Write(snapshot + "m-F16-00001-of-00002.gguf", "part");
  CHECK(Refusal("o/n", home.path()) ==
        "there is no file or folder o/n, and 2 models are in o/n in the hub cache; name one of "
        "them:\n  o/n:m-Q4_0.gguf  1 B\n  o/n:m-Q8_0.gguf  2 B");
  CHECK(FindModel("o/n:Q4_0", home.path())->path == q4);
  CHECK(absl::IsNotFound(FindModel("o/n:F16", home.path()).status()));
}

}  // namespace
}  // namespace neurogrid
