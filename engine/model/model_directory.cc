#include "engine/model/model_directory.h"

#include <algorithm>
#include <filesystem>
#include <map>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/json.h"
#include "common/limits.h"
#include "common/mapped_file.h"

namespace neurogrid {
namespace {

namespace fs = std::filesystem;

constexpr char kWhole[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";

bool IsInside(const fs::path& folder, const fs::path& file) {
  const fs::path relative = file.lexically_relative(folder);
  return !relative.empty() && *relative.begin() != "..";
}

/// Where a hub cache keeps the bytes of this snapshot folder, or of a folder in one.
std::vector<fs::path> BlobFolders(const fs::path& folder) {
  for (const fs::path& snapshot : {folder, folder.parent_path()}) {
    if (snapshot.parent_path().filename() != "snapshots") continue;
    const fs::path repository = snapshot.parent_path().parent_path();
    return {repository / "blobs", repository.parent_path() / "blobs"};
  }
  return {};
}

/// tensor -> shard, and the set of shards in the order of their names.
struct Index {
  absl::flat_hash_map<std::string, std::string> shard_of;
  std::map<std::string, int64_t> tensors_of;
};

absl::StatusOr<Index> ReadIndex(const std::string& path) {
  NG_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kSafetensorsIndexBytesMax));
  const absl::StatusOr<Json> root = ParseJson(text, kModelFileJsonLimits);
  if (!root.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is not valid JSON: ", root.status().message()));
  }
  const Json* map = root->Find("weight_map");
  if (map == nullptr || !map->is_object() || map->as_object().empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": weight_map is missing or empty"));
  }
  if (static_cast<int64_t>(map->as_object().size()) > kSafetensorsTensorsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": weight_map has more than ", kSafetensorsTensorsMax, " tensors"));
  }
  Index index;
  for (const JsonMember& member : map->as_object()) {
    if (!member.value.is_string()) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": the file of ", absl::CHexEscape(member.key.substr(0, 200)), " is no string"));
    }
    index.shard_of.emplace(member.key, member.value.as_string());
    ++index.tensors_of[member.value.as_string()];
  }
  if (static_cast<int64_t>(index.tensors_of.size()) > kSafetensorsShardsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": weight_map names more than ", kSafetensorsShardsMax, " files"));
  }
  return index;
}

absl::Status CheckShard(const Index& index, const std::string& shard, const SafetensorsFile& file) {
  int64_t found = 0;
  for (const SafetensorsFile::NamedTensor& tensor : file.tensors) {
    const auto named = index.shard_of.find(tensor.name);
    if (named == index.shard_of.end()) continue;
    if (named->second != shard) {
      return absl::InvalidArgumentError(
          absl::StrCat(file.file.path(), ": tensor ", absl::CHexEscape(tensor.name),
                       " is here but the index says it is in ", named->second));
    }
    ++found;
  }
  if (found == index.tensors_of.at(shard)) return absl::OkStatus();
  for (const auto& [name, named] : index.shard_of) {
    const auto has = [&wanted = name](const SafetensorsFile::NamedTensor& tensor) {
      return tensor.name == wanted;
    };
    if (named == shard && std::none_of(file.tensors.begin(), file.tensors.end(), has)) {
      return absl::InvalidArgumentError(
          absl::StrCat(file.file.path(), ": tensor ", absl::CHexEscape(name),
                       " is missing although the index says it is here"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<SafetensorsFile>> OpenIndexed(const std::string& folder) {
  NG_ASSIGN_OR_RETURN(const std::string path, ResolveInFolder(folder, kIndex));
  NG_ASSIGN_OR_RETURN(const Index index, ReadIndex(path));
  std::vector<SafetensorsFile> files;
  for (const auto& [shard, count] : index.tensors_of) {
    absl::StatusOr<std::string> resolved = ResolveInFolder(folder, shard);
    if (!resolved.ok()) {
      return absl::Status(resolved.status().code(),
                          absl::StrCat(path, ": ", resolved.status().message()));
    }
    NG_ASSIGN_OR_RETURN(SafetensorsFile file, OpenSafetensors(*resolved));
    NG_RETURN_IF_ERROR(CheckShard(index, shard, file));
    files.push_back(std::move(file));
  }
  return files;
}

}  // namespace

absl::StatusOr<std::string> ResolveInFolder(const std::string& folder, const std::string& name) {
  const std::string shown = absl::CHexEscape(name.substr(0, 200));
  if (name.empty() || name[0] == '.' || name.find_first_of(std::string("/\\\0", 3)) != name.npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", shown, "\" is not the plain name of a file in ", folder));
  }
  std::error_code error;
  const fs::path root = fs::canonical(folder, error);
  if (error)
    return absl::NotFoundError(absl::StrCat("cannot open ", folder, ": ", error.message()));
  const fs::path real = fs::canonical(root / name, error);
  if (error) {
    return absl::NotFoundError(
        absl::StrCat("cannot open ", folder, "/", shown, ": ", error.message()));
  }
  bool inside = IsInside(root, real);
  for (const fs::path& blobs : BlobFolders(root)) inside = inside || IsInside(blobs, real);
  if (inside) return folder + "/" + name;  // As it was given: errors then speak the user's words.
  return absl::InvalidArgumentError(
      absl::StrCat(folder, "/", shown, " is a link that leads out of the folder"));
}

absl::StatusOr<std::vector<std::string>> ShardsOfIndex(const std::string& path) {
  NG_ASSIGN_OR_RETURN(const Index index, ReadIndex(path));
  std::vector<std::string> shards;
  for (const auto& [shard, count] : index.tensors_of) shards.push_back(shard);
  return shards;
}

absl::StatusOr<std::vector<SafetensorsFile>> OpenShards(const std::string& folder) {
  if (fs::exists(fs::path(folder) / kWhole)) {
    NG_ASSIGN_OR_RETURN(const std::string path, ResolveInFolder(folder, kWhole));
    NG_ASSIGN_OR_RETURN(SafetensorsFile file, OpenSafetensors(path));
    std::vector<SafetensorsFile> files;
    files.push_back(std::move(file));
    return files;
  }
  if (fs::exists(fs::path(folder) / kIndex)) return OpenIndexed(folder);
  const bool pickled = fs::exists(fs::path(folder) / "pytorch_model.bin") ||
                       fs::exists(fs::path(folder) / "pytorch_model.bin.index.json");
  return absl::NotFoundError(absl::StrCat(
      folder, " has neither ", kWhole, " nor ", kIndex,
      pickled ? "; its pytorch_model.bin is a Python pickle, which is never loaded" : ""));
}

}  // namespace neurogrid
