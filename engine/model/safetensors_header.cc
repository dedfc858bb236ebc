#include "engine/model/safetensors_header.h"

#include <array>
#include <charconv>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/json.h"
#include "common/limits.h"

namespace neurogrid {
namespace {

std::string Quoted(absl::string_view name) {
  return absl::StrCat("\"", absl::CHexEscape(name.substr(0, 200)), "\"");
}

/// Reads exactly the grammar {name: {dtype, shape, data_offsets}, "__metadata__": {text: text}}.
class HeaderReader {
 public:
  explicit HeaderReader(absl::string_view text) : text_(text) {}

  absl::StatusOr<SafetensorsHeader> Read();

 private:
  struct Numbers {
    std::array<uint64_t, Shape::kRankMax> values = {};
    size_t count = 0;
  };

  absl::Status Error(absl::string_view what) const {
    return absl::InvalidArgumentError(
        absl::StrCat("the header is malformed at byte ", 8 + position_, ": ", what));
  }
  absl::Status TensorError(absl::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(name_), " ", what));
  }

  void SkipSpace() {
    while (position_ < text_.size() && (text_[position_] == ' ' || text_[position_] == '\n' ||
                                        text_[position_] == '\r' || text_[position_] == '\t')) {
      ++position_;
    }
  }
  /// Steps over `c` if it comes next.
  bool Take(char c) {
    SkipSpace();
    if (position_ >= text_.size() || text_[position_] != c) return false;
    ++position_;
    return true;
  }
  absl::Status Expect(char c) {
    if (Take(c)) return absl::OkStatus();
    return Error(absl::StrCat("expected '", absl::string_view(&c, 1), "'"));
  }

  absl::StatusOr<absl::string_view> ReadString();
  absl::StatusOr<uint64_t> ReadNumber(absl::string_view what);
  absl::StatusOr<Numbers> ReadNumbers(absl::string_view what, size_t count_max);
  absl::Status ReadMetadata();
  absl::Status ReadTensor();
  absl::Status ReadDType(SafetensorsEntry* entry);
  absl::Status ReadShape(SafetensorsEntry* entry);
  absl::Status CheckSize(const SafetensorsEntry& entry) const;

  absl::string_view text_;
  size_t position_ = 0;
  absl::string_view name_;  // of the tensor being read
  SafetensorsHeader header_;
};

absl::StatusOr<absl::string_view> HeaderReader::ReadString() {
  NG_RETURN_IF_ERROR(Expect('"'));
  const size_t start = position_;
  bool plain = true;
  while (position_ < text_.size() && text_[position_] != '"') {
    const unsigned char c = static_cast<unsigned char>(text_[position_]);
    if (c < 0x20 || c >= 0x80 || c == '\\') plain = false;
    position_ += c == '\\' ? 2 : 1;
    if (position_ - start > kConfigBytesMax) return Error("a string is too long");
  }
  if (position_ >= text_.size()) return Error("a string does not end");
  const absl::string_view raw = text_.substr(start, position_ - start);
  ++position_;
  if (plain) return raw;
  // Escapes and UTF-8 are the JSON parser's business.
  absl::StatusOr<Json> parsed = ParseJson(text_.substr(start - 1, raw.size() + 2));
  if (!parsed.ok()) return Error(parsed.status().message());
  header_.unescaped.push_back(parsed->as_string());
  return header_.unescaped.back();
}

absl::StatusOr<uint64_t> HeaderReader::ReadNumber(absl::string_view what) {
  SkipSpace();
  uint64_t value = 0;
  const char* first = text_.data() + position_;
  const char* last = text_.data() + text_.size();
  const auto [end, error] = std::from_chars(first, last, value);
  const bool whole =
      error == std::errc() && (end == last || (*end != '.' && *end != 'e' && *end != 'E'));
  const bool leading_zero = whole && *first == '0' && end - first > 1;
  if (!whole || leading_zero) {
    const absl::string_view shown =
        text_.substr(position_, text_.substr(position_).find_first_of(",]} \n"));
    return TensorError(absl::StrCat("has the ", what, " value ",
                                    absl::CHexEscape(shown.substr(0, 40)),
                                    "; it must be an integer from 0 up to 2^64 - 1"));
  }
  position_ += static_cast<size_t>(end - first);
  return value;
}

absl::StatusOr<HeaderReader::Numbers> HeaderReader::ReadNumbers(absl::string_view what,
                                                                size_t count_max) {
  Numbers numbers;
  NG_RETURN_IF_ERROR(Expect('['));
  if (Take(']')) return numbers;
  do {
    if (numbers.count == count_max) {
      return TensorError(absl::StrCat("has a ", what, " of more than ", count_max, " numbers"));
    }
    NG_ASSIGN_OR_RETURN(numbers.values[numbers.count], ReadNumber(what));
    ++numbers.count;
  } while (Take(','));
  NG_RETURN_IF_ERROR(Expect(']'));
  return numbers;
}

absl::Status HeaderReader::ReadMetadata() {
  NG_RETURN_IF_ERROR(Expect('{'));
  if (Take('}')) return absl::OkStatus();
  do {
    NG_RETURN_IF_ERROR(ReadString().status());
    NG_RETURN_IF_ERROR(Expect(':'));
    NG_RETURN_IF_ERROR(ReadString().status());
  } while (Take(','));
  return Expect('}');
}

absl::Status HeaderReader::ReadDType(SafetensorsEntry* entry) {
  NG_ASSIGN_OR_RETURN(const absl::string_view name, ReadString());
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    if (InfoOf(dtype).name == name) {
      entry->dtype = dtype;
      return absl::OkStatus();
    }
  }
  return TensorError(
      absl::StrCat("has the dtype ", Quoted(name), "; weights must be F32, F16 or BF16"));
}

absl::Status HeaderReader::ReadShape(SafetensorsEntry* entry) {
  NG_ASSIGN_OR_RETURN(const Numbers dimensions, ReadNumbers("shape", Shape::kRankMax));
  for (size_t i = 0; i < dimensions.count; ++i) {
    const uint64_t dimension = dimensions.values[i];
    if (dimension > static_cast<uint64_t>(INT64_MAX)) {
      return TensorError(absl::StrCat("has the dimension ", dimension));
    }
    entry->shape.Append(static_cast<int64_t>(dimension));
  }
  return absl::OkStatus();
}

absl::Status HeaderReader::CheckSize(const SafetensorsEntry& entry) const {
  unsigned __int128 bytes = static_cast<unsigned>(InfoOf(entry.dtype).block_bytes);
  for (int i = 0; i < entry.shape.rank(); ++i) {
    bytes *= static_cast<uint64_t>(entry.shape[i]);
    if (bytes > static_cast<uint64_t>(INT64_MAX)) {
      return TensorError(
          absl::StrCat("has the shape ", entry.shape.ToString(), ", beyond 63 bits"));
    }
  }
  if (entry.end < entry.begin || entry.end - entry.begin != static_cast<uint64_t>(bytes)) {
    return TensorError(absl::StrCat("has the data_offsets [", entry.begin, ", ", entry.end,
                                    ") but ", InfoOf(entry.dtype).name, " ", entry.shape.ToString(),
                                    " needs ", static_cast<uint64_t>(bytes), " bytes"));
  }
  return absl::OkStatus();
}

absl::Status HeaderReader::ReadTensor() {
  SafetensorsEntry entry;
  bool dtype = false, shape = false, offsets = false;
  NG_RETURN_IF_ERROR(Expect('{'));
  do {
    NG_ASSIGN_OR_RETURN(const absl::string_view key, ReadString());
    NG_RETURN_IF_ERROR(Expect(':'));
    if (key == "dtype" && !std::exchange(dtype, true)) {
      NG_RETURN_IF_ERROR(ReadDType(&entry));
    } else if (key == "shape" && !std::exchange(shape, true)) {
      NG_RETURN_IF_ERROR(ReadShape(&entry));
    } else if (key == "data_offsets" && !std::exchange(offsets, true)) {
      NG_ASSIGN_OR_RETURN(const Numbers range, ReadNumbers("data_offsets", 2));
      if (range.count != 2) return TensorError("has data_offsets that are not two numbers");
      entry.begin = range.values[0];
      entry.end = range.values[1];
    } else {
      return TensorError(absl::StrCat("has the unknown or repeated key ", Quoted(key)));
    }
  } while (Take(','));
  NG_RETURN_IF_ERROR(Expect('}'));
  if (!dtype || !shape || !offsets) return TensorError("lacks dtype, shape or data_offsets");
  NG_RETURN_IF_ERROR(CheckSize(entry));
  entry.name = name_;
  header_.entries.push_back(entry);
  return absl::OkStatus();
}

absl::StatusOr<SafetensorsHeader> HeaderReader::Read() {
  absl::flat_hash_set<absl::string_view> names;
  NG_RETURN_IF_ERROR(Expect('{'));
  if (!Take('}')) {
    do {
      NG_ASSIGN_OR_RETURN(name_, ReadString());
      if (static_cast<int64_t>(name_.size()) > kSafetensorsNameBytesMax) {
        return TensorError(absl::StrCat("has a name of ", name_.size(), " bytes; at most ",
                                        kSafetensorsNameBytesMax, " are allowed"));
      }
      if (!names.insert(name_).second) return TensorError("stands twice in the header");
      NG_RETURN_IF_ERROR(Expect(':'));
      NG_RETURN_IF_ERROR(name_ == "__metadata__" ? ReadMetadata() : ReadTensor());
      if (static_cast<int64_t>(names.size()) > kSafetensorsTensorsMax) {
        return Error(absl::StrCat("more than ", kSafetensorsTensorsMax, " tensors"));
      }
    } while (Take(','));
    NG_RETURN_IF_ERROR(Expect('}'));
  }
  SkipSpace();
  if (position_ != text_.size()) return Error("text after the end");
  return std::move(header_);
}

}  // namespace

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view text) {
  return HeaderReader(text).Read();
}

}  // namespace neurogrid
