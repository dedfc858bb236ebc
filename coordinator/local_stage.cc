#include "coordinator/local_stage.h"

#include <thread>
#include <utility>

#include "common/log.h"
#include "engine/device.h"
#include "proto/direct_peer.h"
#include "worker/disk.h"
#include "worker/stage_source.h"
#include "worker/worker.h"

namespace neurogrid {
namespace {

class InProcessStage : public LocalStage {
 public:
  absl::Status Begin(const Options& options) {
    NG_ASSIGN_OR_RETURN(
        device_, MakeDevice(options.device, options.threads,
                            options.managed_memory ? DeviceMemory::kManaged : DeviceMemory::kOwn));
    if (options.any_order) NG_RETURN_IF_ERROR(device_->AllowAnyOrder());
    source_ = std::make_unique<LocalModel>(device_.get(), options.model_path);
    NG_ASSIGN_OR_RETURN(worker_,
                        Worker::Start({.host = options.host,
                                       .port = options.port,
                                       .listen_host = options.listen_host,
                                       .identity = options.identity,
                                       .device = device_->Report(),
                                       .disk_free_bytes = DiskFreeBytes(options.state_dir),
                                       .host_id = HostId(),
                                       .gauges = [this] { return device_->Gauges(); },
                                       .open_peer = [results = options.results](PeerOptions peer)
                                           -> absl::StatusOr<std::unique_ptr<Peer>> {
                                         if (peer.node_id != kCoordinatorNode)
                                           return OpenPeer(std::move(peer));
                                         const EdgeSender sender{.node_id = std::string(kLocalNode),
                                                                 .role = Role::kWorker,
                                                                 .epoch = peer.epoch,
                                                                 .boot_id = peer.boot_id};
                                         return OpenDirectPeer(sender, results, std::move(peer));
                                       }},
                                      source_.get()));
    thread_ = std::thread([this, on_lost = options.on_lost] {
      const absl::Status status = worker_->Run();
      if (status.ok()) return;
      LogError("the coordinator's own stage: ", status.message());
      if (on_lost) on_lost(status);
    });
    return absl::OkStatus();
  }

  ~InProcessStage() override {
    if (worker_ != nullptr) worker_->Stop();
    if (thread_.joinable()) thread_.join();
  }

  absl::StatusOr<std::unique_ptr<Peer>> Open(PeerOptions options) override {
    const EdgeSender sender{.node_id = std::string(kCoordinatorNode),
                            .role = Role::kCoordinator,
                            .epoch = options.epoch,
                            .boot_id = options.boot_id};
    return OpenDirectPeer(sender, &worker_->receiver(), std::move(options));
  }

 private:
  std::unique_ptr<Device> device_;  // First: everything below lives in its memory.
  std::unique_ptr<LocalModel> source_;
  std::unique_ptr<Worker> worker_;
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<LocalStage>> LocalStage::Start(const Options& options) {
  auto stage = std::make_unique<InProcessStage>();
  NG_RETURN_IF_ERROR(stage->Begin(options));
  return stage;
}

}  // namespace neurogrid
