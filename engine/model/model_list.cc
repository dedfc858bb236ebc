#include "engine/model/model_list.h"

#include <fnmatch.h>

#include <algorithm>
#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/model/gguf_part.h"
#include "engine/model/hub_cache.h"
#include "engine/model/model_directory.h"

namespace neurogrid {
namespace {

namespace fs = std::filesystem;

constexpr int kEntriesMax = 4096;
constexpr size_t kListedMax = 40;

bool IsFile(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

int64_t BytesOf(const fs::path& path) {
  std::error_code error;
  const uintmax_t bytes = fs::file_size(path, error);
  return error ? 0 : static_cast<int64_t>(bytes);
}

bool HasWeights(const fs::path& folder) {
  return IsFile(folder / "config.json") &&
         (IsFile(folder / "model.safetensors") || IsFile(folder / "model.safetensors.index.json"));
}

/// Of model.safetensors, else of the shards that are here; other files of tensors are none of it.
int64_t BytesOfWeights(const fs::path& folder) {
  if (IsFile(folder / "model.safetensors")) return BytesOf(folder / "model.safetensors");
  const absl::StatusOr<std::vector<std::string>> shards =
      ShardsOfIndex((folder / "model.safetensors.index.json").string());
  int64_t bytes = 0;
  if (shards.ok()) {
    for (const std::string& shard : *shards) bytes += BytesOf(folder / shard);
  }
  return bytes;
}

ModelFound GgufAt(const fs::path& path, const std::string& name) {
  ModelFound found{.path = path.string(), .name = name, .bytes = BytesOf(path), .missing = ""};
  const std::optional<GgufPart> first = ParseGgufPart(path.filename().string());
  for (int part = 2; first.has_value() && part <= first->count; ++part) {
    const fs::path other = path.parent_path() / first->Name(part);
    found.bytes += BytesOf(other);
    if (found.missing.empty() && !IsFile(other)) found.missing = first->Name(part);
  }
  return found;
}

/// Looks through one folder and those below it.
class Search {
 public:
  void Look(const fs::path& folder, const std::string& prefix, int depth) {
    if (HasWeights(folder)) {
      found_.push_back({.path = folder.string(),
                        .name = prefix.empty() ? "." : prefix.substr(0, prefix.size() - 1),
                        .bytes = BytesOfWeights(folder),
                        .missing = MissingFromFolder(folder.string())});
      depth = 0;  // What lies below belongs to it.
    }
    std::vector<fs::path> folders;
    std::error_code error;
    for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
      if (++entries_ > kEntriesMax) return;
      const std::string name = at->path().filename().string();
      if (name[0] == '.') continue;
      std::error_code ignored;
      if (at->is_directory(ignored)) {
        folders.push_back(at->path());
      } else if (IsGgufModel(name) && at->is_regular_file(ignored)) {
        const std::optional<GgufPart> part = ParseGgufPart(name);
        if (!part.has_value() || part->part == 1) {
          found_.push_back(GgufAt(at->path(), prefix + name));
        }
      }
    }
    if (depth > 0) Descend(folders, prefix, depth);
  }

  std::vector<ModelFound> TakeInOrder() {
    std::sort(found_.begin(), found_.end(),
              [](const ModelFound& a, const ModelFound& b) { return a.name < b.name; });
    return std::move(found_);
  }

 private:
  void Descend(const std::vector<fs::path>& folders, const std::string& prefix, int depth) {
    for (const fs::path& folder : folders) {
      const std::string name = folder.filename().string();
      if (name.rfind("models--", 0) == 0 && fs::exists(folder / "snapshots")) {
        HubName repository;
        const HubCachePlace place(folder.parent_path().string(), name.substr(8));
        const absl::StatusOr<std::string> commit = CachedCommit(place, repository);
        if (!commit.ok()) continue;
        const std::string snapshot = place.Snapshot(*commit);
        Look(snapshot, absl::StrCat(prefix, RepositoryOfSnapshot(snapshot), "/"), 1);
      } else {
        Look(folder, absl::StrCat(prefix, name, "/"), depth - 1);
      }
    }
  }

  std::vector<ModelFound> found_;
  int entries_ = 0;
};

bool ContainsWord(absl::string_view name, absl::string_view word) {
  const auto inside = [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_';
  };
  for (size_t at = name.find(word); at != name.npos; at = name.find(word, at + 1)) {
    const size_t end = at + word.size();
    if ((at == 0 || !inside(name[at - 1])) && (end == name.size() || !inside(name[end]))) {
      return true;
    }
  }
  return false;
}

/// The ways in which `wanted` may name a model, the strictest first.
bool Matches(absl::string_view name, absl::string_view wanted, int way) {
  const absl::string_view base = name.substr(name.rfind('/') + 1);
  const std::string lower = absl::AsciiStrToLower(name);
  const std::string word = absl::AsciiStrToLower(wanted);
  switch (way) {
    case 0:
      return name == wanted || base == wanted;
    case 1:
      return fnmatch(std::string(wanted).c_str(), std::string(name).c_str(), 0) == 0 ||
             fnmatch(std::string(wanted).c_str(), std::string(base).c_str(), 0) == 0;
    case 2:
      return ContainsWord(lower, word);
    default:
      return absl::StrContains(lower, word);
  }
}

std::string Listed(absl::Span<const ModelFound> found, const std::vector<size_t>& which,
                   absl::string_view prefix) {
  std::string text;
  for (size_t i = 0; i < which.size() && i < kListedMax; ++i) {
    const ModelFound& model = found[which[i]];
    absl::StrAppend(&text, "\n  ", prefix, absl::CHexEscape(model.name));
    if (model.bytes >= 0) absl::StrAppend(&text, "  ", SizeText(model.bytes));
    if (!model.missing.empty()) absl::StrAppend(&text, ", ", model.missing, " is missing");
  }
  if (which.size() > kListedMax) {
    absl::StrAppend(&text, "\n  and ", which.size() - kListedMax, " more");
  }
  return text;
}

}  // namespace

bool IsGgufModel(absl::string_view name) {
  const std::string lower = absl::AsciiStrToLower(name);
  return absl::EndsWith(lower, ".gguf") && !absl::StrContains(lower, "mmproj") &&
         !absl::StrContains(lower, "imatrix");
}

std::string MissingFromFolder(const std::string& folder) {
  const fs::path path(folder);
  for (const char* name : {"config.json", "tokenizer.json"}) {
    if (!IsFile(path / name)) return name;
  }
  if (IsFile(path / "model.safetensors")) return "";
  const fs::path index = path / "model.safetensors.index.json";
  if (!IsFile(index)) return "model.safetensors";
  const absl::StatusOr<std::vector<std::string>> shards = ShardsOfIndex(index.string());
  if (!shards.ok()) return "a readable model.safetensors.index.json";
  for (const std::string& shard : *shards) {
    if (!IsFile(path / shard)) return shard;
  }
  return "";
}

std::vector<ModelFound> ListModels(const std::string& folder, int depth) {
  Search search;
  search.Look(folder, "", depth);
  return search.TakeInOrder();
}

absl::StatusOr<size_t> ChooseModel(absl::Span<const ModelFound> found, absl::string_view wanted,
                                   absl::string_view place, absl::string_view prefix) {
  std::vector<size_t> all(found.size());
  for (size_t i = 0; i < all.size(); ++i) all[i] = i;
  std::vector<size_t> meant = all;
  for (int way = 0; !wanted.empty() && way < 4; ++way) {
    meant.clear();
    for (const size_t i : all) {
      if (Matches(found[i].name, wanted, way)) meant.push_back(i);
    }
    if (!meant.empty()) break;
  }
  if (meant.size() == 1) return meant[0];
  if (meant.empty()) {
    return absl::NotFoundError(absl::StrCat("no model of ", place, " is called \"",
                                            absl::CHexEscape(wanted),
                                            "\"; there are:", Listed(found, all, prefix)));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      meant.size(), " models are in ", place,
      wanted.empty() ? "" : absl::StrCat(" that \"", absl::CHexEscape(wanted), "\" fits"),
      "; name one of them:", Listed(found, meant, prefix)));
}

std::string SizeText(int64_t bytes) {
  const double value = static_cast<double>(bytes);
  if (bytes >= 1'000'000'000) return absl::StrFormat("%.2f GB", value / 1e9);
  if (bytes >= 1'000'000) return absl::StrFormat("%.1f MB", value / 1e6);
  if (bytes >= 1000) return absl::StrFormat("%.1f kB", value / 1e3);
  return absl::StrFormat("%d B", bytes);
}

}  // namespace neurogrid
