#include "engine/model/safetensors.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/limits.h"
#include "engine/model/foreign_content.h"
#include "engine/model/safetensors_header.h"

namespace neurogrid {
namespace {

absl::Status Error(const std::string& path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
}

/// The header's text, after the checks of its length.
absl::StatusOr<absl::string_view> HeaderOf(const MappedFile& file) {
  const absl::Span<const uint8_t> bytes = file.bytes();
  uint64_t size = 0;
  if (bytes.size() >= sizeof size) std::memcpy(&size, bytes.data(), sizeof size);
  const bool fits = bytes.size() >= 8 && size >= 2 && size <= bytes.size() - 8;
  if (fits && size <= kSafetensorsHeaderBytesMax && bytes[8] == '{') {
    return file.text().substr(8, size);
  }
  const absl::string_view foreign = DescribeForeignContent(bytes);
  if (!foreign.empty()) {
    return Error(file.path(), absl::StrCat("is no safetensors file; it is ", foreign));
  }
  if (bytes.size() < 8) {
    return Error(file.path(), absl::StrCat("has ", bytes.size(), " bytes; a header needs 8"));
  }
  if (!fits || size > kSafetensorsHeaderBytesMax) {
    return Error(file.path(), absl::StrCat("says its header has ", size, " bytes; it must be 2 to ",
                                           kSafetensorsHeaderBytesMax, " and inside the file of ",
                                           bytes.size()));
  }
  return Error(file.path(), "has a header that does not start with \"{\"");
}

/// Sorts by place and checks that the ranges tile the data section.
absl::Status CheckCover(const std::string& path, uint64_t data_bytes,
                        std::vector<SafetensorsEntry>& entries) {
  std::sort(entries.begin(), entries.end(),
            [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
              return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
            });
  uint64_t expected = 0;
  for (const SafetensorsEntry& entry : entries) {
    const std::string name = absl::CHexEscape(entry.name.substr(0, 200));
    if (entry.begin != expected) {
      return Error(path, absl::StrCat("tensor \"", name, "\" starts at byte ", entry.begin,
                                      " of the data but ", expected, " is next: ",
                                      entry.begin > expected ? "a gap" : "an overlap"));
    }
    if (entry.end > data_bytes) {
      return Error(path, absl::StrCat("tensor \"", name, "\" ends at byte ", entry.end,
                                      " of the data but the file has ", data_bytes,
                                      ": it is cut short or damaged"));
    }
    expected = entry.end;
  }
  if (expected == data_bytes) return absl::OkStatus();
  return Error(path, absl::StrCat("the tensors end at byte ", expected,
                                  " of the data but the file has ", data_bytes));
}

}  // namespace

absl::StatusOr<SafetensorsFile> OpenSafetensors(const std::string& path) {
  NG_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  NG_ASSIGN_OR_RETURN(const absl::string_view header, HeaderOf(file));
  absl::StatusOr<SafetensorsHeader> parsed = ParseSafetensorsHeader(header);
  if (!parsed.ok()) return Error(path, parsed.status().message());
  std::vector<SafetensorsEntry>& entries = parsed->entries;
  const uint64_t data_start = 8 + header.size();
  NG_RETURN_IF_ERROR(CheckCover(path, file.bytes().size() - data_start, entries));

  SafetensorsFile result{std::move(file), {}};
  result.tensors.reserve(entries.size());
  const uint8_t* data = result.file.bytes().data() + data_start;
  for (const SafetensorsEntry& entry : entries) {
    result.tensors.push_back(
        {std::string(entry.name), ConstTensor(data + entry.begin, entry.dtype, entry.shape)});
  }
  return result;
}

}  // namespace neurogrid
