#include "engine/model/gguf_parser.h"

#include <algorithm>
#include <limits>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/limits.h"
#include "engine/model/foreign_content.h"

namespace neurogrid {
namespace {

enum ValueType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64
};

std::string Quoted(absl::string_view name) {
  return absl::StrCat("\"", absl::CHexEscape(name.substr(0, 100)), "\"");
}

/// The types of models.md 3.5 by their number; nothing for the others.
std::optional<DType> DTypeOf(uint32_t type) {
  switch (type) {
    case 0:
      return DType::kF32;
    case 1:
      return DType::kF16;
    case 2:
      return DType::kQ4_0;
    case 3:
      return DType::kQ4_1;
    case 6:
      return DType::kQ5_0;
    case 7:
      return DType::kQ5_1;
    case 8:
      return DType::kQ8_0;
    case 10:
      return DType::kQ2_K;
    case 11:
      return DType::kQ3_K;
    case 12:
      return DType::kQ4_K;
    case 13:
      return DType::kQ5_K;
    case 14:
      return DType::kQ6_K;
    case 20:
      return DType::kIQ4_NL;
    case 30:
      return DType::kBF16;
  }
  return std::nullopt;
}

/// Names of types that exist but are not read, for the error message.
absl::string_view OtherTypeName(uint32_t type) {
  static constexpr std::pair<uint32_t, absl::string_view> kNames[] = {
      {9, "Q8_1"},   {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"},
      {21, "IQ3_S"}, {22, "IQ2_S"}, {23, "IQ4_XS"},  {24, "I8"},     {25, "I16"},     {26, "I32"},
      {27, "I64"},   {28, "F64"},   {29, "IQ1_M"},   {34, "TQ1_0"},  {35, "TQ2_0"},   {39, "MXFP4"},
  };
  for (const auto& [number, name] : kNames) {
    if (number == type) return name;
  }
  return "unknown";
}

}  // namespace

absl::Status GgufParser::Error(absl::string_view what) const {
  return absl::InvalidArgumentError(absl::StrCat(gguf_.path(), ": ", what));
}

template <typename T>
absl::StatusOr<T> GgufParser::Read(absl::string_view what) {
  if (left() < sizeof(T)) {
    return Error(absl::StrCat("the file ends at byte ", bytes_.size(), " inside ", what));
  }
  T value;
  std::memcpy(&value, bytes_.data() + position_, sizeof(T));
  position_ += sizeof(T);
  return value;
}

absl::StatusOr<std::string> GgufParser::ReadString(absl::string_view what, uint64_t bytes_max) {
  NG_ASSIGN_OR_RETURN(const uint64_t size, Read<uint64_t>(what));
  if (size > bytes_max) {
    return Error(
        absl::StrCat(what, " says it has ", size, " bytes; at most ", bytes_max, " are allowed"));
  }
  if (size > left()) {
    return Error(
        absl::StrCat(what, " says it has ", size, " bytes but ", left(), " are left in the file"));
  }
  std::string text(reinterpret_cast<const char*>(bytes_.data() + position_), size);
  position_ += size;
  return text;
}

absl::Status GgufParser::Parse() {
  NG_RETURN_IF_ERROR(ReadCounts());
  for (uint64_t i = 0; i < key_count_; ++i) NG_RETURN_IF_ERROR(ReadEntry());
  NG_RETURN_IF_ERROR(CheckMetadata());
  for (uint64_t i = 0; i < tensor_count_; ++i) NG_RETURN_IF_ERROR(ReadTensor(i));
  return PlaceTensors();
}

absl::Status GgufParser::ReadCounts() {
  if (bytes_.size() < 4 || std::memcmp(bytes_.data(), "GGUF", 4) != 0) {
    const absl::string_view foreign = DescribeForeignContent(bytes_);
    return Error(foreign.empty() ? "does not start with \"GGUF\""
                                 : absl::StrCat("is no GGUF file; it is ", foreign));
  }
  position_ = 4;
  NG_ASSIGN_OR_RETURN(const uint32_t version, Read<uint32_t>("the version"));
  if (version != 2 && version != 3) {
    const bool swapped = version == 0x02000000 || version == 0x03000000;
    return Error(absl::StrCat("GGUF version is ", version, " but must be 2 or 3",
                              swapped ? ": it is a big-endian file" : ""));
  }
  NG_ASSIGN_OR_RETURN(tensor_count_, Read<uint64_t>("the tensor count"));
  NG_ASSIGN_OR_RETURN(key_count_, Read<uint64_t>("the key count"));
  if (tensor_count_ > kGgufTensorsMax) {
    return Error(absl::StrCat("says it has ", tensor_count_, " tensors; at most ", kGgufTensorsMax,
                              " are allowed"));
  }
  if (key_count_ > kGgufKeysMax) {
    return Error(
        absl::StrCat("says it has ", key_count_, " keys; at most ", kGgufKeysMax, " are allowed"));
  }
  return absl::OkStatus();
}

absl::Status GgufParser::ReadEntry() {
  NG_ASSIGN_OR_RETURN(std::string key, ReadString("a key", kGgufKeyBytesMax));
  const bool ascii =
      std::all_of(key.begin(), key.end(), [](char c) { return c > 0x1f && c < 0x7f; });
  if (key.empty() || !ascii) {
    return Error(absl::StrCat("the key ", Quoted(key), " is empty or not printable ASCII"));
  }
  if (gguf_.metadata_.contains(key)) {
    return Error(absl::StrCat("the key ", Quoted(key), " stands twice"));
  }
  NG_ASSIGN_OR_RETURN(const uint32_t type, Read<uint32_t>(key));
  GgufValue value;
  if (type == kArray) {
    NG_ASSIGN_OR_RETURN(value, ReadArray(key));
  } else {
    NG_ASSIGN_OR_RETURN(value, ReadScalar(key, type));
  }
  if (position_ > kGgufMetadataBytesMax) {
    return Error(absl::StrCat("the metadata is longer than ", kGgufMetadataBytesMax,
                              " bytes, at key ", Quoted(key)));
  }
  gguf_.metadata_.emplace(std::move(key), std::move(value));
  return absl::OkStatus();
}

absl::StatusOr<GgufValue> GgufParser::ReadScalar(absl::string_view key, uint32_t type) {
  const auto integer = [](auto read) -> absl::StatusOr<GgufValue> {
    if (!read.ok()) return std::move(read).status();
    return GgufValue{static_cast<int64_t>(*read)};
  };
  switch (type) {
    case kU8:
      return integer(Read<uint8_t>(key));
    case kI8:
      return integer(Read<int8_t>(key));
    case kU16:
      return integer(Read<uint16_t>(key));
    case kI16:
      return integer(Read<int16_t>(key));
    case kU32:
      return integer(Read<uint32_t>(key));
    case kI32:
      return integer(Read<int32_t>(key));
    case kI64:
      return integer(Read<int64_t>(key));
    case kU64: {
      NG_ASSIGN_OR_RETURN(const uint64_t value, Read<uint64_t>(key));
      if (value <= static_cast<uint64_t>(INT64_MAX)) return GgufValue{static_cast<int64_t>(value)};
      return Error(absl::StrCat(key, " is ", value, ", beyond 63 bits"));
    }
    case kF32: {
      NG_ASSIGN_OR_RETURN(const float value, Read<float>(key));
      return GgufValue{static_cast<double>(value)};
    }
    case kF64: {
      NG_ASSIGN_OR_RETURN(const double value, Read<double>(key));
      return GgufValue{value};
    }
    case kBool: {
      NG_ASSIGN_OR_RETURN(const uint8_t value, Read<uint8_t>(key));
      if (value <= 1) return GgufValue{value == 1};
      return Error(absl::StrCat(key, " is a bool of value ", int{value}));
    }
    case kString: {
      NG_ASSIGN_OR_RETURN(std::string value, ReadString(key, kGgufStringBytesMax));
      return GgufValue{std::move(value)};
    }
  }
  return Error(absl::StrCat(key, " has the unknown value type ", type));
}

absl::StatusOr<GgufValue> GgufParser::ReadArray(absl::string_view key) {
  NG_ASSIGN_OR_RETURN(const uint32_t type, Read<uint32_t>(key));
  NG_ASSIGN_OR_RETURN(const uint64_t count, Read<uint64_t>(key));
  if (count > kGgufArrayItemsMax - array_items_) {
    return Error(absl::StrCat(key, " says it has ", count, " items; all arrays together may have ",
                              kGgufArrayItemsMax));
  }
  array_items_ += count;
  switch (type) {
    case kU8:
      return ReadItems<int64_t, uint8_t>(key, count);
    case kI8:
      return ReadItems<int64_t, int8_t>(key, count);
    case kU16:
      return ReadItems<int64_t, uint16_t>(key, count);
    case kI16:
      return ReadItems<int64_t, int16_t>(key, count);
    case kU32:
      return ReadItems<int64_t, uint32_t>(key, count);
    case kI32:
      return ReadItems<int64_t, int32_t>(key, count);
    case kU64:
      return ReadItems<int64_t, uint64_t>(key, count);
    case kI64:
      return ReadItems<int64_t, int64_t>(key, count);
    case kF32:
      return ReadItems<double, float>(key, count);
    case kF64:
      return ReadItems<double, double>(key, count);
    case kBool:
      return ReadBools(key, count);
    case kString:
      return ReadStrings(key, count);
    case kArray:
      return Error(absl::StrCat(key, " is an array of arrays, which is refused"));
  }
  return Error(absl::StrCat(key, " is an array of the unknown value type ", type));
}

template <typename Item, typename Raw>
absl::StatusOr<GgufValue> GgufParser::ReadItems(absl::string_view key, uint64_t count) {
  if (count * sizeof(Raw) > left()) {  // count is at most 2^24
    return Error(absl::StrCat(key, " says it has ", count, " items of ", sizeof(Raw), " bytes but ",
                              left(), " bytes are left in the file"));
  }
  std::vector<Item> items;
  items.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    NG_ASSIGN_OR_RETURN(const Raw raw, Read<Raw>(key));
    if constexpr (std::is_same_v<Raw, uint64_t>) {
      if (raw > static_cast<uint64_t>(INT64_MAX)) {
        return Error(absl::StrCat(key, "[", i, "] is ", raw, ", beyond 63 bits"));
      }
    }
    items.push_back(static_cast<Item>(raw));
  }
  return GgufValue{std::move(items)};
}

absl::StatusOr<GgufValue> GgufParser::ReadBools(absl::string_view key, uint64_t count) {
  NG_ASSIGN_OR_RETURN(const GgufValue raw, (ReadItems<int64_t, uint8_t>(key, count)));
  std::vector<bool> items;
  items.reserve(count);
  for (const int64_t value : std::get<std::vector<int64_t>>(raw.value)) {
    if (value > 1) return Error(absl::StrCat(key, " holds a bool of value ", value));
    items.push_back(value == 1);
  }
  return GgufValue{std::move(items)};
}

absl::StatusOr<GgufValue> GgufParser::ReadStrings(absl::string_view key, uint64_t count) {
  if (count * sizeof(uint64_t) > left()) {  // each has at least its length
    return Error(absl::StrCat(key, " says it has ", count, " strings but ", left(),
                              " bytes are left in the file"));
  }
  std::vector<std::string> items;
  items.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    NG_ASSIGN_OR_RETURN(std::string item, ReadString(key, kGgufStringBytesMax));
    if (position_ > kGgufMetadataBytesMax) {
      return Error(absl::StrCat("the metadata is longer than ", kGgufMetadataBytesMax,
                                " bytes, at key ", Quoted(key)));
    }
    items.push_back(std::move(item));
  }
  return GgufValue{std::move(items)};
}

absl::Status GgufParser::CheckMetadata() {
  if (gguf_.Find("general.alignment") != nullptr) {
    NG_ASSIGN_OR_RETURN(const int64_t value, gguf_.Integer("general.alignment"));
    alignment_ = static_cast<uint64_t>(value);
    if (value <= 0 || alignment_ > kGgufAlignmentMax || (alignment_ & (alignment_ - 1)) != 0) {
      return Error(absl::StrCat("general.alignment is ", value,
                                " but must be a power of two up to ", kGgufAlignmentMax));
    }
  }
  return absl::OkStatus();
}

absl::Status GgufParser::ReadTensor(size_t index) {
  NG_ASSIGN_OR_RETURN(std::string name, ReadString("a tensor name", kGgufTensorNameBytesMax));
  const std::string quoted = absl::StrCat("tensor ", Quoted(name));
  if (name.empty()) return Error("a tensor has an empty name");
  if (!tensor_names_.insert(name).second) return Error(absl::StrCat(quoted, " stands twice"));
  NG_ASSIGN_OR_RETURN(const uint32_t rank, Read<uint32_t>(quoted));
  if (rank < 1 || rank > Shape::kRankMax) {
    return Error(absl::StrCat(quoted, " has ", rank, " dimensions but must have 1 to 4"));
  }
  uint64_t dims[Shape::kRankMax] = {};
  for (uint32_t i = 0; i < rank; ++i) {
    NG_ASSIGN_OR_RETURN(dims[i], Read<uint64_t>(quoted));
  }
  NG_ASSIGN_OR_RETURN(const uint32_t type, Read<uint32_t>(quoted));
  const std::optional<DType> dtype = DTypeOf(type);
  if (!dtype) {
    return absl::UnimplementedError(absl::StrCat(gguf_.path(), ": ", quoted, " has the type ", type,
                                                 " (", OtherTypeName(type),
                                                 "), which is not read"));
  }
  RawTensor raw;
  raw.index = index;
  NG_ASSIGN_OR_RETURN(const Shape shape,
                      ShapeOf(quoted, *dtype, absl::MakeSpan(dims, rank), &raw.bytes));
  NG_ASSIGN_OR_RETURN(raw.offset, Read<uint64_t>(quoted));
  if (raw.offset % alignment_ != 0) {
    return Error(absl::StrCat(quoted, " starts at offset ", raw.offset,
                              ", which is no multiple of the alignment ", alignment_));
  }
  raw_tensors_.push_back(raw);
  gguf_.tensors_.push_back({std::move(name), ConstTensor(nullptr, *dtype, shape)});
  return absl::OkStatus();
}

absl::StatusOr<Shape> GgufParser::ShapeOf(absl::string_view name, DType dtype,
                                          absl::Span<const uint64_t> dims, uint64_t* bytes) const {
  const DTypeInfo& info = InfoOf(dtype);
  unsigned __int128 elements = 1;
  Shape shape;
  for (size_t i = dims.size(); i-- > 0;) {
    if (dims[i] == 0) return Error(absl::StrCat(name, " has a dimension of 0"));
    elements *= dims[i];
    if (dims[i] > bytes_.size() * 4 || elements > bytes_.size() * uint64_t{4}) {
      // No type has less than a quarter of a byte an element: more cannot be in this file.
      return Error(
          absl::StrCat(name, " has more elements than ", bytes_.size(), " bytes can hold"));
    }
    shape.Append(static_cast<int64_t>(dims[i]));
  }
  if (dims[0] % static_cast<uint64_t>(info.block_elements) != 0) {
    return Error(absl::StrCat(name, " has rows of ", dims[0], " elements, no multiple of the ",
                              info.block_elements, " of a ", info.name, " block"));
  }
  *bytes = static_cast<uint64_t>(BytesOf(dtype, static_cast<int64_t>(elements)));
  return shape;
}

absl::Status GgufParser::PlaceTensors() {
  const uint64_t data_start = (position_ + alignment_ - 1) / alignment_ * alignment_;
  const uint64_t data_bytes = data_start > bytes_.size() ? 0 : bytes_.size() - data_start;
  std::sort(raw_tensors_.begin(), raw_tensors_.end(),
            [](const RawTensor& a, const RawTensor& b) { return a.offset < b.offset; });
  uint64_t previous_end = 0;
  for (const RawTensor& raw : raw_tensors_) {
    Gguf::TensorInfo& info = gguf_.tensors_[raw.index];
    if (raw.offset > data_bytes || raw.bytes > data_bytes - raw.offset) {
      return Error(absl::StrCat("tensor ", Quoted(info.name), " needs ", raw.bytes,
                                " bytes from offset ", raw.offset, " but the data section has ",
                                data_bytes));
    }
    if (raw.offset < previous_end) {
      return Error(absl::StrCat("tensor ", Quoted(info.name), " overlaps the one before it"));
    }
    previous_end = raw.offset + raw.bytes;
    info.tensor.data = bytes_.data() + data_start + raw.offset;
  }
  return absl::OkStatus();
}

}  // namespace neurogrid
