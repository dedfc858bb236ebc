// A scheduler over the hash chain, for tests that say what happens step by step.
#pragma once

#include <catch2/catch_test_macros.hpp>
#include <map>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "coordinator/scheduler.h"
#include "hash_chain.h"

namespace neurogrid {

inline SchedulerOptions Options(int pages = 64) {
  SchedulerOptions options;
  options.limits.rows_max = 256;
  options.limits.samples_max = 64;
  options.limits.sequences_max = 64;
  options.limits.pages = pages;
  options.limits.positions_max = 512;
  options.limits.vocab_size = kHashVocab;
  options.model_digest = "model";
  return options;
}

inline std::vector<int32_t> Prompt(int tokens, int32_t first = 1) {
  std::vector<int32_t> ids(static_cast<size_t>(tokens));
  for (int i = 0; i < tokens; ++i) ids[static_cast<size_t>(i)] = (first + i) % kHashVocab;
  return ids;
}

inline GenerationRequest Ask(std::vector<int32_t> prompt, int64_t tokens_max) {
  GenerationRequest asked;
  asked.prompts = {std::move(prompt)};
  asked.tokens_max = tokens_max;
  return asked;
}

/// A scheduler and its chain; what came out of them by request and choice.
struct Server {
  explicit Server(SchedulerOptions given = Options())
      : options(given), scheduler(given), chain(given.stages, given.limits) {}

  RequestId Admit(GenerationRequest asked) {
    Refusal refusal;
    const std::optional<RequestId> id = scheduler.Admit(std::move(asked), now, &refusal);
    INFO(refusal.message);
    REQUIRE(id.has_value());
    return *id;
  }
  std::optional<Refusal> Refused(GenerationRequest asked) {
    Refusal refusal;
    if (scheduler.Admit(std::move(asked), now, &refusal).has_value()) return std::nullopt;
    return refusal;
  }
  /// One step there and back; false when there is none.
  bool Step() {
    std::optional<SchedulerStep> step = scheduler.NextStep(now);
    if (!step.has_value()) return false;
    batches.push_back(step->batch);
    Commit(Through(*std::move(step)));
    return true;
  }
  HashChain::Result Through(SchedulerStep step) {
    chain.Send(std::move(step));
    chain.TurnAll();
    HashChain::Result result;
    REQUIRE(chain.Receive(result));
    return result;
  }
  /// All events of a step.
  void Commit(const HashChain::Result& result) {
    const auto events = scheduler.Commit(result.step, result.sampled, now);
    REQUIRE(events.ok());
    Take(*events);
    for (auto more = scheduler.More(now); !more.empty(); more = scheduler.More(now)) Take(more);
  }
  void Take(const std::vector<SchedulerEvent>& events) {
    for (const SchedulerEvent& event : events) {
      if (event.token.has_value()) tokens[{event.request, event.choice}].push_back(event.token->id);
      all.push_back(event);
    }
  }
  void Run() {
    while (Step()) {
    }
    CHECK(scheduler.idle());
    for (const PoolStats& pool :
         {scheduler.stats().pages, scheduler.stats().window_pages, scheduler.stats().slots}) {
      CHECK(pool.free + pool.cached == pool.total);
    }
  }
  int RowsComputed() const {
    return std::accumulate(batches.begin(), batches.end(), 0,
                           [](int rows, const Batch& batch) { return rows + batch.rows(); });
  }

  SchedulerOptions options;
  Scheduler scheduler;
  HashChain chain;
  SteadyTime now;
  std::vector<Batch> batches;
  std::map<std::pair<RequestId, int>, std::vector<int32_t>> tokens;
  std::vector<SchedulerEvent> all;
};

}  // namespace neurogrid
