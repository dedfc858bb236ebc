#include "coordinator/state_slots.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace neurogrid {
namespace {

/// The slot is about to hold another state than the one it is, or is to be, known for.
void Overwrite(Pools& pools, Sequence& sequence, int32_t slot) {
  if (pools.slots.published(slot)) pools.slots.Forget(slot);
  std::erase_if(sequence.saved_states, [&](const auto& saved) { return saved.slot == slot; });
}

void Release(Pools& pools, int32_t& slot) {
  if (slot >= 0) pools.slots.Release(slot);
  slot = -1;
}

}  // namespace

bool NeedsSlot(const Pools& pools, const Sequence& sequence) {
  return pools.recurrent() &&
         (sequence.state_slot < 0 || pools.slots.references(sequence.state_slot) > 1);
}

StateUse AdvanceState(Pools& pools, Sequence& sequence, int64_t first, int rows,
                      const SlotReserve& reserve) {
  StateUse use;
  if (!pools.recurrent()) return use;
  NG_CHECK((first == 0) == (sequence.state_slot < 0));
  use.source = use.slot = sequence.state_slot;
  const Request& request = *sequence.request;
  if (first > 0 && first == SharedTokens(sequence.prompt_tokens) &&
      request.followers(sequence) > 0 && pools.slots.available() > reserve.needed) {
    pools.slots.Retain(sequence.state_slot);
    sequence.prompt_slot = sequence.state_slot;
  }
  const bool is_saved = std::any_of(sequence.saved_states.begin(), sequence.saved_states.end(),
                                    [&](const auto& saved) { return saved.slot == use.source; });
  const bool worth_keeping = use.source >= 0 && (is_saved || pools.slots.published(use.source));
  const bool spare = pools.slots.available() > reserve.reserved;
  if (NeedsSlot(pools, sequence) || (worth_keeping && spare)) {
    const std::optional<int32_t> slot = pools.slots.Allocate();
    NG_CHECK(slot.has_value());
    use.slot = *slot;
    use.left = std::exchange(sequence.state_slot, use.slot);
  } else if (worth_keeping) {
    Overwrite(pools, sequence, use.source);
  }
  if (request.asked.use_cache && (first + rows) % kPageTokens == 0) {
    sequence.saved_states.push_back({first + rows, use.slot});
  }
  return use;
}

StateUse GuessState(Pools& pools, Sequence& sequence, int64_t first, int rows) {
  StateUse use;
  if (!pools.recurrent()) return use;
  NG_CHECK(sequence.state_slot >= 0 && sequence.sure_slot < 0);
  NG_CHECK(first / kPageTokens == (first + rows - 1) / kPageTokens);
  const std::optional<int32_t> slot = pools.slots.Allocate();
  NG_CHECK(slot.has_value());
  use.slot = *slot;
  use.source = sequence.sure_slot = std::exchange(sequence.state_slot, use.slot);
  sequence.sure_tokens = first;
  if (sequence.request->asked.use_cache && (first + rows) % kPageTokens == 0) {
    sequence.saved_states.push_back({first + rows, use.slot});
  }
  return use;
}

int64_t SettleState(Pools& pools, Sequence& sequence, bool all_right) {
  if (sequence.sure_slot < 0) return sequence.computed;
  if (all_right) {
    Release(pools, sequence.sure_slot);
    return sequence.computed;
  }
  std::erase_if(sequence.saved_states,
                [&](const auto& saved) { return saved.slot == sequence.state_slot; });
  Release(pools, sequence.state_slot);
  std::swap(sequence.state_slot, sequence.sure_slot);
  return sequence.sure_tokens;
}

void PublishState(Pools& pools, Sequence& sequence) {
  const auto saved =
      std::find_if(sequence.saved_states.begin(), sequence.saved_states.end(),
                   [&](const auto& entry) { return entry.tokens == sequence.computed; });
  if (saved == sequence.saved_states.end()) return;
  pools.slots.Publish(saved->slot, sequence.hashes[sequence.computed / kPageTokens - 1]);
  sequence.saved_states.erase(saved);
}

bool ShareState(Pools& pools, const Sequence& leader, int64_t tokens, Sequence& choice) {
  if (!pools.recurrent() || tokens == 0) return true;
  if (leader.prompt_slot < 0) return false;
  pools.slots.Retain(leader.prompt_slot);
  choice.state_slot = leader.prompt_slot;
  return true;
}

void ForgetPromptState(Pools& pools, Sequence& sequence) { Release(pools, sequence.prompt_slot); }

int64_t PrivateSlots(const Pools& pools, const Sequence& sequence) {
  int64_t count = 0;
  for (const int32_t slot : {sequence.state_slot, sequence.prompt_slot}) {
    count += slot >= 0 && pools.slots.references(slot) == 1 ? 1 : 0;
  }
  return count;
}

void ReleaseStates(Pools& pools, Sequence& sequence) {
  Release(pools, sequence.state_slot);
  Release(pools, sequence.sure_slot);
  Release(pools, sequence.prompt_slot);
  sequence.saved_states.clear();
}

}  // namespace neurogrid
