// The coordinator's configuration: a YAML file, every key also a flag, read once and checked.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/status.h"

namespace neurogrid {

/// What the planner sizes the page pool and the stages for (cluster.md 2).
struct WorkloadConfig {
  std::string profile = "balanced";  // latency | throughput | balanced
  int concurrency = 8;
  int prompt_tokens = 1024;
  int output_tokens = 512;
};

struct PlannerConfig {
  double min_gain_percent = 3;
  double max_single_stream_slowdown = 2.0;
  bool lock = false;  // every layer is pinned; the planner only checks
};

/// Manual placement of one node. Places name the file's line, for errors found later.
struct NodeConfig {
  std::optional<std::pair<int, int>> layers;  // [first, last)
  std::optional<double> memory_limit_gb;      // GB = 10^9 bytes
  std::string use = "auto";                   // auto | always | spare | never
  std::string place;                          // "cluster.yaml:12:5"
};

struct Config {
  std::string model;
  std::string model_name;  // id in /v1/models; empty: from the model's file name
  std::string http_host = "127.0.0.1";
  int http_port = 8090;
  std::string grpc_host = "127.0.0.1";
  int grpc_port = 8091;
  std::string state_dir;  // default: ~/.local/state/neurogrid
  std::string device = "auto";
  int threads = 0;
  std::string quantization = "auto";
  std::string determinism = "on";    // off: the own stage's products may add in any order
  std::string speculation = "auto";  // off: no step runs guessed tokens
  bool managed_memory = false;       // weights of the own stage may lie in the host's memory
  int max_seq_len = 4096;
  int min_peers = 0;
  std::string log_level = "info";
  std::vector<std::string> api_keys;
  std::string api_keys_file;
  bool open_metrics = false;
  std::vector<std::string> cors_origins;
  std::string params = "normal";  // strict | normal | lenient
  bool any_model_name = false;
  std::string sampling_defaults = "model";  // model | openai
  int default_max_tokens = 0;               // 0: the rest of the context
  int http_max_connections = 512;
  int http_max_connections_per_address = 64;
  int64_t max_body_bytes = int64_t{8} << 20;
  int max_running = 256;
  int max_queued = 256;
  double itl_target_ms = 100;
  int sse_keepalive_ms = 10'000;
  int drain_delay_ms = 5'000;
  int drain_timeout_ms = 60'000;
  int park_timeout_s = 600;
  WorkloadConfig workload;
  PlannerConfig planner;
  std::map<std::string, NodeConfig> nodes;
  std::map<std::string, double> peer_vram_gb;
};

/// A key of the file and the flag of the same name: "workload.profile" is --workload-profile.
struct ConfigKey {
  std::string name;
  std::string help;  // with range and default
  bool is_switch = false;
  std::string flag() const;  // without the two dashes
};
absl::Span<const ConfigKey> ConfigKeys();

/// Sets one key from text, as a flag does; sequences and maps are YAML flow text. InvalidArgument
/// names `place`, key, value and what is expected.
absl::Status SetConfigKey(Config& config, absl::string_view key, absl::string_view value,
                          absl::string_view place);

/// Reads the file into `config`. Unknown keys are errors with file, line and column.
absl::Status ReadConfigFile(const std::string& path, Config& config);

/// Expands "~/" in paths and fills in defaults that depend on the environment of the user.
absl::Status FinishConfig(Config& config);

}  // namespace neurogrid
