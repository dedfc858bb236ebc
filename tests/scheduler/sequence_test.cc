#include "coordinator/sequence.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <map>
#include <utility>

#include "coordinator/step_budget.h"

namespace neurogrid {
namespace {

using Counts = std::map<int32_t, std::pair<int32_t, bool>>;

Counts Told(const PenaltyCounts& penalties) {
  Counts counts;
  for (const SamplingRow::Count& count : penalties.counts()) {
    CHECK(counts.emplace(count.id, std::pair(count.generated, count.in_window)).second);
  }
  return counts;
}

TEST_CASE("without penalties nothing is counted", "[sequence]") {
  std::vector<int32_t> ids{1, 2, 3};
  PenaltyCounts penalties(SamplingOptions(), ids);
  ids.push_back(4);
  penalties.Append(ids);
  CHECK(penalties.counts().empty());
}

TEST_CASE("presence and frequency see the output alone", "[sequence]") {
  SamplingOptions options;
  options.presence_penalty = 1;
  std::vector<int32_t> ids{1, 2, 3};
  PenaltyCounts penalties(options, ids);
  for (const int32_t id : {2, 5, 5}) {
    ids.push_back(id);
    penalties.Append(ids);
  }
  CHECK(Told(penalties) == Counts{{2, {1, false}}, {5, {2, false}}});
}

TEST_CASE("repetition sees prompt and output, as far back as its window", "[sequence]") {
  SamplingOptions options;
  options.repetition_penalty = 1.5f;
  std::vector<int32_t> ids{1, 2, 1, 3};
  SECTION("all of it") {
    PenaltyCounts penalties(options, ids);
    CHECK(Told(penalties) == Counts{{1, {0, true}}, {2, {0, true}}, {3, {0, true}}});
  }
  SECTION("the last two") {
    options.repeat_last_n = 2;
    PenaltyCounts penalties(options, ids);
    CHECK(Told(penalties) == Counts{{1, {0, true}}, {3, {0, true}}});
    for (const int32_t id : {4, 5}) {
      ids.push_back(id);
      penalties.Append(ids);
    }
    CHECK(Told(penalties) == Counts{{4, {1, true}}, {5, {1, true}}});
    for (const int32_t id : {6, 7}) {
      ids.push_back(id);
      penalties.Append(ids);
    }
    CHECK(Told(penalties) ==
          Counts{{4, {1, false}}, {5, {1, false}}, {6, {1, true}}, {7, {1, true}}});
  }
  SECTION("or none") {
    options.repeat_last_n = 0;
    CHECK(PenaltyCounts(options, ids).counts().empty());
  }
}

/// A machine whose steps take `base` and, for each row of prefill, `row` milliseconds.
double SettledStepMs(StepBudget& budget, double base, double row, int decodes) {
  double ms = 0;
  for (int i = 0; i < 100; ++i) {
    const int prefill = budget.tokens(true) - decodes;
    budget.Measure(decodes, 0, base);
    ms = base + row * std::max(prefill, 16);
    budget.Measure(decodes, std::max(prefill, 16), ms);
  }
  return ms;
}

TEST_CASE("the step's rows follow the machine to the target", "[budget]") {
  StepBudget budget(/*target_ms=*/100, /*rows_max=*/8192);
  CHECK(budget.tokens(true) == 512);
  const auto [base, row] =
      GENERATE(std::pair(20.0, 1.0), std::pair(5.0, 0.05), std::pair(60.0, 0.5));
  const double ms = SettledStepMs(budget, base, row, 8);
  CHECK(ms <= 100);
  CHECK(ms >= 100 - 32 * row);
}

TEST_CASE("it stays between 16 rows and what a stage takes", "[budget]") {
  StepBudget slow(100, 512);
  SettledStepMs(slow, 500, 10, 4);
  CHECK(slow.tokens(true) == 16);
  CHECK(slow.tokens(false) == 512);  // nobody waits for it
  StepBudget fast(100, 1024);
  SettledStepMs(fast, 1, 0.001, 4);
  CHECK(fast.tokens(true) == 1024);
}

}  // namespace
}  // namespace neurogrid
