// The flags of neurogrid-worker.
#pragma once

#include <optional>
#include <string>

#include "common/status.h"

namespace neurogrid {

struct WorkerFlags {
  std::string host;  // of --bootstrap
  int port = 0;
  std::string token;
  std::string name;  // default: the host's name
  std::string device = "auto";
  std::string model;
  int data_port = 0;
  std::string state_dir;
  int threads = 0;
  bool any_order = false;  // --determinism off
  bool managed_memory = false;
  std::string log_level = "info";
};

/// Nothing when --help or --version was asked for and answered.
absl::StatusOr<std::optional<WorkerFlags>> ParseWorkerFlags(int argc, char** argv);

}  // namespace neurogrid
