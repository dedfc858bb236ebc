#include "common/config.h"

#include <sys/stat.h>

#include <cmath>
#include <cstdlib>
#include <functional>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "common/mapped_file.h"
#include "common/yaml.h"

namespace neurogrid {
namespace {

using Place = const std::string&;
using Set = std::function<absl::Status(Config&, const YamlNode&, Place)>;

absl::Status Wrong(Place place, absl::string_view key, absl::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat(place, ": ", key, " must be ", expected));
}

absl::StatusOr<double> ReadNumber(const YamlNode& node, Place place, absl::string_view key,
                                  double low, double high) {
  double value = 0;
  if (node.kind == YamlNode::Kind::kScalar && absl::SimpleAtod(node.scalar, &value) &&
      std::isfinite(value) && value >= low && value <= high) {
    return value;
  }
  return Wrong(place, key, absl::StrCat("a number from ", low, " to ", high));
}

absl::StatusOr<int64_t> ReadInteger(const YamlNode& node, Place place, absl::string_view key,
                                    int64_t low, int64_t high) {
  int64_t value = 0;
  if (node.kind == YamlNode::Kind::kScalar && absl::SimpleAtoi(node.scalar, &value) &&
      value >= low && value <= high) {
    return value;
  }
  return Wrong(place, key, absl::StrCat("a whole number from ", low, " to ", high));
}

absl::StatusOr<std::string> ReadText(const YamlNode& node, Place place, absl::string_view key) {
  if (node.kind != YamlNode::Kind::kScalar) return Wrong(place, key, "text");
  return node.scalar;
}

absl::StatusOr<bool> ReadSwitch(const YamlNode& node, Place place, absl::string_view key) {
  if (node.kind == YamlNode::Kind::kScalar && node.scalar == "true") return true;
  if (node.kind == YamlNode::Kind::kScalar && node.scalar == "false") return false;
  return Wrong(place, key, "true or false");
}

absl::StatusOr<std::string> ReadWord(const YamlNode& node, Place place, absl::string_view key,
                                     const std::vector<std::string>& words) {
  for (const std::string& word : words) {
    if (node.kind == YamlNode::Kind::kScalar && node.scalar == word) return word;
  }
  return Wrong(place, key, absl::StrCat("one of ", absl::StrJoin(words, ", ")));
}

absl::StatusOr<std::string> ReadDevice(const YamlNode& node, Place place, absl::string_view key) {
  constexpr absl::string_view kCuda = "cuda:";
  int ordinal = 0;
  const std::string& word = node.scalar;
  const bool gpu = absl::StartsWith(word, kCuda) &&
                   absl::SimpleAtoi(word.substr(kCuda.size()), &ordinal) && ordinal >= 0;
  const bool known = gpu || word == "auto" || word == "none" || word == "cpu";
  if (node.kind == YamlNode::Kind::kScalar && known) return word;
  return Wrong(place, key, "one of auto, none, cpu, cuda:N");
}

absl::StatusOr<std::vector<std::string>> ReadTexts(const YamlNode& node, Place place,
                                                   absl::string_view key) {
  if (node.kind == YamlNode::Kind::kNull) return std::vector<std::string>();
  if (node.kind != YamlNode::Kind::kSequence) return Wrong(place, key, "a list: [a, b]");
  std::vector<std::string> texts;
  for (const YamlNode& item : node.items) {
    NG_ASSIGN_OR_RETURN(std::string text, ReadText(item, place, key));
    texts.push_back(std::move(text));
  }
  return texts;
}

absl::Status ReadNode(Config& config, const std::string& name, const YamlNode& node, Place file) {
  NodeConfig& entry = config.nodes[name];
  entry.place = node.At(file);
  const std::string what = absl::StrCat("nodes.", name);
  if (node.kind != YamlNode::Kind::kMap) return Wrong(entry.place, what, "a map: {layers: [0, 4]}");
  for (size_t i = 0; i < node.items.size(); i += 2) {
    const std::string& key = node.items[i].scalar;
    const YamlNode& value = node.items[i + 1];
    const std::string full = absl::StrCat(what, ".", key);
    const std::string place = value.At(file);
    if (key == "layers") {
      if (value.kind != YamlNode::Kind::kSequence || value.items.size() != 2) {
        return Wrong(place, full, "two numbers, the first layer and one past the last: [0, 16]");
      }
      NG_ASSIGN_OR_RETURN(const int64_t first, ReadInteger(value.items[0], place, full, 0, 1024));
      NG_ASSIGN_OR_RETURN(const int64_t last,
                          ReadInteger(value.items[1], place, full, first + 1, 1024));
      entry.layers = {static_cast<int>(first), static_cast<int>(last)};
    } else if (key == "memory_limit_gb") {
      NG_ASSIGN_OR_RETURN(entry.memory_limit_gb, ReadNumber(value, place, full, 0.01, 1e6));
    } else if (key == "use") {
      NG_ASSIGN_OR_RETURN(entry.use,
                          ReadWord(value, place, full, {"auto", "always", "spare", "never"}));
    } else {
      return absl::InvalidArgumentError(absl::StrCat(node.items[i].At(file), ": unknown key ", full,
                                                     "; known: layers, memory_limit_gb, use"));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadNodes(Config& config, const YamlNode& node, Place file) {
  if (node.kind == YamlNode::Kind::kNull) return absl::OkStatus();
  if (node.kind != YamlNode::Kind::kMap)
    return Wrong(node.At(file), "nodes", "a map of node names");
  for (size_t i = 0; i < node.items.size(); i += 2) {
    NG_RETURN_IF_ERROR(ReadNode(config, node.items[i].scalar, node.items[i + 1], file));
  }
  return absl::OkStatus();
}

absl::Status ReadPeerMemory(Config& config, const YamlNode& node, Place file) {
  if (node.kind == YamlNode::Kind::kNull) return absl::OkStatus();
  if (node.kind != YamlNode::Kind::kMap) {
    return Wrong(node.At(file), "peer_vram_gb", "a map: {node: GB}");
  }
  for (size_t i = 0; i < node.items.size(); i += 2) {
    NG_ASSIGN_OR_RETURN(
        config.peer_vram_gb[node.items[i].scalar],
        ReadNumber(node.items[i + 1], node.items[i + 1].At(file), "peer_vram_gb", 0.01, 1e6));
  }
  return absl::OkStatus();
}

/// One row of the table below: the key as users see it, and what reading it does. A setter gets the
/// node and the file; it names places with node.At(file).
struct Row {
  ConfigKey key;
  Set set;
};

Row Text(const char* name, const char* help, std::string Config::*field) {
  return {{name, help}, [=](Config& c, const YamlNode& node, Place file) -> absl::Status {
            NG_ASSIGN_OR_RETURN(c.*field, ReadText(node, node.At(file), name));
            return absl::OkStatus();
          }};
}

Row Texts(const char* name, const char* help, std::vector<std::string> Config::*field) {
  return {{name, help}, [=](Config& c, const YamlNode& node, Place file) -> absl::Status {
            NG_ASSIGN_OR_RETURN(c.*field, ReadTexts(node, node.At(file), name));
            return absl::OkStatus();
          }};
}

/// `access` maps Config& to the field, so that nested fields work too.
template <typename Access>
Row Word(const char* name, const char* help, Access access, std::vector<std::string> words) {
  return {{name, absl::StrCat(help, " (", absl::StrJoin(words, " | "), ")")},
          [=](Config& c, const YamlNode& node, Place file) -> absl::Status {
            NG_ASSIGN_OR_RETURN(access(c), ReadWord(node, node.At(file), name, words));
            return absl::OkStatus();
          }};
}

template <typename Access>
Row Integer(const char* name, const char* help, Access access, int64_t low, int64_t high) {
  Config defaults;
  return {{name, absl::StrCat(help, " (", low, " to ", high, "; default ", access(defaults), ")")},
          [=](Config& c, const YamlNode& node, Place file) -> absl::Status {
            NG_ASSIGN_OR_RETURN(const int64_t value,
                                ReadInteger(node, node.At(file), name, low, high));
            access(c) = static_cast<std::decay_t<decltype(access(c))>>(value);
            return absl::OkStatus();
          }};
}

template <typename Access>
Row Number(const char* name, const char* help, Access access, double low, double high) {
  Config defaults;
  return {{name, absl::StrCat(help, " (", low, " to ", high, "; default ", access(defaults), ")")},
          [=](Config& c, const YamlNode& node, Place file) -> absl::Status {
            NG_ASSIGN_OR_RETURN(access(c), ReadNumber(node, node.At(file), name, low, high));
            return absl::OkStatus();
          }};
}

template <typename Access>
Row Switch(const char* name, const char* help, Access access) {
  return {{name, help, true}, [=](Config& c, const YamlNode& node, Place file) -> absl::Status {
            NG_ASSIGN_OR_RETURN(access(c), ReadSwitch(node, node.At(file), name));
            return absl::OkStatus();
          }};
}

#define NG_FIELD(path) \
  [](auto& c) -> auto& { return c.path; }

std::vector<Row> NetworkRows() {
  return {
      Text("model",
           "folder of a model or of models, .gguf file, or name on the hub: ORG/NAME[:FILE]",
           &Config::model),
      Text("model_name", "id that clients use; default: from the file name", &Config::model_name),
      Text("http_host", "address of the HTTP API; beyond loopback it needs api_keys",
           &Config::http_host),
      Integer("http_port", "port of the HTTP API; 0: any free one", NG_FIELD(http_port), 0, 65535),
      Text("grpc_host", "address that workers dial, mutual TLS always; default 127.0.0.1",
           &Config::grpc_host),
      Integer("grpc_port", "port that workers dial; 0: any free one", NG_FIELD(grpc_port), 0,
              65535),
      Text("state_dir",
           "keys, certificates and the epoch, mode 0700; default ~/.local/state/neurogrid",
           &Config::state_dir),
      Texts("api_keys", "keys that clients must show; only in a file of mode 0600",
            &Config::api_keys),
      Text("api_keys_file", "file of mode 0600 with one key a line", &Config::api_keys_file),
      Switch("open_metrics", "GET /metrics needs no key", NG_FIELD(open_metrics)),
      Texts("cors_origins", "origins that browsers may call from", &Config::cors_origins),
      Integer("http_max_connections", "open connections", NG_FIELD(http_max_connections), 1, 65536),
      Integer("http_max_connections_per_address",
              "open connections of one client address; more behind a proxy",
              NG_FIELD(http_max_connections_per_address), 1, 65536),
      Integer("max_body_bytes", "bytes of one request body", NG_FIELD(max_body_bytes), 1024,
              1 << 30),
      Integer("sse_keepalive_ms", "silence in a stream before a comment line",
              NG_FIELD(sse_keepalive_ms), 100, 600'000),
      Integer("drain_delay_ms", "time between SIGTERM and the end of listening",
              NG_FIELD(drain_delay_ms), 0, 600'000),
      Integer("drain_timeout_ms", "time that running requests get to finish",
              NG_FIELD(drain_timeout_ms), 0, 3'600'000),
      Integer("park_timeout_s",
              "time that answers wait for a chain when a worker was lost and the rest cannot serve",
              NG_FIELD(park_timeout_s), 0, 86'400),
  };
}

std::vector<Row> ServingRows() {
  return {
      {{"device", "the coordinator's own stage (auto | none | cpu | cuda:N)"},
       [](Config& c, const YamlNode& node, Place file) -> absl::Status {
         NG_ASSIGN_OR_RETURN(c.device, ReadDevice(node, node.At(file), "device"));
         return absl::OkStatus();
       }},
      Integer("threads", "threads of the own stage; 0: one for each core it has the time of",
              NG_FIELD(threads), 0, 1024),
      Word("quantization",
           "how weights are held; auto: GGUF blocks as they are, all else bf16; int8-a8: int8 that "
           "also rounds activations to 8 bits, faster with many rows; blocks-a8: auto that does so "
           "beside blocks (both processors only)",
           NG_FIELD(quantization), {"auto", "f32", "bf16", "int8", "int8-a8", "blocks-a8"}),
      Word("determinism",
           "off: the own stage may use cuBLASLt where it is faster; a token's bits then depend on "
           "the rows beside it (GPUs only)",
           NG_FIELD(determinism), {"on", "off"}),
      Word(
          "speculation",
          "auto: steps also run tokens guessed from what the text says already, as far as that "
          "pays, on processors and on a GPU that is the whole chain; on: on any chain; the answers "
          "are the same bits",
          NG_FIELD(speculation), {"auto", "on", "off"}),
      Switch("managed_memory",
             "weights that the own stage's GPU has no room for stay in the host's memory, which it "
             "reads slowly",
             NG_FIELD(managed_memory)),
      Integer("max_seq_len", "tokens of prompt and answer together", NG_FIELD(max_seq_len), 16,
              1 << 20),
      Integer("min_peers", "workers to wait for before planning", NG_FIELD(min_peers), 0, 256),
      Word("log_level", "lines below are dropped", NG_FIELD(log_level),
           {"debug", "info", "warning", "error"}),
      Word("params", "request fields that cannot be honoured", NG_FIELD(params),
           {"strict", "normal", "lenient"}),
      Switch("any_model_name", "serve every model name and echo it", NG_FIELD(any_model_name)),
      Word("sampling_defaults", "temperature and top_p when a request names none",
           NG_FIELD(sampling_defaults), {"model", "openai"}),
      Integer("default_max_tokens",
              "tokens of an answer when a request names none; 0: all that fit",
              NG_FIELD(default_max_tokens), 0, 1 << 20),
      Integer("max_running", "sequences that run at once", NG_FIELD(max_running), 1, 4096),
      Integer("max_queued", "requests that wait", NG_FIELD(max_queued), 1, 65536),
      Number("itl_target_ms", "time a step may take while answers stream", NG_FIELD(itl_target_ms),
             1, 60'000),
      Word("workload.profile", "what the plan is best at", NG_FIELD(workload.profile),
           {"latency", "throughput", "balanced"}),
      Integer("workload.concurrency", "requests at once", NG_FIELD(workload.concurrency), 1, 4096),
      Integer("workload.prompt_tokens", "tokens of a prompt", NG_FIELD(workload.prompt_tokens), 1,
              1 << 20),
      Integer("workload.output_tokens", "tokens of an answer", NG_FIELD(workload.output_tokens), 1,
              1 << 20),
      Number("planner.min_gain_percent", "gain that one more node must bring",
             NG_FIELD(planner.min_gain_percent), 0, 1000),
      Number("planner.max_single_stream_slowdown", "price of throughput for one stream",
             NG_FIELD(planner.max_single_stream_slowdown), 1, 1000),
      Switch("planner.lock", "all layers are pinned; only check", NG_FIELD(planner.lock)),
      {{"nodes", "placement by hand: {NAME: {layers: [0, 16], memory_limit_gb: 8, use: always}}"},
       ReadNodes},
      {{"peer_vram_gb", "memory of nodes that report none: {NAME: GB}"}, ReadPeerMemory},
  };
}

const std::vector<Row>& Rows() {
  static const std::vector<Row> rows = [] {
    std::vector<Row> all = NetworkRows();
    std::vector<Row> serving = ServingRows();
    for (Row& row : serving) all.push_back(std::move(row));
    return all;
  }();
  return rows;
}

absl::Status ReadMap(Config& config, const YamlNode& map, const std::string& prefix, Place file) {
  for (size_t i = 0; i < map.items.size(); i += 2) {
    const std::string key = absl::StrCat(prefix, map.items[i].scalar);
    const YamlNode& value = map.items[i + 1];
    bool known = false;
    for (const Row& row : Rows()) {
      if (row.key.name != key) continue;
      known = true;
      NG_RETURN_IF_ERROR(row.set(config, value, file));
    }
    if (known) continue;
    const bool group = prefix.empty() && (key == "workload" || key == "planner");
    if (!group) {
      return absl::InvalidArgumentError(absl::StrCat(map.items[i].At(file), ": unknown key ", key));
    }
    if (value.kind != YamlNode::Kind::kMap) return Wrong(value.At(file), key, "a map");
    NG_RETURN_IF_ERROR(ReadMap(config, value, key + ".", file));
  }
  return absl::OkStatus();
}

/// Files that hold secrets are readable by their owner alone.
absl::Status CheckPrivate(const std::string& path, absl::string_view what) {
  struct stat info = {};
  if (stat(path.c_str(), &info) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
  }
  if ((info.st_mode & 077) == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(path, " holds ", what, " and others can read it: chmod 600 ", path));
}

std::string ExpandHome(const std::string& path) {
  const char* home = std::getenv("HOME");
  if (home == nullptr || !path.starts_with("~/")) return path;
  return absl::StrCat(home, path.substr(1));
}

}  // namespace

std::string ConfigKey::flag() const { return absl::StrReplaceAll(name, {{"_", "-"}, {".", "-"}}); }

absl::Span<const ConfigKey> ConfigKeys() {
  static const std::vector<ConfigKey> keys = [] {
    std::vector<ConfigKey> all;
    for (const Row& row : Rows()) all.push_back(row.key);
    return all;
  }();
  return keys;
}

absl::Status SetConfigKey(Config& config, absl::string_view key, absl::string_view value,
                          absl::string_view place) {
  for (const Row& row : Rows()) {
    if (row.key.name != key) continue;
    YamlNode node;
    node.kind = YamlNode::Kind::kScalar;
    node.scalar = std::string(value);
    if (!value.empty() && (value[0] == '{' || value[0] == '[')) {
      NG_ASSIGN_OR_RETURN(node, ParseYaml(value, place));
    }
    return row.set(config, node, std::string(place));
  }
  return absl::InvalidArgumentError(absl::StrCat(place, ": unknown key ", key));
}

absl::Status ReadConfigFile(const std::string& path, Config& config) {
  NG_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, 1 << 20));
  NG_ASSIGN_OR_RETURN(const YamlNode root, ParseYaml(text, path));
  if (root.kind == YamlNode::Kind::kNull) return absl::OkStatus();
  if (root.kind != YamlNode::Kind::kMap) return Wrong(root.At(path), "the file", "a map of keys");
  NG_RETURN_IF_ERROR(ReadMap(config, root, "", path));
  if (!config.api_keys.empty()) NG_RETURN_IF_ERROR(CheckPrivate(path, "api_keys"));
  return absl::OkStatus();
}

absl::Status FinishConfig(Config& config) {
  if (config.state_dir.empty()) {
    const char* state = std::getenv("XDG_STATE_HOME");
    config.state_dir =
        absl::StrCat(state != nullptr && *state ? state : "~/.local/state", "/neurogrid");
  }
  for (std::string* path : {&config.state_dir, &config.model, &config.api_keys_file}) {
    *path = ExpandHome(*path);
  }
  if (config.api_keys_file.empty()) return absl::OkStatus();
  NG_RETURN_IF_ERROR(CheckPrivate(config.api_keys_file, "api keys"));
  NG_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(config.api_keys_file, 1 << 20));
  std::string line;
  for (const char c : text + "\n") {
    if (c != '\n') {
      line += c;
    } else if (!line.empty()) {
      config.api_keys.push_back(std::exchange(line, {}));
    }
  }
  return absl::OkStatus();
}

}  // namespace neurogrid
