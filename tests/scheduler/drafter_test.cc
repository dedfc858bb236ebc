// What is guessed, and how much of it is run.
#include "coordinator/drafter.h"

#include <catch2/catch_test_macros.hpp>
#include <vector>

#include "common/rng.h"
#include "coordinator/speculation.h"

namespace neurogrid {
namespace {

using Tokens = std::vector<int32_t>;

Tokens DraftOf(const Tokens& ids) { return Drafter().Next(ids).tokens; }

TEST_CASE("a draft is what followed the last tokens before", "[drafter]") {
  CHECK(DraftOf({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2}) == Tokens{3, 4, 5, 6, 7, 8, 9});
  SECTION("of the longest match") { CHECK(DraftOf({1, 2, 3, 20, 9, 2, 3, 30, 1, 2, 3})[0] == 20); }
  SECTION("of the latest of equal ones") { CHECK(DraftOf({2, 3, 20, 2, 3, 30, 2, 3})[0] == 30); }
  SECTION("and repeats itself past the end") {
    CHECK(DraftOf({5, 6, 5, 6}) == Tokens{5, 6, 5, 6, 5, 6, 5});
  }
}

TEST_CASE("without two tokens that stood together before there is no draft", "[drafter]") {
  CHECK(DraftOf({}).empty());
  CHECK(DraftOf({1}).empty());
  CHECK(DraftOf({1, 1}).empty());
  CHECK(DraftOf({1, 2, 3, 2}).empty());
  CHECK(DraftOf({2, 1, 3, 1, 2}).empty());
}

TEST_CASE("a drafter that grew token by token says what a new one says", "[drafter]") {
  Drafter grown;
  Tokens ids;
  for (uint64_t i = 0; i < 3000; ++i) {
    ids.push_back(static_cast<int32_t>(SplitMix64(i) % 7));
    const Tokens draft = grown.Next(ids).tokens;
    if (i % 50 > 0) continue;
    CHECK(draft == DraftOf(ids));
    CHECK(grown.Next(ids).tokens == draft);
  }
}

TEST_CASE("a text of any length leaves its end in the index", "[drafter]") {
  Drafter drafter;
  Tokens ids;
  for (int i = 0; i < 200'000; ++i) ids.push_back(i);
  drafter.Next(ids);
  ids.insert(ids.end(), {150'000, 150'001});
  CHECK(drafter.Next(ids).tokens[0] == 150'002);
  ids.insert(ids.end(), {100'000, 100'001});  // 100,000 tokens ago: forgotten
  CHECK(drafter.Next(ids).tokens.empty());
}

TEST_CASE("wrong drafts are followed by ever longer silence, and a right one ends it",
          "[drafter]") {
  Drafter drafter;
  Tokens ids{1, 2, 9, 8, 7};
  std::vector<int> gaps;
  int gap = 0;
  int32_t fresh = 100;
  for (int round = 0; round < 400; ++round) {
    ids.insert(ids.end(), {fresh++, 1, 2});  // the pair alone, and never what followed before
    if (drafter.Next(ids).tokens.empty()) {
      ++gap;
      continue;
    }
    gaps.push_back(gap);
    gap = 0;
    drafter.Learn(kDraftTokensMax, 0);
  }
  CHECK(gaps == std::vector<int>{0, 0, 2, 4, 8, 16, 32, 64, 128, 128});
  while (drafter.Next(ids).tokens.empty()) ids.insert(ids.end(), {fresh++, 1, 2});
  const double low = drafter.Next(ids).chance;
  drafter.Learn(kDraftTokensMax, kDraftTokensMax);
  ids.insert(ids.end(), {fresh++, 1, 2});
  REQUIRE(!drafter.Next(ids).tokens.empty());
  CHECK(drafter.Next(ids).chance > low + 0.3);
}

RowCosts Costs(const std::vector<double>& ms) {
  RowCosts costs;
  for (size_t i = 0; i < ms.size(); ++i) {
    if (ms[i] > 0) costs.Measure(static_cast<int>(i) + 1, ms[i], i > 0);
  }
  return costs;
}

TEST_CASE("rows that were never seen are priced by their neighbours", "[speculation]") {
  const RowCosts costs = Costs({10, 0, 20});
  CHECK(!costs.knows(2));
  CHECK(costs.ms(1) == 10);
  CHECK(costs.ms(2) > 14.9);
  CHECK(costs.ms(2) <= 15);
  CHECK(costs.ms(40) == costs.ms(3));
}

TEST_CASE("a high price that is not seen again sinks", "[speculation]") {
  RowCosts costs = Costs({10, 30});
  for (int i = 0; i < 5000; ++i) costs.Measure(1, 10);
  CHECK(costs.ms(2) < 10.1);
}

TEST_CASE("where first steps are slow they count for nothing, and a rise for less than a fall",
          "[speculation]") {
  RowCosts costs(/*first_slow=*/2);
  costs.Measure(1, 10);
  CHECK(costs.ms(1) == 10);  // plain steps count at once
  for (int i = 0; i < 2; ++i) {
    costs.Measure(2, 40, true);
    CHECK_FALSE(costs.knows(2));
    CHECK(costs.ms(2) == 10);
  }
  costs.Measure(2, 12, true);
  CHECK(costs.ms(2) == 12);
  costs.Measure(2, 32, true);  // recorded anew, for a longer context
  CHECK(costs.ms(2) < 13.1);
  for (int i = 0; i < 200; ++i) costs.Measure(2, 32, true);
  CHECK(costs.ms(2) > 31);  // a price that stays is believed
}

TEST_CASE("in a slow minute all prices are higher, and what is dear stays dear", "[speculation]") {
  RowCosts costs = Costs({10, 15});
  for (int i = 0; i < 50; ++i) costs.Measure(1, 30);
  CHECK(costs.ms(1) > 29);
  CHECK(costs.ms(2) > 1.3 * costs.ms(1));
  for (int i = 0; i < 50; ++i) costs.Measure(1, 10);
  CHECK(costs.ms(2) > 1.3 * costs.ms(1));
  SECTION("while a guess that took long says nothing of steps without") {
    costs.Measure(2, 100, true);
    CHECK(costs.ms(1) < 10.1);
  }
}

TEST_CASE("guesses are run as far as they pay", "[speculation]") {
  constexpr int kRows = 512;
  const std::vector<DraftOffer> likely{{7, 0.9}};
  SECTION("all of them when rows cost nothing") {
    const RowCosts flat = Costs(std::vector<double>(8, 10));
    CHECK(ShareDrafts(likely, 1, 1, kRows, flat, GuessAccount()) == std::vector<int>{7});
    CHECK(ShareDrafts(likely, 1, 1, 4, flat, GuessAccount()) == std::vector<int>{3});
  }
  SECTION("none when each row costs a step") {
    CHECK(ShareDrafts(likely, 1, 1, kRows, Costs({10, 20, 30, 40, 50, 60, 70, 80}),
                      GuessAccount()) == std::vector<int>{0});
  }
  SECTION("up to the knee") {
    CHECK(ShareDrafts(likely, 1, 1, kRows, Costs({10, 10, 10, 10, 40, 40, 40, 40}),
                      GuessAccount()) == std::vector<int>{3});
  }
  SECTION("likely ones alone when all together cost too much") {
    const std::vector<DraftOffer> offers{{7, 0.2}, {7, 0.9}, {0, 0}};
    std::vector<double> ms(64, 20);
    std::fill_n(ms.begin(), 8, 10);
    CHECK(ShareDrafts(offers, 3, 3, kRows, Costs(ms), GuessAccount()) == std::vector<int>{0, 5, 0});
  }
  SECTION("one row beyond all that were ever seen") {
    CHECK(ShareDrafts(likely, 1, 1, kRows, Costs({10}), GuessAccount()) == std::vector<int>{1});
    CHECK(ShareDrafts(likely, 2, 2, kRows, Costs({10, 10, 10}), GuessAccount()) ==
          std::vector<int>{2});
  }
  SECTION("none that makes others wait") {
    const std::vector<DraftOffer> offers{{7, 0.99}, {0, 0}};
    CHECK(ShareDrafts(offers, 2, 2, kRows, Costs({10, 10, 11, 11, 11, 11, 11, 11, 11}),
                      GuessAccount()) == std::vector<int>{0, 0});
  }
  SECTION("none before the step without them was measured") {
    CHECK(ShareDrafts(likely, 2, 2, kRows, Costs({10}), GuessAccount()) == std::vector<int>{0});
  }
}

TEST_CASE("guesses that were wrong are paid for before others are risked", "[speculation]") {
  const RowCosts costs = Costs({10, 13, 13, 13, 13, 13, 13, 13});
  const std::vector<DraftOffer> hardly{{1, 0.45}};
  const std::vector<DraftOffer> likely{{1, 0.9}};
  const auto shared = [&](const std::vector<DraftOffer>& offers, const GuessAccount& account) {
    return ShareDrafts(offers, 1, 1, 512, costs, account)[0];
  };
  GuessAccount account;
  CHECK(shared(hardly, account) == 0);  // longer by 0.3, of 0.1 that there is
  CHECK(shared(likely, account) == 1);
  account.Take(costs.wait(2, 1), 0);
  CHECK(shared(likely, account) == 1);
  account.Take(costs.wait(2, 1), 0);
  CHECK(shared(likely, account) == 0);  // 0.5 below nothing
  SECTION("by a right one") {
    account.Take(costs.wait(2, 1), 1);
    CHECK(shared(likely, account) == 1);
    account.Take(costs.wait(2, 1), 1);
    CHECK(shared(hardly, account) == 1);
  }
  SECTION("or by steps without any, little by little") {
    int steps = 0;
    for (; steps < 1000 && shared(likely, account) == 0; ++steps) account.Take(costs.wait(1, 1), 0);
    CHECK(steps > 100);
    CHECK(steps < 200);
  }
  SECTION("and no copying pays for a long text that is none") {
    for (int i = 0; i < 1000; ++i) account.Take(costs.wait(8, 1), 7);
    int steps = 0;
    for (; steps < 100 && shared(hardly, account) == 1; ++steps) account.Take(costs.wait(2, 1), 0);
    CHECK(steps <= 3);
  }
}

}  // namespace
}  // namespace neurogrid
