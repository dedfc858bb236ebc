// A scheduler whose next step goes out before the tokens of the one in flight are told, over the
// hash chain: to a reader the same tokens and ends, with the chain never idle.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "scheduler_server.h"

namespace neurogrid {
namespace {

SchedulerOptions Ahead(bool recurrent, int pages = 64) {
  SchedulerOptions options = Options(pages);
  options.ahead = true;
  if (recurrent) options.limits.slots = 16;
  return options;
}

std::vector<int32_t> Alone(const GenerationRequest& asked, bool recurrent = false) {
  return AloneTokens(asked, 0, 1, 512, {.recurrent = recurrent});
}

/// A server that keeps as many steps in flight as the scheduler gives.
struct AheadServer : Server {
  using Server::Server;

  /// Sends what there is to send; how many steps are in flight then.
  int Fill() {
    while (std::optional<SchedulerStep> step = scheduler.NextStep(now)) {
      batches.push_back(step->batch);
      chain.Send(*std::move(step));
    }
    return chain.in_flight();
  }
  void CommitOldest() {
    chain.TurnAll();
    HashChain::Result result;
    REQUIRE(chain.Receive(result));
    Commit(result);
  }
  void RunToTokens(RequestId id, size_t count) {
    while (tokens[{id, 0}].size() < count) {
      REQUIRE(Fill() > 0);
      CommitOldest();
    }
  }
  void RunAhead() {
    while (Fill() > 0) CommitOldest();
    Run();
  }
};

bool IsAhead(const Batch& batch) { return batch.tokens.front() < 0; }

TEST_CASE("a second step is always under way while a sequence decodes", "[ahead]") {
  const bool recurrent = GENERATE(false, true);
  AheadServer server(Ahead(recurrent));
  const GenerationRequest asked = Ask(Prompt(12), 100);
  const RequestId id = server.Admit(asked);
  for (int token = 1; token < 100; ++token) {
    CHECK(server.Fill() == 2);
    server.CommitOldest();
  }
  CHECK(server.Fill() == 1);  // the last one is known to be it
  server.RunAhead();
  CHECK(server.tokens[{id, 0}] == Alone(asked, recurrent));
  CHECK(server.all.back().finish == FinishReason::kLength);
  CHECK(server.all.back().usage->completion_tokens == 100);
  CHECK(server.batches.size() == 100);
  CHECK_FALSE(IsAhead(server.batches[0]));
  CHECK(std::all_of(server.batches.begin() + 1, server.batches.end(), IsAhead));
}

TEST_CASE("a step behind the end of a text leaves no trace", "[ahead]") {
  const bool recurrent = GENERATE(false, true);
  const bool asked_for = GENERATE(false, true);
  AheadServer server(Ahead(recurrent));
  GenerationRequest asked = Ask(Prompt(12), 200);
  // The first token that is new after 30 others ends the text.
  const std::vector<int32_t> text = Alone(asked, recurrent);
  auto at = text.begin() + 30;
  while (std::find(text.begin(), at, *at) != at) ++at;
  const int32_t end = *at;
  (asked_for ? asked.stop_ids : asked.end_ids) = {end};
  const std::vector<int32_t> expected = Alone(asked, recurrent);
  REQUIRE(expected.back() == end);
  const RequestId id = server.Admit(asked);
  server.RunAhead();  // checks that everything came back
  CHECK(server.tokens[{id, 0}] == expected);
  CHECK(server.all.back().finish == FinishReason::kStop);
  CHECK(server.batches.size() == expected.size() + 1);
  // Whoever goes on from the cached prefix finds what it says.
  std::vector<int32_t> longer = asked.prompts[0];
  longer.insert(longer.end(), expected.begin(), expected.end());
  const GenerationRequest second = Ask(longer, 20);
  const RequestId next = server.Admit(second);
  server.RunAhead();
  CHECK(server.tokens[{next, 0}] == Alone(second, recurrent));
  CHECK(server.scheduler.stats().prefix_hits > 0);
}

TEST_CASE("a stop string or a cancel drops the step that is ahead", "[ahead]") {
  const bool recurrent = GENERATE(false, true);
  const bool cancelled = GENERATE(false, true);
  AheadServer server(Ahead(recurrent));
  const GenerationRequest asked = Ask(Prompt(20), 200);
  const RequestId id = server.Admit(asked);
  server.RunToTokens(id, 30);
  CHECK(server.Fill() == 2);
  server.CommitOldest();
  if (cancelled) {
    server.scheduler.Cancel(id);
  } else {
    const auto usage = server.scheduler.Finish(id, 0, server.now);
    REQUIRE(usage.has_value());
    CHECK(usage->completion_tokens == 31);
  }
  CHECK(server.Fill() == 1);
  server.RunAhead();
  CHECK(server.tokens[{id, 0}].size() == 31);
  CHECK(server.scheduler.stats().generated_tokens == 31);
}

TEST_CASE("sequences come and go beside others that stay ahead", "[ahead]") {
  const bool recurrent = GENERATE(false, true);
  AheadServer server(Ahead(recurrent));
  std::vector<GenerationRequest> asked;
  for (int i = 0; i < 4; ++i) {
    asked.push_back(Ask(Prompt(10 + i, i), 20 + 17 * i));
    asked.back().sampling.seed = static_cast<uint64_t>(i);
  }
  std::vector<RequestId> ids;
  for (int i = 0; i < 3; ++i) ids.push_back(server.Admit(asked[static_cast<size_t>(i)]));
  server.RunToTokens(ids[0], 10);
  CHECK(server.Fill() == 2);
  ids.push_back(server.Admit(asked[3]));  // its prompt waits for what is under way
  server.CommitOldest();
  CHECK(server.Fill() == 1);
  server.CommitOldest();
  REQUIRE(server.Fill() == 2);  // one with the prompt, one ahead with all four
  CHECK(server.batches.back().rows() == 4);
  CHECK(IsAhead(server.batches.back()));
  server.RunAhead();
  for (size_t i = 0; i < ids.size(); ++i) {
    CAPTURE(i);
    CHECK(server.tokens[{ids[i], 0}] == Alone(asked[i], recurrent));
  }
}

TEST_CASE("one that ends leaves the others their places in the step before", "[ahead]") {
  AheadServer server(Ahead(false));
  GenerationRequest first = Ask(Prompt(5), 100);
  GenerationRequest second = Ask(Prompt(9, 3), 100);
  first.end_ids = {Alone(first)[7]};
  const RequestId a = server.Admit(first);
  const RequestId b = server.Admit(second);
  server.RunAhead();
  CHECK(server.tokens[{a, 0}] == Alone(first));
  CHECK(server.tokens[{b, 0}] == Alone(second));
}

TEST_CASE("what depends on the token itself waits for it", "[ahead]") {
  AheadServer server(Ahead(false));
  GenerationRequest asked = Ask(Prompt(20), 40);
  bool forced = false;
  SECTION("penalties") { asked.sampling.repetition_penalty = 1.1f; }
  SECTION("a budget of reasoning") { asked.reasoning_budget = 1000; }
  SECTION("tokens that are forced") { forced = true; }
  const RequestId id = server.Admit(asked);
  const std::vector<int32_t> given = Prompt(39, 5);
  if (forced) server.scheduler.Force(id, 0, given);
  for (int i = 0; i < 38; ++i) {
    CHECK(server.Fill() == 1);
    server.CommitOldest();
  }
  server.RunAhead();
  CHECK(server.tokens[{id, 0}] ==
        AloneTokens(asked, 0, 1, 512, {}, forced ? given : std::vector<int32_t>()));
}

TEST_CASE("a paused request is not ahead", "[ahead]") {
  AheadServer server(Ahead(false));
  const GenerationRequest asked = Ask(Prompt(20), 60);
  const RequestId id = server.Admit(asked);
  server.RunToTokens(id, 5);
  server.scheduler.Pause(id, true);
  while (server.Fill() > 0) server.CommitOldest();
  CHECK(server.tokens[{id, 0}].size() <= 7);
  server.scheduler.Pause(id, false);
  CHECK(server.Fill() == 2);
  server.RunAhead();
  CHECK(server.tokens[{id, 0}] == Alone(asked));
}

TEST_CASE("a paused reader keeps nobody else from going ahead", "[ahead]") {
  const bool recurrent = GENERATE(false, true);
  AheadServer server(Ahead(recurrent));
  const RequestId a = server.Admit(Ask(Prompt(5), 200));
  const RequestId b = server.Admit(Ask(Prompt(9, 3), 200));
  server.RunToTokens(a, 5);
  server.scheduler.Pause(b, true);
  for (int i = 0; i < 20; ++i) {
    CHECK(server.Fill() == 2);
    server.CommitOldest();
  }
  CHECK(server.tokens[{b, 0}].size() <= 7);
  CHECK(IsAhead(server.batches.back()));
  CHECK(server.batches.back().rows() == 1);
  server.scheduler.Pause(b, false);
  server.RunAhead();
  CHECK(server.tokens[{a, 0}] == Alone(Ask(Prompt(5), 200), recurrent));
  CHECK(server.tokens[{b, 0}] == Alone(Ask(Prompt(9, 3), 200), recurrent));
}

TEST_CASE("a request that cannot start yet keeps nobody from going ahead", "[ahead]") {
  SchedulerOptions options = Ahead(false, 16);
  std::vector<int32_t> prompt = Prompt(9, 3);
  SECTION("for want of a place") { options.running_max = 1; }
  SECTION("for want of pages") { prompt = Prompt(200, 3); }
  SECTION("since its reader is paused") { options.running_max = 2; }
  AheadServer server(options);
  const GenerationRequest first = Ask(Prompt(65), 100);
  const RequestId a = server.Admit(first);
  server.RunToTokens(a, 1);
  const RequestId b = server.Admit(Ask(prompt, 20));
  if (options.running_max == 2) server.scheduler.Pause(b, true);
  for (int i = 0; i < 50; ++i) {
    CHECK(server.Fill() == 2);
    server.CommitOldest();
  }
  CHECK(server.tokens[{b, 0}].empty());
  server.scheduler.Pause(b, false);
  server.RunAhead();
  CHECK(server.tokens[{a, 0}] == Alone(first));
  CHECK(server.tokens[{b, 0}] == Alone(Ask(prompt, 20)));
}

TEST_CASE("a request that can start waits for no more than the steps under way", "[ahead]") {
  AheadServer server(Ahead(false));
  const RequestId a = server.Admit(Ask(Prompt(5), 100));
  server.RunToTokens(a, 5);
  CHECK(server.Fill() == 2);
  const RequestId b = server.Admit(Ask(Prompt(9, 3), 20));
  server.CommitOldest();
  CHECK(server.Fill() == 1);
  server.CommitOldest();
  CHECK(server.Fill() == 2);
  server.CommitOldest();
  CHECK(server.tokens[{b, 0}].size() == 1);
}

TEST_CASE("one whose last token is under way is left out of the step ahead", "[ahead]") {
  AheadServer server(Ahead(false));
  const RequestId a = server.Admit(Ask(Prompt(5), 10));
  const RequestId b = server.Admit(Ask(Prompt(9, 3), 100));
  for (int token = 1; token < 100; ++token) {
    CHECK(server.Fill() == 2);
    CHECK(server.batches.back().rows() == (token < 10 ? 2 : 1));
    server.CommitOldest();
  }
  server.RunAhead();
  CHECK(server.batches.size() == 100);
  CHECK(server.tokens[{a, 0}] == Alone(Ask(Prompt(5), 10)));
  CHECK(server.tokens[{b, 0}] == Alone(Ask(Prompt(9, 3), 100)));
}

TEST_CASE("whoever may go on again has its turn beside one that was ahead", "[ahead]") {
  AheadServer server(Ahead(false));
  const RequestId a = server.Admit(Ask(Prompt(5), 200));
  const RequestId b = server.Admit(Ask(Prompt(9, 3), 200));
  server.RunToTokens(a, 5);
  server.scheduler.Pause(b, true);
  server.RunToTokens(a, 20);
  const size_t before = server.tokens[{b, 0}].size();
  server.scheduler.Pause(b, false);
  server.RunToTokens(a, 25);
  CHECK(server.tokens[{b, 0}].size() > before);
  server.RunAhead();
  CHECK(server.tokens[{b, 0}] == Alone(Ask(Prompt(9, 3), 200)));
}

TEST_CASE("others stay ahead when one ends", "[ahead]") {
  AheadServer server(Ahead(false));
  GenerationRequest first = Ask(Prompt(5), 100);
  first.end_ids = {Alone(first)[7]};
  const RequestId a = server.Admit(first);
  const RequestId b = server.Admit(Ask(Prompt(9, 3), 100));
  server.RunToTokens(a, Alone(first).size());
  for (int i = 0; i < 10; ++i) {
    CHECK(server.Fill() == 2);
    server.CommitOldest();
  }
  server.RunAhead();
  CHECK(server.tokens[{b, 0}].size() == 100);
}

TEST_CASE("steps stay ahead until the last page and go on without", "[ahead]") {
  const int pages = GENERATE(range(5, 9));
  AheadServer server(Ahead(false, pages));
  std::vector<GenerationRequest> asked = {Ask(Prompt(20), 40), Ask(Prompt(21, 4), 40)};
  std::vector<RequestId> ids;
  for (const GenerationRequest& request : asked) ids.push_back(server.Admit(request));
  server.RunAhead();
  for (size_t i = 0; i < ids.size(); ++i) CHECK(server.tokens[{ids[i], 0}] == Alone(asked[i]));
}

TEST_CASE("a step that fails ends its requests, and the one ahead of it changes nothing",
          "[ahead]") {
  AheadServer server(Ahead(false));
  const RequestId id = server.Admit(Ask(Prompt(20), 60));
  server.RunToTokens(id, 5);
  REQUIRE(server.Fill() == 2);
  server.chain.TurnAll();
  HashChain::Result result;
  REQUIRE(server.chain.Receive(result));
  const auto failed =
      server.scheduler.FailStep(result.step, absl::InternalError("a stage failed"), server.now);
  REQUIRE(failed.ok());
  CHECK(failed->size() == 1);
  server.RunAhead();
  CHECK(server.tokens[{id, 0}].size() == 5);
}

}  // namespace
}  // namespace neurogrid
