#include "tests/support/golden.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <set>
#include <utility>

#include "common/check.h"
#include "tests/support/test_data.h"

namespace neurogrid {
namespace {

namespace fs = std::filesystem;

void Unpack(const std::string& archive, const std::string& folder) {
  const std::string command = "tar -xJf '" + archive + "' -C '" + folder + "'";
  NG_CHECK(std::system(command.c_str()) == 0);
}

/// "tiny/qwen3/..." and "gguf/qwen3-F32.gguf" lie in tiny-qwen3.tar.xz;
/// tests/data/golden/README.md.
std::string ArchiveOf(const std::string& name) {
  const size_t begin = name.find('/') + 1;
  if (name.starts_with("smollm2")) return "smollm2.tar.xz";
  if (name.starts_with("gguf/blocks")) return "blocks.tar.xz";
  const size_t end = name.starts_with("gguf/") ? name.find("-F32.gguf") : name.find('/', begin);
  const std::string model = name.substr(begin, end - begin);
  if (model == "llama" || model == "llama3-rope") return "tiny.tar.xz";
  return "tiny-" + model + ".tar.xz";
}

}  // namespace

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (fs::temp_directory_path() / "neurogrid-test-XXXXXX").string();
  NG_CHECK(mkdtemp(pattern.data()) != nullptr);
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;  // A destructor has no one to tell.
  fs::remove_all(path_, ignored);
}

std::string TemporaryFolder::Write(const std::string& name, const std::string& bytes) const {
  const fs::path path = fs::path(path_) / name;
  fs::create_directories(path.parent_path());
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  NG_CHECK(file.good());
  return path.string();
}

std::string Golden(const std::string& name) {
  static const TemporaryFolder folder;
  static std::set<std::string> unpacked;
  static std::mutex mutex;  // Tests of threads ask from several.
  const std::lock_guard<std::mutex> lock(mutex);
  const std::string archive = ArchiveOf(name);
  if (unpacked.insert(archive).second) Unpack(TestData("golden/" + archive), folder.path());
  const std::string path = folder.path() + "/" + name;
  NG_CHECK(fs::exists(path));
  return path;
}

std::optional<std::string> PublishedTokenizer(const std::string& name) {
  static const TemporaryFolder folder;
  static bool unpacked = false;
  static std::mutex mutex;
  const std::optional<std::string> packed = SharedData("tokenizers/tokenizers.tar.xz");
  if (!packed.has_value()) return std::nullopt;
  const std::lock_guard<std::mutex> lock(mutex);
  if (!std::exchange(unpacked, true)) Unpack(*packed, folder.path());
  const std::string path = folder.path() + "/" + name;
  NG_CHECK(fs::exists(path));
  return path;
}

namespace {

/// The file that the variable names, else the one of this name in the cache folder.
std::optional<std::string> FetchedModel(const char* variable, const std::string& name) {
  const char* named = std::getenv(variable);
  if (named != nullptr) return fs::exists(named) ? std::optional<std::string>(named) : std::nullopt;
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const std::string folder = cache != nullptr && *cache != '\0'
                                 ? std::string(cache)
                                 : std::string(home != nullptr ? home : "/root") + "/.cache";
  const std::string path = folder + "/neurogrid/models/" + name;
  if (!fs::exists(path)) return std::nullopt;
  return path;
}

}  // namespace

std::optional<std::string> SmolLm2() {
  return FetchedModel("NG_SMOLLM2", "SmolLM2-135M-Instruct.Q4_1.gguf");
}

std::optional<std::string> Gemma3() {
  return FetchedModel("NG_GEMMA3", "gemma-3-270m-q4_k_m.gguf");
}

}  // namespace neurogrid
