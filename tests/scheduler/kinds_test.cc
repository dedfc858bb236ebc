// Pages that fall out of a window, and recurrent states in slots: what the scheduler promises of
// models that have them, one sentence each.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <vector>

#include "coordinator/window_pages.h"
#include "scheduler_server.h"

namespace neurogrid {
namespace {

/// Models with a window of 40 tokens on some layers (pages kept too) or on all of them.
SchedulerOptions Windowed(bool every_layer = false) {
  SchedulerOptions options = Options(every_layer ? 0 : 64);
  options.limits.rows_max = 64;
  options.limits.window = 40;
  options.limits.window_pages = 40;
  return options;
}

SchedulerOptions Recurrent(int slots = 16) {
  SchedulerOptions options = Options();
  options.limits.slots = slots;
  return options;
}

std::vector<int32_t> Alone(const Server& server, const GenerationRequest& asked, int choice = 0) {
  return AloneTokens(asked, choice, server.options.stages, 512, ShapeOf(server.options.limits));
}

/// Window pages that the sequences of a batch hold.
std::ptrdiff_t WindowPagesIn(const Batch& batch) {
  return std::count_if(batch.window_pages.begin(), batch.window_pages.end(),
                       [](int32_t page) { return page >= 0; });
}

TEST_CASE("a page that fell out of the window is given back while the sequence goes on",
          "[scheduler][windows]") {
  Server server(Windowed(GENERATE(false, true)));
  const GenerationRequest asked = Ask(Prompt(200), 250);
  const RequestId id = server.Admit(asked);
  server.Run();
  CHECK(server.tokens[{id, 0}] == Alone(server, asked));
  for (const Batch& batch : server.batches) {
    CHECK(WindowPagesIn(batch) <= WindowPagesMax(40, batch.rows()));
  }
  CHECK(server.batches.back().page_offsets.back() == PagesOf(449));
}

TEST_CASE("a model whose layers all have a window needs no other pages, however long the context",
          "[scheduler][windows]") {
  SchedulerOptions options = Windowed(true);
  options.limits.window_pages = static_cast<int>(WindowPagesMax(40, options.limits.rows_max));
  Server server(options);
  CHECK(server.scheduler.context_tokens_max() == 512);
  const GenerationRequest asked = Ask(Prompt(400), 100);
  const RequestId id = server.Admit(asked);
  server.Run();
  CHECK(server.tokens[{id, 0}] == Alone(server, asked));
  SECTION("and one page less than a window and a chunk take bounds the context") {
    --options.limits.window_pages;
    CHECK(Server(options).scheduler.context_tokens_max() == 16 * options.limits.window_pages);
  }
}

TEST_CASE("a prompt is found again through the pages that its next query sees",
          "[scheduler][windows]") {
  Server server(Windowed(GENERATE(false, true)));
  GenerationRequest asked = Ask(Prompt(200), 1);
  const RequestId first = server.Admit(asked);
  server.Run();
  const int rows = server.RowsComputed();
  // Takes the window pages that were given back first: those of the prompt's beginning.
  server.Admit(Ask(Prompt(16 * 30, 30), 1));
  server.Run();
  const int others = server.RowsComputed();
  const RequestId second = server.Admit(asked);
  server.Run();
  CHECK(server.RowsComputed() - others == 200 - 192);
  CHECK(server.tokens[{second, 0}] == server.tokens[{first, 0}]);
  CHECK(rows == 200);
}

TEST_CASE("choices start from the state before the last page of their prompt",
          "[scheduler][slots]") {
  Server server(Recurrent());
  GenerationRequest asked = Ask(Prompt(100), 5);
  asked.n = 4;
  asked.use_cache = GENERATE(true, false);
  const RequestId id = server.Admit(asked);
  server.Run();
  for (int choice = 0; choice < 4; ++choice) {
    CHECK(server.tokens[{id, choice}] == Alone(server, asked, choice));
  }
  CHECK(server.RowsComputed() == 100 + 3 * 4 + 4 * 4);
}

TEST_CASE("with too few slots choices wait and compute their prompt themselves",
          "[scheduler][slots]") {
  Server server(Recurrent(GENERATE(1, 2, 3)));
  GenerationRequest asked = Ask(Prompt(100), 5);
  asked.n = 4;
  const RequestId id = server.Admit(asked);
  server.Run();
  for (int choice = 0; choice < 4; ++choice) {
    CHECK(server.tokens[{id, choice}] == Alone(server, asked, choice));
  }
}

TEST_CASE("a prompt is found again where its state was saved", "[scheduler][slots]") {
  Server server(Recurrent());
  GenerationRequest asked = Ask(Prompt(64), 20);
  const RequestId first = server.Admit(asked);
  server.Run();
  const int before = server.RowsComputed();
  CHECK(before == 64 + 19);
  SECTION("so all but its last page need no computing") {
    const RequestId second = server.Admit(asked);
    server.Run();
    CHECK(server.RowsComputed() - before == 16 + 19);
    CHECK(server.all.back().usage->cached_tokens == 48);
    CHECK(server.tokens[{second, 0}] == server.tokens[{first, 0}]);
  }
  SECTION("also with its answer, as the next turn of a conversation brings it") {
    const std::vector<int32_t> answer = server.tokens[{first, 0}];
    asked.prompts[0].insert(asked.prompts[0].end(), answer.begin(), answer.end());
    const RequestId second = server.Admit(asked);
    server.Run();
    CHECK(server.RowsComputed() - before == 84 - 80 + 19);  // found at 80, in the answer
    CHECK(server.tokens[{second, 0}] == Alone(server, asked));
  }
  SECTION("but not where the pages are there without a state") {
    asked.prompts[0].resize(40);  // 32 tokens of it stand in pages, no chunk ended there
    server.Admit(asked);
    server.Run();
    CHECK(server.RowsComputed() - before == 40 + 19);
  }
  SECTION("two that find it at once go on from it in slots of their own") {
    const RequestId second = server.Admit(asked);
    asked.sampling.seed = 5;
    const RequestId third = server.Admit(asked);
    server.Run();
    CHECK(server.RowsComputed() - before == 2 * (16 + 19));
    CHECK(server.tokens[{second, 0}] == server.tokens[{first, 0}]);
    CHECK(server.tokens[{third, 0}] == Alone(server, asked));
  }
}

TEST_CASE("a saved state is kept while a step that reads it is under way", "[scheduler][slots]") {
  SchedulerOptions options = Recurrent(3);
  options.steps_in_flight = 4;
  Server server(options);
  const RequestId first = server.Admit(Ask(Prompt(64), 1));
  server.Run();
  const int32_t saved = server.batches.at(0).state_slots.at(0);
  server.Admit(Ask(Prompt(64), 1));
  const std::optional<SchedulerStep> reads = server.scheduler.NextStep(server.now);
  REQUIRE(reads.has_value());
  CHECK(reads->batch.state_sources == std::vector<int32_t>{saved});
  // Nothing that comes meanwhile is given the slot, also when its reader is gone.
  server.scheduler.Cancel(first + 1);
  for (int i = 0; i < 3; ++i) server.Admit(Ask(Prompt(20, 5 + i), 3));
  while (const auto step = server.scheduler.NextStep(server.now)) {
    for (const int32_t slot : step->batch.state_slots) CHECK(slot != saved);
  }
}

TEST_CASE("a state that its only holder cannot spare a slot for is written over",
          "[scheduler][slots]") {
  SchedulerOptions options = Recurrent(2);
  Server server(options);
  const GenerationRequest asked = Ask(Prompt(64), 40);
  const GenerationRequest other = Ask(Prompt(64, 9), 40);
  const RequestId a = server.Admit(asked);
  const RequestId b = server.Admit(other);
  server.Run();
  CHECK(server.tokens[{a, 0}] == Alone(server, asked));
  CHECK(server.tokens[{b, 0}] == Alone(server, other));
  CHECK(server.scheduler.stats().preemptions == 0);
}

TEST_CASE("a new epoch leaves no page and no state held", "[scheduler]") {
  SchedulerOptions options = Recurrent();
  options.limits.window = 40;
  options.limits.window_pages = 40;
  options.steps_in_flight = 3;
  options.prefill_depth = 3;
  Server server(options);
  GenerationRequest asked = Ask(Prompt(400), 5);
  asked.n = 2;
  server.Admit(asked);
  for (int i = 0; i < 2; ++i) REQUIRE(server.scheduler.NextStep(server.now).has_value());
  CHECK(server.scheduler.Reset(options, server.now).empty());
  CHECK(server.scheduler.stats().slots.free == options.limits.slots);
  CHECK(server.scheduler.stats().window_pages.free == 40);
  server.chain = HashChain(options.stages, options.limits);
  server.Run();
  for (int choice = 0; choice < 2; ++choice) {
    CHECK(server.tokens[{1, choice}] == Alone(server, asked, choice));
  }
}

}  // namespace
}  // namespace neurogrid
