// A scheduler that runs guesses, over the hash chain: fewer steps, and to a reader the same events.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "scheduler_server.h"

namespace neurogrid {
namespace {

SchedulerOptions Guessing(bool recurrent = false) {
  SchedulerOptions options = Options();
  options.speculates = true;
  if (recurrent) options.limits.slots = 16;
  return options;
}

/// An answer that repeats itself.
GenerationRequest AskForCopies(int64_t tokens_max) {
  GenerationRequest asked = Ask(Prompt(20), tokens_max);
  asked.sampling.temperature = 0;
  return asked;
}

std::vector<int32_t> Alone(const GenerationRequest& asked, bool recurrent = false,
                           const std::vector<int32_t>& forced = {}) {
  return AloneTokens(asked, 0, 1, 512, {.recurrent = recurrent}, forced);
}

TEST_CASE("a text that repeats itself takes far fewer steps than tokens", "[speculation]") {
  const bool recurrent = GENERATE(false, true);
  CAPTURE(recurrent);
  Server server(Guessing(recurrent));
  const GenerationRequest asked = AskForCopies(200);
  const RequestId id = server.Admit(asked);
  server.Run();
  CHECK(server.tokens[{id, 0}] == Alone(asked, recurrent));
  CHECK(server.batches.size() < 120);
  const SchedulerStats stats = server.scheduler.stats();
  CHECK(stats.generated_tokens == 200);
  CHECK(stats.drafted_tokens > stats.accepted_tokens);
  // Each token came of a step of its own or of a guess; the first step drew behind the prompt.
  CHECK(stats.accepted_tokens >= 200 - static_cast<int64_t>(server.batches.size()));
  CHECK(server.all.back().usage->completion_tokens == 200);
}

TEST_CASE("where first steps of guesses are slow they are paid for before the next ones are tried",
          "[speculation]") {
  const auto guessing_steps = [](int guess_ms) {
    SchedulerOptions options = Guessing();
    options.first_slow = 2;
    Server server(options);
    const GenerationRequest asked = AskForCopies(200);
    const RequestId id = server.Admit(asked);
    int guessing = 0;
    while (std::optional<SchedulerStep> step = server.scheduler.NextStep(server.now)) {
      const bool guesses = step->batch.rows() > 1 && step->batch.samples() > 1;
      guessing += guesses ? 1 : 0;
      server.now += std::chrono::milliseconds(guesses ? guess_ms : 10);
      server.Commit(server.Through(*std::move(step)));
    }
    CHECK(server.tokens[{id, 0}] == Alone(asked));
    return guessing;
  };
  CHECK(guessing_steps(10) > 10);
  CHECK(guessing_steps(300) == 1);
}

TEST_CASE("steps that something else held up do not end guessing", "[speculation]") {
  const auto steps_for = [](int held_up_ms) {
    SchedulerOptions options = Guessing();
    options.first_slow = 2;
    options.limits.pages = 128;
    options.limits.positions_max = 2000;
    Server server(options);
    const GenerationRequest asked = AskForCopies(1500);
    const RequestId id = server.Admit(asked);
    int steps = 0, guessing = 0;
    while (std::optional<SchedulerStep> step = server.scheduler.NextStep(server.now)) {
      const bool guesses = step->batch.rows() > 1 && step->batch.samples() > 1;
      guessing += guesses ? 1 : 0;
      const bool held_up = guesses && guessing > 100 && guessing % 40 == 0;
      server.now += std::chrono::milliseconds(held_up ? held_up_ms : guesses ? 11 : 10);
      server.Commit(server.Through(*std::move(step)));
      ++steps;
    }
    CHECK(server.tokens[{id, 0}].size() == 1500);
    return steps;
  };
  const int undisturbed = steps_for(11);
  CHECK(undisturbed < 800);
  CHECK(steps_for(300) < undisturbed * 9 / 8);
}

TEST_CASE("an answer never outgrows its limit by guesses", "[speculation]") {
  const auto tokens_max = GENERATE(range(20, 40));
  Server server(Guessing());
  const RequestId id = server.Admit(AskForCopies(tokens_max));
  server.Run();
  CHECK(server.tokens[{id, 0}] == Alone(AskForCopies(tokens_max)));
  CHECK(server.all.back().finish == FinishReason::kLength);
  for (const Batch& batch : server.batches) {
    CHECK(batch.positions.back() + 1 < 20 + tokens_max);
  }
}

/// Runs to where More has something to tell.
SchedulerEvent RunToGuessed(Server& server) {
  while (true) {
    std::optional<SchedulerStep> step = server.scheduler.NextStep(server.now);
    REQUIRE(step.has_value());
    const HashChain::Result result = server.Through(*std::move(step));
    server.Take(server.scheduler.Commit(result.step, result.sampled, server.now).value());
    const std::vector<SchedulerEvent> more = server.scheduler.More(server.now);
    server.Take(more);
    if (!more.empty()) return more.front();
  }
}

TEST_CASE("a text that ends between two tokens of one step ends there", "[speculation]") {
  const bool recurrent = GENERATE(false, true);
  Server server(Guessing(recurrent));
  const RequestId id = server.Admit(AskForCopies(100));
  RunToGuessed(server);
  const size_t before = server.tokens[{id, 0}].size();
  const auto usage = server.scheduler.Finish(id, 0, server.now);
  REQUIRE(usage.has_value());
  CHECK(usage->completion_tokens == static_cast<int64_t>(before));
  CHECK(server.scheduler.More(server.now).empty());
  server.Run();
  CHECK(server.tokens[{id, 0}].size() == before);
}

TEST_CASE("what is forced between two tokens of one step comes next", "[speculation]") {
  const bool recurrent = GENERATE(false, true);
  CAPTURE(recurrent);
  Server server(Guessing(recurrent));
  const RequestId id = server.Admit(AskForCopies(100));
  RunToGuessed(server);
  std::vector<int32_t> expected = server.tokens[{id, 0}];
  expected.insert(expected.end(), {3, 4, 5});
  server.scheduler.Force(id, 0, std::vector<int32_t>{3, 4, 5});
  CHECK(server.scheduler.More(server.now).empty());
  server.Run();
  CHECK(server.tokens[{id, 0}] == Alone(AskForCopies(100), recurrent, expected));
}

TEST_CASE("an end token among right guesses ends the choice", "[speculation]") {
  Server server(Guessing());
  GenerationRequest asked = AskForCopies(200);
  asked.tokens_min = 60;  // long after it began to repeat itself
  asked.end_ids = {12};
  const RequestId id = server.Admit(asked);
  server.Run();
  CHECK(server.tokens[{id, 0}] == Alone(asked));
  CHECK(server.all.back().finish == FinishReason::kStop);
}

TEST_CASE("a row without numbers fails its request only when the text comes to it",
          "[speculation]") {
  const bool reached = GENERATE(false, true);
  CAPTURE(reached);
  Server server(Guessing());
  const RequestId id = server.Admit(AskForCopies(60));
  bool spoiled = false;
  while (std::optional<SchedulerStep> step = server.scheduler.NextStep(server.now)) {
    const std::vector<int32_t> tokens = step->batch.tokens;
    HashChain::Result result = server.Through(*std::move(step));
    size_t right = 0;  // guesses
    while (right + 1 < result.sampled.size() && result.sampled[right].token == tokens[right + 1]) {
      ++right;
    }
    const size_t at = reached ? right : right + 1;
    if (!spoiled && result.sampled.size() > 1 && at > 0 && at < result.sampled.size()) {
      spoiled = result.sampled[at].failed = true;
    }
    server.Commit(result);
  }
  REQUIRE(spoiled);
  CHECK(server.scheduler.idle());
  CHECK(server.all.back().error.ok() != reached);
  if (!reached) CHECK(server.tokens[{id, 0}] == Alone(AskForCopies(60)));
}

TEST_CASE("steps that take longer with more rows stop guessing", "[speculation]") {
  Server server(Guessing());
  server.Admit(AskForCopies(300));
  int drafts = 0;
  int steps = 0;
  while (std::optional<SchedulerStep> step = server.scheduler.NextStep(server.now)) {
    const int rows = step->batch.rows();
    if (++steps > 1) drafts += rows - 1;
    server.now += std::chrono::milliseconds(10 * rows);
    server.Commit(server.Through(*std::move(step)));
  }
  CHECK(server.all.back().finish.has_value());
  CHECK(drafts > 0);
  CHECK(drafts < 20);
}

/// What a step of so many rows takes, the last one's growth going on behind the end.
using StepMs = std::vector<double>;

double MsOf(const StepMs& ms, int rows) {
  const auto count = static_cast<int>(ms.size());
  if (rows <= count) return ms[static_cast<size_t>(rows - 1)];
  return ms.back() + (ms.back() - ms[ms.size() - 2]) * (rows - count);
}

/// What all answers together take where nothing but rows takes time, behind the prompts.
double MsFor(const std::vector<GenerationRequest>& asked, const StepMs& ms, bool guesses) {
  SchedulerOptions options = Options(1024);
  options.speculates = guesses;
  Server server(options);
  for (const GenerationRequest& request : asked) server.Admit(request);
  double sum = 0;
  while (std::optional<SchedulerStep> step = server.scheduler.NextStep(server.now)) {
    const double own = MsOf(ms, step->batch.rows());
    if (server.tokens.size() == asked.size()) sum += own;
    server.now += std::chrono::nanoseconds(static_cast<int64_t>(own * 1e6));
    server.Commit(server.Through(*std::move(step)));
  }
  return sum;
}

TEST_CASE("a text that never comes to what is guessed takes as long as without guesses",
          "[speculation]") {
  // Of SmolLM2-135M in Q4_1 on two cores of a Zen 4, then where rows cost nothing, a little, and
  // as much as the first.
  const StepMs ms =
      GENERATE(StepMs{24.5, 29, 34.2, 42.9, 46, 49.6, 57, 70.9, 86, 100, 112}, StepMs{10, 10},
               StepMs{10, 10.4, 10.8, 11.2, 11.2, 11.2, 14}, StepMs{10, 20});
  const int streams = GENERATE(1, 2, 4, 8);
  CAPTURE(ms, streams);
  std::vector<GenerationRequest> asked;
  for (int i = 0; i < streams; ++i) {
    // Drawn from so few tokens that every pair has stood before, and what follows is chance.
    asked.push_back(Ask(Prompt(20, i), 400));
    asked.back().sampling.seed = static_cast<uint64_t>(i);
  }
  CHECK(MsFor(asked, ms, true) <= 1.003 * MsFor(asked, ms, false));
}

}  // namespace
}  // namespace neurogrid
