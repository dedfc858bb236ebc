// neurogrid-worker: joins a cluster and serves the layers it is given until it is told to stop.
#include <pthread.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/enroll.h"
#include "common/hub_settings.h"
#include "common/log.h"
#include "common/loopback.h"
#include "common/state_dir.h"
#include "engine/model/find_model.h"
#include "worker/command_line.h"
#include "worker/disk.h"
#include "worker/worker.h"

namespace neurogrid {
namespace {

LogLevel LevelOf(const std::string& name) {
  if (name == "debug") return LogLevel::kDebug;
  if (name == "warning") return LogLevel::kWarning;
  return name == "error" ? LogLevel::kError : LogLevel::kInfo;
}

/// Machines start in any order: a coordinator that does not answer yet is tried for half a minute.
absl::StatusOr<Identity> EnrollPatiently(const WorkerFlags& flags, const JoinToken& token,
                                         const sigset_t& signals) {
  for (int tries = 60; true; --tries) {
    absl::StatusOr<Identity> identity = Enroll(flags.host, flags.port, token, flags.name);
    if (tries == 0 || !absl::IsUnavailable(identity.status())) return identity;
    if (tries == 60) LogInfo("waiting: ", identity.status().message());
    const timespec pause = {.tv_sec = 0, .tv_nsec = 500'000'000};
    if (sigtimedwait(&signals, nullptr, &pause) > 0) {
      return absl::CancelledError("stopped before the coordinator answered");
    }
  }
}

/// The stored identity, or a new one for the token. A token of another cluster than the stored
/// identity's moves the worker to that cluster.
absl::StatusOr<Identity> IdentityFor(const WorkerFlags& flags, const sigset_t& signals) {
  absl::StatusOr<Identity> stored = LoadIdentity(flags.state_dir);
  if (!stored.ok() && !absl::IsNotFound(stored.status())) return stored.status();
  if (flags.token.empty()) {
    if (stored.ok()) return stored;
    return absl::FailedPreconditionError(
        absl::StrCat("this worker has not joined a cluster yet (no certificate in ",
                     flags.state_dir, "); give --token, which neurogrid-coordinator token prints"));
  }
  NG_ASSIGN_OR_RETURN(const JoinToken token, ParseJoinToken(flags.token));
  if (stored.ok()) {
    const absl::StatusOr<Sha256Digest> digest = DigestOfCertificate(stored->authority);
    const absl::StatusOr<CertificateFacts> facts = ReadCertificate(stored->certificate);
    if (digest.ok() && HexOf(*digest) == token.authority_digest && facts.ok() &&
        facts->node_id == flags.name &&
        CheckIssuedBy(stored->certificate, stored->authority).ok()) {
      return stored;
    }
  }
  LogInfo("enrolling as ", flags.name, " at ", flags.host, ":", flags.port);
  NG_ASSIGN_OR_RETURN(const Identity identity, EnrollPatiently(flags, token, signals));
  NG_RETURN_IF_ERROR(SaveIdentity(flags.state_dir, identity));
  return identity;
}

/// SIGTERM and SIGINT end the worker; a second one, or ten seconds, end the process.
void StopOnSignal(const sigset_t& signals, Worker& worker) {
  std::thread([signals, &worker] {
    int signal = 0;
    sigwait(&signals, &signal);
    LogInfo("stopping");
    worker.Stop();
    const timespec limit = {.tv_sec = 10, .tv_nsec = 0};
    sigtimedwait(&signals, nullptr, &limit);
    _exit(1);
  }).detach();
}

/// The coordinator refused this worker for good: started again it would be refused again, or would
/// push out the process that has its certificate.
constexpr int kRefusedExit = 2;

/// A broken device may keep whoever frees its memory waiting: the process ends all the same.
void EndSoon() {
  std::thread([] {
    std::this_thread::sleep_for(std::chrono::seconds(10));
    _exit(1);
  }).detach();
}

/// A worker reads its files from this machine alone; the coordinator's download verb brings them.
absl::StatusOr<std::string> LocateModel(const std::string& model, const std::string& hub_cache) {
  const absl::StatusOr<FoundModel> found = FindModel(model, hub_cache);
  if (!found.ok()) {
    return absl::Status(found.status().code(),
                        absl::StrCat("--model ", model, ": ", found.status().message(),
                                     "; a model of a hub comes here with neurogrid-coordinator "
                                     "download ORG/NAME"));
  }
  if (!found->note.empty()) LogInfo("model: ", found->note);
  return found->path;
}

/// `failed` is what the process exits with unless the status is OK.
absl::Status Run(const WorkerFlags& flags, const std::string& hub_cache, const sigset_t& signals,
                 int& failed) {
  NG_RETURN_IF_ERROR(EnsureStateDir(flags.state_dir));
  const absl::StatusOr<std::unique_ptr<FileLock>> lock = FileLock::Try(flags.state_dir + "/lock");
  if (!lock.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat(flags.state_dir,
                     ": another worker runs with this state directory; give each "
                     "its own --name or --state-dir"));
  }
  std::string model_path;
  if (!flags.model.empty()) {
    NG_ASSIGN_OR_RETURN(model_path, LocateModel(flags.model, hub_cache));
  }
  NG_ASSIGN_OR_RETURN(const Identity identity, IdentityFor(flags, signals));
  NG_ASSIGN_OR_RETURN(
      const std::unique_ptr<Device> device,
      MakeDevice(flags.device, flags.threads,
                 flags.managed_memory ? DeviceMemory::kManaged : DeviceMemory::kOwn));
  if (flags.any_order) NG_RETURN_IF_ERROR(device->AllowAnyOrder());
  LogInfo("measuring this machine");
  const DeviceReport report = device->Report();
  LogInfo(report.kind, " ", report.name, " (", report.instruction_set, "): ", report.cores,
          " cores, ", report.memory_free_bytes >> 20, " MiB free, ",
          static_cast<int64_t>(report.read_bandwidth / 1e8) / 10.0, " GB/s");
  LocalModel model(device.get(), model_path);
  NG_ASSIGN_OR_RETURN(
      const std::unique_ptr<Worker> worker,
      Worker::Start({.host = flags.host,
                     .port = flags.port,
                     // The welcome of a coordinator that is beyond loopback opens it wider.
                     .listen_host = IsLoopback(flags.host) ? "127.0.0.1" : kAnyHost,
                     .listen_port = flags.data_port,
                     .identity = identity,
                     .device = report,
                     .disk_free_bytes = DiskFreeBytes(flags.state_dir),
                     .host_id = HostId(),
                     .gauges = [&device] { return device->Gauges(); }},
                    &model));
  StopOnSignal(signals, *worker);
  const absl::Status ended = worker->Run();
  if (!ended.ok()) EndSoon();
  if (absl::IsFailedPrecondition(ended)) failed = kRefusedExit;
  return ended;
}

}  // namespace
}  // namespace neurogrid

int main(int argc, char** argv) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // Before any thread: only one of ours takes them.
  std::signal(SIGPIPE, SIG_IGN);
  const auto flags = neurogrid::ParseWorkerFlags(argc, argv);
  absl::Status status = flags.status();
  int failed = 1;
  if (flags.ok() && flags->has_value()) {
    neurogrid::StartLogging("neurogrid-worker", neurogrid::LevelOf((*flags)->log_level));
    const auto hub = neurogrid::ReadHubSettings(std::getenv);
    unsetenv("HF_TOKEN");  // A worker asks no hub.
    status = hub.ok() ? neurogrid::Run(**flags, hub->cache, signals, failed) : hub.status();
  }
  if (status.ok()) return 0;
  std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
  return failed;
}
