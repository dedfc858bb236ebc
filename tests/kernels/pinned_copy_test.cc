// What the host has pinned arrives on the device, and nothing beside it is written.
#include "kernels/pinned_copy.h"

#include "tests/kernels/device.h"
#include "tests/kernels/seeds.h"

namespace neurogrid::kernels {
namespace {

TEST_CASE("a copy of pinned memory brings every byte and touches none beside", "[pinned_copy]") {
  const Seeded seeded;
  constexpr size_t kRoom = kPinnedCopyBytesMax + 64;
  constexpr uint8_t kUntouched = 0xa5;
  uint8_t* pinned = nullptr;
  REQUIRE(cudaMallocHost(&pinned, kRoom) == cudaSuccess);
  for (size_t i = 0; i < kRoom; ++i) pinned[i] = static_cast<uint8_t>(SplitMix64(i));
  // Nothing, a part of a piece, pieces with and without a rest, a block and a little, the largest.
  for (const int64_t bytes : {int64_t{0}, int64_t{1}, int64_t{15}, int64_t{16}, int64_t{17},
                              int64_t{4096}, int64_t{4100}, kPinnedCopyBytesMax}) {
    CAPTURE(bytes);
    const Device<uint8_t> to(std::vector<uint8_t>(kRoom, kUntouched));
    REQUIRE(CopyPinned(to.data(), pinned, bytes, nullptr) == cudaSuccess);
    std::vector<uint8_t> expected(kRoom, kUntouched);
    std::memcpy(expected.data(), pinned, static_cast<size_t>(bytes));
    CHECK(to.Read() == expected);
  }
  cudaFreeHost(pinned);
}

}  // namespace
}  // namespace neurogrid::kernels
