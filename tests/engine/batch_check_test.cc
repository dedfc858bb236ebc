// Every field of a batch from a peer, wrong in turn.
#include "engine/batch_check.h"

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <functional>
#include <limits>

namespace neurogrid {
namespace {

const BatchLimits kLimits{.rows_max = 64,
                          .sequences_max = 4,
                          .samples_max = 4,
                          .pages = 10,
                          .slots = 4,
                          .positions_max = 64,
                          .vocab_size = 100};

/// A prefill chunk of 20 rows from position 0 and a decode at position 33 of another sequence.
Batch GoodBatch() {
  Batch batch;
  for (int32_t i = 0; i < 20; ++i) {
    batch.tokens.push_back(i);
    batch.positions.push_back(i);
  }
  batch.tokens.push_back(99);
  batch.positions.push_back(33);
  batch.sequence_offsets = {0, 20, 21};
  batch.pages = {3, 9, 0, 1, 2};
  batch.page_offsets = {0, 2, 5};
  batch.state_slots = {-1, 3};
  batch.state_sources = {2, 3};
  batch.sampled_rows = {19, 20};
  batch.sampling.resize(2);
  return batch;
}

void CheckRefused(const std::string& words, const std::function<void(Batch&)>& spoil) {
  Batch batch = GoodBatch();
  spoil(batch);
  const absl::Status status = CheckBatch(batch, kLimits);
  CAPTURE(words, status.ToString());
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK(status.message().find(words) != absl::string_view::npos);
}

}  // namespace

TEST_CASE("CheckBatch passes a prefill chunk beside a decode", "[batch]") {
  CHECK(CheckBatch(GoodBatch(), kLimits).ok());
}

TEST_CASE("CheckBatch lets sequences share pages that neither writes", "[batch]") {
  Batch batch = GoodBatch();
  batch.tokens = {1, 2};
  batch.positions = {16, 33};
  batch.sequence_offsets = {0, 1, 2};
  batch.pages = {0, 9, 0, 1, 2};
  batch.sampled_rows = {0, 1};
  CHECK(CheckBatch(batch, kLimits).ok());
}

TEST_CASE("CheckBatch names the array whose length is wrong", "[batch]") {
  CheckRefused("tokens is empty", [](Batch& b) { b = Batch(); });
  CheckRefused("tokens has 65 rows but the stage takes 64", [](Batch& b) { b.tokens.resize(65); });
  CheckRefused("positions has 20 entries for 21 rows", [](Batch& b) { b.positions.pop_back(); });
  CheckRefused("sequence_offsets names no sequence", [](Batch& b) { b.sequence_offsets = {0}; });
  CheckRefused("names 5 sequences but the stage takes 4",
               [](Batch& b) { b.sequence_offsets = {0, 1, 2, 3, 4, 21}; });
  CheckRefused("page_offsets has 2 entries", [](Batch& b) { b.page_offsets = {0, 5}; });
  CheckRefused("window_pages has 5 entries, expected 0", [](Batch& b) {
    b.window_pages = {0, 1, 2, 3, 4};
  });
  CheckRefused("state_slots has 1 entries", [](Batch& b) { b.state_slots = {0}; });
  CheckRefused("state_sources has 3 entries", [](Batch& b) { b.state_sources = {0, 1, 2}; });
  CheckRefused("sampled_rows has 5 entries but the stage takes 4", [](Batch& b) {
    b.sampled_rows = {0, 1, 2, 3, 4};
  });
  CheckRefused("sampling has 1 entries for 2", [](Batch& b) { b.sampling.pop_back(); });
}

TEST_CASE("CheckBatch names the offset that is out of order", "[batch]") {
  CheckRefused("sequence_offsets[0] is 1", [](Batch& b) { b.sequence_offsets[0] = 1; });
  CheckRefused("sequence_offsets[1] is 0 after 0", [](Batch& b) { b.sequence_offsets[1] = 0; });
  CheckRefused("sequence_offsets[2] is 19 after 20", [](Batch& b) { b.sequence_offsets[2] = 19; });
  CheckRefused("sequence_offsets ends at 22", [](Batch& b) { b.sequence_offsets[2] = 22; });
  CheckRefused("sequence_offsets[1] is -5", [](Batch& b) { b.sequence_offsets[1] = -5; });
  CheckRefused("page_offsets[1] is -1", [](Batch& b) { b.page_offsets[1] = -1; });
  CheckRefused("page_offsets ends at 6", [](Batch& b) { b.page_offsets[2] = 6; });
}

TEST_CASE("CheckBatch names the id that is out of bounds", "[batch]") {
  // Below zero are the samples of the step before, of which there are at most four.
  CheckRefused("tokens[20] is 100, outside [-4, 100)", [](Batch& b) { b.tokens[20] = 100; });
  CheckRefused("tokens[0] is -5", [](Batch& b) { b.tokens[0] = -5; });
  CheckRefused("pages[1] is 10, outside [0, 10)", [](Batch& b) { b.pages[1] = 10; });
  CheckRefused("pages[1] is -1", [](Batch& b) { b.pages[1] = -1; });
  CheckRefused("state_slots[1] is 4", [](Batch& b) { b.state_slots[1] = 4; });
  CheckRefused("state_slots[0] is -2", [](Batch& b) { b.state_slots[0] = -2; });
  CheckRefused("state_sources[1] is 4", [](Batch& b) { b.state_sources[1] = 4; });
  CheckRefused("state_sources[0] is -2", [](Batch& b) { b.state_sources[0] = -2; });
  CheckRefused("sampled_rows[1] is 21", [](Batch& b) { b.sampled_rows[1] = 21; });
  CheckRefused("sampled_rows[1] is 19 after 19", [](Batch& b) { b.sampled_rows = {19, 19}; });
}

TEST_CASE("CheckBatch follows positions and pages of each sequence", "[batch]") {
  CheckRefused("positions[20] is 64", [](Batch& b) { b.positions[20] = 64; });
  CheckRefused("positions[0] is -1", [](Batch& b) { b.positions[0] = -1; });
  CheckRefused("positions[3] is 4 after 2", [](Batch& b) { b.positions[3] = 4; });
  CheckRefused("gives sequence 1 2 pages but position 33 needs 3", [](Batch& b) {
    b.pages = {3, 9, 0, 1};
    b.page_offsets = {0, 2, 4};
  });
  CheckRefused("gives sequence 1 5 pages but 64 positions fill 4", [](Batch& b) {
    b.pages = {3, 9, 0, 1, 2, 4, 5};
    b.page_offsets = {0, 2, 7};
  });
  CheckRefused("another entry writes", [](Batch& b) { b.pages[4] = 9; });
  CheckRefused("another entry writes", [](Batch& b) { b.pages[2] = 3; });
}

TEST_CASE("CheckBatch lets a slot that is written be read by its writer alone", "[batch]") {
  CheckRefused("taken by another sequence", [](Batch& b) { b.state_slots = {3, 3}; });
  CheckRefused("state_sources[0] is 3, a slot that another sequence writes", [](Batch& b) {
    b.state_sources = {3, 3};
  });
  Batch batch = GoodBatch();
  batch.state_slots = {0, 1};
  batch.state_sources = {2, 2};  // both go on from one saved state
  CHECK(CheckBatch(batch, kLimits).ok());
}

TEST_CASE("CheckBatch wants every window page that a row sees or writes, and no other", "[batch]") {
  BatchLimits limits = kLimits;
  limits.window = 17;
  limits.window_pages = 6;
  Batch batch = GoodBatch();
  batch.window_pages = {4, 5, 0, 1, 2};
  const auto words = [&] { return std::string(CheckBatch(batch, limits).message()); };
  CHECK(words().empty());
  batch.window_pages[2] = -1;  // position 33 sees from 17 on
  CHECK(words().empty());
  batch.window_pages[3] = -1;
  CHECK(words() == "batch: window_pages[3] is -1 but position 33 sees 17 tokens");
  limits.window = 18;
  batch.window_pages = {4, 5, -1, 1, 2};
  CHECK(words().empty());
  limits.window = 19;
  CHECK(words() == "batch: window_pages[2] is -1 but position 33 sees 19 tokens");
  limits.window = 17;
  batch.window_pages = {4, -1, 0, 1, 2};
  CHECK(words() == "batch: window_pages[1] is -1 but position 0 sees 17 tokens");
  batch.window_pages = {4, 5, 0, 1, 6};
  CHECK(words() == "batch: window_pages[4] is 6, outside [-1, 6)");
  batch.window_pages = {4, 5, 0, 1, 5};
  CHECK(words() == "batch: window_pages[4] is 5, a page that another entry writes in this step");
  batch.window_pages.pop_back();
  CHECK(words() == "batch: window_pages has 4 entries, expected 5");
  SECTION("and where every layer has a window, no pages of the other kind") {
    batch.window_pages = {4, 5, 0, 1, 2};
    limits.pages = 0;
    CHECK(words() == "batch: pages[0] is 3, outside [-1, 0)");
    batch.pages = {-1, -1, -1, -1, -1};
    CHECK(words().empty());
  }
}

TEST_CASE("CheckBatch bounds every sampling parameter", "[batch]") {
  const float nan = std::nanf("");
  CheckRefused("position", [](Batch& b) { b.sampling[0].position = 65; });
  CheckRefused("temperature", [&](Batch& b) { b.sampling[1].temperature = nan; });
  CheckRefused("temperature", [](Batch& b) { b.sampling[1].temperature = -1; });
  CheckRefused("top_p", [](Batch& b) { b.sampling[0].top_p = 1.5f; });
  CheckRefused("min_p", [&](Batch& b) { b.sampling[0].min_p = nan; });
  CheckRefused("repetition_penalty", [](Batch& b) { b.sampling[0].repetition_penalty = 0; });
  CheckRefused("presence_penalty", [&](Batch& b) { b.sampling[0].presence_penalty = nan; });
  CheckRefused("frequency_penalty", [](Batch& b) {
    b.sampling[0].frequency_penalty = std::numeric_limits<float>::infinity();
  });
  CheckRefused("top_logprobs", [](Batch& b) { b.sampling[0].top_logprobs = 21; });
  CheckRefused("target", [](Batch& b) { b.sampling[0].target = 100; });
  CheckRefused("counts.id", [](Batch& b) { b.sampling[0].counts = {{100, 1, true}}; });
  CheckRefused("counts.generated", [](Batch& b) { b.sampling[0].counts = {{1, -1, true}}; });
  CheckRefused("bias.id", [](Batch& b) { b.sampling[0].bias = {{-1, 1.0f}}; });
  CheckRefused("sampling[1].bias is nan", [&](Batch& b) { b.sampling[1].bias = {{1, nan}}; });
  CheckRefused("banned", [](Batch& b) { b.sampling[0].banned = {100}; });
  CheckRefused("more than the 100 ids", [](Batch& b) { b.sampling[0].banned.resize(101); });
}

}  // namespace neurogrid
