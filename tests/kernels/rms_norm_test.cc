// Norms, embedding and soft caps against f64.
#include "kernels/rms_norm.h"

#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "kernels/embedding.h"
#include "kernels/softcap.h"
#include "tests/kernels/device.h"
#include "tests/kernels/packed.h"
#include "tests/kernels/seeds.h"

namespace neurogrid::kernels {

TEMPLATE_TEST_CASE("RmsNorm divides each row by its root mean square", "[kernels]", float, Bf16) {
  const Seeded seeded;
  const int columns = GENERATE(8, 96, 300, 2048, 8500);
  const bool rounds = GENERATE(false, true);
  const int rows = 3;
  CAPTURE(columns, rounds);
  const auto size = static_cast<size_t>(rows * columns);
  const std::vector<TestType> x = RandomOf<TestType>(1, size, 3);
  const std::vector<float> w = RandomFloats(2, static_cast<size_t>(columns));
  const Device<TestType> dx(x);
  const Device<float> dw(w);
  Device<TestType> dy(size);
  const float epsilon = 1e-5f;
  REQUIRE(RmsNorm(dy.data(), dx.data(), nullptr, rows, columns, {dw.data(), epsilon, rounds},
                  nullptr) == cudaSuccess);
  const std::vector<float> y = Widen(dy.Read());
  const std::vector<float> wide = Widen(x);
  for (size_t row = 0; row < rows; ++row) {
    double squares = 0;
    for (size_t c = 0; c < static_cast<size_t>(columns); ++c) {
      squares += std::pow(double{wide[row * columns + c]}, 2);
    }
    const double factor = 1 / std::sqrt(squares / columns + double{epsilon});
    for (size_t c = 0; c < static_cast<size_t>(columns); ++c) {
      const double quotient = double{wide[row * columns + c]} * factor;
      const double expected = quotient * double{w[c]};
      // f32: a sum of n terms in chains of at most 16, a tree and 32 warps, halved by the root; a
      // root, a division, two products. Then the roundings to the dtype.
      const double f32 = 32 * 0x1p-24 * std::abs(expected);
      const double once = HalfUlp<TestType>(expected * 1.01);
      const double before =
          rounds ? HalfUlp<TestType>(quotient * 1.01) * std::abs(double{w[c]}) : 0;
      CHECK(std::abs(double{y[row * columns + c]} - expected) <= f32 + once + before);
    }
  }
}

TEMPLATE_TEST_CASE("RmsNorm of a row does not depend on the rows beside it or on its place",
                   "[kernels]", float, Bf16) {
  const Seeded seeded;
  const int columns = GENERATE(296, 300);  // in whole vectors, and not
  const auto size = static_cast<size_t>(columns);
  const std::vector<TestType> x = RandomOf<TestType>(1, 5 * size);
  const Device<float> w(RandomFloats(2, size));
  const Device<TestType> dx(x);
  Device<TestType> all(5 * size);
  Device<TestType> some(3 * size);
  const Device<int32_t> sources(std::vector<int32_t>{4, 0, 4});
  const NormParameters norm{w.data(), 1e-6f, true};
  REQUIRE(RmsNorm(all.data(), dx.data(), nullptr, 5, columns, norm, nullptr) == cudaSuccess);
  REQUIRE(RmsNorm(some.data(), dx.data(), sources.data(), 3, columns, norm, nullptr) ==
          cudaSuccess);
  const std::vector<TestType> rows = all.Read();
  const auto row = [&](size_t i) { return rows.begin() + static_cast<std::ptrdiff_t>(i * size); };
  std::vector<TestType> expected(row(4), row(5));
  expected.insert(expected.end(), row(0), row(1));
  expected.insert(expected.end(), row(4), row(5));
  CHECK(SameBits(some.Read(), expected));
}

TEMPLATE_TEST_CASE("RmsNormAdd adds the rounded norm and norms the sum", "[kernels]", float, Bf16) {
  const Seeded seeded;
  const int columns = GENERATE(300, 2048, 8500);
  const bool has_next = GENERATE(false, true);
  const int rows = 2;
  CAPTURE(columns, has_next);
  const auto size = static_cast<size_t>(rows * columns);
  const std::vector<TestType> y = RandomOf<TestType>(1, size, 3);
  const Device<TestType> x(RandomOf<TestType>(2, size, 3));
  const Device<float> weight(RandomFloats(3, static_cast<size_t>(columns)));
  const Device<float> next_weight(RandomFloats(4, static_cast<size_t>(columns)));
  const NormParameters norm{weight.data(), 1e-5f, false};
  const NormParameters next{has_next ? next_weight.data() : nullptr, 1e-6f, true};
  Device<TestType> sum(y);
  Device<TestType> normed_sum(size);
  REQUIRE(RmsNormAdd(sum.data(), x.data(), norm, has_next ? normed_sum.data() : nullptr, next, rows,
                     columns, nullptr) == cudaSuccess);
  // The norm alone is compared with f64 above.
  Device<TestType> normed(size);
  REQUIRE(RmsNorm(normed.data(), x.data(), nullptr, rows, columns, norm, nullptr) == cudaSuccess);
  std::vector<float> expected = Widen(y);
  const std::vector<float> addend = Widen(normed.Read());
  for (size_t i = 0; i < size; ++i) expected[i] += addend[i];
  const std::vector<float> found = Widen(sum.Read());
  int wrong = 0;
  for (size_t i = 0; i < size; ++i) {
    const float rounded = sizeof(TestType) == 2 ? Widen(ToBf16({expected[i]}))[0] : expected[i];
    wrong += found[i] != rounded;
  }
  CHECK(wrong == 0);
  if (!has_next) return;
  Device<TestType> alone(size);
  REQUIRE(RmsNorm(alone.data(), sum.data(), nullptr, rows, columns, next, nullptr) == cudaSuccess);
  CHECK(SameBits(normed_sum.Read(), alone.Read()));
}

TEST_CASE("Softcap is cap * tanh(y / cap)", "[kernels]") {
  const Seeded seeded;
  const std::vector<float> y = RandomFloats(1, 513, 40);
  Device<float> dy(y);
  REQUIRE(Softcap(dy.data(), 513, 30, nullptr) == cudaSuccess);
  const std::vector<float> found = dy.Read();
  for (size_t i = 0; i < y.size(); ++i) {
    // A division, a tanh good to 2 ulps, a product; the division's error grows by at most 1.
    const double expected = 30 * std::tanh(double{y[i]} / 30);
    CHECK(std::abs(double{found[i]} - expected) <= 6 * HalfUlp<float>(expected));
  }
}

TEST_CASE("Embed gives scaled rows of the table in every format", "[kernels]") {
  const Seeded seeded;
  const WeightFormat format =
      GENERATE(WeightFormat::kF32, WeightFormat::kBf16, WeightFormat::kInt8);
  // Few rows have a thread for each element, many a block for each row, here of more columns.
  const int rows = GENERATE(3, 520);
  if (rows > 3 && format == WeightFormat::kF32) return;
  constexpr int kColumns = 300;
  const auto size = static_cast<size_t>(rows * kColumns);
  const PackedWeights table(format, 19, kColumns, RandomFloats(1, 19 * kColumns));
  // Every third row's id is one that was drawn before.
  std::vector<int32_t> ids;
  std::vector<int32_t> given;
  std::vector<int32_t> before;
  for (int row = 0; row < rows; ++row) {
    ids.push_back((18 + 5 * row) % 19);
    given.push_back(row % 3 == 1 ? -1 - static_cast<int32_t>(before.size()) : ids.back());
    if (row % 3 == 1) before.push_back(ids.back());
  }
  const Device<int32_t> tokens(given);
  const Device<int32_t> drawn(before);
  Device<float> dy(size);
  REQUIRE(Embed(dy.data(), table.view(), tokens.data(), drawn.data(), rows, 2.5f, nullptr) ==
          cudaSuccess);
  const std::vector<float> y = dy.Read();
  int wrong = 0;
  for (size_t i = 0; i < size; ++i) {
    const double expected = 2.5 * table.value(static_cast<size_t>(ids[i / kColumns]), i % kColumns);
    // Two products, each off by 2^-24 of itself at most.
    wrong += !(std::abs(double{y[i]} - expected) <= 0x1.0001p-23 * std::abs(expected));
  }
  CHECK(wrong == 0);
  Device<Bf16> rounded(size);
  REQUIRE(Embed(rounded.data(), table.view(), tokens.data(), drawn.data(), rows, 2.5f, nullptr) ==
          cudaSuccess);
  CHECK(SameBits(rounded.Read(), ToBf16(y)));
}

}  // namespace neurogrid::kernels
