// Which sequence runs when: between the queue of requests and the steps of the pipeline. Holds all
// state of every request; stages hold only page bytes. One thread owns it.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "common/status.h"
#include "coordinator/generator.h"
#include "engine/batch.h"

namespace neurogrid {

/// Monotonic; an input everywhere, so that tests and simulations bring their own.
using SteadyTime = std::chrono::steady_clock::time_point;

using RequestId = uint64_t;  // counts up from 1, never used twice

struct SchedulerOptions {
  BatchLimits limits;        // of the weakest stage; pages is the pool of the whole chain
  int stages = 1;            // of the chain
  int steps_in_flight = 0;   // 0: as many as stages
  int decode_groups = 0;     // 0: as many as stages; decoding sequences run in so many equal groups
  int prefill_depth = 1;     // chunks of one prompt in flight at a time; needs a chain in order
  std::string model_digest;  // keys the prefix cache, as tenant and salt do

  int running_max = 256;          // sequences that hold pages
  int queued_requests_max = 256;  // waiting for their first page
  int64_t queued_tokens_max = 0;  // prompt tokens of those; 0: 4 x the page pool
  int tenant_running_max = 32;    // of one tenant; tenant "" has no such limit
  int tenant_queued_max = 64;     // requests
  absl::Duration queue_wait_max = absl::Seconds(60);
  double itl_target_ms = 100;  // prefill joins decodes only as far as steps stay below
};

/// What happened to one choice, or to a whole request (`error`).
struct SchedulerEvent {
  RequestId request = 0;
  int choice = 0;                        // prompt * n + choice
  std::optional<GeneratedToken> token;   // appended to the choice
  std::vector<GeneratedToken> prompt;    // with echo_logprobs, once a choice: prompt tokens 1..
  std::optional<FinishReason> finish;    // nothing follows for this choice
  Json stop_reason;                      // stop id, "max_tokens", "context_length" or null
  absl::Status error;                    // not OK: the request ended, all choices; fit for clients
  std::optional<GenerationUsage> usage;  // final, with the event that ends the request
};

struct SchedulerStep {
  uint64_t id = 0;  // counts up from 1
  Batch batch;
};

struct SchedulerStats {
  int running = 0;  // sequences that hold pages or are about to
  int waiting = 0;  // requests that never ran, and preempted sequences
  int steps_in_flight = 0;
  int pages = 0;
  int pages_free = 0;          // never used or forgotten
  int pages_cached = 0;        // held by nobody, kept for reuse, given away on demand
  int tokens_budget = 0;       // rows that the next mixed step may have
  int64_t prefix_queries = 0;  // prompt tokens looked up
  int64_t prefix_hits = 0;     // of those, found
  int64_t prompt_tokens = 0;
  int64_t generated_tokens = 0;
  int64_t preemptions = 0;
};

class Scheduler {
 public:
  explicit Scheduler(SchedulerOptions options);
  ~Scheduler();

  /// Queues a request, or says why not in `refusal` and returns nothing (api.md 5): kTooLong,
  /// kQueueFull, kRateLimited. Its tokens must be below the vocabulary.
  std::optional<RequestId> Admit(GenerationRequest request, SteadyTime now, Refusal* refusal);

  /// The next step, with everything in it: to be sent down the chain at once. Nothing when enough
  /// steps are in flight or there is nothing to run. A sequence that decodes is in at most one
  /// step.
  std::optional<SchedulerStep> NextStep(SteadyTime now);

  /// Takes a step's result, one token a sampled row in order. Events are in order of rows. Text is
  /// the caller's: on a stop string it calls Finish before the next NextStep; a stop string wins
  /// over a length on the same token. Steps may return in any order unless prefill_depth > 1.
  /// InvalidArgument, nothing changed, for a step that is not in flight, a wrong number of tokens
  /// or a token outside the vocabulary.
  absl::StatusOr<std::vector<SchedulerEvent>> Commit(uint64_t step,
                                                     absl::Span<const SampledToken> sampled,
                                                     SteadyTime now);

  /// The step will never return (its stage said why): its requests end with `error`, others go on.
  /// InvalidArgument for a step that is not in flight.
  absl::StatusOr<std::vector<SchedulerEvent>> FailStep(uint64_t step, const absl::Status& error,
                                                       SteadyTime now);

  /// Ends one choice, as on a stop string. The usage when that ended the request. No effect on what
  /// has ended already.
  std::optional<GenerationUsage> Finish(RequestId request, int choice, SteadyTime now);

  /// Ends a request in any phase, without events. Pages in flight come back with their step.
  void Cancel(RequestId request);

  /// A paused request (slow reader) is passed over and first to be preempted.
  void Pause(RequestId request, bool paused);

  /// Requests whose time is over end with DeadlineExceeded (their own timeout) or
  /// ResourceExhausted (too long in the queue). Cheap when nothing is due.
  std::vector<SchedulerEvent> Expire(SteadyTime now);
  /// When Expire has work next.
  std::optional<SteadyTime> next_expiry() const;

  /// A new epoch: other stages, other pages, all steps in flight forgotten. Requests that began end
  /// with `error`, so do queued ones that no longer fit (InvalidArgument); the rest stay queued.
  std::vector<SchedulerEvent> Reset(SchedulerOptions options, const absl::Status& error,
                                    SteadyTime now);

  /// Nothing for a request that has ended.
  std::optional<Generation::Progress> progress(RequestId request) const;
  std::optional<GenerationUsage> usage(RequestId request, SteadyTime now) const;
  /// Seconds until a refused client may find room: 1..120, from the measured drain of the queue.
  double retry_after_s(SteadyTime now) const;
  /// Tokens that fit a prompt plus output.
  int64_t context_tokens_max() const;
  bool idle() const;  // nothing queued, running or in flight
  SchedulerStats stats() const;
  /// Requests that have not ended, oldest first.
  std::vector<RequestId> requests() const;
};

}  // namespace neurogrid
