// The pages of one sequence, of both kinds: found, allocated, named and given back.
#pragma once

#include <cstdint>

#include "coordinator/pools.h"
#include "coordinator/sequence.h"

namespace neurogrid {

/// A sequence that holds nothing takes the first `pages` pages of its chain out of the cache, with
/// the window pages and the state that go on from there. They must be there (FindPrefix).
void TakePrefix(Pools& pools, Sequence& sequence, int pages);

/// `choice`, which holds nothing, shares the first `pages` pages of `leader`.
void SharePages(Pools& pools, const Sequence& leader, int64_t pages, Sequence& choice);

/// Allocates up to `tokens` tokens. There must be enough (PlanStep).
void GrowPages(Pools& pools, Sequence& sequence, int64_t tokens);

/// Offers what was computed since the last time to the prefix cache.
void PublishPages(Pools& pools, Sequence& sequence);

/// Gives back the window pages that no query at `position` or later sees. No step in flight may
/// hold an earlier query.
void FreePastWindow(Pools& pools, Sequence& sequence, int64_t position);

/// Everything it holds, states too. No step of the sequence may be in flight.
void ReleaseAll(Pools& pools, Sequence& sequence);

/// Pages that nobody else holds: they would come back.
Stock PrivatePages(const Pools& pools, const Sequence& sequence);

}  // namespace neurogrid
