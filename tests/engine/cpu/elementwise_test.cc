#include "engine/cpu/elementwise.h"

#include <cmath>
#include <vector>

#include "catch2/catch_test_macros.hpp"
#include "catch2/generators/catch_generators.hpp"
#include "catch2/generators/catch_generators_range.hpp"
#include "tests/engine/cpu_support.h"

namespace neurogrid {
namespace {

TEST_CASE("RmsNorm divides each row by its root mean square", "[cpu]") {
  const int64_t hidden = GENERATE(1, 24, 96, 2048);
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  CAPTURE(hidden, NameOf(set));
  constexpr int64_t kRows = 5;
  constexpr float kEpsilon = 1e-5f;
  ThreadPool pool(2);
  const CpuContext cpu = {&pool, set};
  std::vector<bf16> x16 = RandomBf16(1, kRows * hidden);
  std::vector<float> x32 = Widen(x16);
  const std::vector<float> w = Widen(RandomBf16(2, hidden));
  std::vector<double> quotient;
  for (int64_t r = 0; r < kRows; ++r) {
    double squares = 0;
    for (int64_t c = 0; c < hidden; ++c)
      squares += std::pow(double{x32[static_cast<size_t>(r * hidden + c)]}, 2);
    const double root = std::sqrt(squares / static_cast<double>(hidden) + double{kEpsilon});
    for (int64_t c = 0; c < hidden; ++c)
      quotient.push_back(double{x32[static_cast<size_t>(r * hidden + c)]} / root);
  }
  const Shape shape = {kRows, hidden};
  // The mean carries a chain of hidden / 16 + 4 roundings, halved by the root; five more follow.
  const double unit = (static_cast<double>(hidden) / 32 + 8) * 0x1p-24;
  SECTION("in f32") {
    std::vector<float> y(x32.size());
    RmsNorm(cpu, View(y, shape), View(x32, shape), w.data(), kEpsilon, true);
    double worst = 0;
    for (size_t i = 0; i < y.size(); ++i) {
      const double expected = quotient[i] * double{w[i % static_cast<size_t>(hidden)]};
      worst = std::max(worst, std::fabs(double{y[i]} - expected) - unit * std::fabs(expected));
    }
    CHECK(worst <= 0);
  }
  SECTION("in bf16, rounding before the weight or not") {
    const bool twice = GENERATE(true, false);
    std::vector<bf16> y(x16.size());
    RmsNorm(cpu, View(y, shape), View(x16, shape), w.data(), kEpsilon, twice);
    int wrong = 0;
    for (size_t i = 0; i < y.size(); ++i) {
      // The f64 quotient lies between roundings of its neighbours unless it is within `unit` of a
      // tie.
      bool found = false;
      for (const double stray : {-unit, 0.0, unit}) {
        float value = static_cast<float>(quotient[i] * (1 + stray));
        if (twice) value = ToFloat(ToBf16(value));
        found |= ToBf16(value * w[i % static_cast<size_t>(hidden)]).bits == y[i].bits;
      }
      wrong += !found;
    }
    CHECK(wrong == 0);
    std::vector<bf16> same = x16;
    RmsNorm(cpu, View(same, shape), View(same, shape), w.data(), kEpsilon, twice);
    CHECK(SameBits(same, y));
    ThreadPool one(1);
    std::vector<bf16> alone(static_cast<size_t>(hidden));
    RmsNorm({&one, InstructionSet::kAvx2}, View(alone, {1, hidden}),
            {x16.data() + 3 * hidden, DType::kBF16, {1, hidden}}, w.data(), kEpsilon, twice);
    CHECK(std::memcmp(alone.data(), y.data() + 3 * hidden, alone.size() * sizeof(bf16)) == 0);
  }
  SECTION("and a row of zeros stays zero, because epsilon keeps the quotient finite") {
    std::vector<float> zeros(x32.size(), 0.0f), y(x32.size(), 1.0f);
    RmsNorm(cpu, View(y, shape), View(zeros, shape), w.data(), kEpsilon, true);
    CHECK(y == std::vector<float>(y.size(), 0.0f));
  }
}

TEST_CASE("EmbedTokens copies the rows of its tokens", "[cpu]") {
  ThreadPool pool(2);
  const CpuContext cpu = {&pool, InstructionSet::kAvx2};
  constexpr int64_t kHidden = 6;
  std::vector<bf16> table = RandomBf16(1, 10 * kHidden);
  const std::vector<int32_t> tokens = {3, 0, 9, 3};
  std::vector<float> y(4 * kHidden), expected;
  for (const int32_t token : tokens) {
    for (int64_t c = 0; c < kHidden; ++c)
      expected.push_back(2 * ToFloat(table[static_cast<size_t>(token * kHidden + c)]));
  }
  SECTION("from bf16 to f32, scaled") {
    EmbedTokens(cpu, View(y, {4, kHidden}), View(table, {10, kHidden}), tokens, 2);
    CHECK(y == expected);
  }
  SECTION("from bf16 to bf16") {
    std::vector<bf16> narrow(y.size());
    EmbedTokens(cpu, View(narrow, {4, kHidden}), View(table, {10, kHidden}), tokens, 2);
    CHECK(Widen(narrow) == expected);
  }
  SECTION("from f16") {
    const std::vector<uint16_t> halves = {0x3c00, 0xc000, 0x3555, 0x0001, 0x7bff, 0x8000};
    EmbedTokens(cpu, {y.data(), DType::kF32, {1, 6}}, {halves.data(), DType::kF16, {1, 6}},
                std::vector<int32_t>{0}, 1);
    CHECK(std::vector<float>(y.begin(), y.begin() + 6) ==
          std::vector<float>{1, -2, 0.333251953125f, 0x1p-24f, 65504, -0.0f});
  }
}

TEST_CASE("MaximumOf finds the lowest index of the largest value", "[cpu]") {
  CHECK(MaximumOf(std::vector<float>{1, 5, 2, 5}).index == 1);
  CHECK(MaximumOf(std::vector<float>{1, 5, 2, 5}).value == 5);
  CHECK(MaximumOf(std::vector<float>{-INFINITY, -INFINITY}).index == 0);
  CHECK_FALSE(MaximumOf(std::vector<float>{1, INFINITY}).has_nan);
  CHECK(MaximumOf(std::vector<float>{1, NAN, 2}).has_nan);
}

TEST_CASE("SumOfExponentials is the softmax denominator", "[cpu]") {
  const int64_t count = GENERATE(1, 16, 33, 50000);
  std::vector<float> values = RandomFloats(4, count);
  for (float& value : values) value *= 8;
  values[0] = -INFINITY;
  const float maximum = MaximumOf(values).value;
  double expected = 0;
  for (const float value : values) expected += std::exp((double{value} - double{maximum}) * 0.75);
  if (count == 1) return;
  std::vector<double> sums;
  for (const InstructionSet set : InstructionSets())
    sums.push_back(SumOfExponentials(set, values, maximum, 0.75f));
  // 256 additions a lane between f64 ones, exp's 4 units, and arguments below 64 rounded twice.
  CHECK(std::fabs(sums[0] - expected) <= expected * (256 + 4 + 2 * 64) * 0x1p-24);
  CHECK(sums == std::vector<double>(sums.size(), sums[0]));
}

}  // namespace
}  // namespace neurogrid
