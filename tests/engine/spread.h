// What int8-a8 does to inputs before it rounds them, in f64 and by the definition of the matrix.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

namespace neurogrid {

/// Each 128 of x[count] times H / sqrt(128), H[i][j] = -1 to the number of bits that i and j share
/// (Sylvester's Hadamard matrix); the last ones, if fewer, in blocks of 64, 32 and 16.
template <typename T>
void SpreadByDefinition(T* x, int64_t count) {
  for (int64_t first = 0; first < count;) {
    int64_t size = 128;
    while (size > count - first) size /= 2;
    if (size < 16) return;
    std::vector<double> sums(static_cast<size_t>(size));
    for (int64_t i = 0; i < size; ++i) {
      for (int64_t j = 0; j < size; ++j) {
        const bool odd = std::popcount(static_cast<uint64_t>(i & j)) % 2 == 1;
        sums[static_cast<size_t>(i)] += (odd ? -1.0 : 1.0) * double{x[first + j]};
      }
    }
    const double root = std::sqrt(static_cast<double>(size));
    for (int64_t i = 0; i < size; ++i) {
      x[first + i] = static_cast<T>(sums[static_cast<size_t>(i)] / root);
    }
    first += size;
  }
}

}  // namespace neurogrid
