// Where a worker's stage comes from: a model on this machine, opened, compared and loaded.
#pragma once

#include <memory>
#include <string>

#include "common/status.h"
#include "engine/device.h"
#include "engine/model/checkpoint.h"
#include "engine/stage.h"

namespace neurogrid {

struct StageRequest {
  std::string model_name;
  std::string model_digest;
  std::string model_path;  // where the coordinator holds the model: a hint
  StageOptions options;

  bool operator==(const StageRequest& other) const;
};

struct LoadedStage {
  std::shared_ptr<const Checkpoint> checkpoint;  // First: the stage may read its mapped weights.
  std::unique_ptr<Stage> stage;
  int hidden_size = 0;
  int layers_count = 0;  // of the whole model
};

class StageSource {
 public:
  virtual ~StageSource() = default;
  virtual absl::StatusOr<LoadedStage> Load(const StageRequest& request,
                                           const Stage::Progress& progress) = 0;
  /// Device::Health of the device that it loads to.
  virtual absl::Status Health() = 0;
};

/// Loads from `model_path`, or where that is empty from the place the coordinator names, if it
/// exists here too. NotFound names both; FailedPrecondition when the model found is another one.
class LocalModel : public StageSource {
 public:
  LocalModel(Device* device, std::string model_path)
      : device_(device), model_path_(std::move(model_path)) {}
  absl::StatusOr<LoadedStage> Load(const StageRequest& request,
                                   const Stage::Progress& progress) override;
  absl::Status Health() override { return device_->Health(); }

 private:
  Device* device_;
  std::string model_path_;
  std::string opened_path_;
  std::shared_ptr<const Checkpoint> checkpoint_;
};

}  // namespace neurogrid
