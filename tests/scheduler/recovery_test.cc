// What the scheduler promises of requests whose chain is lost, one sentence each.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <map>
#include <string>
#include <vector>

#include "scheduler_server.h"

namespace neurogrid {
namespace {

/// Errors by request.
using Ends = std::map<RequestId, std::string>;

Ends EndsOf(const std::vector<SchedulerEvent>& events) {
  Ends ends;
  for (const SchedulerEvent& event : events) {
    CHECK(ends.emplace(event.request, event.error.ToString()).second);
  }
  return ends;
}

/// Another chain, whose pages hold nothing.
void ComeBack(Server& server) {
  CHECK(server.scheduler.Reset(server.options, server.now).empty());
  server.chain = HashChain(server.options.stages, server.options.limits);
}

const SchedulerEvent& LastOf(const Server& server, RequestId id) {
  const auto last = std::find_if(server.all.rbegin(), server.all.rend(),
                                 [&](const SchedulerEvent& event) { return event.request == id; });
  REQUIRE(last != server.all.rend());
  return *last;
}

TEST_CASE("what a lost chain had begun goes on with the tokens it gets undisturbed",
          "[scheduler][recovery]") {
  SchedulerOptions options = Options();
  options.stages = GENERATE(1, 3);
  Server server(options);
  std::map<RequestId, GenerationRequest> asked;
  for (int i = 0; i < 4; ++i) {
    GenerationRequest request = Ask(Prompt(40 + 30 * i, i), 30);
    request.n = 1 + i % 2;
    request.sampling.seed = static_cast<uint64_t>(i);
    request.sampling.temperature = i % 2 == 0 ? 1 : 0;
    if (i == 2) request.sampling.presence_penalty = 0.5f;
    if (i == 3) request.echo_logprobs = true;
    asked[server.Admit(request)] = request;
  }
  const int steps = GENERATE(0, 1, 2, 3, 9, 20);
  CAPTURE(steps);
  for (int i = 0; i < steps; ++i) server.Step();
  std::optional<SchedulerStep> step = server.scheduler.NextStep(server.now);
  REQUIRE(step.has_value());
  const HashChain::Result late = server.Through(*std::move(step));  // on its way at the loss
  CHECK(server.scheduler.Park(server.now).empty());
  CHECK(!server.scheduler.Commit(late.step, late.sampled, server.now).ok());
  ComeBack(server);
  server.Run();
  for (const auto& [id, request] : asked) {
    CAPTURE(id);
    int64_t tokens = 0;
    for (int choice = 0; choice < request.n; ++choice) {
      CHECK(server.tokens[{id, choice}] == AloneTokens(request, choice, options.stages, 512));
      tokens += static_cast<int64_t>(server.tokens[{id, choice}].size());
    }
    const SchedulerEvent& last = LastOf(server, id);
    REQUIRE(last.usage.has_value());
    CHECK(last.usage->completion_tokens == tokens);
    CHECK(last.usage->preemptions == 0);
    CHECK(last.usage->recoveries == 1);
  }
  const auto scores =
      std::count_if(server.all.begin(), server.all.end(),
                    [](const SchedulerEvent& event) { return !event.prompt.empty(); });
  CHECK(scores == 2);  // once a choice, however often its prompt was computed
}

TEST_CASE("only what the lost chain had computed counts as replayed", "[scheduler][recovery]") {
  Server server;
  const RequestId id = server.Admit(Ask(Prompt(300), 20));
  server.Step();  // 256 rows
  server.scheduler.NextStep(server.now);
  server.scheduler.Park(server.now);
  CHECK(server.scheduler.stats().parked == 1);
  CHECK(server.scheduler.stats().replayed_tokens == 0);
  ComeBack(server);
  server.Step();
  CHECK(server.scheduler.stats().parked == 0);
  CHECK(server.scheduler.stats().replayed_tokens == 256);
  CHECK(server.scheduler.stats().prompt_tokens == 300);
  CHECK(server.scheduler.progress(id)->state == Generation::State::kRecovering);
  server.Step();
  CHECK(server.scheduler.progress(id)->state == Generation::State::kDecode);
}

TEST_CASE("a smaller chain ends what it cannot hold and keeps the rest", "[scheduler][recovery]") {
  SchedulerOptions options = Options();
  options.running_max = 2;
  Server server(options);
  const RequestId grown = server.Admit(Ask(Prompt(120), 50));
  const RequestId begun = server.Admit(Ask(Prompt(40), 50));
  while (server.tokens[{grown, 0}].size() < 9) server.Step();
  const RequestId queued = server.Admit(Ask(Prompt(10), 5));
  const RequestId too_long = server.Admit(Ask(Prompt(200), 5));
  const RequestId cancelled = server.Admit(Ask(Prompt(10), 5));
  server.scheduler.Cancel(cancelled);
  server.options.limits.pages = 8;
  const auto ends = EndsOf(server.scheduler.Reset(server.options, server.now));
  CHECK(ends ==
        Ends{{grown,
              "UNAVAILABLE: worker_lost: A worker was lost while it answered; the rest holds "
              "128 tokens, and the text has 129."},
             {too_long,
              "INVALID_ARGUMENT: This model's maximum context length is 128 tokens, but the "
              "prompt has 200."}});
  server.chain = HashChain(1, server.options.limits);
  server.Run();
  CHECK(server.tokens[{begun, 0}] == AloneTokens(Ask(Prompt(40), 50), 0, 1, 128));
  CHECK(server.tokens[{queued, 0}] == AloneTokens(Ask(Prompt(10), 5), 0, 1, 128));
}

TEST_CASE("waiting for a chain has limits of its own, and they end with the next chain",
          "[scheduler][recovery]") {
  SchedulerOptions options = Options();
  options.running_max = 2;
  options.queue_wait_max = absl::Seconds(60);
  options.park_timeout = absl::Seconds(600);
  Server server(options);
  GenerationRequest hurried = Ask(Prompt(5), 100);
  hurried.timeout = absl::Seconds(100);
  const RequestId begun = server.Admit(Ask(Prompt(5), 100));
  const RequestId timed = server.Admit(hurried);
  server.Step();
  server.now += std::chrono::seconds(10);
  const RequestId queued = server.Admit(Ask(Prompt(5), 100));
  server.scheduler.Park(server.now);
  server.now += std::chrono::seconds(20);
  CHECK(server.scheduler.Park(server.now).empty());  // the limit counts from the first
  const auto after = [&](int seconds) {
    server.now += std::chrono::seconds(seconds);
    CHECK(server.scheduler.next_expiry() <= server.now);
    return EndsOf(server.scheduler.Expire(server.now));
  };
  CHECK(after(40) ==
        Ends{{queued,
              "UNAVAILABLE: recovering: The model was not placed anew while the request "
              "waited, 60000 ms."}});
  CHECK(after(30) ==
        Ends{{timed, "DEADLINE_EXCEEDED: The request's timeout of 100000 ms is over."}});
  if (GENERATE(true, false)) {
    server.now += std::chrono::seconds(509);
    CHECK(server.scheduler.Expire(server.now).empty());
    CHECK(after(1) == Ends{{begun,
                            "UNAVAILABLE: worker_lost: A worker was lost while it answered, and "
                            "the rest did not serve within 600000 ms."}});
    CHECK(server.scheduler.idle());
    return;
  }
  ComeBack(server);
  server.now += std::chrono::hours(1);
  CHECK(server.scheduler.Expire(server.now).empty());
  server.Run();
  CHECK(server.tokens[{begun, 0}] == AloneTokens(Ask(Prompt(5), 100), 0, 1, 512));
}

TEST_CASE("while there is no chain requests come, go and pause as ever", "[scheduler][recovery]") {
  Server server;
  GenerationRequest twice = Ask(Prompt(20), 10);
  twice.n = 2;
  const RequestId cancelled = server.Admit(twice);
  const RequestId half = server.Admit(twice);
  const RequestId paused = server.Admit(Ask(Prompt(30), 10));
  for (int i = 0; i < 3; ++i) server.Step();
  server.scheduler.Park(server.now);
  CHECK(server.scheduler.progress(half)->state == Generation::State::kRecovering);
  server.scheduler.Cancel(cancelled);
  server.scheduler.Finish(half, 0, server.now);
  server.scheduler.Pause(paused, true);
  const RequestId late = server.Admit(Ask(Prompt(7), 10));
  CHECK(server.scheduler.progress(late)->state == Generation::State::kQueued);
  ComeBack(server);
  CHECK(server.scheduler.progress(half)->state == Generation::State::kRecovering);
  const size_t ended = server.tokens[{half, 0}].size();
  while (server.Step()) {
  }
  CHECK(server.tokens[{half, 0}].size() == ended);
  CHECK(server.tokens[{half, 1}] == AloneTokens(twice, 1, 1, 512));
  CHECK(server.tokens[{late, 0}] == AloneTokens(Ask(Prompt(7), 10), 0, 1, 512));
  server.scheduler.Pause(paused, false);
  server.Run();
  CHECK(server.tokens[{paused, 0}] == AloneTokens(Ask(Prompt(30), 10), 0, 1, 512));
}

/// The chain is lost with the step that was on its way, and another one comes.
std::vector<SchedulerEvent> LoseStep(Server& server) {
  REQUIRE(server.scheduler.NextStep(server.now).has_value());
  std::vector<SchedulerEvent> events = server.scheduler.Park(server.now);
  ComeBack(server);
  return events;
}

TEST_CASE("a request that breaks one chain after the other ends, and no other does",
          "[scheduler][recovery]") {
  SchedulerOptions options = Options();
  const int stages = options.stages = GENERATE(1, 2);
  Server server(options);
  const RequestId harmless = server.Admit(Ask(Prompt(20, 5), 40));
  const RequestId poison = server.Admit(Ask(Prompt(20, 9), 40));
  const RequestId neighbour = server.Admit(Ask(Prompt(20, 13), 40));
  const int32_t mark = Prompt(20, 9)[0];
  int losses = 0;
  Ends ends;
  while (losses < 4 && !server.scheduler.idle()) {
    std::optional<SchedulerStep> step = server.scheduler.NextStep(server.now);
    REQUIRE(step.has_value());
    const Batch& batch = step->batch;
    bool breaks = false;  // where the poisoned prompt begins
    for (int row = 0; row < batch.rows(); ++row) {
      breaks = breaks || (batch.positions[row] == 0 && batch.tokens[row] == mark);
    }
    if (!breaks) {
      server.Commit(server.Through(*std::move(step)));
      continue;
    }
    ++losses;
    for (auto& [id, status] : EndsOf(server.scheduler.Park(server.now))) ends[id] = status;
    ComeBack(server);
  }
  CHECK(losses == kLossesMax);
  CHECK(ends == Ends{{poison,
                      "ABORTED: This request was under way when 3 workers were "
                      "lost, one after the other."}});
  CHECK(server.tokens[{harmless, 0}] == AloneTokens(Ask(Prompt(20, 5), 40), 0, stages, 512));
  CHECK(server.tokens[{neighbour, 0}] == AloneTokens(Ask(Prompt(20, 13), 40), 0, stages, 512));
}

TEST_CASE("replays come one after the other, the shortest first", "[scheduler][recovery]") {
  SchedulerOptions options = Options(200);
  options.limits.rows_max = 64;
  options.limits.positions_max = 3200;
  Server server(options);
  const RequestId longest = server.Admit(Ask(Prompt(400), 40));
  const RequestId middle = server.Admit(Ask(Prompt(300, 5), 40));
  const RequestId shortest = server.Admit(Ask(Prompt(200, 9), 40));
  while (server.tokens[{longest, 0}].empty() || server.tokens[{middle, 0}].empty() ||
         server.tokens[{shortest, 0}].empty()) {
    server.Step();
  }
  server.scheduler.Park(server.now);
  ComeBack(server);
  server.all.clear();
  std::vector<RequestId> order;
  while (order.size() < 3) {
    REQUIRE(server.Step());
    for (const SchedulerEvent& event : std::exchange(server.all, {})) {
      if (std::count(order.begin(), order.end(), event.request) == 0) {
        order.push_back(event.request);
      }
    }
    const Batch& batch = server.batches.back();
    int replays = 0;  // of which no end is in sight in this step
    for (int s = 0; s < batch.sequences(); ++s) {
      const int rows = batch.sequence_offsets[s + 1] - batch.sequence_offsets[s];
      replays += rows > 1 && rows % kPageTokens == 0 ? 1 : 0;
    }
    CHECK(replays <= 1);
  }
  CHECK(order == std::vector{shortest, middle, longest});
  server.Run();
}

TEST_CASE("a token between losses clears a request", "[scheduler][recovery]") {
  Server server;
  const RequestId id = server.Admit(Ask(Prompt(20), 40));
  for (int i = 0; i < 10; ++i) {
    server.Step();
    CHECK(LoseStep(server).empty());
  }
  server.Run();
  CHECK(server.tokens[{id, 0}] == AloneTokens(Ask(Prompt(20), 40), 0, 1, 512));
}

}  // namespace
}  // namespace neurogrid
