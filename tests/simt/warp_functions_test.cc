// Shuffles, votes and the tensor core against arithmetic in f64.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>

#include "kernels/mma.cuh"
#include "kernels/simt.cuh"
#include "tests/simt/toy_kernels.h"

namespace neurogrid::kernels {
namespace {

using Catch::Matchers::ContainsSubstring;

struct Shuffled {
  int from_three, flipped, from_left, from_right;
  unsigned odd;
  int any_ten, all_below_40;
};

void ShuffleAll(Shuffled* out) {
  const int lane = static_cast<int>(threadIdx.x);
  Shuffled s;
  s.from_three = __shfl_sync(kFullMask, 10 * lane, 3);
  s.flipped = __shfl_xor_sync(kFullMask, 10 * lane, 6);
  s.from_left = __shfl_up_sync(kFullMask, 10 * lane, 2);
  s.from_right = __shfl_down_sync(kFullMask, 10 * lane, 2);
  s.odd = __ballot_sync(kFullMask, lane % 2);
  s.any_ten = __any_sync(kFullMask, lane == 10);
  s.all_below_40 = __all_sync(kFullMask, lane < 40);
  out[lane] = s;
}

void SumBoth(const double* x, double* out) {
  struct Shared {
    BlockScratch<double> scratch;
  };
  const double value = x[threadIdx.x];
  const double warp = WarpSum(value);
  const double block = BlockSum<96>(value, SharedObject<Shared>().scratch);
  const double largest = BlockMax<96>(value, SharedObject<Shared>().scratch);
  out[3 * threadIdx.x] = warp;
  out[3 * threadIdx.x + 1] = block;
  out[3 * threadIdx.x + 2] = largest;
}

/// c [16, 8] += a [16, 16] b^T [8, 16], loaded as the kernels load them: b by rows (ldmatrix) or by
/// columns (transposed).
template <bool kTransposed>
void MultiplyTile(float* c, const bf16* a, const bf16* b) {
  auto* shared = SharedMemory<bf16>();  // a [16][16], then b
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 32; i += 32) CopyAsync16(shared + 8 * i, a + 8 * i, true);
  for (int i = lane; i < 16; i += 32) CopyAsync16(shared + 256 + 8 * i, b + 8 * i, true);
  CommitCopies();
  WaitForCopies<0>();
  __syncthreads();
  uint32_t a_part[4];
  uint32_t b_part[4];
  LdMatrix(a_part, shared + lane % 16 * 16 + lane / 16 * 8);
  if (kTransposed) {  // b lies [16][8]; lanes 16 and up repeat
    LdMatrixTransposed(b_part, shared + 256 + lane % 16 * 8);
  } else {  // [8][16]
    LdMatrix(b_part, shared + 256 + lane % 8 * 16 + lane / 8 % 2 * 8);
  }
  float sums[4];
  const int g = lane / 4;
  const int q = lane % 4;
  for (int i = 0; i < 4; ++i) sums[i] = c[(g + i / 2 * 8) * 8 + 2 * q + i % 2];
  Mma(sums, a_part, b_part[0], b_part[1]);
  for (int i = 0; i < 4; ++i) c[(g + i / 2 * 8) * 8 + 2 * q + i % 2] = sums[i];
}

void ReadBeforeTheCopyArrives(float* out, const float* x) {
  float* shared = SharedMemory<float>();
  CopyAsync16(shared + 4 * threadIdx.x, x + 4 * threadIdx.x, threadIdx.x != 1);
  CommitCopies();
  const float early = shared[4 * threadIdx.x];
  WaitForCopies<0>();
  out[2 * threadIdx.x] = early;
  out[2 * threadIdx.x + 1] = shared[4 * threadIdx.x];
}
void CopyFromAnOddAddress(const float* x) {
  CopyAsync16(SharedMemory<float>() + 4 * threadIdx.x, x + 1, true);
}

}  // namespace

TEST_CASE("shuffles and votes are what the manual says", "[simt]") {
  simt::SetSeed(GENERATE(0, 1, 2));
  Device<Shuffled> out(32);
  REQUIRE(RunBlock(32, 0, ShuffleAll, out.data()).empty());
  const std::vector<Shuffled> found = out.Read();
  for (int lane = 0; lane < 32; ++lane) {
    CAPTURE(lane);
    const Shuffled& s = found[static_cast<size_t>(lane)];
    CHECK(s.from_three == 30);
    CHECK(s.flipped == 10 * (lane ^ 6));
    CHECK(s.from_left == 10 * (lane < 2 ? lane : lane - 2));
    CHECK(s.from_right == 10 * (lane > 29 ? lane : lane + 2));
    CHECK(s.odd == 0xaaaaaaaau);
    CHECK(s.any_ten == 1);
    CHECK(s.all_below_40 == 1);
  }
  simt::SetSeed(0);
}

TEST_CASE("reductions reach every thread", "[simt]") {
  simt::SetSeed(GENERATE(0, 1, 2));
  std::vector<double> x;
  for (int i = 0; i < 96; ++i) x.push_back(std::ldexp(1 + i, i % 7));
  double sums[3] = {};
  double total = 0;
  double largest = 0;
  for (size_t i = 0; i < 96; ++i) {
    sums[i / 32] += x[i];
    total += x[i];
    largest = std::max(largest, x[i]);
  }
  const Device<double> in(x);
  Device<double> out(3 * 96);
  REQUIRE(RunBlock(96, 0, SumBoth, in.data(), out.data()).empty());
  const std::vector<double> found = out.Read();
  for (size_t i = 0; i < 96; ++i) {
    CHECK(found[3 * i] == sums[i / 32]);
    CHECK(found[3 * i + 1] == total);
    CHECK(found[3 * i + 2] == largest);
  }
  simt::SetSeed(0);
}

TEST_CASE("a tensor core step is the f64 sum, rounded once", "[simt]") {
  const bool transposed = GENERATE(false, true);
  simt::SetSeed(GENERATE(0, 1, 2));
  const std::vector<Bf16> a = RandomOf<Bf16>(1, 256);
  const std::vector<Bf16> b = RandomOf<Bf16>(2, 128);
  const std::vector<float> c = RandomFloats(3, 128);
  std::vector<float> expected;
  for (size_t row = 0; row < 16; ++row) {
    for (size_t column = 0; column < 8; ++column) {
      double sum = double{c[row * 8 + column]};
      for (size_t k = 0; k < 16; ++k) {
        const size_t at = transposed ? k * 8 + column : column * 16 + k;
        sum += double{__bfloat162float(a[row * 16 + k])} * double{__bfloat162float(b[at])};
      }
      expected.push_back(static_cast<float>(sum));
    }
  }
  const Device<Bf16> da(a);
  const Device<Bf16> db(b);
  Device<float> dc(c);
  REQUIRE(RunBlock(32, 768, transposed ? MultiplyTile<true> : MultiplyTile<false>, dc.data(),
                   da.data(), db.data())
              .empty());
  CHECK(dc.Read() == expected);
  simt::SetSeed(0);
}

TEST_CASE("an asynchronous copy arrives when its group is waited for, or before", "[simt]") {
  const unsigned seed = GENERATE(0u, 1u, 2u);
  simt::SetSeed(seed);
  const Device<float> x(std::vector<float>(128, 7));
  Device<float> out(64);
  REQUIRE(RunBlock(32, 512, ReadBeforeTheCopyArrives, out.data(), x.data()).empty());
  const std::vector<float> found = out.Read();
  int early = 0;
  for (size_t thread = 0; thread < 32; ++thread) {
    early += std::isnan(found[2 * thread]) ? 0 : 1;
    CHECK(found[2 * thread + 1] == (thread == 1 ? 0 : 7));  // not live: zeros
  }
  CHECK(early <= 30);
  CHECK((early > 0) == (seed > 0));
  CHECK_THAT(RunBlock(32, 512, CopyFromAnOddAddress, x.data()),
             ContainsSubstring("not 16-byte aligned"));
  simt::SetSeed(0);
}

}  // namespace neurogrid::kernels
