// Tensors of a checkpoint by their Hugging Face names, whatever file they come from.
#pragma once

#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "common/status.h"
#include "common/tensor.h"

namespace neurogrid {

/// Views into mapped files; the Checkpoint owns the files. GGUF names are translated at load, and
/// the rows of q and k that GGUF stores for interleaved rotation are marked (models.md 3.4).
class WeightStore {
 public:
  struct Entry {
    ConstTensor tensor;         // its bytes may lie at any address: read them with ReadRows
    std::string file;           // for error messages
    int interleaved_heads = 0;  // > 0: rows are permuted within this many heads (models.md 3.4)
    // > 0: only so many elements exist; element i of the tensor is element
    // (cycle_start + i) mod cycle_elements of the data (synthetic weights).
    int64_t cycle_elements = 0;
    int64_t cycle_start = 0;
  };

  WeightStore() = default;
  /// `source`: the file or folder that errors about missing tensors name.
  explicit WeightStore(std::string source) : source_(std::move(source)) {}

  const std::string& source() const { return source_; }

  void Add(std::string name, Entry entry) { entries_.emplace(std::move(name), std::move(entry)); }
  void Remove(absl::string_view name) { entries_.erase(name); }
  bool Has(absl::string_view name) const { return entries_.contains(name); }

  /// The tensor with exactly this shape; otherwise an error naming file, tensor, found and
  /// expected.
  absl::StatusOr<Entry> Find(absl::string_view name, const Shape& shape) const;

  const absl::flat_hash_map<std::string, Entry>& entries() const { return entries_; }

 private:
  std::string source_;
  absl::flat_hash_map<std::string, Entry> entries_;
};

}  // namespace neurogrid
