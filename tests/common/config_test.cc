// The YAML file, its flags, and the sentences that wrong ones get.
#include "common/config.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstdio>
#include <fstream>
#include <string>

#include "common/yaml.h"

namespace neurogrid {
namespace {

/// Writes `text` to a temporary file and reads it as configuration; the path reads "F" in the
/// message.
absl::Status Read(const std::string& text, Config& config, int mode = 0600) {
  char path[] = "/tmp/ng-config-XXXXXX";
  close(mkstemp(path));
  std::ofstream(path) << text;
  chmod(path, static_cast<mode_t>(mode));
  const absl::Status status = ReadConfigFile(path, config);
  std::remove(path);
  if (status.ok()) return status;
  std::string message(status.message());
  for (size_t at; (at = message.find(path)) != std::string::npos;) {
    message.replace(at, sizeof path - 1, "F");
  }
  return absl::Status(status.code(), message);
}

std::string Refusal(const std::string& text, int mode = 0600) {
  Config config;
  return std::string(Read(text, config, mode).message());
}

TEST_CASE("a configuration file sets every kind of key", "[config]") {
  Config config;
  REQUIRE(Read("model: m.gguf\nhttp_port: 9000\nany_model_name: true\nitl_target_ms: 50.5\n"
               "workload: {profile: latency, concurrency: 3}\nplanner: {lock: true}\n"
               "nodes:\n  a: {layers: [0, 4], use: always}\n  b: {memory_limit_gb: 2.5}\n"
               "peer_vram_gb: {c: 8}\napi_keys: [k1, k2]\n",
               config)
              .ok());
  CHECK(config.model == "m.gguf");
  CHECK(config.http_port == 9000);
  CHECK(config.any_model_name);
  CHECK(config.itl_target_ms == 50.5);
  CHECK(config.workload.profile == "latency");
  CHECK(config.workload.concurrency == 3);
  CHECK(config.planner.lock);
  CHECK(config.nodes.at("a").layers == std::pair(0, 4));
  CHECK(config.nodes.at("a").use == "always");
  CHECK(config.nodes.at("b").memory_limit_gb == 2.5);
  CHECK(config.peer_vram_gb.at("c") == 8);
  CHECK(config.api_keys == std::vector<std::string>{"k1", "k2"});
}

TEST_CASE("a wrong configuration names file, line, column, key and what is expected",
          "[config][U17]") {
  CHECK(Refusal("model: a\nmodle: b\n") == "F:2:1: unknown key modle");
  CHECK(Refusal("http_port: 99999\n") ==
        "F:1:12: http_port must be a whole number from 0 to 65535");
  CHECK(Refusal("device: gpu\n") == "F:1:9: device must be one of auto, none, cpu, cuda:N");
  CHECK(Refusal("device: cuda:x\n") == "F:1:9: device must be one of auto, none, cpu, cuda:N");
  CHECK(Refusal("model: a\nmodel: b\n") == "F:2:1: the key \"model\" stands twice");
  CHECK(Refusal("workload: {profil: latency}\n") == "F:1:12: unknown key workload.profil");
  CHECK(Refusal("nodes: {a: {layer: [0, 1]}}\n") ==
        "F:1:13: unknown key nodes.a.layer; known: layers, memory_limit_gb, use");
  CHECK(Refusal("nodes: {a: {layers: [4, 4]}}\n") ==
        "F:1:21: nodes.a.layers must be a whole number from 5 to 1024");
  CHECK(Refusal("a: &x 1\n") == "F:1:4: anchors (&name) are not allowed");
  CHECK(Refusal("a: !!int 1\n").find("tags") != std::string::npos);
  CHECK(Refusal("model: [a\n").starts_with("F:2:1: "));
  CHECK(Refusal("\tmodel: a\n").starts_with("F:1:1: "));
  CHECK(Refusal("- a\n") == "F:1:1: the file must be a map of keys");
  CHECK(Refusal("api_keys: [k]\n", 0644) == "F holds api_keys and others can read it: chmod 600 F");
}

TEST_CASE("YAML bombs end at a limit", "[config][U17]") {
  CHECK(ParseYaml(std::string(50, '['), "F").status().message().find("deeper than 16") !=
        std::string::npos);
  std::string wide = "[";
  for (int i = 0; i < 20'000; ++i) wide += "a,";
  CHECK(ParseYaml(wide + "]", "F").status().message().find("more than 10000 nodes") !=
        std::string::npos);
  CHECK(ParseYaml(std::string(2 << 20, 'a'), "F").status().message().find("at most 1048576") !=
        std::string::npos);
}

TEST_CASE("a flag sets the key of its name", "[config]") {
  Config config;
  CHECK(SetConfigKey(config, "http_port", "1234", "--http-port").ok());
  CHECK(SetConfigKey(config, "nodes", "{a: {use: never}}", "--nodes").ok());
  CHECK(config.http_port == 1234);
  CHECK(config.nodes.at("a").use == "never");
  CHECK(SetConfigKey(config, "http_port", "x", "--http-port").message() ==
        "--http-port: http_port must be a whole number from 0 to 65535");
}

TEST_CASE("every key has help and a flag of its own", "[config]") {
  std::vector<std::string> flags;
  for (const ConfigKey& key : ConfigKeys()) {
    CHECK_FALSE(key.help.empty());
    CHECK(std::find(flags.begin(), flags.end(), key.flag()) == flags.end());
    flags.push_back(key.flag());
  }
  CHECK(std::find(flags.begin(), flags.end(), "workload-prompt-tokens") != flags.end());
}

}  // namespace
}  // namespace neurogrid
