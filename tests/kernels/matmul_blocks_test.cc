// Products with blocks against f64, and the same bits from every kernel and for every number of
// rows.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <optional>

#include "kernels/embedding.h"
#include "kernels/matmul.h"
#include "tests/kernels/packed_blocks.h"
#include "tests/kernels/seeds.h"

namespace neurogrid::kernels {
namespace {

struct Case {
  BlockType type;
  int outputs;
  int inputs;
  int rows;
  Epilogue epilogue = Epilogue::kStore;
  bool y_is_f32 = true;
  bool with_bias = false;

  bool gated() const {
    return epilogue == Epilogue::kSiluGated || epilogue == Epilogue::kGeluGated;
  }
  size_t parts() const { return gated() ? 2 : 1; }
};

size_t Size(int a, int b) { return static_cast<size_t>(a) * static_cast<size_t>(b); }

/// Inputs of a unit: the least that a row of this type has, and more than the type's own block
/// where that is smaller.
int UnitOf(BlockType type) { return FormatOf(type).unit_inputs(); }

class Product {
 public:
  explicit Product(const Case& c)
      : case_(c),
        bias_(c.with_bias ? RandomFloats(3, c.parts() * Size(c.outputs, 1)) : std::vector<float>()),
        weights_(c.type, c.outputs, c.inputs, bias_, c.gated()),
        x_(Activations()),
        old_y_(RandomFloats(4, Size(c.rows, c.outputs))),
        x_on_device_(ToBf16(x_)) {
    if (!c.y_is_f32) old_y_ = Widen(ToBf16(old_y_));
  }

  /// Rows [first, first + rows) of the product, widened.
  std::vector<float> Run(int first, int rows, std::optional<MatMulKernel> kernel = {}) const {
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
    const MatMulOperands operands{
        y, case_.y_is_f32, x_on_device_.data() + Size(first, case_.inputs), rows, case_.epilogue};
    REQUIRE((kernel ? MatMulBy(*kernel, operands, weights_.view(), nullptr)
                    : MatMul(operands, weights_.view(), nullptr)) == cudaSuccess);
    return y_f32 ? y_f32->Read() : Widen(y_bf16->Read());
  }

  /// Not where a block has little shared memory (sm_75).
  bool FewRowsFitHere() const { return FewRowsFit(weights_.view(), 1, LimitsOfGpu()); }

  struct Sum {
    double value;
    double bound;
  };
  /// Of row r with packed part `part`: f64, and what f32 accumulation may lose.
  ///
  /// Each of these costs at most 2^-23 of what has been added up in magnitude, |scale * value * x|
  /// and |minimum * x|: a step of a tensor core truncates (two in a group of 32: 2 for its chain, 2
  /// for its sum of activations), and each group rounds twice when it is added, for its scale and
  /// for its minimum. A sum of groups is rounded by each group of its slice, and slices add up: 8.
  /// A scale of two factors is exact. Bias: 1.
  Sum Exact(size_t r, size_t part, size_t n) const {
    const auto inputs = static_cast<size_t>(case_.inputs);
    const size_t row = part * static_cast<size_t>(case_.outputs) + n;
    double sum = 0;
    double magnitude = 0;
    for (size_t k = 0; k < inputs; ++k) {
      const double x = double{x_[r * inputs + k]};
      sum += x * weights_.value(row, k);
      magnitude += std::abs(x) * weights_.magnitude(row, k);
    }
    const BlockFormat format = FormatOf(case_.type);
    const int chunks_of_slice =
        (case_.inputs + kBlockChunkInputs * kBlockSlices - 1) / (kBlockChunkInputs * kBlockSlices);
    const double roundings =
        2 + (format.has_minimum ? 2 : 1) * format.groups() * chunks_of_slice + kBlockSlices + 1;
    const double bias = bias_.empty() ? 0 : double{bias_[row]};
    return {sum + bias, roundings * 0x1p-23 * (magnitude + std::abs(bias))};
  }
  double old_y(size_t i) const { return double{old_y_[i]}; }
  const PackedBlocks& weights() const { return weights_; }

 private:
  /// Like real ones: a few channels a thousand times as large, and a group of nothing.
  std::vector<float> Activations() const {
    std::vector<float> x = RandomFloats(2, Size(case_.rows, case_.inputs));
    for (int r = 0; r < case_.rows; ++r) {
      float* row = x.data() + Size(r, case_.inputs);
      for (const int k : {7, 60, 61, 100}) row[k % case_.inputs] *= 1000;
      if (case_.inputs >= 128) std::fill_n(row + 64, 32, 0.0f);
    }
    return Widen(ToBf16(x));
  }

  Case case_;
  std::vector<float> bias_;
  PackedBlocks weights_;
  std::vector<float> x_;
  std::vector<float> old_y_;
  Device<Bf16> x_on_device_;
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
    if (c.gated()) {
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

void CheckCase(const Case& c) {
  CAPTURE(static_cast<int>(c.type), c.outputs, c.inputs, c.rows, static_cast<int>(c.epilogue),
          c.y_is_f32, c.with_bias);
  const Product product(c);
  CheckAgainstF64(c, product, product.Run(0, c.rows));
}

}  // namespace

TEST_CASE("a product with blocks is that of their values", "[kernels][blocks]") {
  const Seeded seeded;
  const BlockType type = GENERATE(from_range(BlockTypes()));
  const int unit = UnitOf(type);
  for (const int rows : {1, 9, 20}) CheckCase({type, 24, unit, rows});
  CheckCase({type, 17, 5 * unit, 2, Epilogue::kStore, true, true});
}

TEST_CASE("rows of blocks may end inside a chunk", "[kernels][blocks]") {
  const Seeded seeded;
  const BlockType type = GENERATE(BlockType::kQ4_1, BlockType::kQ8_0, BlockType::kWide);
  for (const int inputs : {32, 160, 1120}) {
    for (const int rows : {3, 17}) CheckCase({type, 20, inputs, rows});
  }
}

TEST_CASE("epilogues of products with blocks add, gate and round once", "[kernels][blocks]") {
  const Seeded seeded;
  const BlockType type = GENERATE(BlockType::kQ4_K, BlockType::kQ6_K, BlockType::kQ8_0);
  const Epilogue epilogue = GENERATE(Epilogue::kAdd, Epilogue::kSiluGated, Epilogue::kGeluGated);
  const bool y_is_f32 = GENERATE(false, true);
  CheckCase({type, 44, 256, 1, epilogue, y_is_f32, false});
  CheckCase({type, 44, 256, 33, epilogue, y_is_f32, true});
}

TEST_CASE("every kernel for blocks gives the same bits", "[kernels][blocks]") {
  const Seeded seeded;
  const BlockType type = GENERATE(from_range(BlockTypes()));
  // More chunks than slices, unevenly; more tiles than blocks; fewer chunks than slices.
  const auto [outputs, units] = GENERATE(std::pair{24, 11}, std::pair{80, 1});
  const Case c{type, outputs, units * UnitOf(type), 11, Epilogue::kAdd, true, true};
  const Product product(c);
  const std::vector<float> wide = product.Run(0, 11, MatMulKernel::kWideTiles);
  CHECK(SameBits(wide, product.Run(0, 11, MatMulKernel::kNarrowTiles)));
  if (product.FewRowsFitHere()) {
    CHECK(SameBits(wide, product.Run(0, 11, MatMulKernel::kFewRows)));
  }
}

TEST_CASE("a block of few rows takes one batch of tiles after the other", "[kernels][blocks]") {
  const Seeded seeded;
  // One row: four tiles a batch; two rows: two; more: one.
  const int rows = GENERATE(1, 2, 3);
  CheckCase({BlockType::kQ4_1, 500, 128, rows, Epilogue::kAdd, true, true});
}

TEST_CASE("rows that shared memory does not hold at once are multiplied in groups",
          "[kernels][blocks]") {
  const Seeded seeded;
  const Case c{BlockType::kQ4_0, 16, 12288, 11, Epilogue::kAdd, true, true};
  const Product product(c);
  const std::vector<float> tiles = product.Run(0, 11, MatMulKernel::kNarrowTiles);
  CheckAgainstF64(c, product, tiles);
  if (product.FewRowsFitHere()) {
    CHECK(SameBits(tiles, product.Run(0, 11, MatMulKernel::kFewRows)));
  }
}

TEST_CASE("a row of a product with blocks does not depend on the rows beside it",
          "[kernels][blocks]") {
  const Seeded seeded;
  const BlockType type = GENERATE(BlockType::kQ4_0, BlockType::kQ5_K, BlockType::kQ3_K);
  const Case c{type, 40, 1280, 70};
  const Product product(c);
  const std::vector<float> all = product.Run(0, 70);
  for (const auto& [first, rows] : {std::pair{0, 1}, {69, 1}, {3, 7}, {5, 16}, {1, 64}}) {
    CAPTURE(first, rows);
    const auto begin = all.begin() + first * 40;
    CHECK(SameBits(std::vector<float>(begin, begin + rows * 40), product.Run(first, rows)));
  }
}

TEST_CASE("an embedding of blocks has the bits of their values", "[kernels][blocks]") {
  const Seeded seeded;
  const BlockType type = GENERATE(from_range(BlockTypes()));
  const int inputs = type == BlockType::kQ4_0 ? 160 : 2 * UnitOf(type);
  const PackedBlocks table(type, 50, inputs);
  const std::vector<int32_t> ids = {49, 0, 17, 3, 17};
  const Device<int32_t> tokens(ids);
  const Device<float> y(Size(5, inputs));
  REQUIRE(Embed(y.data(), table.view(), tokens.data(), nullptr, 5, 0.5f, nullptr) == cudaSuccess);
  std::vector<float> expected;
  for (const int32_t id : ids) {
    for (int k = 0; k < inputs; ++k) {
      expected.push_back(0.5f * table.rounded(static_cast<size_t>(id), static_cast<size_t>(k)));
    }
  }
  CHECK(SameBits(y.Read(), expected));
}

}  // namespace neurogrid::kernels
