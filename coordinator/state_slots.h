// The recurrent state of one sequence: which slot a chunk reads, which it writes, which are kept.
#pragma once

#include <cstdint>

#include "coordinator/pools.h"
#include "coordinator/sequence.h"

namespace neurogrid {

/// What one chunk does with states.
struct StateUse {
  int32_t slot = -1;    // written
  int32_t source = -1;  // read; -1: zeros
  int32_t left = -1;    // a slot that the sequence leaves: released when the step is back
};

/// Whether the next chunk cannot do without a slot that the sequence does not hold: it has none
/// yet, or somebody else goes on from the one it has.
bool NeedsSlot(const Pools& pools, const Sequence& sequence);

/// The next chunk, [first, first + rows), reads the state that the one before left. It writes the
/// same slot, unless the slot is to be kept: a saved state costs no copy, the sequence goes on in
/// another slot. States are saved where a chunk ends on a page boundary, as far as more than
/// `reserved` slots are there: those are for sequences that need one. So is the state before the
/// last page of a prompt that other choices wait for, as far as more than `needed` are there.
struct SlotReserve {
  int64_t needed = 0;    // by others in the same step
  int64_t reserved = 0;  // at least `needed`
};
StateUse AdvanceState(Pools& pools, Sequence& sequence, int64_t first, int rows,
                      const SlotReserve& reserve);

/// The same for a chunk whose last rows are guesses, with a slot to be had: the state before it is
/// kept until Settle. The chunk may end at a page boundary and not cross one, so that no page of
/// what is run again was named in between.
StateUse GuessState(Pools& pools, Sequence& sequence, int64_t first, int rows);

/// What came of the guesses: all rows were right, or the sequence goes back to the state before
/// them. The tokens after which its state is taken then.
int64_t SettleState(Pools& pools, Sequence& sequence, bool all_right);

/// Names the state after the tokens computed, if it was saved.
void PublishState(Pools& pools, Sequence& sequence);

/// Other choices start from the first `tokens` tokens of `leader`: false when the state there was
/// not kept.
bool ShareState(Pools& pools, const Sequence& leader, int64_t tokens, Sequence& choice);

/// Nobody will start from it any more.
void ForgetPromptState(Pools& pools, Sequence& sequence);

void ReleaseStates(Pools& pools, Sequence& sequence);

/// Slots of the sequence that nobody else holds: they would come back.
int64_t PrivateSlots(const Pools& pools, const Sequence& sequence);

/// The last page boundary before the end of `tokens` tokens: what is after it is computed anew by
/// whoever shares or finds the pages before.
constexpr int64_t SharedTokens(int64_t tokens) { return (tokens - 1) / kPageTokens * kPageTokens; }

}  // namespace neurogrid
