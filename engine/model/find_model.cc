#include "engine/model/find_model.h"

#include <filesystem>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/model/hub_cache.h"
#include "engine/model/model_list.h"

namespace neurogrid {
namespace {

constexpr int kDepth = 2;  // FOLDER/ORG/NAME, as several programs keep their models

absl::StatusOr<FoundModel> FindInFolder(const std::string& folder) {
  const std::vector<ModelFound> found = ListModels(folder, kDepth);
  for (const ModelFound& model : found) {
    if (model.name == ".") return FoundModel{.path = folder, .note = ""};
  }
  std::error_code error;
  if (found.empty()) {
    // With a config.json it is meant to be one model: opening it says what is wrong.
    if (std::filesystem::exists(std::filesystem::path(folder) / "config.json", error)) {
      return FoundModel{.path = folder, .note = ""};
    }
    return absl::FailedPreconditionError(
        absl::StrCat(folder,
                     " holds no model: neither config.json with model.safetensors (or its "
                     "index) nor a .gguf file, nor do the folders in it"));
  }
  const std::string prefix = folder.back() == '/' ? folder : folder + "/";
  NG_ASSIGN_OR_RETURN(const size_t chosen, ChooseModel(found, "", folder, prefix));
  const ModelFound& model = found[chosen];
  return FoundModel{.path = model.path,
                    .note = absl::StrCat("the one model in ", folder, " is ", model.name, " (",
                                         SizeText(model.bytes), ")")};
}

}  // namespace

absl::StatusOr<FoundModel> FindModel(const std::string& text, const std::string& hub_cache) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(text, error);
  if (std::filesystem::is_directory(status)) return FindInFolder(text);
  if (std::filesystem::exists(status)) return FoundModel{.path = text, .note = ""};
  const absl::StatusOr<HubName> name = ParseHubName(text);
  if (!name.ok()) {
    return absl::NotFoundError(
        absl::StrCat("there is no file or folder ", absl::CHexEscape(text.substr(0, 500)),
                     ", and it is no name on a hub either (ORG/NAME, ORG/NAME@REVISION, "
                     "ORG/NAME:FILE.gguf)"));
  }
  const absl::StatusOr<std::string> cached = FindInHubCache(hub_cache, *name);
  if (cached.ok()) {
    return FoundModel{.path = *cached,
                      .note = absl::StrCat(text, " is in the hub cache: ", *cached)};
  }
  return absl::Status(cached.status().code(), absl::StrCat("there is no file or folder ", text,
                                                           ", and ", cached.status().message()));
}

}  // namespace neurogrid
