// Matrix products against f64, and the same bits from every kernel and for every number of rows.
#include "kernels/matmul.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <optional>

#include "tests/kernels/device.h"
#include "tests/kernels/packed.h"
#include "tests/kernels/seeds.h"

namespace neurogrid::kernels {
namespace {

struct Case {
  WeightFormat format;
  int outputs;
  int inputs;
  int rows;
  Epilogue epilogue = Epilogue::kStore;
  bool y_is_f32 = true;
};

bool Gated(const Case& c) {
  return c.epilogue == Epilogue::kSiluGated || c.epilogue == Epilogue::kGeluGated;
}
size_t Size(int a, int b) { return static_cast<size_t>(a) * static_cast<size_t>(b); }

/// Operands of one case on the device.
class Product {
 public:
  Product(const Case& c, bool with_bias)
      : case_(c),
        bias_(with_bias ? RandomFloats(3, Size(parts(), c.outputs)) : std::vector<float>()),
        weights_(c.format, c.outputs, c.inputs,
                 RandomFloats(1, Size(parts() * c.outputs, c.inputs), 0.3f), bias_, Gated(c)),
        x_(RandomFloats(2, Size(c.rows, c.inputs))),
        old_y_(RandomFloats(4, Size(c.rows, c.outputs))) {
    if (c.format != WeightFormat::kF32) x_ = Widen(ToBf16(x_));
    if (!c.y_is_f32) old_y_ = Widen(ToBf16(old_y_));
    if (c.format == WeightFormat::kF32) {
      x_f32_.emplace(x_);
    } else {
      x_bf16_.emplace(ToBf16(x_));
    }
  }

  /// Rows [first, first + rows) of the product, widened.
  std::vector<float> Run(int first, int rows, std::optional<MatMulKernel> kernel = {}) const {
    return RunBy(first, rows, [&](const MatMulOperands& operands) {
      return kernel ? MatMulBy(*kernel, operands, weights_.view(), nullptr)
                    : MatMul(operands, weights_.view(), nullptr);
    });
  }
  /// By the kernel for few rows in its form for another GPU; nothing where it does not fit.
  std::optional<std::vector<float>> RunFewRowsFor(const GpuLimits& gpu, int first, int rows) const {
    if (!FewRowsFit(weights_.view(), rows, gpu)) return {};
    return RunBy(first, rows, [&](const MatMulOperands& operands) {
      return MatMulFewRows(operands, weights_.view(), gpu, nullptr);
    });
  }

  struct Sum {
    double value;
    double bound;
  };
  /// Of row r with packed part `part`: f64, and what f32 accumulation may lose. A step of 16 on a
  /// tensor core truncates the exact sum (2^-23 of it); slices and scales add a few roundings.
  Sum Exact(size_t r, size_t part, size_t n) const {
    const auto inputs = static_cast<size_t>(case_.inputs);
    double sum = 0;
    double magnitude = 0;
    for (size_t k = 0; k < inputs; ++k) {
      const double term = double{x_[r * inputs + k]} *
                          weights_.value(part * static_cast<size_t>(case_.outputs) + n, k);
      sum += term;
      magnitude += std::abs(term);
    }
    const double additions =
        case_.format == WeightFormat::kF32 ? case_.inputs : case_.inputs / 16.0 + 12;
    double bias = 0;
    if (!bias_.empty()) bias = double{bias_[part * static_cast<size_t>(case_.outputs) + n]};
    return {sum + bias, additions * 0x1p-23 * (magnitude + std::abs(bias))};
  }
  double old_y(size_t i) const { return double{old_y_[i]}; }

  /// y [rows, width] of sevens, and the product in it from column `first` on.
  std::vector<float> RunInto(int width, int first) const {
    const Device<float> y(std::vector<float>(Size(case_.rows, width), 7.0f));
    const void* x = x_f32_ ? static_cast<const void*>(x_f32_->data())
                           : static_cast<const void*>(x_bf16_->data());
    const MatMulOperands operands{y.data() + first, true, x, case_.rows, case_.epilogue, width};
    REQUIRE(MatMul(operands, weights_.view(), nullptr) == cudaSuccess);
    return y.Read();
  }

 private:
  template <typename Queue>
  std::vector<float> RunBy(int first, int rows, const Queue& queue) const {
    const auto begin = old_y_.begin() + static_cast<std::ptrdiff_t>(Size(first, case_.outputs));
    const std::vector<float> old(begin,
                                 begin + static_cast<std::ptrdiff_t>(Size(rows, case_.outputs)));
    std::optional<Device<float>> y_f32;
    std::optional<Device<Bf16>> y_bf16;
    void* y = nullptr;
    if (case_.y_is_f32) {
      y = y_f32.emplace(old).data();
    } else {
      y = y_bf16.emplace(ToBf16(old)).data();
    }
    const size_t offset = Size(first, case_.inputs);
    const void* x = x_f32_ ? static_cast<const void*>(x_f32_->data() + offset)
                           : static_cast<const void*>(x_bf16_->data() + offset);
    const MatMulOperands operands{y, case_.y_is_f32, x, rows, case_.epilogue};
    REQUIRE(queue(operands) == cudaSuccess);
    return y_f32 ? y_f32->Read() : Widen(y_bf16->Read());
  }

  int parts() const { return Gated(case_) ? 2 : 1; }

  Case case_;
  std::vector<float> bias_;
  PackedWeights weights_;
  std::vector<float> x_;
  std::vector<float> old_y_;
  std::optional<Device<float>> x_f32_;
  std::optional<Device<Bf16>> x_bf16_;
};

double Activate(Epilogue epilogue, double x) {
  if (epilogue == Epilogue::kSiluGated) return x / (1 + std::exp(-x));
  return x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

void CheckAgainstF64(const Case& c, const Product& product, const std::vector<float>& y) {
  const auto outputs = static_cast<size_t>(c.outputs);
  size_t wrong = 0;
  double worst = 0;  // error over bound
  for (size_t i = 0; i < y.size(); ++i) {
    const Product::Sum sum = product.Exact(i / outputs, 0, i % outputs);
    double expected = sum.value;
    double bound = sum.bound;
    if (Gated(c)) {
      const Product::Sum up = product.Exact(i / outputs, 1, i % outputs);
      const double gate = Activate(c.epilogue, sum.value);
      expected = gate * up.value;
      // Both activations have slopes below 1.13 and are computed within 8 ulps.
      const double gate_bound = 1.13 * sum.bound + 8 * 0x1p-23 * std::abs(sum.value);
      bound = gate_bound * (std::abs(up.value) + up.bound) + std::abs(gate) * up.bound;
    }
    if (c.epilogue == Epilogue::kAdd) expected += product.old_y(i);
    bound +=
        (c.y_is_f32 ? HalfUlp<float>(expected) * 3 : HalfUlp<Bf16>(std::abs(expected) + bound)) +
        0x1p-24 * std::abs(expected);
    const double error = std::abs(double{y[i]} - expected);
    worst = std::max(worst, error / bound);
    if (!(error <= bound)) ++wrong;
  }
  CAPTURE(worst);
  CHECK(wrong == 0);
}

void CheckCase(const Case& c, bool with_bias) {
  CAPTURE(static_cast<int>(c.format), c.outputs, c.inputs, c.rows, static_cast<int>(c.epilogue),
          c.y_is_f32, with_bias);
  const Product product(c, with_bias);
  CheckAgainstF64(c, product, product.Run(0, c.rows));
}

}  // namespace

TEST_CASE("MatMul is the product of x and the transpose of w", "[kernels]") {
  const Seeded seeded;
  const WeightFormat format =
      GENERATE(WeightFormat::kF32, WeightFormat::kBf16, WeightFormat::kInt8);
  for (const int rows : {1, 3, 8, 9, 16, 17, 70}) {
    CheckCase({format, 24, 96, rows}, rows % 2 == 0);
  }
  CheckCase({format, 144, 8, 5}, false);
  CheckCase({format, 40, 1352, 2}, true);
  CheckCase({format, 40, 1352, 20}, true);
}

TEST_CASE("epilogues add, gate and round once", "[kernels]") {
  const Seeded seeded;
  const WeightFormat format =
      GENERATE(WeightFormat::kF32, WeightFormat::kBf16, WeightFormat::kInt8);
  const Epilogue epilogue = GENERATE(Epilogue::kAdd, Epilogue::kSiluGated, Epilogue::kGeluGated);
  const bool y_is_f32 = format == WeightFormat::kF32 || GENERATE(false, true);
  for (const int rows : {1, 12, 33}) {
    CheckCase({format, 44, 80, rows, epilogue, y_is_f32}, rows == 12);
  }
}

TEST_CASE("a matrix of many outputs is one chain over its inputs", "[kernels]") {
  const Seeded seeded;
  const WeightFormat format = GENERATE(WeightFormat::kBf16, WeightFormat::kInt8);
  CheckCase({format, 4112, 136, 2, Epilogue::kStore, false}, false);
  CheckCase({format, 4112, 136, 18, Epilogue::kStore, true}, false);
}

TEST_CASE("every kernel gives the same bits", "[kernels]") {
  const Seeded seeded;
  const WeightFormat format = GENERATE(WeightFormat::kBf16, WeightFormat::kInt8);
  // 4112 outputs: one chain; fewer: eight slices. 1352 inputs: more chunks than slices, unevenly.
  // 400 outputs: more tiles than blocks.
  const auto [outputs, inputs] =
      GENERATE(std::pair{40, 1352}, std::pair{4112, 136}, std::pair{400, 520}, std::pair{24, 96});
  // 9 rows: the most that the kernel for few takes on a GPU of any size.
  const Case c{format, outputs, inputs, 9, Epilogue::kAdd, true};
  const Product product(c, true);
  const std::vector<float> few = product.Run(0, 9, MatMulKernel::kFewRows);
  CHECK(SameBits(few, product.Run(0, 9, MatMulKernel::kWideTiles)));
  CHECK(SameBits(few, product.Run(0, 9, MatMulKernel::kNarrowTiles)));
}

TEST_CASE("few rows have the same bits in every form of their kernel", "[kernels]") {
  const Seeded seeded;
  const WeightFormat format = GENERATE(WeightFormat::kBf16, WeightFormat::kInt8);
  const auto [outputs, inputs] =
      GENERATE(std::pair{400, 1352}, std::pair{4112, 264}, std::pair{24, 96});
  const Case c{format, outputs, inputs, 16, Epilogue::kAdd, false};
  const Product product(c, true);
  const std::vector<float> tiles = product.Run(0, 16, MatMulKernel::kNarrowTiles);
  // Short rings; a block for each tile, with half the warps where a warp has a tile for itself.
  const GpuLimits small{3, 99 * 1024};
  const GpuLimits wide{300, 163 * 1024};
  for (const int rows : {1, 2, 3, 8, 9, 16}) {
    if (outputs > 4096 && rows != 2 && rows != 9) continue;  // many tiles of the same forms
    for (const GpuLimits& gpu : {small, wide, LimitsOfGpu()}) {
      CAPTURE(rows, gpu.multiprocessors, gpu.shared_max);
      if (gpu.shared_max > LimitsOfGpu().shared_max) continue;
      const auto y = product.RunFewRowsFor(gpu, 16 - rows, rows);
      if (!y && rows > 9 && gpu.shared_max < small.shared_max) continue;  // int8 on sm_75
      REQUIRE(y.has_value());
      CHECK(SameBits(*y, std::vector<float>(tiles.end() - rows * outputs, tiles.end())));
    }
  }
}

TEST_CASE("few rows of more activations than a block loads at once are whole", "[kernels]") {
  const Seeded seeded;
  // A block for each tile, of half the warps: 128 threads load eight pieces of eight inputs each.
  const GpuLimits gpu{300, 163 * 1024};
  if (gpu.shared_max > LimitsOfGpu().shared_max) SKIP("rings of sm_75 leave no room for them");
  const Case c{WeightFormat::kBf16, 4112, 920, 9, Epilogue::kStore, true};
  const Product product(c, false);
  const std::optional<std::vector<float>> y = product.RunFewRowsFor(gpu, 0, 9);
  REQUIRE(y.has_value());
  CheckAgainstF64(c, product, *y);
}

TEST_CASE("a row of a product does not depend on the rows beside it", "[kernels]") {
  const Seeded seeded;
  const WeightFormat format =
      GENERATE(WeightFormat::kF32, WeightFormat::kBf16, WeightFormat::kInt8);
  const Case c{format, 40, 1352, 70, Epilogue::kStore, true};
  const Product product(c, false);
  const std::vector<float> all = product.Run(0, 70);
  for (const auto& [first, rows] : {std::pair{0, 1}, {69, 1}, {3, 7}, {5, 16}, {1, 64}, {4, 66}}) {
    CAPTURE(first, rows);
    const auto begin = all.begin() + first * 40;
    CHECK(SameBits(std::vector<float>(begin, begin + rows * 40), product.Run(first, rows)));
  }
}

TEST_CASE("a product may fill some columns of a wider y and leave the others", "[kernels]") {
  const Seeded seeded;
  const WeightFormat format =
      GENERATE(WeightFormat::kF32, WeightFormat::kBf16, WeightFormat::kInt8);
  const int rows = GENERATE(3, 40);
  constexpr int kOutputs = 24;
  constexpr int kWidth = 37;
  constexpr int kFirst = 9;
  const Case c{format, kOutputs, 64, rows, Epilogue::kStore, true};
  const Product product(c, true);
  const std::vector<float> alone = product.Run(0, rows);
  const std::vector<float> wide = product.RunInto(kWidth, kFirst);
  for (int r = 0; r < rows; ++r) {
    const auto row = wide.begin() + r * kWidth;
    CHECK(SameBits(
        std::vector<float>(row + kFirst, row + kFirst + kOutputs),
        std::vector<float>(alone.begin() + r * kOutputs, alone.begin() + (r + 1) * kOutputs)));
    CHECK(std::count(row, row + kFirst, 7.0f) == kFirst);
    CHECK(std::count(row + kFirst + kOutputs, row + kWidth, 7.0f) == kWidth - kFirst - kOutputs);
  }
}

TEST_CASE("a shape that no kernel takes is refused", "[kernels]") {
  const PackedWeights odd(WeightFormat::kBf16, 16, 12, RandomFloats(1, 16 * 12));
  const PackedWeights plain(WeightFormat::kBf16, 16, 16, RandomFloats(1, 16 * 16));
  Device<float> y(16);
  const Device<Bf16> x(ToBf16(RandomFloats(1, 16)));
  const MatMulOperands operands{y.data(), true, x.data(), 1, Epilogue::kStore};
  CHECK(MatMul(operands, odd.view(), nullptr) == cudaErrorInvalidValue);
  MatMulOperands gated = operands;
  gated.epilogue = Epilogue::kSiluGated;
  CHECK(MatMul(gated, plain.view(), nullptr) == cudaErrorInvalidValue);
}

}  // namespace neurogrid::kernels
