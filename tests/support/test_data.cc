#include "tests/support/test_data.h"

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "common/check.h"
#include "common/mapped_file.h"

namespace neurogrid {

std::string TestData(const std::string& name) {
  const char* named = std::getenv("NG_TEST_DATA");
  return std::string(named != nullptr ? named : NG_TEST_DATA) + "/" + name;
}

std::optional<std::string> SharedData(const std::string& name) {
  const char* named = std::getenv("NG_SHARED");
  const std::string folder = named != nullptr ? named : NG_TEST_DATA "/../../../shared";
  const std::string path = folder + "/" + name;
  if (!std::filesystem::exists(path)) return std::nullopt;
  return path;
}

std::string ReadFile(const std::string& path) {
  if (!path.ends_with(".xz")) return ReadSmallFile(path, size_t{1} << 30).value();
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(("xz -dc '" + path + "'").c_str(), "r"),
                                                   pclose);
  NG_CHECK(pipe != nullptr);
  std::string text;
  char block[65536];
  for (size_t got; (got = fread(block, 1, sizeof block, pipe.get())) > 0;) text.append(block, got);
  NG_CHECK(!text.empty());
  return text;
}

Json ReadJson(const std::string& path) {
  return ParseJson(ReadFile(path), kModelFileJsonLimits).value();
}

}  // namespace neurogrid
