// Access to the parsed header; gguf_parser.cc reads it.
#include "engine/model/gguf.h"

#include <algorithm>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/limits.h"
#include "engine/model/gguf_parser.h"
#include "engine/model/gguf_part.h"

namespace neurogrid {
namespace {

absl::string_view KindOf(const GgufValue& value) {
  constexpr absl::string_view kKinds[] = {"a bool",
                                          "an integer",
                                          "a number",
                                          "a string",
                                          "an array of bool",
                                          "an array of integers",
                                          "an array of numbers",
                                          "an array of strings"};
  static_assert(std::size(kKinds) == std::variant_size_v<decltype(value.value)>);
  return kKinds[value.value.index()];
}

}  // namespace

absl::StatusOr<std::unique_ptr<Gguf>> Gguf::OpenOne(const std::string& path) {
  NG_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  std::unique_ptr<Gguf> gguf(new Gguf(std::move(file)));
  NG_RETURN_IF_ERROR(GgufParser(*gguf).Parse());
  return gguf;
}

absl::StatusOr<std::unique_ptr<Gguf>> Gguf::Open(const std::string& path) {
  const std::optional<GgufPart> name = ParseGgufPart(path);
  const bool later = name && name->part > 1;
  NG_ASSIGN_OR_RETURN(std::unique_ptr<Gguf> gguf, OpenOne(later ? name->Name(1) : path));
  NG_RETURN_IF_ERROR(gguf->AddParts());
  if (later && gguf->files_.size() == 1) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": its name says part ", name->part,
                                                   " of ", name->count, ", but split.count of ",
                                                   gguf->path(), " names no other parts"));
  }
  NG_RETURN_IF_ERROR(gguf->CheckQuantization());
  return gguf;
}

/// The other parts, where split.count says that there are any. Each is a whole container of its
/// own, with an alignment of its own.
absl::Status Gguf::AddParts() {
  if (Find("split.count") == nullptr) return absl::OkStatus();
  NG_ASSIGN_OR_RETURN(const int64_t count, Integer("split.count"));
  if (count == 1) return absl::OkStatus();
  const auto error = [this](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(path(), ": ", what));
  };
  if (count < 1 || count > kGgufPartsMax) {
    return error(
        absl::StrCat("split.count is ", count, " but must be in [1, ", kGgufPartsMax, "]"));
  }
  const std::optional<GgufPart> name = ParseGgufPart(path());
  if (!name || name->part != 1 || name->count != count) {
    const GgufPart first = {.stem = "", .part = 1, .count = static_cast<int>(count)};
    return error(absl::StrCat("split.count is ", count, ", so the name must end in ", first.Name(1),
                              " and the other parts stand beside it"));
  }
  NG_RETURN_IF_ERROR(CheckPart(*this, 0, count));
  absl::flat_hash_set<std::string> names;
  for (const TensorInfo& info : tensors_) names.insert(info.name);
  for (int64_t i = 1; i < count; ++i) {
    NG_ASSIGN_OR_RETURN(const std::unique_ptr<Gguf> part,
                        OpenOne(name->Name(static_cast<int>(i) + 1)));
    NG_RETURN_IF_ERROR(CheckPart(*part, i, count));
    for (TensorInfo& info : part->tensors_) {
      if (!names.insert(info.name).second) {
        return absl::InvalidArgumentError(absl::StrCat(part->path(), ": tensor ",
                                                       absl::CHexEscape(info.name),
                                                       " also stands in an earlier part"));
      }
      if (tensors_.size() >= kGgufTensorsMax) {
        return error(absl::StrCat("its parts have more than ", kGgufTensorsMax, " tensors"));
      }
      info.part = static_cast<size_t>(i);
      tensors_.push_back(std::move(info));
    }
    files_.push_back(std::move(part->files_[0]));
  }
  NG_ASSIGN_OR_RETURN(const int64_t tensors, Integer("split.tensors.count"));
  if (tensors == static_cast<int64_t>(tensors_.size())) return absl::OkStatus();
  return error(absl::StrCat("split.tensors.count is ", tensors, " but the ", count, " parts have ",
                            tensors_.size(), " tensors"));
}

/// What a part says of itself.
absl::Status Gguf::CheckPart(const Gguf& part, int64_t number, int64_t count) {
  for (const auto& [key, expected] :
       {std::pair("split.no", number), std::pair("split.count", count)}) {
    NG_ASSIGN_OR_RETURN(const int64_t found, part.Integer(key));
    if (found == expected) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(part.path(), ": ", key, " is ", found, " but must be ", expected));
  }
  return absl::OkStatus();
}

/// Only the first part of several says it.
absl::Status Gguf::CheckQuantization() const {
  const bool quantized = std::any_of(tensors_.begin(), tensors_.end(), [](const TensorInfo& info) {
    return InfoOf(info.tensor.dtype).block_elements > 1;
  });
  if (!quantized) return absl::OkStatus();
  NG_ASSIGN_OR_RETURN(const int64_t version, Integer("general.quantization_version"));
  if (version == 2) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(path(), ": general.quantization_version is ", version, " but must be 2"));
}

const GgufValue* Gguf::Find(absl::string_view key) const {
  const auto found = metadata_.find(key);
  return found == metadata_.end() ? nullptr : &found->second;
}

const Gguf::TensorInfo* Gguf::FindTensor(absl::string_view name) const {
  for (const TensorInfo& info : tensors_) {
    if (info.name == name) return &info;
  }
  return nullptr;
}

template <typename T>
absl::StatusOr<const T*> Gguf::Get(absl::string_view key, absl::string_view expected) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return absl::NotFoundError(absl::StrCat(path(), ": ", key, " is missing"));
  const T* held = std::get_if<T>(&value->value);
  if (held != nullptr) return held;
  return absl::InvalidArgumentError(
      absl::StrCat(path(), ": ", key, " is ", KindOf(*value), " but must be ", expected));
}

absl::StatusOr<int64_t> Gguf::Integer(absl::string_view key) const {
  NG_ASSIGN_OR_RETURN(const int64_t* value, Get<int64_t>(key, "an integer"));
  return *value;
}

absl::StatusOr<double> Gguf::Number(absl::string_view key) const {
  const GgufValue* value = Find(key);
  if (value != nullptr && std::holds_alternative<int64_t>(value->value)) {
    return static_cast<double>(std::get<int64_t>(value->value));
  }
  NG_ASSIGN_OR_RETURN(const double* number, Get<double>(key, "a number"));
  return *number;
}

absl::StatusOr<bool> Gguf::Bool(absl::string_view key) const {
  NG_ASSIGN_OR_RETURN(const bool* value, Get<bool>(key, "a bool"));
  return *value;
}

absl::StatusOr<std::string> Gguf::String(absl::string_view key) const {
  NG_ASSIGN_OR_RETURN(const std::string* value, Get<std::string>(key, "a string"));
  return *value;
}

absl::StatusOr<const std::vector<std::string>*> Gguf::Strings(absl::string_view key) const {
  return Get<std::vector<std::string>>(key, "an array of strings");
}

absl::StatusOr<const std::vector<int64_t>*> Gguf::Integers(absl::string_view key) const {
  return Get<std::vector<int64_t>>(key, "an array of integers");
}

absl::StatusOr<const std::vector<double>*> Gguf::Numbers(absl::string_view key) const {
  return Get<std::vector<double>>(key, "an array of numbers");
}

}  // namespace neurogrid
