#include "worker/command_line.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cctype>
#include <cstdlib>
#include <iostream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/enroll.h"
#include "common/identity.h"
#include "common/unknown_argument.h"

namespace neurogrid {
namespace {

/// The host's name as a node id: what is not allowed there becomes '-'.
std::string HostName() {
  char text[256] = {};
  gethostname(text, sizeof(text) - 1);
  std::string name(text);
  name = name.substr(0, std::min<size_t>(name.find('.'), 64));
  for (char& c : name) {
    c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '-';
  }
  return CheckNodeId(name).ok() ? name : "worker";
}

/// Empty, or what is wrong.
std::string CheckDevice(const std::string& text) {
  int ordinal = 0;
  absl::string_view word = text;
  if (word == "auto" || word == "cpu") return "";
  if (absl::ConsumePrefix(&word, "cuda:") && absl::SimpleAtoi(word, &ordinal) && ordinal >= 0) {
    return "";
  }
  return absl::StrCat("\"", text, "\" is none of auto, cpu and cuda:N");
}

absl::Status Finish(const std::string& bootstrap, WorkerFlags& flags) {
  if (bootstrap.empty()) {
    return absl::InvalidArgumentError(
        "--bootstrap HOST:PORT is missing: where the coordinator listens for workers; see --help");
  }
  if (const absl::Status status = ParseAddress(bootstrap, &flags.host, &flags.port); !status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--bootstrap: ", status.message()));
  }
  if (flags.name.empty()) flags.name = HostName();
  NG_RETURN_IF_ERROR(CheckNodeId(flags.name));
  if (flags.name == kCoordinatorNode || flags.name == kLocalNode) {
    return absl::InvalidArgumentError(absl::StrCat("--name: ", flags.name, " is reserved"));
  }
  const char* home = std::getenv("HOME");
  if (flags.state_dir.empty()) {
    if (home == nullptr) return absl::InvalidArgumentError("HOME is not set; give --state-dir");
    flags.state_dir = absl::StrCat(home, "/.local/state/neurogrid/worker-", flags.name);
  } else if (flags.state_dir.rfind("~/", 0) == 0 && home != nullptr) {
    flags.state_dir = absl::StrCat(home, flags.state_dir.substr(1));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::optional<WorkerFlags>> ParseWorkerFlags(int argc, char** argv) {
  WorkerFlags flags;
  std::string bootstrap;
  std::string determinism = "on";
  CLI::App app{"NeuroGrid worker: joins a cluster, loads the layers it is given, runs them"};
  app.set_version_flag("--version", absl::StrCat("neurogrid-worker ", NG_VERSION));
  app.add_option("--bootstrap", bootstrap, "the coordinator's address")->option_text("HOST:PORT");
  app.add_option("--token", flags.token,
                 "join token of neurogrid-coordinator token; needed once, later starts use the "
                 "certificate in the state directory")
      ->option_text("TOKEN");
  app.add_option("--name", flags.name, "this node's name in the cluster (the host's name)")
      ->option_text("NAME");
  app.add_option("--device", flags.device, "auto, cpu or cuda:N")
      ->check(CheckDevice)
      ->option_text("DEVICE");
  app.add_option(
         "--determinism", determinism,
         "off: cuBLASLt multiplies where it is faster, and a token's bits depend on the rows "
         "beside it (GPUs only)")
      ->check(CLI::IsMember({"on", "off"}))
      ->option_text("on|off");
  app.add_flag("--managed-memory", flags.managed_memory,
               "weights that the GPU has no room for stay in this machine's memory, which the GPU "
               "reads slowly");
  app.add_option("--model", flags.model,
                 "folder of a model or of models, .gguf file, or name in the hub cache of this "
                 "machine; without it the place that the coordinator names is tried")
      ->option_text("MODEL");
  app.add_option("--port", flags.data_port, "port for steps from other stages (0: any free one)")
      ->check(CLI::Range(0, 65535))
      ->option_text("N");
  app.add_option("--state-dir", flags.state_dir,
                 "keys and certificate (~/.local/state/neurogrid/worker-NAME)")
      ->option_text("DIR");
  app.add_option("--threads", flags.threads,
                 "threads of the CPU device (0: one for each core it has the time of)")
      ->check(CLI::Range(0, 1024))
      ->option_text("N");
  app.add_option("--log-level", flags.log_level, "debug, info, warning or error")
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}))
      ->option_text("LEVEL");
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& answered) {
    app.exit(answered);
    return std::optional<WorkerFlags>();
  } catch (const CLI::ExtrasError&) {
    return absl::InvalidArgumentError(UnknownArgument(app.remaining()));
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(absl::StrCat(error.what(), "; see --help"));
  }
  flags.any_order = determinism == "off";
  NG_RETURN_IF_ERROR(Finish(bootstrap, flags));
  return std::optional<WorkerFlags>(std::move(flags));
}

}  // namespace neurogrid
