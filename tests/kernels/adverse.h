// What makes a missing wait of a kernel show on a GPU: operands that arrive late, a predecessor
// that writes at its very end, shared memory that holds NaN where nothing has been copied yet.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/attention_ways.h"
#include "kernels/device_limits.h"
#include "kernels/rms_norm.h"
#include "tests/kernels/device.h"

namespace neurogrid::kernels {

/// Memory of the host that kernels read over the bus, microseconds later than their own.
template <typename T>
class Pinned {
 public:
  explicit Pinned(size_t count) : count_(count) {
    REQUIRE(cudaMallocHost(reinterpret_cast<void**>(&data_), count * sizeof(T)) == cudaSuccess);
  }
  explicit Pinned(const std::vector<T>& values) : Pinned(values.size()) {
    std::copy(values.begin(), values.end(), data_);
  }
  /// `count` elements of the device's memory.
  Pinned(const void* device, size_t count) : Pinned(count) {
    REQUIRE(cudaMemcpy(data_, device, count * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess);
  }
  ~Pinned() { cudaFreeHost(data_); }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;

  T* data() const { return data_; }
  size_t count() const { return count_; }

 private:
  T* data_ = nullptr;
  size_t count_;
};

/// `count` random elements, the first few over and over: quick to make.
template <typename T>
std::vector<T> RepeatedOf(uint64_t seed, size_t count) {
  constexpr size_t kPeriod = 4099;  // a prime: rows differ
  const std::vector<T> some = RandomOf<T>(seed, kPeriod);
  std::vector<T> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = some[i % kPeriod];
  return values;
}

/// A kernel that lets its successor start at once and writes some hundred microseconds later: norms
/// of rows that it reads over the bus. The last of them is what the successor reads.
template <typename T>
class LateWriter {
 public:
  explicit LateWriter(size_t count)
      : columns_((count + 7) / 8 * 8),
        rows_(std::clamp<size_t>(kBytes / sizeof(T) / columns_, 4, 48)),
        x_(RepeatedOf<T>(91, rows_ * columns_)),
        y_(rows_ * columns_),
        weight_(RepeatedOf<float>(92, columns_)) {}

  T* data() const { return y_.data() + (rows_ - 1) * columns_; }
  void Poison() const {
    REQUIRE(cudaMemset(y_.data(), 0xff, rows_ * columns_ * sizeof(T)) == cudaSuccess);
  }
  void Queue() const {
    REQUIRE(RmsNorm(y_.data(), x_.data(), nullptr, static_cast<int>(rows_),
                    static_cast<int>(columns_), {weight_.data(), 1e-5f, false},
                    nullptr) == cudaSuccess);
  }

 private:
  static constexpr size_t kBytes = size_t{8} << 20;  // 160 us of a bus of PCIe 5

  size_t columns_;
  size_t rows_;  // of as many blocks: most multiprocessors stay free
  Pinned<T> x_;
  Device<T> y_;
  Device<float> weight_;
};

/// run(before) calls `before`, which queues the writer, then queues a kernel that reads what it
/// writes, and gives what that kernel wrote: the same whether or not the writer has ended.
template <typename T, typename Run>
void CheckWaits(const LateWriter<T>& writer, const Run& run) {
  constexpr int kRounds = 3;
  const auto expected = run([&] {
    writer.Queue();
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  });
  for (int round = 0; round < kRounds; ++round) {
    writer.Poison();
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
    CHECK(SameBits(run([&] { writer.Queue(); }), expected));
  }
}

/// Fills what blocks have of shared memory with NaN, on all multiprocessors: attention over NaN has
/// nearly all of it for queries, keys and values.
inline void PoisonSharedMemory() {
  constexpr int kDim = 128;
  static const int tiles_count = 2 * MultiprocessorCount();  // each takes a whole one
  constexpr int kStride = 3 * kDim;
  static const Device<Bf16> qkv(
      std::vector<Bf16>(size_t{kMoreTileRows} * kStride, __float2bfloat16(NAN)));
  static const Device<Bf16> page(
      std::vector<Bf16>(size_t{2} * kPageTokens * kDim, __float2bfloat16(NAN)));
  static const Device<int32_t> pages(std::vector<int32_t>(2 * kSplitTokens / kPageTokens, 0));
  static const Device<AttentionTile> tiles(std::vector<AttentionTile>(
      static_cast<size_t>(tiles_count),
      {0, kMoreTileRows, 2 * kSplitTokens - kMoreTileRows, 0, 0, 0, 2, 0}));
  static const Device<Bf16> out(size_t{kMoreTileRows} * kDim);
  const AttentionOperands<Bf16> operands{out.data(),
                                         qkv.data(),
                                         kStride,
                                         {page.data(), 2 * kPageTokens * kDim, 1, kDim},
                                         pages.data(),
                                         nullptr,
                                         1,
                                         1.0f,
                                         0,
                                         0};
  AttentionWorkView view{};
  view.more_tiles = tiles.data();
  view.more_tiles_count = tiles_count;
  REQUIRE(AttendTilesSm90(operands, view, nullptr) == cudaSuccess);
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
}

}  // namespace neurogrid::kernels
