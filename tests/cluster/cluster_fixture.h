// A coordinator's cluster and workers in this process, over real loopback sockets.
#pragma once

#include <condition_variable>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "coordinator/cluster.h"
#include "engine/device.h"
#include "engine/model/checkpoint.h"
#include "tests/support/golden.h"
#include "worker/stage_source.h"
#include "worker/worker.h"

namespace neurogrid {

/// Remembers what the cluster said; waits for more of it. A wait of 20 s fails the test: it ends
/// hangs and measures nothing.
class Recorder : public ClusterListener {
 public:
  struct Ended {
    uint64_t epoch = 0;
    std::string node;
    std::string reason;
    bool was_active = false;
  };
  void OnNodesChanged() override {
    Change([] {});
  }
  void OnPlanProgress(uint64_t, const std::string&, int64_t, int64_t) override {}
  void OnPlanActive(uint64_t epoch, const std::string& determinism) override {
    Change([&] { active = epoch, determinism_class = determinism; });
  }
  void OnPlanEnded(uint64_t epoch, const std::string& node, const std::string& reason,
                   bool was_active) override {
    Change([&] { ended.push_back({epoch, node, reason, was_active}); });
  }
  void OnStepResult(StepResult result) override {
    Change([&] { results.push_back(std::move(result)); });
  }
  bool Wait(const std::function<bool()>& condition);

  // Read under Wait's lock, or when nothing runs.
  uint64_t active = 0;
  std::string determinism_class;
  std::vector<Ended> ended;
  std::vector<StepResult> results;

 private:
  template <typename F>
  void Change(F change) {
    const std::lock_guard lock(mutex_);
    change();
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
};

/// A worker on a thread of its own.
class RunningWorker {
 public:
  RunningWorker(Worker::Options options, const std::string& model_path);
  ~RunningWorker();
  Worker& worker() { return *worker_; }
  /// What Run returned, once it has.
  absl::Status Join();

 private:
  std::unique_ptr<Device> device_;
  std::unique_ptr<StageSource> source_;
  std::unique_ptr<Worker> worker_;
  absl::Status ended_;
  std::thread thread_;
};

/// A lease that no worker loses because a busy machine keeps its threads from running.
inline ClusterTimes LongLease() { return {.lease = std::chrono::seconds(60)}; }

class ClusterFixture {
 public:
  explicit ClusterFixture(std::optional<LocalDevice> local = std::nullopt,
                          ClusterTimes times = LongLease(), std::string host = "127.0.0.1");

  /// Enrols and starts a worker that serves `model_path`.
  RunningWorker& AddWorker(const std::string& name, const std::string& model_path);
  absl::StatusOr<Identity> EnrollAs(const std::string& name);
  Worker::Options OptionsFor(const Identity& identity) const;
  bool WaitForMembers(size_t count);
  /// Splits the layers of the model evenly over `nodes` and waits until the plan is active.
  uint64_t Activate(const std::vector<std::string>& nodes, const Checkpoint& checkpoint,
                    const std::string& precision = "bf16");
  ClusterPlan PlanOver(const std::vector<std::string>& nodes, const Checkpoint& checkpoint,
                       const std::string& precision = "bf16") const;

  /// The coordinator's port closes; Start opens it again with the same state directory.
  void StopCoordinator() { cluster.reset(); }
  void StartCoordinator(int port = 0);
  std::string state_dir() const { return folder.path() + "/coordinator"; }

  TemporaryFolder folder;
  Recorder recorder;
  std::unique_ptr<Cluster> cluster;
  std::list<RunningWorker> workers;

 private:
  std::optional<LocalDevice> local_;
  ClusterTimes times_;
  std::string host_;  // that the coordinator listens on
};

BatchLimits TestLimits(const ModelConfig& config);

}  // namespace neurogrid
