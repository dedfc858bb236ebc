// The coordinator's own device: a whole model in this process, behind the same interface as a chain
// of workers. The one place of this folder that sees the engine's stages.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/config.h"
#include "common/status.h"
#include "coordinator/bench.h"
#include "coordinator/serving.h"
#include "engine/model/checkpoint.h"
#include "engine/model/precision.h"

namespace neurogrid {

class Device;
class Stage;

/// All layers on one device, run by a thread of its own: a chain of one.
class LocalChain final : public Chain {
 public:
  using OnResult = std::function<void(uint64_t step, absl::StatusOr<std::vector<SampledToken>>)>;
  using OnProgress = std::function<void(int64_t done, int64_t total)>;

  static absl::StatusOr<std::shared_ptr<LocalChain>> Load(
      std::shared_ptr<const Checkpoint> checkpoint, const Config& config, Precision precision,
      const BatchLimits& limits, const OnProgress& progress);
  ~LocalChain() override;

  /// Results go to `on_result`, on the chain's thread, from the first Submit on.
  void Begin(OnResult on_result);
  void Submit(uint64_t step, Batch batch) override;
  const std::string& determinism_class() const;

 private:
  LocalChain(std::shared_ptr<const Checkpoint> checkpoint, std::shared_ptr<Device> device,
             std::unique_ptr<Stage> stage);
  void Loop();

  std::shared_ptr<const Checkpoint> checkpoint_;
  std::shared_ptr<Device> device_;
  std::unique_ptr<Stage> stage_;
  OnResult on_result_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<uint64_t, Batch>> queue_;
  bool stop_ = false;
  std::thread thread_;
};

/// Loads `checkpoint` on the configured device for the bench verb.
absl::StatusOr<BenchTarget> MakeBenchTarget(std::shared_ptr<const Checkpoint> checkpoint,
                                            const std::string& name, const Config& config,
                                            const BenchOptions& options);

}  // namespace neurogrid
