// The kernels that measure memory do what they are measured for.
#include "kernels/bandwidth.h"

#include "tests/kernels/device.h"
#include "tests/kernels/seeds.h"

namespace neurogrid::kernels {
namespace {

// More than one turn of every thread with its eight loads, and an odd rest; a few; none.
std::vector<int64_t> Units() { return {int64_t{BandwidthBlocks()} * 256 * 8 + 5 * 256 + 3, 77, 0}; }

std::vector<uint32_t> Words(int64_t units) {
  std::vector<uint32_t> words(static_cast<size_t>(4 * units));
  for (size_t i = 0; i < words.size(); ++i) words[i] = static_cast<uint32_t>(SplitMix64(i));
  return words;
}

TEST_CASE("the reading kernel reads every word once", "[bandwidth]") {
  const Seeded seeded;
  for (const int64_t units : Units()) {
    CAPTURE(units);
    const std::vector<uint32_t> words = Words(units);
    uint32_t expected = 0;
    for (const uint32_t word : words) expected ^= word;
    const Device<uint32_t> data(words);
    const Device<uint32_t> sums(static_cast<size_t>(BandwidthBlocks()));
    REQUIRE(ReadAll(sums.data(), data.data(), 16 * units, nullptr) == cudaSuccess);
    uint32_t sum = 0;
    for (const uint32_t part : sums.Read()) sum ^= part;
    CHECK(sum == expected);
  }
}

TEST_CASE("the copying kernel copies every word", "[bandwidth]") {
  const Seeded seeded;
  for (const int64_t units : Units()) {
    CAPTURE(units);
    const std::vector<uint32_t> words = Words(units);
    const Device<uint32_t> from(words);
    const Device<uint32_t> to(words.size());
    REQUIRE(CopyAll(to.data(), from.data(), 16 * units, nullptr) == cudaSuccess);
    CHECK(to.Read() == words);
  }
}

TEST_CASE("filled values are distributed nearly normally", "[bandwidth]") {
  const Seeded seeded;
  constexpr size_t kCount = 60'000;
  const Device<Bf16> values(kCount);
  REQUIRE(FillNormal(values.data(), kCount, 0.5f, 7, nullptr) == cudaSuccess);
  double sum = 0;
  double squares = 0;
  for (const float value : Widen(values.Read())) {
    sum += value;
    squares += double{value} * value;
  }
  // Five deviations of the mean and of the variance of so many draws.
  CHECK(std::abs(sum / kCount) < 5 * 0.5 / std::sqrt(double{kCount}));
  CHECK(std::abs(squares / kCount - 0.25) < 5 * 0.25 * std::sqrt(2.0 / kCount));
}

}  // namespace
}  // namespace neurogrid::kernels
