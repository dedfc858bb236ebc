// How much of a prompt stands in the prefix cache, in every kind that the model needs.
#pragma once

#include "absl/types/span.h"
#include "coordinator/pools.h"

namespace neurogrid {

struct PrefixMatch {
  int pages = 0;  // of the chain, from its beginning: so many need no computing
  Stock cached;   // of what they stand in, held by nobody
};

/// The longest beginning of `chain`, n pages, that all kinds can serve: every page before n, the
/// window pages that the query after n sees, and the recurrent state as it was after n.
PrefixMatch FindPrefix(const Pools& pools, absl::Span<const PageHash> chain);

}  // namespace neurogrid
