#include "tests/support/golden.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "common/check.h"
#include "tests/support/test_data.h"

namespace neurogrid {
namespace {

namespace fs = std::filesystem;

void Unpack(const std::string& archive, const std::string& folder) {
  const std::string command = "tar -xJf '" + archive + "' -C '" + folder + "'";
  NG_CHECK(std::system(command.c_str()) == 0);
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
  static const bool unpacked = [] {
    for (const char* archive :
         {"golden/tiny.tar.xz", "golden/blocks.tar.xz", "golden/smollm2.tar.xz"}) {
      Unpack(TestData(archive), folder.path());
    }
    return true;
  }();
  const std::string path = folder.path() + "/" + name;
  NG_CHECK(unpacked && fs::exists(path));
  return path;
}

std::optional<std::string> SmolLm2() {
  const char* named = std::getenv("NG_SMOLLM2");
  if (named != nullptr) return fs::exists(named) ? std::optional<std::string>(named) : std::nullopt;
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const std::string folder = cache != nullptr && *cache != '\0'
                                 ? std::string(cache)
                                 : std::string(home != nullptr ? home : "/root") + "/.cache";
  const std::string path = folder + "/neurogrid/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!fs::exists(path)) return std::nullopt;
  return path;
}

}  // namespace neurogrid
