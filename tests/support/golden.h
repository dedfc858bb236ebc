// Small models with reference answers, made for these tests; tests/data/golden/README.md lists
// them.
#pragma once

#include <optional>
#include <string>

namespace neurogrid {

/// A folder that lives until the process ends.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }
  /// The path of a new file in it with these bytes; folders on the way are made.
  std::string Write(const std::string& name, const std::string& bytes) const;

 private:
  std::string path_;
};

/// Path of a golden file or folder, its archive unpacked once a process: "tiny/llama",
/// "tiny/llama/bf16", "tiny/llama3-rope/reference.safetensors", "gguf/qwen3-F32.gguf",
/// "gguf/blocks.gguf". The test fails when there is no such thing.
std::string Golden(const std::string& name);

/// The folder of a published tokenizer ("llama3_1", "qwen3", ...; SharedData), unpacked once a
/// process. Nothing when absent: the test says SKIP.
std::optional<std::string> PublishedTokenizer(const std::string& name);

/// The default model SmolLM2-135M-Instruct in Q4_1: the file named by NG_SMOLLM2, else the one that
/// deploy/fetch-default-model leaves in the cache folder. Nothing when absent: the test says SKIP.
std::optional<std::string> SmolLm2();

/// Gemma 3 270M in Q4_K_M, likewise: NG_GEMMA3, or what deploy/fetch-gemma3-270m left.
std::optional<std::string> Gemma3();

}  // namespace neurogrid
