// Decides when to plan: watches who is a member, asks the planner, brings chains up and takes them
// down. One thread of its own, so that planning and loading never hold up a request.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "common/config.h"
#include "common/json.h"
#include "common/status.h"
#include "coordinator/cluster.h"
#include "coordinator/plan_facts.h"
#include "coordinator/planner.h"
#include "coordinator/serving.h"
#include "engine/model/checkpoint.h"

namespace neurogrid {

class Supervisor final : public ClusterListener {
 public:
  struct Options {
    Config config;
    std::shared_ptr<const Checkpoint> checkpoint;
    std::string model_name;
    Precision precision = Precision::kBf16;
    BatchLimits limits;
    std::function<void(const Plan&)> on_plan;      // a plan was chosen
    std::function<void(uint64_t epoch)> on_ready;  // it serves
    std::function<void(const std::string& node, int64_t done, int64_t total)> on_progress;
    std::function<void(const std::vector<Node>&)>
        on_nodes;  // who is a member, several times a second
    std::function<void(const absl::Status&)>
        on_device_lost;  // the coordinator's own; on any thread
  };
  Supervisor(Options options, Serving& serving);
  ~Supervisor() override;

  /// Opens the workers' port and begins to plan.
  absl::Status Start();
  int grpc_port() const { return cluster_->port(); }
  Json Describe() const;

  void OnNodesChanged() override;
  void OnPlanProgress(uint64_t epoch, const std::string& node, int64_t bytes_done,
                      int64_t bytes_total) override;
  void OnPlanActive(uint64_t epoch, const std::string& determinism_class) override;
  void OnPlanEnded(uint64_t epoch, const std::string& node, const std::string& reason,
                   bool was_active) override;
  void OnStepResult(StepResult result) override;

 private:
  class RemoteChain;
  enum class Phase { kNone, kLoading, kServing };

  void Loop();
  void Wake();
  void Consider();
  std::vector<ReportedNode> Members();
  absl::StatusOr<Plan> PlanFor(const std::vector<ReportedNode>& members) const;
  bool WorthMoving(const Plan& next, const std::vector<ReportedNode>& members) const;
  void BringUp(Plan plan);
  bool InForce(uint64_t epoch) const;
  void WaitForWorkers(const std::string& why);

  const Options options_;
  const ModelFacts facts_;
  Serving& serving_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool woken_ = true;
  bool stop_ = false;
  Phase phase_ = Phase::kNone;
  bool was_serving_ = false;  // a chain served before: its loss is a recovery
  Plan plan_;                 // in force when phase_ is not kNone
  BatchLimits plan_limits_;
  uint64_t last_epoch_ = 0;  // no plan up to this one is in force any more
  uint64_t epoch_ = 0;       // of the plan in force; 0: not known yet
  struct Blame {
    int failures = 0;
    uint64_t boot_id = 0;  // of the process that could not
    bool left = false;     // since then: it may have been mended
    std::chrono::steady_clock::time_point until;
  };
  std::map<std::string, Blame> blamed_;  // nodes that could not load; left out until then
  std::vector<std::string> considered_;  // members when the plan was last weighed
  std::string waiting_for_;
  std::chrono::steady_clock::time_point retry_at_ = {};

  std::unique_ptr<Cluster> cluster_;
  std::thread thread_;
};

}  // namespace neurogrid
