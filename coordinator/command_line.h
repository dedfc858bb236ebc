// neurogrid-coordinator's command line: verb, configuration, options of the verb.
#pragma once

#include <string>

#include "common/config.h"
#include "common/status.h"
#include "engine/bench/bench_options.h"

namespace neurogrid {

struct DownloadOptions {
  std::string name;  // ORG/NAME[@REVISION][:FILE]
  std::string revision;
  std::string file;
  bool quiet = false;
};

struct CommandLine {
  // kDone: help or version was printed
  enum class Verb { kServe, kPlan, kToken, kBench, kDownload, kDone };
  Verb verb = Verb::kServe;
  Config config;
  BenchOptions bench;
  DownloadOptions download;
  int token_hours = 24;
};

/// Reads flags and the file that --config names; flags win. Prints help and version itself.
absl::StatusOr<CommandLine> ParseCommandLine(int argc, const char* const* argv);

}  // namespace neurogrid
