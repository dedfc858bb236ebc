// Where tests find their files.
#pragma once

#include <optional>
#include <string>

#include "common/json.h"

namespace neurogrid {

/// tests/data/NAME; such files are always there. The environment variable NG_TEST_DATA names another
/// folder, for programs that were copied to a machine without the tree.
std::string TestData(const std::string& name);

/// A file or folder of the published tokenizers and templates, which stay outside the tree: the
/// folder named by the environment variable NG_SHARED, else ../shared beside the project. Nothing
/// when absent: the test then says SKIP("...") and is counted.
std::optional<std::string> SharedData(const std::string& name);

/// The whole file; the test fails when it cannot be read. Files named *.xz are unpacked.
std::string ReadFile(const std::string& path);
Json ReadJson(const std::string& path);

}  // namespace neurogrid
