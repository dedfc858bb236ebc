// Access to the parsed header; gguf_parser.cc reads it.
#include "engine/model/gguf.h"

#include "absl/strings/str_cat.h"
#include "engine/model/gguf_parser.h"

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

absl::StatusOr<std::unique_ptr<Gguf>> Gguf::Open(const std::string& path) {
  NG_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  std::unique_ptr<Gguf> gguf(new Gguf(std::move(file)));
  NG_RETURN_IF_ERROR(GgufParser(*gguf).Parse());
  return gguf;
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
