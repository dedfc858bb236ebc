// Counts of what sequences hold on every stage, by kind.
#pragma once

#include <cstdint>

namespace neurogrid {

struct Stock {
  int64_t pages = 0;         // of the layers that see everything
  int64_t window_pages = 0;  // of the layers with a window
  int64_t slots = 0;         // recurrent states

  Stock& operator+=(const Stock& other) {
    pages += other.pages;
    window_pages += other.window_pages;
    slots += other.slots;
    return *this;
  }
  bool operator==(const Stock&) const = default;
};

}  // namespace neurogrid
