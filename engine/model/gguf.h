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
  /// the file before anything is allocated for it. Errors name file, key or tensor, and value. Of a
  /// model in parts (NAME-00001-of-00003.gguf) any part may be named; all are opened, and the
  /// metadata is the first one's.
  static absl::StatusOr<std::unique_ptr<Gguf>> Open(const std::string& path);

  /// Of the first part.
  const std::string& path() const { return files_[0].path(); }
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
    size_t part = 0;     // index into files()
  };
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  /// Null when absent.
  const TensorInfo* FindTensor(absl::string_view name) const;
  const absl::flat_hash_map<std::string, GgufValue>& metadata() const { return metadata_; }
  /// The parts in order; one for a model in one file.
  const std::vector<MappedFile>& files() const { return files_; }

 private:
  template <typename T>
  absl::StatusOr<const T*> Get(absl::string_view key, absl::string_view expected) const;

  friend class GgufParser;
  explicit Gguf(MappedFile file) { files_.push_back(std::move(file)); }
  static absl::StatusOr<std::unique_ptr<Gguf>> OpenOne(const std::string& path);
  absl::Status AddParts();
  static absl::Status CheckPart(const Gguf& part, int64_t number, int64_t count);
  absl::Status CheckQuantization() const;

  std::vector<MappedFile> files_;
  absl::flat_hash_map<std::string, GgufValue> metadata_;
  std::vector<TensorInfo> tensors_;
};

}  // namespace neurogrid
