#include "coordinator/plan_step.h"

#include <catch2/catch_test_macros.hpp>
#include <vector>

namespace neurogrid {
namespace {

struct World {
  std::vector<RunningView> running;
  std::vector<WaitingView> waiting;
  StepView view;

  World() {
    view.limits.rows_max = 512;
    view.limits.samples_max = 64;
    view.limits.sequences_max = 64;
    view.limits.pages = 1000;
    view.available.pages = 1000;
    view.running_max = 64;
    view.tokens_max = 128;
  }
  /// Wants its last token computed, all pages but perhaps the next one held.
  World& Decode(int64_t known, uint64_t ready = 0) {
    RunningView sequence;
    sequence.known = known;
    sequence.scheduled = known - 1;
    sequence.known_max = known + 100;
    sequence.pages = static_cast<int>(PagesOf(known - 1));
    sequence.comes_back.pages = sequence.pages;
    sequence.ready = ready;
    running.push_back(sequence);
    return *this;
  }
  World& Prefill(int64_t known, int64_t scheduled) {
    RunningView sequence;
    sequence.known = sequence.known_max = known;
    sequence.scheduled = scheduled;
    sequence.pages = static_cast<int>(PagesOf(scheduled));
    sequence.comes_back.pages = sequence.pages;
    running.push_back(sequence);
    return *this;
  }
  World& Waits(int64_t known, int64_t output = 0) {
    WaitingView sequence;
    sequence.known = known;
    sequence.known_max = known + output;
    waiting.push_back(sequence);
    return *this;
  }
  StepPlan Plan() {
    view.running = running;
    view.waiting = waiting;
    return PlanStep(view);
  }
};

using Slices = std::vector<Slice>;

TEST_CASE("decodes come first, then begun prompts oldest first, then waiting ones", "[plan_step]") {
  World world;
  world.Prefill(40, 16).Decode(20).Waits(10).Waits(5);
  CHECK(world.Plan().slices == Slices{{1, false, 1}, {0, false, 24}, {0, true, 10}, {1, true, 5}});
}

TEST_CASE("a chunk ends on a multiple of 16 unless it is the last", "[plan_step]") {
  World world;
  SECTION("with the whole budget for the only prompt") {
    world.view.tokens_max = 100;
    world.Prefill(1000, 0);
    CHECK(world.Plan().slices == Slices{{0, false, 96}});
  }
  SECTION("and the last chunk is what is left") {
    world.Prefill(1000, 960);
    CHECK(world.Plan().slices == Slices{{0, false, 40}});
  }
}

TEST_CASE("one prompt takes at most half of the room while others wait", "[plan_step]") {
  World world;
  world.view.tokens_max = 128;
  world.Prefill(1000, 0).Waits(1000);
  CHECK(world.Plan().slices == Slices{{0, false, 64}, {0, true, 64}});
  world.running[0].replays = world.waiting[0].replays = true;  // the first of them is soon done
  CHECK(world.Plan().slices == Slices{{0, false, 128}});
  world.running[0].known = 100;
  CHECK(world.Plan().slices == Slices{{0, false, 100}, {0, true, 16}});
}

TEST_CASE("decodes are never held back by the budget, and prefill keeps 16 rows", "[plan_step]") {
  World world;
  world.view.tokens_max = 16;
  for (int i = 0; i < 40; ++i) world.Decode(20);
  world.Prefill(100, 0);
  const StepPlan plan = world.Plan();
  REQUIRE(plan.slices.size() == 41);
  CHECK(plan.slices.back() == Slice{40, false, 16});
}

TEST_CASE("more decodes than a stage takes leave a chunk's room to prefill", "[plan_step]") {
  World world;
  world.view.limits.rows_max = world.view.limits.samples_max = 32;
  for (int i = 0; i < 40; ++i) world.Decode(20);
  CHECK(world.Plan().slices.size() == 32);
  world.Prefill(100, 0);
  const StepPlan plan = world.Plan();
  REQUIRE(plan.slices.size() == 17);
  CHECK(plan.slices.back() == Slice{40, false, 16});
}

TEST_CASE("decodes run in equal groups, longest ready first", "[plan_step]") {
  World world;
  world.view.decode_groups = 2;
  world.Decode(20, 7).Decode(20, 3).Decode(20, 9).Decode(20, 1).Decode(20, 5);
  CHECK(world.Plan().slices == Slices{{3, false, 1}, {1, false, 1}, {4, false, 1}});
  SECTION("those in flight count for the group's size and are left alone") {
    for (const int i : {3, 1, 4}) {
      world.running[i].in_flight = 1;
      ++world.running[i].scheduled;
    }
    CHECK(world.Plan().slices == Slices{{0, false, 1}, {2, false, 1}});
  }
}

TEST_CASE("a sequence is in one step at a time, unless prompts may follow themselves",
          "[plan_step]") {
  World world;
  world.Prefill(1000, 64);
  world.running[0].in_flight = 1;
  CHECK(world.Plan().slices.empty());
  world.view.prefill_depth = 2;
  CHECK(world.Plan().slices == Slices{{0, false, 128}});
}

TEST_CASE("on a shortage the latest arrival gives its pages back", "[plan_step]") {
  World world;
  world.view.available.pages = 0;
  world.Decode(17).Decode(40).Decode(40).Waits(5);
  SECTION("to the one that needs a page, and nothing new starts") {
    const StepPlan plan = world.Plan();
    CHECK(plan.preempted == std::vector<int>{2});
    CHECK(plan.slices == Slices{{0, false, 1}, {1, false, 1}});
  }
  SECTION("but not while it is in flight: then the older one waits") {
    world.running[1].in_flight = world.running[2].in_flight = 1;
    const StepPlan plan = world.Plan();
    CHECK(plan.preempted.empty());
    CHECK(plan.slices.empty());
  }
  SECTION("and a paused one goes before it") {
    world.running[1].paused = true;
    CHECK(world.Plan().preempted == std::vector<int>{1});
  }
}

TEST_CASE("nobody is preempted for a later arrival, and never the only one", "[plan_step]") {
  World world;
  world.view.available.pages = 0;
  world.Decode(17);
  CHECK(world.Plan().preempted.empty());
  world.running.clear();
  world.Prefill(100, 16).Decode(17);
  SECTION("so a decode waits for an older prompt in flight") {
    world.running[0].in_flight = 1;
    const StepPlan plan = world.Plan();
    CHECK(plan.preempted.empty());
    CHECK(plan.slices.empty());
  }
  SECTION("and gives way to one that is not") {
    const StepPlan plan = world.Plan();
    CHECK(plan.preempted == std::vector<int>{1});
    CHECK(plan.slices == Slices{{0, false, 16}});  // the decode held one page
  }
}

TEST_CASE("a prompt takes the pages there are and goes on later", "[plan_step]") {
  World world;
  world.view.available.pages = 2;
  world.Prefill(100, 16);
  CHECK(world.Plan().slices == Slices{{0, false, 32}});
}

TEST_CASE("a newcomer starts only beside what the running ones will need", "[plan_step]") {
  World world;
  world.Decode(20).Waits(64);  // 6 pages of output to come, 4 pages of prompt
  world.view.reserve = 0.5;
  SECTION("its prompt, half of their output, and no page less") {
    world.view.available.pages = 4 + 2;
    CHECK(world.Plan().slices.size() == 1);
    world.view.available.pages = 4 + 3;
    CHECK(world.Plan().slices.size() == 2);
  }
  SECTION("alone it needs no more than its prompt") {
    world.running.clear();
    world.view.available.pages = 4;
    CHECK(world.Plan().slices == Slices{{0, true, 64}});
    world.view.available.pages = 3;
    CHECK(world.Plan().slices.empty());
  }
  SECTION("pages found in the cache cost nothing while others hold them") {
    world.view.available.pages = 1 + 3;
    world.waiting[0].pages_found = 3;
    CHECK(world.Plan().slices.size() == 2);
    world.waiting[0].cached.pages = 3;
    CHECK(world.Plan().slices.size() == 1);
  }
  SECTION("and the first that does not fit stops those behind it") {
    world.view.available.pages = 6;
    world.Waits(1);
    CHECK(world.Plan().slices.size() == 1);
  }
}

TEST_CASE("a newcomer brings the choices that follow it", "[plan_step]") {
  World world;
  world.view.running_max = 4;
  world.Decode(20).Waits(8);
  world.waiting[0].followers = 3;
  CHECK(world.Plan().slices.size() == 1);
  world.waiting[0].followers = 2;
  CHECK(world.Plan().slices.size() == 2);
}

TEST_CASE("rows that report prompt logprobs fit the samples of a step", "[plan_step]") {
  World world;
  world.view.tokens_max = 512;
  world.view.limits.samples_max = 40;
  world.Prefill(100, 0);
  world.running[0].scored_rows_end = 99;
  CHECK(world.Plan().slices == Slices{{0, false, 32}});
}

TEST_CASE("a step takes a page of each kind, and stops where either kind does",
          "[plan_step][windows]") {
  World world;
  world.view.limits.window = 32;
  world.view.limits.window_pages = 100;
  world.view.available.window_pages = 2;
  world.Prefill(100, 16);
  CHECK(world.Plan().slices == Slices{{0, false, 32}});
  SECTION("also where no layer sees everything, and there are no pages of the first kind") {
    world.view.limits.pages = 0;
    world.view.available.pages = 0;
    CHECK(world.Plan().slices == Slices{{0, false, 32}});
  }
  SECTION("and a shortage of one kind preempts for it") {
    world.view.available.window_pages = 0;
    world.Decode(17);
    world.running[1].comes_back.window_pages = 1;
    const StepPlan plan = world.Plan();
    CHECK(plan.preempted == std::vector<int>{1});
    CHECK(plan.slices == Slices{{0, false, 16}});
  }
}

TEST_CASE("a newcomer needs no more window pages than a window and a chunk",
          "[plan_step][windows]") {
  World world;
  world.view.limits.rows_max = 64;
  world.view.limits.window = 32;
  world.view.limits.window_pages = 100;
  world.view.available.window_pages = WindowPagesMax(32, 64);
  world.Waits(1000);
  CHECK(world.Plan().slices.size() == 1);
  --world.view.available.window_pages;
  CHECK(world.Plan().slices.empty());
  SECTION("those found in the cache and held by others come on top") {
    world.waiting[0].pages_found = 10;
    ++world.view.available.window_pages;
    CHECK(world.Plan().slices.size() == 1);
    world.view.available.window_pages -= 2;  // the window of 32 tokens is 2 pages
    CHECK(world.Plan().slices.size() == 1);
    world.waiting[0].cached.window_pages = 1;
    CHECK(world.Plan().slices.empty());
  }
}

TEST_CASE("a sequence without a slot to write waits, or takes that of a later arrival",
          "[plan_step][slots]") {
  World world;
  world.view.limits.slots = 8;
  world.view.available.slots = 1;
  world.Decode(20).Decode(20).Decode(20);
  for (RunningView& sequence : world.running) {
    sequence.needs_slot = true;
    sequence.in_flight = 1;
  }
  world.running[0].in_flight = world.running[1].in_flight = 0;
  CHECK(world.Plan().slices == Slices{{0, false, 1}});
  CHECK(world.Plan().preempted.empty());
  world.running[2].in_flight = 0;
  world.running[2].comes_back.slots = 1;
  CHECK(world.Plan().preempted == std::vector<int>{2});
  CHECK(world.Plan().slices == Slices{{0, false, 1}, {1, false, 1}});
}

TEST_CASE("a newcomer needs a slot, and two when it finds a state in the cache",
          "[plan_step][slots]") {
  World world;
  world.view.limits.slots = 8;
  world.view.available.slots = 1;
  world.Waits(40);
  CHECK(world.Plan().slices.size() == 1);
  world.waiting[0].pages_found = 1;
  CHECK(world.Plan().slices.empty());
  world.view.available.slots = 2;
  CHECK(world.Plan().slices == Slices{{0, true, 24}});
  world.view.available.slots = 0;
  world.waiting[0].pages_found = 0;
  CHECK(world.Plan().slices.empty());
}

TEST_CASE("a prompt whose state is to be saved is cut at its last page boundary",
          "[plan_step][slots]") {
  World world;
  world.Prefill(100, 16);
  world.running[0].cuts = true;
  CHECK(world.Plan().slices == Slices{{0, false, 80}});
  world.running[0].scheduled = 96;
  CHECK(world.Plan().slices == Slices{{0, false, 4}});
  world.running.clear();
  world.Waits(64);
  world.waiting[0].cuts = true;
  CHECK(world.Plan().slices == Slices{{0, true, 48}});
  world.waiting[0].known = 16;
  CHECK(world.Plan().slices == Slices{{0, true, 16}});
}

/// A decode beside which seven guesses may run, almost surely right.
World& Guesses(World& world, int64_t known) {
  world.Decode(known).running.back().draft = {7, 0.9};
  return world;
}

TEST_CASE("guesses get what a step without prefill leaves over", "[plan_step][speculation]") {
  RowCosts costs;
  for (int rows = 1; rows <= 64; ++rows) costs.Measure(rows, 1);
  World world;
  world.view.row_costs = &costs;
  SECTION("behind the decodes that offer them") {
    Guesses(world.Decode(20), 30);
    CHECK(world.Plan().slices == Slices{{0, false, 1, 0}, {1, false, 8, 7}});
  }
  SECTION("none when nobody measures") {
    world.view.row_costs = nullptr;
    CHECK(Guesses(world, 30).Plan().slices == Slices{{0, false, 1}});
  }
  SECTION("none beside a prompt") {
    CHECK(Guesses(world, 30).Prefill(40, 16).Plan().slices ==
          Slices{{0, false, 1}, {1, false, 24}});
    world.running.pop_back();
    CHECK(world.Waits(5).Plan().slices == Slices{{0, false, 1}, {0, true, 5}});
  }
  SECTION("as many as rows may be drawn from") {
    world.view.limits.samples_max = 32;
    world.view.limits.rows_max = 32;
    for (int i = 0; i < 4; ++i) Guesses(world, 30);
    int rows = 0;
    for (const Slice& slice : world.Plan().slices) rows += slice.rows;
    CHECK(rows == 32);
    Guesses(world, 30);
    for (int i = 0; i < 27; ++i) world.Decode(30);
    for (const Slice& slice : world.Plan().slices) CHECK(slice.rows == 1);
  }
  SECTION("behind rows that run again") {
    Guesses(world, 30).running.back().scheduled -= 3;
    world.running.back().replay = 3;
    CHECK(world.Plan().slices == Slices{{0, false, 11, 7}});
  }
  SECTION("but not the page that another decode would want next") {
    Guesses(world, 30);  // position 31 is the last of its page
    world.Decode(20);
    world.view.available.pages = 3;
    CHECK(world.Plan().slices == Slices{{0, false, 8, 7}, {1, false, 1}});
    world.view.available.pages = 2;
    CHECK(world.Plan().slices == Slices{{0, false, 1}, {1, false, 1}});
  }
  SECTION("nor the slots of those that run") {
    world.view.limits.slots = 10;
    world.view.available.slots = 3;
    Guesses(Guesses(world, 20), 20);
    CHECK(world.Plan().slices == Slices{{0, false, 8, 7}, {1, false, 1}});
  }
}

}  // namespace
}  // namespace neurogrid
