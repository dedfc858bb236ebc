#include "coordinator/serve.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/polling.h"
#include "coordinator/api.h"
#include "coordinator/http_server.h"
#include "coordinator/join_tokens.h"
#include "coordinator/model_text.h"
#include "coordinator/own_device.h"
#include "coordinator/pool_sizes.h"
#include "coordinator/serving.h"
#include "coordinator/supervisor.h"
#include "engine/model/stage_memory.h"
#include "engine/model/synthetic.h"

namespace neurogrid {
namespace {

/// Feeds the metrics from the serving thread.
class MetricsObserver final : public ServingObserver {
 public:
  explicit MetricsObserver(ServingMetrics& metrics) : metrics_(metrics) {}

  void RequestEnded(const GenerationUsage& usage, absl::string_view reason,
                    double seconds) override {
    metrics_.AddFinished(reason);
    metrics_.ObserveRequest(seconds);
    metrics_.ObserveQueue(usage.queue_ms / 1e3);
    metrics_.ObservePrefill(usage.prefill_ms / 1e3);
    metrics_.ObserveDecode(usage.decode_ms / 1e3);
  }
  void FirstToken(double seconds) override { metrics_.ObserveFirstToken(seconds); }
  void NextToken(double seconds) override { metrics_.ObserveInterToken(seconds); }
  void Recovered(double seconds) override { metrics_.AddTakeover(seconds); }
  void Counts(const SchedulerStats& stats) override {
    metrics_.SetRunning(stats.running);
    metrics_.SetWaiting(stats.waiting);
    // The kind of pages that will run out first.
    const PoolStats& pages = stats.pages.share_held() < stats.window_pages.share_held()
                                 ? stats.window_pages
                                 : stats.pages;
    metrics_.SetKvUsage(pages.share_held());
    metrics_.SetKvPages(pages.total - pages.free - pages.cached, pages.cached, pages.free);
    metrics_.AddPrefixCache(stats.prefix_queries - last_.prefix_queries,
                            stats.prefix_hits - last_.prefix_hits);
    metrics_.AddPromptTokens(stats.prompt_tokens - last_.prompt_tokens);
    metrics_.AddGenerationTokens(stats.generated_tokens - last_.generated_tokens);
    metrics_.AddSpeculation(stats.drafted_tokens - last_.drafted_tokens,
                            stats.accepted_tokens - last_.accepted_tokens);
    metrics_.SetParked(stats.parked);
    metrics_.AddReplayed(stats.replayed_tokens - last_.replayed_tokens);
    for (int64_t n = last_.preemptions; n < stats.preemptions; ++n) metrics_.AddPreemption();
    last_ = stats;
  }

 private:
  ServingMetrics& metrics_;
  SchedulerStats last_;
};

/// One line a node that fills as it loads; on a terminal it is redrawn, elsewhere it shows
/// quarters.
class ProgressBar {
 public:
  void Show(const std::string& node, int64_t done, int64_t total) {
    const std::lock_guard lock(mutex_);
    const int percent = total > 0 ? static_cast<int>(100 * done / total) : 100;
    int& shown = shown_[node];
    if (percent == shown) return;
    if (isatty(STDOUT_FILENO)) {
      const int filled = percent / 4;
      std::printf("\r  loading %-16s [%.*s%*s] %3d %%%s", node.c_str(), filled,
                  "#########################", 25 - filled, "", percent,
                  percent == 100 ? "\n" : "");
    } else if (percent / 25 != shown / 25) {
      std::printf("  loading %s: %d %% of %.0f MB\n", node.c_str(), percent,
                  static_cast<double>(total) / 1e6);
    }
    shown = percent;
    std::fflush(stdout);
  }

 private:
  std::mutex mutex_;
  std::map<std::string, int> shown_;
};

SamplingOptions DefaultsOf(const ModelConfig& model, const Config& config) {
  SamplingOptions defaults;
  if (config.sampling_defaults == "openai") return defaults;
  const GenerationDefaults& generation = model.generation;
  defaults.temperature = static_cast<float>(generation.temperature.value_or(defaults.temperature));
  defaults.top_p = static_cast<float>(generation.top_p.value_or(defaults.top_p));
  defaults.top_k = generation.top_k.value_or(defaults.top_k);
  defaults.repetition_penalty =
      static_cast<float>(generation.repetition_penalty.value_or(defaults.repetition_penalty));
  return defaults;
}

ApiOptions ApiOptionsOf(const Config& config) {
  ApiOptions options;
  options.api_keys = config.api_keys;
  options.cors_origins = config.cors_origins;
  options.params = config.params == "strict"    ? ParamsMode::kStrict
                   : config.params == "lenient" ? ParamsMode::kLenient
                                                : ParamsMode::kNormal;
  options.any_model_name = config.any_model_name;
  options.open_metrics = config.open_metrics;
  options.max_body_bytes = config.max_body_bytes;
  options.default_max_tokens = config.default_max_tokens;
  options.sse_keepalive_ms = config.sse_keepalive_ms;
  options.version = NG_VERSION;
  return options;
}

void ShowNodes(const std::vector<Node>& nodes, ServingMetrics& metrics) {
  std::vector<DeviceFigures> devices;
  for (const Node& node : nodes) {
    devices.push_back({node.id, node.gauges.temperature_c, node.gauges.power_w,
                       node.gauges.utilization, node.gauges.memory_used_bytes});
  }
  metrics.SetDevices(devices);
  std::map<std::string, int> by_state;
  for (const NodeState state : kNodeStates) by_state[std::string(NameOf(state))] = 0;
  for (const Node& node : nodes) ++by_state[std::string(NameOf(node.state))];
  metrics.SetWorkers(by_state);
}

/// Signals are taken by the main thread alone: every other thread has them blocked.
sigset_t BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  return signals;
}

/// Sockets are many; the soft limit of descriptors is often 1024.
void RaiseDescriptorLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

struct Model {
  std::shared_ptr<const Checkpoint> checkpoint;
  ModelText text;
  std::string name;
  Precision precision = Precision::kBf16;
  BatchLimits limits;
};

absl::StatusOr<Model> OpenModel(const Config& config) {
  if (config.model.empty()) {
    return absl::InvalidArgumentError(
        "no model: name a folder, a .gguf file or ORG/NAME of the hub with --model or the key "
        "model");
  }
  Model model;
  NG_ASSIGN_OR_RETURN(model.precision, ParsePrecision(config.quantization));
  NG_ASSIGN_OR_RETURN(model.checkpoint, Checkpoint::Open(config.model));
  NG_RETURN_IF_ERROR(CheckHasBlocks(model.checkpoint->weights(), model.precision));
  NG_ASSIGN_OR_RETURN(model.text, LoadModelText(*model.checkpoint));
  model.name = ModelName(config.model_name, config.model);
  model.limits = LimitsFor(model.checkpoint->config(), config, model.precision,
                           model.text.tokenizer->vocab_size());
  for (const std::string& warning : model.checkpoint->warnings()) LogWarning(warning);
  return model;
}

ServingOptions ServingOptionsOf(const Config& config, const Model& model) {
  ServingOptions options;
  options.fingerprint_seed = absl::StrCat(model.checkpoint->digest(), "/", config.quantization);
  options.polls = Polling::CoresSuffice();
  options.scheduler.model_digest = model.checkpoint->digest();
  options.scheduler.running_max = config.max_running;
  options.scheduler.queued_requests_max = config.max_queued;
  options.scheduler.itl_target_ms = config.itl_target_ms;
  options.scheduler.park_timeout = absl::Seconds(config.park_timeout_s);
  return options;
}

std::string HeldAs(const Checkpoint& checkpoint, Precision precision) {
  if (precision == Precision::kBlocksA8)
    return "blocks held as they are, beside activations in 8 bits";
  if (precision != Precision::kAuto) return absl::StrCat("held in ", NameOf(precision));
  return HasBlocks(checkpoint.weights()) ? "blocks held as they are" : "held in bf16";
}

void PrintModel(const Model& model) {
  const ModelConfig& c = model.checkpoint->config();
  std::printf("model    %s: %s, %d layers, hidden %d, vocabulary %d, weights %s, %s, context %d\n",
              model.name.c_str(), c.architecture.c_str(), c.layers_count(), c.hidden_size,
              c.vocab_size, model.checkpoint->weights_description().c_str(),
              HeldAs(*model.checkpoint, model.precision).c_str(), model.limits.positions_max);
  if (model.text.chat_template == nullptr) {
    std::printf("         without a chat template: /v1/completions only\n");
  }
}

void PrintAddresses(const Config& config, int http_port, int grpc_port) {
  std::printf(
      "http     http://%s:%d\nworkers  join at %s:%d with: neurogrid-worker --bootstrap HOST:%d "
      "--token "
      "$(neurogrid-coordinator token%s)\n",
      config.http_host.c_str(), http_port, config.grpc_host.c_str(), grpc_port, grpc_port,
      absl::StrCat(" --state-dir ", config.state_dir).c_str());
  std::fflush(stdout);
}

void PrintReady(const Config& config, int http_port, const std::string& name, bool chats) {
  const std::string url = absl::StrCat("http://", config.http_host, ":", http_port, "/v1");
  std::printf(
      "ready    %s   try:\n\n"
      "  curl %s/%s -H 'Content-Type: application/json' \\\n"
      "    -d '{\"model\": \"%s\", \"temperature\": 0.2, %s}'\n\n",
      url.c_str(), url.c_str(), chats ? "chat/completions" : "completions", name.c_str(),
      chats
          ? "\"messages\": [{\"role\": \"user\", \"content\": \"What is the capital of France?\"}]"
          : "\"prompt\": \"The capital of France is\"");
  std::fflush(stdout);
}

/// What ends the process beside a signal.
class DeviceLoss {
 public:
  /// On any thread: wakes whoever waits for a signal.
  void Set(const absl::Status& status) {
    {
      const std::lock_guard lock(mutex_);
      status_.Update(status);
    }
    kill(getpid(), SIGTERM);
  }
  absl::Status status() const {
    const std::lock_guard lock(mutex_);
    return status_;
  }

 private:
  mutable std::mutex mutex_;
  absl::Status status_;
};

/// A broken device may keep whoever frees its memory waiting: the process ends all the same.
void EndSoon() {
  std::thread([] {
    std::this_thread::sleep_for(std::chrono::seconds(10));
    std::_Exit(1);
  }).detach();
}

void EndRequests(Serving& serving, Api& api, const HttpServer& server, const std::string& why) {
  api.EndRequests();
  serving.AbortAll(absl::UnavailableError(why));
  for (int wait = 0; wait < 50 && server.requests_in_flight() > 0; ++wait) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

/// Waits for running requests; whatever is left at the limit ends with an error event.
void DrainAndStop(const Config& config, Serving& serving, Api& api, const HttpServer& server,
                  const sigset_t& signals) {
  std::printf("stopping: finishing running requests (again to stop at once)\n");
  std::fflush(stdout);
  std::thread([signals] {  // a second signal ends the process now
    int signal = 0;
    sigwait(&signals, &signal);
    std::_Exit(130);
  })
      .detach();
  serving.Drain();
  api.BeginDrain();
  using Clock = std::chrono::steady_clock;
  const Clock::time_point begun = Clock::now();
  const auto passed_ms = [&] {
    return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begun).count();
  };
  const auto busy = [&] { return !serving.idle() || server.requests_in_flight() > 0; };
  while (passed_ms() < config.drain_delay_ms ||
         (busy() && passed_ms() < config.drain_delay_ms + config.drain_timeout_ms)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EndRequests(serving, api, server, "draining: The server stops.");
}

/// Until a signal has been obeyed, or the own device is lost: then why.
absl::Status ServeToTheEnd(const Config& config, Serving& serving, Api& api,
                           const HttpServer& server, const DeviceLoss& loss,
                           const sigset_t& signals) {
  int signal = 0;
  sigwait(&signals, &signal);
  const absl::Status lost = loss.status();
  if (lost.ok()) {
    DrainAndStop(config, serving, api, server, signals);
  } else {
    EndSoon();
    EndRequests(serving, api, server, "draining: The device of the server is broken.");
  }
  return lost;
}

}  // namespace

absl::Status Serve(const Config& config) {
  NG_RETURN_IF_ERROR(CheckExposure(config.http_host, config.api_keys, config.cors_origins));
  const sigset_t signals = BlockSignals();
  RaiseDescriptorLimit();
  std::printf("neurogrid-coordinator " NG_VERSION "\n");
  NG_ASSIGN_OR_RETURN(const Model model, OpenModel(config));
  PrintModel(model);

  ServingMetrics metrics;
  MetricsObserver observer(metrics);
  Serving serving(*model.text.tokenizer, ServingOptionsOf(config, model), &observer);

  ModelInfo info;
  info.id = model.name;
  info.created = absl::ToUnixSeconds(absl::Now());
  info.max_model_len = model.limits.positions_max;
  info.end_ids = model.text.end_ids;
  info.defaults = DefaultsOf(model.checkpoint->config(), config);
  NG_ASSIGN_OR_RETURN(const std::unique_ptr<Api> api,
                      Api::Create(serving, *model.text.tokenizer, model.text.chat_template.get(),
                                  info, ApiOptionsOf(config), metrics));

  ProgressBar bar;
  int http_port = 0;
  Supervisor::Options options;
  options.config = config;
  options.checkpoint = model.checkpoint;
  options.model_name = model.name;
  options.precision = model.precision;
  options.limits = model.limits;
  options.on_plan = [](const Plan& plan) {
    std::printf("%s", plan.explanation.c_str());
    std::fflush(stdout);
  };
  options.on_progress = [&bar](const std::string& node, int64_t done, int64_t total) {
    bar.Show(node, done, total);
  };
  const bool chats = model.text.chat_template != nullptr;
  DeviceLoss loss;
  options.on_nodes = [&metrics](const std::vector<Node>& nodes) { ShowNodes(nodes, metrics); };
  options.on_device_lost = [&loss](const absl::Status& status) { loss.Set(status); };
  options.on_ready = [&](uint64_t epoch) {
    metrics.SetEpoch(epoch);
    PrintReady(config, http_port, model.name, chats);
  };
  Supervisor supervisor(std::move(options), serving);
  serving.set_describe_cluster([&] { return supervisor.Describe(); });

  HttpLimits limits;
  limits.connections_max = config.http_max_connections;
  limits.connections_per_address_max = config.http_max_connections_per_address;
  // After all that its handlers ask, so that it is the first to go.
  NG_ASSIGN_OR_RETURN(std::unique_ptr<HttpServer> server,
                      HttpServer::Start(config.http_host, config.http_port, limits, *api));
  http_port = server->port();
  NG_RETURN_IF_ERROR(supervisor.Start());
  PrintAddresses(config, http_port, supervisor.grpc_port());
  const absl::Status ended = ServeToTheEnd(config, serving, *api, *server, loss, signals);
  server.reset();
  serving.Stop();  // Before the cluster goes that its chain sends steps into.
  return ended;
}

absl::Status PrintPlan(const Config& config) {
  NG_ASSIGN_OR_RETURN(const Model model, OpenModel(config));
  NG_ASSIGN_OR_RETURN(const ReportedNode node, OwnNode(config));
  NG_ASSIGN_OR_RETURN(const std::vector<NodeFacts> facts, FactsOf({node}, config));
  Placement placement;
  placement.options = config.planner;
  placement.nodes = config.nodes;
  NG_ASSIGN_OR_RETURN(
      const Plan plan,
      PlanStages(FactsOf(*model.checkpoint, model.name, model.precision, model.limits), facts,
                 ServingLink(), config.workload, placement));
  std::printf("%s", plan.explanation.c_str());
  return absl::OkStatus();
}

absl::Status PrintToken(const Config& config, int hours) {
  NG_ASSIGN_OR_RETURN(const Authority authority, OpenAuthority(config.state_dir));
  NG_ASSIGN_OR_RETURN(
      const JoinToken token,
      JoinTokens(config.state_dir).Mint(authority.certificate, absl::Now(), 1, absl::Hours(hours)));
  std::printf("%s\n", token.ToString().c_str());
  return absl::OkStatus();
}

absl::Status Bench(const Config& config, const BenchOptions& options) {
  std::shared_ptr<const Checkpoint> checkpoint;
  std::string name = options.synthetic;
  if (options.synthetic.empty()) {
    if (config.model.empty()) {
      return absl::InvalidArgumentError(
          "nothing to measure: name --model PATH or --synthetic llama-1b");
    }
    NG_ASSIGN_OR_RETURN(checkpoint, Checkpoint::Open(config.model));
    name = ModelName(config.model_name, config.model);
  } else {
    NG_ASSIGN_OR_RETURN(checkpoint, MakeSyntheticCheckpoint(options.synthetic));
  }
  return BenchOwnDevice(*checkpoint, name, config, options);
}

}  // namespace neurogrid
