// GGUF container: metadata and tensor table, bounds-checked over a mapped file (models.md 3.1).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "common/mapped_file.h"
#include "common/status.h"
#include "common/tensor.h"

namespace neurogrid {

/// A metadata value. Integers of every width are int64 (u64 above int64 is refused), floats are
/// double. An empty array is a vector of its declared item kind.
struct GgufValue {
  std::variant<bool, int64_t, double, std::string, std::vector<bool>, std::vector<int64_t>,
               std::vector<double>, std::vector<std::string>>
      value;
};

class Gguf {
 public:
  /// Reads the header; every count, length, range and name is checked against common/limits.h and
  /// the file before anything is allocated for it. Errors name file, key or tensor, and value.
  static absl::StatusOr<std::unique_ptr<Gguf>> Open(const std::string& path);

  const std::string& path() const { return file_.path(); }
  /// Null when absent.
  const GgufValue* Find(absl::string_view key) const;
  /// InvalidArgument naming file, key, found and expected kind; NotFound when absent.
  absl::StatusOr<int64_t> Integer(absl::string_view key) const;
  absl::StatusOr<double> Number(absl::string_view key) const;
  absl::StatusOr<bool> Bool(absl::string_view key) const;
  absl::StatusOr<std::string> String(absl::string_view key) const;
  absl::StatusOr<const std::vector<std::string>*> Strings(absl::string_view key) const;
  absl::StatusOr<const std::vector<int64_t>*> Integers(absl::string_view key) const;
  absl::StatusOr<const std::vector<double>*> Numbers(absl::string_view key) const;

  struct TensorInfo {
    std::string name;
    ConstTensor tensor;  // shape outermost first: the reverse of the file's dims
  };
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  /// Null when absent.
  const TensorInfo* FindTensor(absl::string_view name) const;
  const absl::flat_hash_map<std::string, GgufValue>& metadata() const { return metadata_; }
  const MappedFile& file() const { return file_; }

 private:
  template <typename T>
  absl::StatusOr<const T*> Get(absl::string_view key, absl::string_view expected) const;

  friend class GgufParser;
  explicit Gguf(MappedFile file) : file_(std::move(file)) {}
  MappedFile file_;
  absl::flat_hash_map<std::string, GgufValue> metadata_;
  std::vector<TensorInfo> tensors_;
};

}  // namespace neurogrid
