// neurogrid-coordinator: serve | plan | token | bench.
#include <cstdio>

#include "common/log.h"
#include "coordinator/command_line.h"
#include "coordinator/serve.h"

namespace neurogrid {
namespace {

LogLevel LevelOf(const std::string& name) {
  if (name == "debug") return LogLevel::kDebug;
  if (name == "warning") return LogLevel::kWarning;
  return name == "error" ? LogLevel::kError : LogLevel::kInfo;
}

absl::Status Run(const CommandLine& line) {
  StartLogging("neurogrid-coordinator", LevelOf(line.config.log_level));
  switch (line.verb) {
    case CommandLine::Verb::kServe:
      return Serve(line.config);
    case CommandLine::Verb::kPlan:
      return PrintPlan(line.config);
    case CommandLine::Verb::kToken:
      return PrintToken(line.config, line.token_hours);
    case CommandLine::Verb::kBench:
      return Bench(line.config, line.bench);
    case CommandLine::Verb::kDone:
      break;
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace neurogrid

int main(int argc, char** argv) {
  const absl::StatusOr<neurogrid::CommandLine> line = neurogrid::ParseCommandLine(argc, argv);
  const absl::Status status = line.ok() ? neurogrid::Run(*line) : line.status();
  if (status.ok()) return 0;
  std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
  return 1;
}
