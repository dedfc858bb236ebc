// Embedding, norms, sums, soft caps, gathers against f64.
#include "kernels/elementwise.h"

#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "kernels/embedding.h"
#include "kernels/rms_norm.h"
#include "tests/kernels/device.h"
#include "tests/kernels/packed.h"
#include "tests/kernels/seeds.h"

namespace neurogrid::kernels {

TEMPLATE_TEST_CASE("RmsNorm divides each row by its root mean square", "[kernels]", float, Bf16) {
  const Seeded seeded;
  const int columns = GENERATE(8, 96, 300, 2048);
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
  REQUIRE(RmsNorm(dy.data(), dx.data(), rows, columns, {dw.data(), epsilon, rounds}, nullptr) ==
          cudaSuccess);
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
      // f32: a sum of n terms in chains of n / 256 and a tree, halved by the root; a root, a
      // division, two products. Then the roundings to the dtype.
      const double f32 = (columns / 512.0 + 16) * 0x1p-24 * std::abs(expected);
      const double once = HalfUlp<TestType>(expected * 1.01);
      const double before =
          rounds ? HalfUlp<TestType>(quotient * 1.01) * std::abs(double{w[c]}) : 0;
      CHECK(std::abs(double{y[row * columns + c]} - expected) <= f32 + once + before);
    }
  }
}

TEMPLATE_TEST_CASE("RmsNorm of a row does not depend on the rows beside it", "[kernels]", float,
                   Bf16) {
  const Seeded seeded;
  const int columns = 300;
  const std::vector<TestType> x = RandomOf<TestType>(1, 5 * 300);
  const Device<float> w(RandomFloats(2, 300));
  const Device<TestType> dx(x);
  Device<TestType> all(5 * 300);
  Device<TestType> one(300);
  const NormParameters norm{w.data(), 1e-6f, true};
  REQUIRE(RmsNorm(all.data(), dx.data(), 5, columns, norm, nullptr) == cudaSuccess);
  REQUIRE(RmsNorm(one.data(), dx.data() + 3 * 300, 1, columns, norm, nullptr) == cudaSuccess);
  const std::vector<TestType> rows = all.Read();
  CHECK(SameBits(std::vector<TestType>(rows.begin() + 900, rows.begin() + 1200), one.Read()));
}

TEMPLATE_TEST_CASE("RmsNormHeads norms the heads it is given and no other", "[kernels]", float,
                   Bf16) {
  const Seeded seeded;
  const int dim = GENERATE(24, 64, 128);
  const int rows = 3;
  const int heads = 7;  // of which 2 .. 6 are normed: 15 warps in blocks of 4
  const auto size = static_cast<size_t>(rows * heads * dim);
  const std::vector<TestType> x = RandomOf<TestType>(1, size, 2);
  const std::vector<float> w = RandomFloats(2, static_cast<size_t>(dim));
  Device<TestType> dx(x);
  const Device<float> dw(w);
  REQUIRE(RmsNormHeads(dx.data(), rows, heads * dim, 2 * dim, 5, dim, {dw.data(), 1e-6f, false},
                       nullptr) == cudaSuccess);
  const std::vector<float> y = Widen(dx.Read());
  const std::vector<float> wide = Widen(x);
  for (size_t head = 0; head < static_cast<size_t>(rows * heads); ++head) {
    double squares = 0;
    for (size_t c = 0; c < static_cast<size_t>(dim); ++c) {
      squares += std::pow(double{wide[head * dim + c]}, 2);
    }
    const bool normed = head % heads >= 2;
    for (size_t c = 0; c < static_cast<size_t>(dim); ++c) {
      const double value = double{wide[head * dim + c]};
      const double expected =
          normed ? value * double{w[c]} / std::sqrt(squares / dim + 1e-6) : value;
      const double bound =
          normed ? 16 * 0x1p-24 * std::abs(expected) + HalfUlp<TestType>(expected * 1.01) : 0;
      CHECK(std::abs(double{y[head * dim + c]} - expected) <= bound);
    }
  }
}

TEMPLATE_TEST_CASE("Add rounds each sum once", "[kernels]", float, Bf16) {
  const Seeded seeded;
  const std::vector<TestType> x = RandomOf<TestType>(1, 700);
  const std::vector<TestType> y = RandomOf<TestType>(2, 700);
  const Device<TestType> dx(x);
  Device<TestType> dy(y);
  REQUIRE(Add(dy.data(), dx.data(), 700, nullptr) == cudaSuccess);
  const std::vector<float> found = Widen(dy.Read());
  for (size_t i = 0; i < 700; ++i) {
    const double expected = double{Widen(x)[i]} + double{Widen(y)[i]};
    CHECK(std::abs(double{found[i]} - expected) <= HalfUlp<TestType>(expected * 1.01));
  }
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

TEST_CASE("GatherRows copies the rows asked for", "[kernels]") {
  const Seeded seeded;
  const std::vector<float> x = RandomFloats(1, 5 * 300);
  const Device<float> dx(x);
  const Device<int32_t> rows(std::vector<int32_t>{4, 0, 4});
  Device<float> dy(3 * 300);
  REQUIRE(GatherRows(dy.data(), dx.data(), rows.data(), 3, 1200, nullptr) == cudaSuccess);
  std::vector<float> expected(x.begin() + 1200, x.end());
  expected.insert(expected.end(), x.begin(), x.begin() + 300);
  expected.insert(expected.end(), x.begin() + 1200, x.end());
  CHECK(SameBits(dy.Read(), expected));
}

TEST_CASE("Embed gives scaled rows of the table in every format", "[kernels]") {
  const Seeded seeded;
  const WeightFormat format =
      GENERATE(WeightFormat::kF32, WeightFormat::kBf16, WeightFormat::kInt8);
  const int columns = 40;
  const PackedWeights table(format, 19, columns, RandomFloats(1, 19 * 40));
  const Device<int32_t> tokens(std::vector<int32_t>{18, 0, 7});
  Device<float> dy(3 * 40);
  REQUIRE(Embed(dy.data(), table.view(), tokens.data(), 3, 2.5f, nullptr) == cudaSuccess);
  const std::vector<float> y = dy.Read();
  const size_t ids[] = {18, 0, 7};
  for (size_t row = 0; row < 3; ++row) {
    for (size_t c = 0; c < 40; ++c) {
      const double expected = 2.5 * table.value(ids[row], c);
      // Two products, each off by 2^-24 of itself at most.
      CHECK(std::abs(double{y[row * 40 + c]} - expected) <= 0x1.0001p-23 * std::abs(expected));
    }
  }
  Device<Bf16> rounded(3 * 40);
  REQUIRE(Embed(rounded.data(), table.view(), tokens.data(), 3, 2.5f, nullptr) == cudaSuccess);
  CHECK(SameBits(rounded.Read(), ToBf16(y)));
}

}  // namespace neurogrid::kernels
