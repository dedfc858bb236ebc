#include "coordinator/serving_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>
#include <map>
#include <sstream>

#include "absl/strings/str_cat.h"

namespace neurogrid {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;

/// vLLM's edges, so that its dashboards port by replacing the prefix.
const Histogram::BucketBoundaries kFirstTokenEdges = {.001, .005, .01, .02, .04, .06, .08, .1,
                                                      .25,  .5,   .75, 1,   2.5, 5,   7.5, 10};
const Histogram::BucketBoundaries kInterTokenEdges = {.01, .025, .05, .075, .1, .15, .2,
                                                      .3,  .4,   .5,  .75,  1,  2.5};
const Histogram::BucketBoundaries kRequestEdges = {.3, .5, .8, 1,  1.5, 2,  2.5, 5,  10,
                                                   15, 20, 30, 40, 50,  60, 120, 240};

constexpr std::array<absl::string_view, 34> kCodes = {"invalid_json",
                                                      "invalid_type",
                                                      "invalid_value",
                                                      "missing_required_parameter",
                                                      "unsupported_parameter",
                                                      "unsupported_model_operation",
                                                      "limit_exceeded",
                                                      "context_length_exceeded",
                                                      "template_error",
                                                      "invalid_api_key",
                                                      "insufficient_scope",
                                                      "model_not_found",
                                                      "unknown_url",
                                                      "request_not_found",
                                                      "method_not_allowed",
                                                      "stream_gone",
                                                      "deadline_exceeded",
                                                      "idempotency_conflict",
                                                      "request_too_large",
                                                      "uri_too_long",
                                                      "unsupported_media_type",
                                                      "request_quarantined",
                                                      "rate_limit_exceeded",
                                                      "queue_full",
                                                      "internal_error",
                                                      "loading",
                                                      "no_workers",
                                                      "recovering",
                                                      "draining",
                                                      "too_many_connections",
                                                      "worker_timeout",
                                                      "worker_lost",
                                                      "invalid_schema",
                                                      "schema_too_complex"};

}  // namespace

struct ServingMetrics::Series {
  prometheus::Registry registry;

  Gauge& running = AddGauge("num_requests_running", "Requests in a step.");
  Gauge& waiting = AddGauge("num_requests_waiting", "Requests in the queue.");
  Gauge& kv_usage = AddGauge("kv_cache_usage_perc", "Share of KV pages in use, 0 to 1.");
  /// One gauge for each node that knows the figure.
  struct OfNodes {
    Family<Gauge>& family;
    std::map<std::string, Gauge*> present = {};
  };
  Family<Gauge>& workers = Gauges("cluster_workers", "Nodes by state.");
  Gauge& epoch = AddGauge("cluster_epoch", "Number of the plan in force.");
  Family<Gauge>& kv_pages = Gauges("kv_pages", "KV pages by what they are.");
  OfNodes temperature = Nodes("device_temperature_celsius", "Of a node's device.");
  OfNodes power = Nodes("device_power_watts", "What a node's device takes.");
  OfNodes utilization = Nodes("device_utilization_ratio", "Time it computed, 0 to 1.");
  OfNodes memory_used = Nodes("device_memory_used_bytes", "By all processes of the node.");
  Counter& cache_queries = AddCounter("prefix_cache_queries_total", "Prompt tokens looked up.");
  Counter& cache_hits = AddCounter("prefix_cache_hits_total", "Prompt tokens found.");
  Counter& prompt_tokens = AddCounter("prompt_tokens_total", "Prompt tokens.");
  Counter& generation_tokens = AddCounter("generation_tokens_total", "Generated tokens.");
  Counter& preemptions = AddCounter("num_preemptions_total", "Preemptions by recompute.");
  Gauge& parked =
      AddGauge("parked_sequences", "Sequences that lost their chain and do not run again yet.");
  Counter& takeovers = AddCounter("takeovers_total", "Chains that went on for a lost one.");
  Counter& replayed = AddCounter("replayed_tokens_total", "Computed again after a loss.");
  Histogram& heal = AddHistogram(
      "heal_seconds", "From the loss of a chain to a token of the next one.", kRequestEdges);
  Counter& drafted = AddCounter("spec_decode_num_draft_tokens_total", "Guessed tokens run.");
  Counter& accepted =
      AddCounter("spec_decode_num_accepted_tokens_total", "Guessed tokens that were right.");
  Family<Counter>& finished = Counters("request_success_total", "Requests answered to the end.");
  Family<Counter>& cancelled = Counters("requests_cancelled_total", "Clients that left.");
  Family<Counter>& refused = Counters("requests_refused_total", "Requests refused.");
  Histogram& first_token = AddHistogram("time_to_first_token_seconds",
                                        "From a request to its first token.", kFirstTokenEdges);
  Histogram& inter_token = AddHistogram("inter_token_latency_seconds",
                                        "Between two tokens of a choice.", kInterTokenEdges);
  Histogram& request =
      AddHistogram("e2e_request_latency_seconds", "From a request to its end.", kRequestEdges);
  Histogram& queue = AddHistogram("request_queue_time_seconds", "From a request to its first step.",
                                  kRequestEdges);
  Histogram& prefill = AddHistogram("request_prefill_time_seconds",
                                    "From its first step to its first token.", kRequestEdges);
  Histogram& decode = AddHistogram("request_decode_time_seconds",
                                   "From its first token to its end.", kRequestEdges);

  static std::string Name(const char* name) { return absl::StrCat("neurogrid_", name); }
  Family<Gauge>& Gauges(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(Name(name)).Help(help).Register(registry);
  }
  Gauge& AddGauge(const char* name, const char* help) { return Gauges(name, help).Add({}); }
  OfNodes Nodes(const char* name, const char* help) { return {Gauges(name, help)}; }
  Family<Counter>& Counters(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(Name(name)).Help(help).Register(registry);
  }
  Counter& AddCounter(const char* name, const char* help) { return Counters(name, help).Add({}); }
  Histogram& AddHistogram(const char* name, const char* help,
                          const Histogram::BucketBoundaries& edges) {
    return prometheus::BuildHistogram()
        .Name(Name(name))
        .Help(help)
        .Register(registry)
        .Add({}, edges);
  }
};

ServingMetrics::ServingMetrics() : series_(std::make_unique<Series>()) {
  for (const char* reason : {"stop", "length", "tool_calls"})
    series_->finished.Add({{"finished_reason", reason}});
  for (const char* phase : {"queued", "prefill", "decode", "recovering"})
    series_->cancelled.Add({{"phase", phase}});
}
ServingMetrics::~ServingMetrics() = default;

void ServingMetrics::SetRunning(int64_t requests) {
  series_->running.Set(static_cast<double>(requests));
}
void ServingMetrics::SetWaiting(int64_t requests) {
  series_->waiting.Set(static_cast<double>(requests));
}
void ServingMetrics::SetKvUsage(double fraction) { series_->kv_usage.Set(fraction); }

void ServingMetrics::SetDevices(absl::Span<const DeviceFigures> devices) {
  const auto set = [&](Series::OfNodes& series, std::optional<double> DeviceFigures::*figure) {
    std::map<std::string, Gauge*> present;
    for (const DeviceFigures& device : devices) {
      if (!(device.*figure).has_value()) continue;
      Gauge& gauge =
          series.family.Add({{"node", device.node}});  // the one there is, if there is one
      gauge.Set(*(device.*figure));
      present[device.node] = &gauge;
    }
    for (const auto& [node, gauge] : series.present) {
      if (!present.contains(node)) series.family.Remove(gauge);
    }
    series.present = std::move(present);
  };
  set(series_->temperature, &DeviceFigures::temperature_c);
  set(series_->power, &DeviceFigures::power_w);
  set(series_->utilization, &DeviceFigures::utilization);
  set(series_->memory_used, &DeviceFigures::memory_used_bytes);
}

void ServingMetrics::SetWorkers(const std::map<std::string, int>& by_state) {
  for (const auto& [state, count] : by_state) {
    series_->workers.Add({{"state", state}}).Set(count);
  }
}
void ServingMetrics::SetEpoch(uint64_t epoch) { series_->epoch.Set(static_cast<double>(epoch)); }
void ServingMetrics::SetKvPages(int64_t used, int64_t cached, int64_t free) {
  for (const auto& [state, pages] : {std::pair{"used", used}, {"cached", cached}, {"free", free}}) {
    series_->kv_pages.Add({{"state", state}}).Set(static_cast<double>(pages));
  }
}

void ServingMetrics::AddPrefixCache(int64_t tokens_asked, int64_t tokens_hit) {
  series_->cache_queries.Increment(static_cast<double>(tokens_asked));
  series_->cache_hits.Increment(static_cast<double>(tokens_hit));
}
void ServingMetrics::AddPromptTokens(int64_t tokens) {
  series_->prompt_tokens.Increment(static_cast<double>(tokens));
}
void ServingMetrics::AddGenerationTokens(int64_t tokens) {
  series_->generation_tokens.Increment(static_cast<double>(tokens));
}
void ServingMetrics::AddPreemption() { series_->preemptions.Increment(); }
void ServingMetrics::SetParked(int64_t sequences) {
  series_->parked.Set(static_cast<double>(sequences));
}
void ServingMetrics::AddTakeover(double seconds) {
  series_->takeovers.Increment();
  series_->heal.Observe(seconds);
}
void ServingMetrics::AddReplayed(int64_t tokens) {
  series_->replayed.Increment(static_cast<double>(tokens));
}
void ServingMetrics::AddSpeculation(int64_t drafted, int64_t accepted) {
  series_->drafted.Increment(static_cast<double>(drafted));
  series_->accepted.Increment(static_cast<double>(accepted));
}
void ServingMetrics::AddFinished(absl::string_view reason) {
  series_->finished.Add({{"finished_reason", std::string(reason)}}).Increment();
}
void ServingMetrics::AddCancelled(absl::string_view phase) {
  series_->cancelled.Add({{"phase", std::string(phase)}}).Increment();
}
void ServingMetrics::AddRefused(absl::string_view code) {
  const bool known = std::find(kCodes.begin(), kCodes.end(), code) != kCodes.end();
  series_->refused.Add({{"code", known ? std::string(code) : "other"}}).Increment();
}

void ServingMetrics::ObserveFirstToken(double seconds) { series_->first_token.Observe(seconds); }
void ServingMetrics::ObserveInterToken(double seconds) { series_->inter_token.Observe(seconds); }
void ServingMetrics::ObserveRequest(double seconds) { series_->request.Observe(seconds); }
void ServingMetrics::ObserveQueue(double seconds) { series_->queue.Observe(seconds); }
void ServingMetrics::ObservePrefill(double seconds) { series_->prefill.Observe(seconds); }
void ServingMetrics::ObserveDecode(double seconds) { series_->decode.Observe(seconds); }

std::string ServingMetrics::Expose() const {
  return prometheus::TextSerializer().Serialize(series_->registry.Collect());
}

}  // namespace neurogrid
