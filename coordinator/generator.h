// What the HTTP side asks of the serving side: start a generation, read its text, cancel it.
// The HTTP handlers know this interface and nothing of schedulers, pipelines or workers.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/json.h"
#include "common/status.h"
#include "engine/batch.h"
#include "engine/text/answer_format.h"
#include "engine/text/answer_piece.h"

namespace neurogrid {

/// Sampling as the client asked for it, defaults filled in (api.md 2).
struct SamplingOptions {
  float temperature = 1;
  float top_p = 1;
  float min_p = 0;
  int32_t top_k = 0;
  float repetition_penalty = 1;
  int32_t repeat_last_n = -1;  // -1: all; 0: off
  float presence_penalty = 0;
  float frequency_penalty = 0;
  uint64_t seed = 0;          // of the request; choice j draws with SplitMix64(seed + j)
  int32_t top_logprobs = -1;  // -1: none
  std::vector<std::pair<int32_t, float>> bias;
};

struct GenerationRequest {
  std::string id;      // "chatcmpl-...": for logs and /v1/requests
  std::string tenant;  // key id; "" without keys
  std::string cache_salt;
  bool use_cache = true;
  std::vector<std::vector<int32_t>> prompts;  // choices are numbered prompt * n + choice
  int n = 1;
  int64_t tokens_max = 0;  // 0: prefill only
  int64_t tokens_min = 0;
  bool ignore_eos = false;
  bool echo_logprobs = false;     // report logprobs of the prompt too; the prefix cache is not read
  std::vector<int32_t> end_ids;   // of the model; they end the text and are not part of it
  std::vector<int32_t> stop_ids;  // asked for by the client
  std::vector<std::string> stops;
  bool include_stop_text = false;
  bool skip_special = true;
  bool strip_leading_space = false;  // chat with tokenizers that strip one (models.md 5.4)
  AnswerFormat format;               // how reasoning and tool calls are read from the answer
  bool one_call = false;             // the first complete call ends the answer
  int64_t reasoning_budget = -1;     // tokens of reasoning; then its end is forced; -1: no limit
  std::vector<int32_t> reasoning_close;  // what ends it
  SamplingOptions sampling;
  std::optional<absl::Duration> timeout;
};

enum class FinishReason { kStop, kLength };

struct GeneratedToken {
  int32_t id = 0;
  float logprob = 0;
  std::vector<TokenLogprob> top = {};
};

/// What happened to one choice since the last event.
struct GenerationEvent {
  int choice = 0;
  AnswerPieces pieces;                 // whole code points, stop text already held back
  std::vector<GeneratedToken> tokens;  // every token since the last event, end token included
  std::vector<GeneratedToken> prompt;  // with echo_logprobs, once: logprobs of prompt tokens 1..
  std::optional<FinishReason> finish;
  Json stop_reason;  // string, id, "max_tokens", "context_length" or null
};

struct GenerationUsage {
  int64_t prompt_tokens = 0;      // once per prompt
  int64_t completion_tokens = 0;  // all generated tokens of all choices
  int64_t reasoning_tokens = 0;   // of those, through the closing tag
  int64_t cached_tokens = 0;
  double queue_ms = 0;
  double prefill_ms = 0;
  double decode_ms = 0;
  int preemptions = 0;
  int recoveries = 0;  // chains that were lost under it
};

/// A running request. Destroying it cancels what still runs and frees its pages.
class Generation {
 public:
  virtual ~Generation() = default;

  enum class State { kQueued, kPrefill, kDecode, kRecovering };
  struct Progress {
    State state = State::kQueued;
    int queue_position = 0;
    double queue_eta_ms = 0;
    int64_t prefill_done = 0;
    int64_t prefill_total = 0;
  };

  /// Waits up to `timeout` for events; empty when nothing came. Done after every choice finished:
  /// then returns empty at once. An error ends the request: Unavailable("worker_lost: ..."),
  /// DeadlineExceeded, Internal, ... - the message is fit for clients.
  virtual absl::StatusOr<std::vector<GenerationEvent>> Next(absl::Duration timeout) = 0;
  virtual bool done() const = 0;
  virtual Progress progress() const = 0;
  virtual GenerationUsage usage() const = 0;
};

/// A refused request, before any token.
struct Refusal {
  enum class Kind {
    kQueueFull,
    kRateLimited,
    kLoading,
    kNoWorkers,
    kRecovering,
    kDraining,
    kTooLong
  };
  Kind kind = Kind::kQueueFull;
  std::string message;
  double retry_after_s = 0;
};

enum class ServingState {
  kLoading,
  kWaitingForWorkers,
  kPlanning,
  kReady,
  kRecovering,
  kCanaryFailed,
  kDraining
};

class Generator {
 public:
  virtual ~Generator() = default;

  /// Queues the request. Null with `refusal` filled in when it is not taken.
  virtual std::unique_ptr<Generation> Start(GenerationRequest request, Refusal* refusal) = 0;

  virtual ServingState state() const = 0;
  /// What is missing until ready: "2 workers", "node b", ...
  virtual std::vector<std::string> missing() const = 0;
  /// True when the coordinator's loop turned within the last 2 s.
  virtual bool alive() const = 0;
  /// Milliseconds since a token passed through every stage; negative: never in this epoch.
  virtual double canary_age_ms() const = 0;
  /// Tokens that fit a prompt plus output, by model, flags and page pool.
  virtual int64_t context_tokens_max() const = 0;
  /// Bodies of GET /v1/cluster and GET /v1/requests (api.md 1).
  virtual Json DescribeCluster() const = 0;
  virtual Json DescribeRequests() const = 0;
  /// "fp_" + 16 hex digits of the determinism class (api.md 3).
  virtual std::string fingerprint() const = 0;
};

}  // namespace neurogrid
