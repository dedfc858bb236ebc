// The one reader of GGUF headers, used by Gguf::Open alone.
#pragma once

#include <cstring>
#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/types/span.h"
#include "engine/model/gguf.h"

namespace neurogrid {

/// Walks the bytes once. Counts and lengths are compared with the limits and with what is left of
/// the file before any memory is taken for them.
class GgufParser {
 public:
  explicit GgufParser(Gguf& gguf) : gguf_(gguf), bytes_(gguf.files()[0].bytes()) {}

  /// Fills the metadata and the tensor table.
  absl::Status Parse();

 private:
  struct RawTensor {
    uint64_t offset = 0;  // from the start of the data section
    uint64_t bytes = 0;
    size_t index = 0;  // in the tensor table
  };

  /// Error with the file's name in front.
  absl::Status Error(absl::string_view what) const;
  uint64_t left() const { return bytes_.size() - position_; }

  template <typename T>
  absl::StatusOr<T> Read(absl::string_view what);
  absl::StatusOr<std::string> ReadString(absl::string_view what, uint64_t bytes_max);

  absl::Status ReadCounts();
  absl::Status ReadEntry();
  absl::StatusOr<GgufValue> ReadScalar(absl::string_view key, uint32_t type);
  absl::StatusOr<GgufValue> ReadArray(absl::string_view key);
  template <typename Item, typename Raw>
  absl::StatusOr<GgufValue> ReadItems(absl::string_view key, uint64_t count);
  absl::StatusOr<GgufValue> ReadBools(absl::string_view key, uint64_t count);
  absl::StatusOr<GgufValue> ReadStrings(absl::string_view key, uint64_t count);
  absl::Status ReadTensor(size_t index);
  /// The one place where the size of a tensor is computed: `dims` innermost first.
  absl::StatusOr<Shape> ShapeOf(absl::string_view name, DType dtype,
                                absl::Span<const uint64_t> dims, uint64_t* bytes) const;
  absl::Status CheckMetadata();
  absl::Status PlaceTensors();

  Gguf& gguf_;
  absl::Span<const uint8_t> bytes_;
  uint64_t position_ = 0;
  uint64_t tensor_count_ = 0;
  uint64_t key_count_ = 0;
  uint64_t array_items_ = 0;
  uint64_t alignment_ = 32;
  std::vector<RawTensor> raw_tensors_;
  absl::flat_hash_set<std::string> tensor_names_;
};

}  // namespace neurogrid
