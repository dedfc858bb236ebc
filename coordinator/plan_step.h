// What the next step runs: a decision over the sequences that run and those that wait.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "coordinator/speculation.h"
#include "coordinator/stock.h"
#include "coordinator/window_pages.h"
#include "engine/batch.h"

namespace neurogrid {

/// Rows that every step has room for: a chunk of one page beside as many decodes.
inline constexpr int kStepRowsMin = 2 * kPageTokens;

/// A sequence that holds pages. It has `known` tokens, wants all of them computed, and then draws
/// the next one.
struct RunningView {
  int64_t known = 0;
  int64_t scheduled = 0;    // of those, computed or in flight
  int64_t known_max = 0;    // tokens that it may still come to
  int pages = 0;            // up to the scheduled tokens, those given back by the window included
  int window_first = 0;     // pages before it were given back in the layers with a window
  Stock comes_back;         // when it is preempted: what nobody else holds
  bool needs_slot = false;  // its next chunk cannot do without one more
  int in_flight = 0;        // steps
  int followers = 0;        // choices of the same prompt that start when it is computed
  bool paused = false;
  int64_t scored_rows_end = 0;  // rows [scheduled, this) are sampled too: prompt logprobs
  bool cuts = false;            // its last chunk begins at the last page boundary
  bool replays = false;         // computes again what a lost chain held: with all the room there is
  uint64_t ready = 0;           // order in which sequences came out of their last steps
  int replay = 0;    // rows before the last token that run again: their state was taken back
  DraftOffer draft;  // guesses that may follow the last token
};

/// A sequence that holds none: new, or preempted.
struct WaitingView {
  int64_t known = 0;
  int64_t known_max = 0;
  int pages_found = 0;  // in the prefix cache: so many pages need no computing
  Stock cached;         // of what they stand in, held by nobody, counted as available
  int followers = 0;
  int64_t scored_rows_end = 0;
  bool cuts = false;
  bool replays = false;
};

struct StepView {
  absl::Span<const RunningView> running;  // by arrival, oldest first
  absl::Span<const WaitingView> waiting;  // in the order in which they are to start
  BatchLimits limits;                     // a kind of ids of which there are none is not needed
  Stock available;                        // free or cached
  int running_max = 0;                    // sequences, followers counted
  int decode_groups = 1;
  int prefill_depth = 1;
  int tokens_max = 0;    // of the step: decodes and prefill
  double reserve = 0.5;  // r: share of the running sequences' coming pages kept free of newcomers
  const RowCosts* row_costs = nullptr;  // null: nothing is guessed
  GuessAccount guess_account;
};

struct Slice {
  int index = 0;  // of the running; of the waiting when `starts`
  bool starts = false;
  int rows = 0;
  int drafts = 0;  // of the rows, the last ones are guesses
  bool operator==(const Slice&) const = default;
};

struct StepPlan {
  std::vector<Slice>
      slices;  // decodes, then prefill; the waiting that start are the first ones, in order
  std::vector<int> preempted;  // running; they give their pages back before the slices take theirs
};

/// Decodes first, then begun prefills oldest first, then waiting sequences while places and pages
/// allow and nothing was preempted. One prompt takes at most half of the room while others wait,
/// but for replays, which go one after the other: the sooner does the first of them go on;
/// chunks end on multiples of 16 except the last. When pages of either kind or state slots run out,
/// later arrivals are preempted for earlier ones, paused ones first, never one that is in flight:
/// then the older one waits. Guesses get what is left of a step without prefill, as far as they pay
/// (ShareDrafts); they never take the last pages or slots from those that run.
///
/// Pure. `decode_groups` equal groups of decodes follow each other down the chain: a step takes at
/// most its share of those that decode, longest ready first. Prefill gets at least 16 rows however
/// many decode, decodes their rows however small `tokens_max` is. limits.rows_max and samples_max
/// are at least kStepRowsMin.
StepPlan PlanStep(const StepView& view);

}  // namespace neurogrid
