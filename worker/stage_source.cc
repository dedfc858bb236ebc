#include "worker/stage_source.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "common/log.h"

namespace neurogrid {

bool StageRequest::operator==(const StageRequest& other) const {
  return model_digest == other.model_digest && options.layers == other.options.layers &&
         options.precision == other.options.precision && options.limits == other.options.limits;
}

absl::StatusOr<LoadedStage> LocalModel::Load(const StageRequest& request,
                                             const Stage::Progress& progress) {
  const std::string& path = model_path_.empty() ? request.model_path : model_path_;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    return absl::NotFoundError(
        model_path_.empty()
            ? absl::StrCat("model ", request.model_name, " is not on this machine at ", path,
                           ", where the coordinator holds it; name its place with --model")
            : absl::StrCat("--model ", path, " does not exist; the cluster serves ",
                           request.model_name));
  }
  if (checkpoint_ == nullptr || opened_path_ != path) {
    NG_ASSIGN_OR_RETURN(checkpoint_, Checkpoint::Open(path));
    opened_path_ = path;
  }
  if (checkpoint_->digest() != request.model_digest) {
    return absl::FailedPreconditionError(absl::StrCat(
        path, " is another model than the cluster's ", request.model_name, ": digest ",
        checkpoint_->digest().substr(0, 16), ", expected ", request.model_digest.substr(0, 16)));
  }
  const ModelConfig& config = checkpoint_->config();
  const LayerRange layers = request.options.layers;
  if (layers.first < 0 || layers.first >= layers.last || layers.last > config.layers_count()) {
    return absl::InvalidArgumentError(absl::StrCat("assigned layers ", layers.ToString(),
                                                   " but the model has ", config.layers_count()));
  }
  if (request.options.limits.vocab_size > config.vocab_size) {
    return absl::InvalidArgumentError(absl::StrCat("assigned vocab_size ",
                                                   request.options.limits.vocab_size,
                                                   " but the model has ", config.vocab_size));
  }
  LoadedStage loaded;
  loaded.checkpoint = checkpoint_;
  loaded.hidden_size = config.hidden_size;
  loaded.layers_count = config.layers_count();
  NG_ASSIGN_OR_RETURN(loaded.stage, Stage::Load(*checkpoint_, *device_, request.options, progress));
  return loaded;
}

}  // namespace neurogrid
