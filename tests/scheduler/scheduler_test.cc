// What the scheduler promises, one sentence each; its chain is the hash chain.
#include "coordinator/scheduler.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <map>
#include <numeric>
#include <vector>

#include "scheduler_server.h"

namespace neurogrid {
namespace {

TEST_CASE("a request ends with its last token, its reason and its usage", "[scheduler]") {
  Server server;
  GenerationRequest asked = Ask(Prompt(20), 6);
  SECTION("at max_tokens") {
    const RequestId id = server.Admit(asked);
    server.Run();
    CHECK(server.tokens[{id, 0}] == AloneTokens(asked, 0, 1, 512));
    CHECK(server.all.back().finish == FinishReason::kLength);
    CHECK(server.all.back().stop_reason == Json("max_tokens"));
    REQUIRE(server.all.back().usage.has_value());
    CHECK(server.all.back().usage->prompt_tokens == 20);
    CHECK(server.all.back().usage->completion_tokens == 6);
  }
  const std::vector<int32_t> alone = AloneTokens(asked, 0, 1, 512);
  SECTION("at an end id, with no reason to tell") {
    asked.end_ids = {alone[2]};
    server.Admit(asked);
    server.Run();
    CHECK(server.all.back().finish == FinishReason::kStop);
    CHECK(server.all.back().stop_reason.is_null());
    CHECK(server.all.back().token->id == alone[2]);
  }
  SECTION("at a stop id, which is told; it wins over the length on the same token") {
    asked.stop_ids = {alone[5]};
    server.Admit(asked);
    server.Run();
    CHECK(server.all.back().finish == FinishReason::kStop);
    CHECK(server.all.back().stop_reason == Json(alone[5]));
  }
  SECTION("at the end of the context") {
    asked.prompts[0] = Prompt(509);
    asked.tokens_max = 100;
    server.Admit(asked);
    server.Run();
    CHECK(server.all.back().stop_reason == Json("context_length"));
    CHECK(server.all.back().usage->completion_tokens == 3);
  }
  SECTION("at a stop string that the caller found") {
    const RequestId id = server.Admit(asked);
    server.Step();
    const std::optional<GenerationUsage> usage = server.scheduler.Finish(id, 0, server.now);
    REQUIRE(usage.has_value());
    CHECK(usage->completion_tokens == 1);
    CHECK(!server.Step());
    CHECK(server.scheduler.idle());
  }
}

TEST_CASE("with max_tokens 0 the prompt is computed and nothing is drawn", "[scheduler]") {
  Server server;
  GenerationRequest asked = Ask(Prompt(40), 0);
  asked.n = 2;
  server.Admit(asked);
  server.Run();
  CHECK(server.tokens.empty());
  REQUIRE(server.all.size() == 2);
  CHECK(server.all[1].finish == FinishReason::kLength);
  CHECK(server.all[1].usage->completion_tokens == 0);
  CHECK(server.RowsComputed() == 40);
}

TEST_CASE("end and stop ids are masked until min_tokens, end ids always with ignore_eos",
          "[scheduler]") {
  Server server;
  GenerationRequest asked = Ask(Prompt(5), 4);
  asked.end_ids = {3};
  asked.stop_ids = {4};
  asked.tokens_min = 2;
  asked.ignore_eos = GENERATE(false, true);
  server.Admit(asked);
  server.Run();
  std::vector<std::vector<int32_t>> banned;
  for (const Batch& batch : server.batches) banned.push_back(batch.sampling.at(0).banned);
  CHECK(banned[0] == std::vector<int32_t>{3, 4});
  CHECK(banned[1] == std::vector<int32_t>{3, 4});
  CHECK(banned[2] == (asked.ignore_eos ? std::vector<int32_t>{3} : std::vector<int32_t>{}));
}

TEST_CASE("choices share the prompt's full pages and draw with their own seeds", "[scheduler]") {
  Server server;
  GenerationRequest asked = Ask(Prompt(100), 5);
  asked.n = 4;
  asked.use_cache = GENERATE(true, false);
  const RequestId id = server.Admit(asked);
  server.Run();
  for (int choice = 0; choice < 4; ++choice) {
    CHECK(server.tokens[{id, choice}] == AloneTokens(asked, choice, 1, 512));
  }
  // The prompt once, its last 4 tokens again for three choices, 4 decodes each.
  CHECK(server.RowsComputed() == 100 + 3 * 4 + 4 * 4);
  CHECK((server.scheduler.stats().pages.cached > 0) == asked.use_cache);
}

TEST_CASE("the choices of a prompt survive the one that was computing it", "[scheduler]") {
  Server server;
  GenerationRequest asked = Ask(Prompt(400), 3);
  asked.n = 3;
  const RequestId id = server.Admit(asked);
  const bool begun = GENERATE(false, true);
  if (begun) server.Step();
  CHECK(!server.scheduler.Finish(id, 0, server.now).has_value());
  server.Run();
  for (int choice = 1; choice < 3; ++choice) {
    CHECK(server.tokens[{id, choice}] == AloneTokens(asked, choice, 1, 512));
  }
}

TEST_CASE("a prompt seen before costs its last token and what is new", "[scheduler][R50]") {
  Server server;
  GenerationRequest asked = Ask(Prompt(64), 1);
  asked.tenant = "a";
  server.Admit(asked);
  server.Run();
  const int before = server.RowsComputed();
  SECTION("the last page is computed again, since its last token is") {
    server.Admit(asked);
    server.Run();
    CHECK(server.RowsComputed() - before == 16);
    CHECK(server.all.back().usage->cached_tokens == 48);
    CHECK(server.scheduler.stats().prefix_hits == 48);
  }
  SECTION("also as the beginning of a longer one") {
    for (const int32_t id : Prompt(10, 30)) asked.prompts[0].push_back(id);
    server.Admit(asked);
    server.Run();
    CHECK(server.RowsComputed() - before == 10);
  }
  SECTION("but not for another tenant") { asked.tenant = "b"; }
  SECTION("not under another salt") { asked.cache_salt = "s"; }
  SECTION("not without the cache") { asked.use_cache = false; }
  SECTION("and not when its logprobs are asked for") { asked.echo_logprobs = true; }
  server.Admit(asked);
  const int rows = server.RowsComputed();
  server.Run();
  const bool cold =
      asked.tenant == "b" || !asked.cache_salt.empty() || !asked.use_cache || asked.echo_logprobs;
  if (cold) CHECK(server.RowsComputed() - rows == 64);
}

TEST_CASE("many equal requests cost less the second time", "[scheduler]") {
  const bool recurrent = GENERATE(false, true);
  SchedulerOptions options = Options(/*pages=*/192);
  if (recurrent) options.limits.slots = 96;
  Server server(options);
  const auto rows_of_a_round = [&] {
    server.batches.clear();
    for (int i = 0; i < 48; ++i) server.Admit(Ask(Prompt(40), 24));
    server.Run();
    return server.RowsComputed();
  };
  const int first = rows_of_a_round();
  // All but the last page of each prompt is known, though the answers took every page meanwhile.
  const int known = 48 * (8 + 23);
  CHECK(first > known);
  CHECK(rows_of_a_round() == known);
  CHECK(rows_of_a_round() == known);
  CHECK(server.scheduler.stats().preemptions == 0);
}

TEST_CASE("prompt logprobs come once for each choice, over several chunks", "[scheduler]") {
  Server server;
  GenerationRequest asked = Ask(Prompt(150), 2);
  asked.echo_logprobs = true;
  asked.n = 2;
  server.Admit(asked);
  server.Run();
  int told = 0;
  for (const SchedulerEvent& event : server.all) {
    if (event.prompt.empty()) continue;
    ++told;
    std::vector<float> scores;
    for (const GeneratedToken& token : event.prompt) scores.push_back(token.logprob);
    CHECK(scores == AlonePromptScores(asked.prompts[0], 1));
    CHECK(event.prompt[0].id == asked.prompts[0][1]);
  }
  CHECK(told == 2);
}

TEST_CASE("a row without numbers ends its own request alone", "[scheduler][R34]") {
  Server server;
  const RequestId poison = server.Admit(Ask(Prompt(10), 5));
  const RequestId other = server.Admit(Ask(Prompt(12, 9), 5));
  std::optional<SchedulerStep> step = server.scheduler.NextStep(server.now);
  std::vector<SampledToken> sampled(2);
  sampled[0].failed = true;
  sampled[1].token = 1;
  const auto events = server.scheduler.Commit(step->id, sampled, server.now);
  REQUIRE(events->size() == 2);
  CHECK((*events)[0].request == poison);
  CHECK((*events)[0].error.code() == absl::StatusCode::kInternal);
  CHECK((*events)[1].token->id == 1);
  CHECK(server.scheduler.requests() == std::vector<RequestId>{other});
}

TEST_CASE("a step that failed ends the requests in it, the rest goes on", "[scheduler]") {
  SchedulerOptions options = Options();
  options.steps_in_flight = 2;
  Server server(options);
  const RequestId first = server.Admit(Ask(Prompt(10), 2));
  std::optional<SchedulerStep> step = server.scheduler.NextStep(server.now);
  const GenerationRequest asked = Ask(Prompt(10, 5), 2);
  const RequestId second = server.Admit(asked);
  const auto events =
      server.scheduler.FailStep(step->id, absl::InternalError("a stage said no"), server.now);
  REQUIRE(events->size() == 1);
  CHECK((*events)[0].request == first);
  CHECK(!server.scheduler.FailStep(step->id, absl::InternalError("again"), server.now).ok());
  server.Run();
  CHECK(server.tokens[{second, 0}] == AloneTokens(asked, 0, 1, 512));
}

TEST_CASE("a result that cannot be is refused and changes nothing", "[scheduler]") {
  Server server;
  server.Admit(Ask(Prompt(10), 5));
  std::optional<SchedulerStep> step = server.scheduler.NextStep(server.now);
  SampledToken fine;
  SampledToken strange;
  strange.token = kHashVocab;
  SampledToken strange_top;
  strange_top.top = {{-1, 0.0f}};
  const auto commit = [&](uint64_t id, std::vector<SampledToken> sampled) {
    return server.scheduler.Commit(id, sampled, server.now).status().code();
  };
  CHECK(commit(step->id + 1, {fine}) == absl::StatusCode::kInvalidArgument);
  CHECK(commit(step->id, {}) == absl::StatusCode::kInvalidArgument);
  CHECK(commit(step->id, {fine, fine}) == absl::StatusCode::kInvalidArgument);
  CHECK(commit(step->id, {strange}) == absl::StatusCode::kInvalidArgument);
  CHECK(commit(step->id, {strange_top}) == absl::StatusCode::kInvalidArgument);
  CHECK(commit(step->id, {fine}) == absl::StatusCode::kOk);
  CHECK(commit(step->id, {fine}) == absl::StatusCode::kInvalidArgument);
}

TEST_CASE("a cancelled request's pages come back with its step", "[scheduler]") {
  Server server;
  const RequestId id = server.Admit(Ask(Prompt(40), 5));
  std::optional<SchedulerStep> step = server.scheduler.NextStep(server.now);
  server.scheduler.Cancel(id);
  CHECK(server.scheduler.requests().empty());
  CHECK(!server.scheduler.progress(id).has_value());
  CHECK(server.scheduler.stats().pages.free == 64 - 3);
  CHECK(!server.scheduler.idle());
  const auto events = server.scheduler.Commit(step->id, std::vector<SampledToken>(1), server.now);
  CHECK(events->empty());
  CHECK(server.scheduler.stats().pages.free == 64);
  CHECK(server.scheduler.idle());
}

TEST_CASE("what does not fit is refused with the numbers", "[scheduler]") {
  SchedulerOptions options = Options();
  options.queued_requests_max = 3;
  options.queued_tokens_max = 250;
  options.tenant_queued_max = 2;
  Server server(options);
  SECTION("a prompt beyond the context") {
    const auto refusal = server.Refused(Ask(Prompt(512), 5));
    REQUIRE(refusal.has_value());
    CHECK(refusal->kind == Refusal::Kind::kTooLong);
    CHECK(refusal->message ==
          "This model's maximum context length is 512 tokens, but the prompt has 512.");
    CHECK(server.Refused(Ask({}, 5)).has_value());
  }
  SECTION("or beyond what the page pool can ever hold") {
    options.limits.pages = 4;
    Server small(options);
    CHECK(small.scheduler.context_tokens_max() == 64);
    CHECK(small.Refused(Ask(Prompt(64), 1)).has_value());
    CHECK(!small.Refused(Ask(Prompt(63), 1)).has_value());
  }
  SECTION("a request too many") {
    for (int i = 0; i < 3; ++i) server.Admit(Ask(Prompt(5), 5));
    const auto refusal = server.Refused(Ask(Prompt(5), 5));
    REQUIRE(refusal.has_value());
    CHECK(refusal->kind == Refusal::Kind::kQueueFull);
    CHECK(refusal->retry_after_s >= 1);
    CHECK(refusal->retry_after_s <= 120);
    server.Step();
    CHECK(!server.Refused(Ask(Prompt(5), 5)).has_value());
  }
  SECTION("tokens too many, though a single request always fits") {
    server.Admit(Ask(Prompt(300), 5));
    CHECK(server.Refused(Ask(Prompt(5), 5))->kind == Refusal::Kind::kQueueFull);
  }
  SECTION("a tenant's request too many") {
    GenerationRequest asked = Ask(Prompt(5), 5);
    asked.tenant = "a";
    for (int i = 0; i < 2; ++i) server.Admit(asked);
    CHECK(server.Refused(asked)->kind == Refusal::Kind::kRateLimited);
    asked.tenant = "b";
    CHECK(!server.Refused(asked).has_value());
  }
}

TEST_CASE("Retry-After follows the pace at which the queue drains", "[scheduler]") {
  SchedulerOptions options = Options();
  options.running_max = 1;
  Server server(options);
  for (int i = 0; i < 200; ++i) server.Admit(Ask(Prompt(5), 1));
  for (int i = 0; i < 50; ++i) {
    server.now += std::chrono::milliseconds(400);
    server.Step();
  }
  // 150 wait, one leaves each 0.4 s: half of them are gone in 30 s.
  CHECK(server.scheduler.retry_after_s(server.now) > 25);
  CHECK(server.scheduler.retry_after_s(server.now) < 35);
}

TEST_CASE("time limits end a request wherever it is", "[scheduler]") {
  SchedulerOptions options = Options();
  options.queue_wait_max = absl::Seconds(60);
  options.running_max = 1;
  Server server(options);
  GenerationRequest asked = Ask(Prompt(5), 100);
  asked.timeout = absl::Seconds(10);
  const RequestId running = server.Admit(asked);
  server.Step();
  const RequestId queued = server.Admit(Ask(Prompt(5), 100));
  CHECK(server.scheduler.Expire(server.now).empty());
  CHECK(server.scheduler.next_expiry() <= server.now + std::chrono::seconds(10));
  server.now += std::chrono::seconds(10);
  std::vector<SchedulerEvent> events = server.scheduler.Expire(server.now);
  REQUIRE(events.size() == 1);
  CHECK(events[0].request == running);
  CHECK(events[0].error ==
        absl::DeadlineExceededError("The request's timeout of 10000 ms is over."));
  server.now += std::chrono::seconds(50);
  events = server.scheduler.Expire(server.now);
  REQUIRE(events.size() == 1);
  CHECK(events[0].request == queued);
  CHECK(events[0].error ==
        absl::ResourceExhaustedError("The queue is full: no place within 60000 ms."));
  CHECK(server.scheduler.idle());
  CHECK(!server.scheduler.next_expiry().has_value());
}

TEST_CASE("a paused request stands still and goes on where it was", "[scheduler]") {
  Server server;
  const GenerationRequest asked = Ask(Prompt(20), 5);
  const RequestId id = server.Admit(asked);
  server.Step();
  server.scheduler.Pause(id, true);
  CHECK(!server.Step());
  server.scheduler.Pause(id, false);
  server.Run();
  CHECK(server.tokens[{id, 0}] == AloneTokens(asked, 0, 1, 512));
}

TEST_CASE("progress goes from the queue over the prompt to the output", "[scheduler]") {
  SchedulerOptions options = Options();
  options.running_max = 1;
  Server server(options);
  const RequestId first = server.Admit(Ask(Prompt(300), 5));
  const RequestId second = server.Admit(Ask(Prompt(10), 5));
  CHECK(server.scheduler.progress(second)->state == Generation::State::kQueued);
  CHECK(server.scheduler.progress(second)->queue_position == 1);
  server.Step();
  CHECK(server.scheduler.progress(first)->state == Generation::State::kPrefill);
  CHECK(server.scheduler.progress(first)->prefill_done == 256);
  CHECK(server.scheduler.progress(first)->prefill_total == 300);
  CHECK(server.scheduler.progress(second)->queue_position == 0);
  CHECK(server.scheduler.stats().waiting_tokens == 10);
  server.Step();
  CHECK(server.scheduler.progress(first)->state == Generation::State::kDecode);
}

TEST_CASE("with several stages decodes go round in equal groups", "[scheduler]") {
  SchedulerOptions options = Options();
  options.stages = 2;
  Server server(options);
  for (int i = 0; i < 6; ++i) server.Admit(Ask(Prompt(4, i), 10));
  server.Step();
  const auto first = server.scheduler.NextStep(server.now);
  const auto second = server.scheduler.NextStep(server.now);
  REQUIRE(first.has_value());
  REQUIRE(second.has_value());
  CHECK(first->batch.rows() == 3);
  CHECK(second->batch.rows() == 3);
  CHECK(!server.scheduler.NextStep(server.now).has_value());
}

}  // namespace
}  // namespace neurogrid
