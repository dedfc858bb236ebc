#include "engine/model/checkpoint.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "engine/model/checkpoint_builder.h"

namespace neurogrid {

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) {
    return absl::NotFoundError(absl::StrCat("there is no model at ", path));
  }
  CheckpointBuilder builder(path);
  if (std::filesystem::is_directory(status)) {
    NG_RETURN_IF_ERROR(builder.AddFolder());
  } else if (std::filesystem::path(path).extension() == ".safetensors") {
    return absl::InvalidArgumentError(absl::StrCat(
        path, " holds weights alone; name the folder that has it beside its config.json"));
  } else {
    NG_RETURN_IF_ERROR(builder.AddGguf());
  }
  return builder.Finish();
}

}  // namespace neurogrid
