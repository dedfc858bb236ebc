// The ids of one chain: what sequences hold, and what the prefix cache keeps of it.
#pragma once

#include "coordinator/page_allocator.h"
#include "coordinator/stock.h"
#include "engine/batch.h"

namespace neurogrid {

/// One allocator for each kind. A kind that the model has no use for has no ids.
struct Pools {
  explicit Pools(const BatchLimits& limits)
      : pages(limits.pages),
        window_pages(limits.window_pages),
        slots(limits.slots),
        window(limits.window) {}

  bool recurrent() const { return slots.pages() > 0; }
  Stock available() const {
    return {pages.available(), window_pages.available(), slots.available()};
  }
  int held() const { return pages.held() + window_pages.held() + slots.held(); }

  PageAllocator pages;
  PageAllocator window_pages;
  PageAllocator slots;
  int window = 0;  // tokens
};

}  // namespace neurogrid
