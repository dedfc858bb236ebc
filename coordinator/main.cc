// neurogrid-coordinator: serve | plan | token | bench | download.
#include <cstdio>
#include <cstdlib>

#include "common/log.h"
#include "coordinator/command_line.h"
#include "coordinator/model_source.h"
#include "coordinator/serve.h"

namespace neurogrid {
namespace {

LogLevel LevelOf(const std::string& name) {
  if (name == "debug") return LogLevel::kDebug;
  if (name == "warning") return LogLevel::kWarning;
  return name == "error" ? LogLevel::kError : LogLevel::kInfo;
}

/// The hub's part of the environment. The token leaves it: no child and no core file needs it
/// there.
absl::StatusOr<HubSettings> HubFromEnvironment() {
  absl::StatusOr<HubSettings> settings = ReadHubSettings(std::getenv);
  unsetenv("HF_TOKEN");
  unsetenv("HUGGING_FACE_HUB_TOKEN");
  return settings;
}

/// Puts the path in the place of the name that the user gave.
absl::Status Locate(const HubSettings& hub, Config& config) {
  if (config.model.empty()) return absl::OkStatus();
  NG_ASSIGN_OR_RETURN(config.model, LocateModel(hub, config.model));
  return absl::OkStatus();
}

absl::Status Run(CommandLine& line) {
  StartLogging("neurogrid-coordinator", LevelOf(line.config.log_level));
  NG_ASSIGN_OR_RETURN(const HubSettings hub, HubFromEnvironment());
  switch (line.verb) {
    case CommandLine::Verb::kServe:
      NG_RETURN_IF_ERROR(Locate(hub, line.config));
      return Serve(line.config);
    case CommandLine::Verb::kPlan:
      NG_RETURN_IF_ERROR(Locate(hub, line.config));
      return PrintPlan(line.config);
    case CommandLine::Verb::kToken:
      return PrintToken(line.config, line.token_hours);
    case CommandLine::Verb::kBench:
      if (line.bench.synthetic.empty()) NG_RETURN_IF_ERROR(Locate(hub, line.config));
      return Bench(line.config, line.bench);
    case CommandLine::Verb::kDownload:
      return Download(hub, line.download);
    case CommandLine::Verb::kDone:
      break;
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace neurogrid

int main(int argc, char** argv) {
  absl::StatusOr<neurogrid::CommandLine> line = neurogrid::ParseCommandLine(argc, argv);
  const absl::Status status = line.ok() ? neurogrid::Run(*line) : line.status();
  if (status.ok()) return 0;
  std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
  return absl::IsCancelled(status) ? 130 : 1;
}
