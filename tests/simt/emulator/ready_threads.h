// The threads of a block that may have the next turn, and the order in which they get it.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace simt {

/// Numbers from a seed, fast rather than good.
class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
  /// In [0, count).
  uint32_t Below(uint32_t count) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>((state_ >> 32) * count >> 32);
  }

 private:
  uint64_t state_;
};

/// A ring, of which any entry can be taken.
class ThreadRing {
 public:
  explicit ThreadRing(uint32_t threads) : threads_(std::bit_ceil(threads)) {}
  void Add(int thread) { at(count_++) = static_cast<uint16_t>(thread); }
  int Take(uint32_t index) {
    std::swap(at(index), at(0));
    --count_;
    return threads_[first_++ % threads_.size()];
  }
  uint32_t count() const { return count_; }
  void Clear() { count_ = 0; }

 private:
  uint16_t& at(uint32_t index) { return threads_[(first_ + index) & (threads_.size() - 1)]; }

  std::vector<uint16_t> threads_;
  uint32_t first_ = 0;
  uint32_t count_ = 0;
};

/// Seed 0: in the order in which they became ready. Odd: any. Even: any of one warp, as long as it
/// can go on; warps come in an order of their own. `dice`: what the choices are drawn from.
class ReadyThreads {
 public:
  ReadyThreads(uint64_t seed, uint64_t dice, uint32_t warps)
      : dice_(dice), in_order_(seed == 0), by_warp_(seed != 0 && seed % 2 == 0) {
    for (uint32_t warp = 0; warp < warps; ++warp) ranks_.push_back(by_warp_ ? warp : 0);
    rings_.assign(by_warp_ ? warps : 1, ThreadRing(by_warp_ ? 32 : 32 * warps));
  }

  void StartBlock() {
    for (ThreadRing& ring : rings_) ring.Clear();
    live_ = 0;
    if (!by_warp_) return;
    const auto warps = static_cast<uint32_t>(ranks_.size());
    for (uint32_t i = 0; i < warps; ++i) {
      std::swap(ranks_[i], ranks_[i + dice_.Below(warps - i)]);
    }
  }
  void Add(int thread) {
    const uint32_t rank = ranks_[static_cast<size_t>(thread / 32)];
    rings_[rank].Add(thread);
    live_ |= 1u << rank;
  }
  /// -1: nobody is ready.
  int Take() {
    if (live_ == 0) return -1;
    const int rank = std::countr_zero(live_);
    ThreadRing& ring = rings_[static_cast<size_t>(rank)];
    const int thread = ring.Take(in_order_ ? 0 : dice_.Below(ring.count()));
    if (ring.count() == 0) live_ &= ~(1u << rank);
    return thread;
  }
  Dice& dice() { return dice_; }

 private:
  Dice dice_;
  bool in_order_;
  bool by_warp_;
  std::vector<uint32_t> ranks_;    // [warps]  the lowest that has ready threads comes first
  std::vector<ThreadRing> rings_;  // [ranks]
  uint32_t live_ = 0;              // bit r: ring r is not empty
};

}  // namespace simt
