#include "coordinator/model_source.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "coordinator/hub_caller.h"
#include "coordinator/hub_download.h"
#include "engine/model/find_model.h"
#include "engine/model/model_list.h"

namespace neurogrid {
namespace {

std::atomic<bool> stop_download = false;

/// While it lives the first SIGINT or SIGTERM ends the download in order; a second ends the
/// process.
class StopOnSignal {
 public:
  StopOnSignal() {
    stop_download = false;
    struct sigaction action = {};
    action.sa_handler = [](int) { stop_download = true; };
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    sigaction(SIGINT, &action, &interrupt_);
    sigaction(SIGTERM, &action, &terminate_);
    std::signal(SIGPIPE, SIG_IGN);
    std::signal(SIGXFSZ,
                SIG_IGN);  // A limit of file sizes is an error of write, as a full disk is.
  }
  ~StopOnSignal() {
    sigaction(SIGINT, &interrupt_, nullptr);
    sigaction(SIGTERM, &terminate_, nullptr);
  }
  StopOnSignal(const StopOnSignal&) = delete;
  StopOnSignal& operator=(const StopOnSignal&) = delete;

 private:
  struct sigaction interrupt_ = {}, terminate_ = {};
};

absl::StatusOr<HubDownload> DownloadHere(const HubSettings& settings, const HubName& name,
                                         DownloadProgress& progress) {
  const StopOnSignal signals;
  absl::StatusOr<HubDownload> done =
      DownloadModel(settings, name, HttpsTransports(settings), progress, stop_download);
  if (absl::IsCancelled(done.status())) {
    return absl::CancelledError(
        "stopped; what has arrived is kept, and the same command goes on from there");
  }
  return done;
}

DownloadProgress::Style StyleFor(bool quiet) {
  if (quiet) return DownloadProgress::Style::kSilent;
  return isatty(STDERR_FILENO) != 0 ? DownloadProgress::Style::kBar
                                    : DownloadProgress::Style::kLines;
}

}  // namespace

absl::StatusOr<std::string> LocateModel(const HubSettings& settings, const std::string& model) {
  const absl::StatusOr<FoundModel> found = FindModel(model, settings.cache);
  if (found.ok()) {
    if (!found->note.empty()) LogInfo("model: ", found->note);
    return found->path;
  }
  const absl::StatusOr<HubName> name = ParseHubName(model);
  if (!absl::IsNotFound(found.status()) || !name.ok()) return found.status();
  if (settings.offline) {
    return absl::NotFoundError(absl::StrCat(
        found.status().message(), "; HF_HUB_OFFLINE is set, so that the hub was not asked"));
  }
  NG_ASSIGN_OR_RETURN(const Url endpoint, ParseEndpoint(settings.endpoint));
  LogInfo("model: ", found.status().message(), "; asking ", endpoint.ToString());
  DownloadProgress progress(stderr, StyleFor(false));
  const absl::StatusOr<HubDownload> done = DownloadHere(settings, *name, progress);
  if (!done.ok()) {
    return absl::Status(done.status().code(), absl::StrCat("--model ", model,
                                                           ": no file or folder "
                                                           "of that name here; from the hub: ",
                                                           done.status().message()));
  }
  return done->path;
}

absl::Status Download(const HubSettings& settings, const DownloadOptions& options) {
  NG_ASSIGN_OR_RETURN(HubName name, ParseHubName(options.name));
  if (!options.revision.empty()) {
    NG_RETURN_IF_ERROR(CheckRevision(options.revision));
    name.revision = options.revision;
  }
  if (!options.file.empty()) name.file = options.file;
  DownloadProgress progress(stderr, StyleFor(options.quiet));
  NG_ASSIGN_OR_RETURN(const HubDownload done, DownloadHere(settings, name, progress));
  if (done.files > 0) {
    progress.Say(done.bytes_downloaded == 0
                     ? absl::StrCat("all ", done.files, " files were in the cache already")
                     : absl::StrCat(name.ToString(), ": ", done.files, " files, ",
                                    SizeText(done.bytes), ", of which ",
                                    SizeText(done.bytes_downloaded), " came now"));
  }
  std::printf("%s\n", done.path.c_str());
  return absl::OkStatus();
}

}  // namespace neurogrid
