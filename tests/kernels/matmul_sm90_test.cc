// Products on sm_90a have the bits of the kernels that every device has, which are tested against
// f64 in matmul_test.cc.
#include "kernels/matmul_sm90.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <string>

#include "kernels/rms_norm.h"
#include "tests/kernels/packed.h"
#include "tests/support/sanitized.h"

namespace neurogrid::kernels {
namespace {

constexpr int kRowsMax = 300;

size_t Size(int a, int b) { return static_cast<size_t>(a) * static_cast<size_t>(b); }

struct Case {
  int outputs;
  int inputs;
  Epilogue epilogue;
  bool y_is_f32;
  bool with_bias;
  int extra_columns = 0;  // of y
};

bool Gated(const Case& c) {
  return c.epilogue == Epilogue::kSiluGated || c.epilogue == Epilogue::kGeluGated;
}

class Product {
 public:
  Product(WeightFormat format, const Case& c, const std::vector<float>& x)
      : case_(c),
        weights_(format, c.outputs, c.inputs, RandomFloats(1, Size(parts() * c.outputs, c.inputs)),
                 c.with_bias ? RandomFloats(3, Size(parts(), c.outputs)) : std::vector<float>(),
                 Gated(c)),
        old_(OldBytes(x.size() / static_cast<size_t>(c.inputs) *
                          static_cast<size_t>(c.outputs + c.extra_columns),
                      c.y_is_f32)),
        x_(ToBf16(x)),
        slices_(Size(8 * kRowsMax, weights_.view().packed_outputs())) {}

  bool Fits(int variant, int rows) const {
    MatMulOperands operands{nullptr, true, x_.data(), rows, case_.epilogue};
    operands.slices = slices_.data();
    operands.slices_floats = slices_.count();
    return Sm90VariantFits(variant, operands, weights_.view());
  }

  /// Bytes of y for the first `rows` rows of x; by the common kernel where no variant is named.
  std::vector<uint8_t> Run(int rows, int variant = -1) const {
    const int width = case_.outputs + case_.extra_columns;
    const size_t bytes = Size(rows, width) * (case_.y_is_f32 ? sizeof(float) : sizeof(Bf16));
    const Device<uint8_t> y(
        std::vector<uint8_t>(old_.begin(), old_.begin() + static_cast<std::ptrdiff_t>(bytes)));
    MatMulOperands operands{y.data(), case_.y_is_f32, x_.data(), rows, case_.epilogue, width};
    operands.slices = slices_.data();
    operands.slices_floats = slices_.count();
    REQUIRE((variant < 0
                 ? MatMulBy(MatMulKernel::kWideTiles, operands, weights_.view(), nullptr)
                 : MatMulSm90By(variant, operands, weights_.view(), nullptr)) == cudaSuccess);
    return y.Read();
  }

  struct Normed {
    std::vector<uint8_t> y;
    std::vector<Bf16> normed;
  };
  /// The product of bf16 and the norm of its rows, from one call or from two.
  Normed RunNormed(int rows, bool at_once) const {
    const Device<uint8_t> y(OldBytes(Size(rows, case_.outputs), false));
    const Device<Bf16> normed(Size(rows, case_.outputs));
    const Device<float> weight(RandomFloats(5, Size(1, case_.outputs)));
    const NormParameters norm{weight.data(), 1e-5f, false};
    MatMulOperands operands{y.data(), false, x_.data(), rows, case_.epilogue};
    operands.slices = slices_.data();
    operands.slices_floats = slices_.count();
    operands.next = {norm, normed.data()};
    REQUIRE(MatMulNormsNext(operands, weights_.view()));
    if (!at_once) operands.next = {};
    REQUIRE(MatMul(operands, weights_.view(), nullptr) == cudaSuccess);
    if (!at_once) {
      const auto* rounded = reinterpret_cast<const Bf16*>(y.data());
      REQUIRE(RmsNorm(normed.data(), rounded, nullptr, rows, case_.outputs, norm, nullptr) ==
              cudaSuccess);
    }
    return {y.Read(), normed.Read()};
  }

  bool Taken() const {
    return Sm90Takes({nullptr, true, x_.data(), 64, case_.epilogue}, weights_.view());
  }

 private:
  int parts() const { return Gated(case_) ? 2 : 1; }

  Case case_;
  PackedWeights weights_;
  std::vector<uint8_t> old_;  // of y, for as many rows as x has
  Device<Bf16> x_;
  Device<float> slices_;
};

void CheckRows(const Product& product, std::initializer_list<int> row_counts) {
  if (!product.Taken()) SKIP("these kernels need a device of sm_90");
  for (const int rows : row_counts) {
    if (Sanitized() && rows % 4 != 1) continue;
    const std::vector<uint8_t> expected = product.Run(rows);
    for (int variant = 0; variant < Sm90Variants(); ++variant) {
      if (!product.Fits(variant, rows)) continue;
      CAPTURE(rows, std::string(Sm90VariantName(variant)));
      CHECK(SameBits(product.Run(rows, variant), expected));
    }
  }
}

}  // namespace

TEST_CASE("every tile of sm_90 gives the bits of the common kernels", "[kernels][sm90]") {
  const WeightFormat format = GENERATE(WeightFormat::kBf16, WeightFormat::kInt8);
  // Up to 4,096 packed outputs eight slices, beyond one chain; inputs that fill no chunk, outputs
  // that fill no tile, fewer chunks than slices, more than a ring, a y with odd rows.
  const Case c = GENERATE(values<Case>({
      {40, 1352, Epilogue::kAdd, true, true},
      {24, 96, Epilogue::kStore, false, false},
      {400, 520, Epilogue::kAdd, false, true},
      {2048, 4096, Epilogue::kStore, false, false, 3},
      {1500, 1032, Epilogue::kSiluGated, false, true},
      {333, 264, Epilogue::kGeluGated, true, false},
      {4112, 136, Epilogue::kAdd, true, false},
      {5001, 712, Epilogue::kStore, false, true, 8},
      {4100, 2048, Epilogue::kAdd, false, false},
      {3001, 264, Epilogue::kSiluGated, true, false},
      {2052, 72, Epilogue::kGeluGated, false, true},
      // Rows of y that may be moved by boxes.
      {2048, 712, Epilogue::kSiluGated, false, true},
      {4120, 264, Epilogue::kSiluGated, false, false, 40},
      {4112, 584, Epilogue::kStore, false, true, 8},
      {2056, 1032, Epilogue::kAdd, false, true, 24},
      {136, 72, Epilogue::kAdd, false, false},
  }));
  if (Sanitized() && c.outputs * c.inputs > 600'000) return;
  CAPTURE(static_cast<int>(format), c.outputs, c.inputs, static_cast<int>(c.epilogue));
  const Product product(format, c, RandomFloats(2, Size(kRowsMax, c.inputs)));
  CheckRows(product, {1, 2, 7, 16, 17, 33, 64, 65, 100, 128, 129, 255, 257, 300});
}

TEST_CASE("blocks of sm_90 with many tiles store the same bits", "[kernels][sm90]") {
  const WeightFormat format = GENERATE(WeightFormat::kBf16, WeightFormat::kInt8);
  const Case c = GENERATE(values<Case>({
      {3080, 136, Epilogue::kStore, false, true},
      {3080, 520, Epilogue::kAdd, false, false, 16},
      {6152, 136, Epilogue::kSiluGated, false, true},
      {6152, 264, Epilogue::kStore, false, false, 8},
      {6152, 264, Epilogue::kAdd, false, false, 8},
  }));
  if (Sanitized()) return;
  CAPTURE(static_cast<int>(format), c.outputs, c.inputs, static_cast<int>(c.epilogue));
  constexpr int kManyRows = 2100;
  const Product product(format, c, RandomFloats(2, Size(kManyRows, c.inputs)));
  CheckRows(product, {1025, kManyRows});
}

TEST_CASE("a norm that comes next has the bits of one of its own on sm_90", "[kernels][sm90]") {
  const WeightFormat format = GENERATE(WeightFormat::kBf16, WeightFormat::kInt8);
  const Case c{2048, 4096, Epilogue::kAdd, false, true};
  const Product product(format, c, RandomFloats(2, Size(kRowsMax, c.inputs)));
  if (!product.Taken()) SKIP("these kernels need a device of sm_90");
  for (const int rows : {17, 40, 64}) {
    CAPTURE(rows);
    const Product::Normed one = product.RunNormed(rows, true);
    const Product::Normed two = product.RunNormed(rows, false);
    CHECK(SameBits(one.y, two.y));
    CHECK(SameBits(one.normed, two.normed));
  }
}

TEST_CASE("sums of zeros and of huge numbers keep their bits on sm_90", "[kernels][sm90]") {
  const WeightFormat format = GENERATE(WeightFormat::kBf16, WeightFormat::kInt8);
  const int outputs = GENERATE(200, 4128);
  const Case c{outputs, 1416, Epilogue::kStore, true, false};
  // Rows of zeros of both signs, of numbers that cancel, and of some that overflow.
  std::vector<float> x = RandomFloats(2, Size(kRowsMax, c.inputs));
  for (int row = 0; row < kRowsMax; ++row) {
    for (int k = 0; k < c.inputs; ++k) {
      float& value = x[Size(row, c.inputs) + static_cast<size_t>(k)];
      if (row % 4 == 0) value = k % 2 == 0 ? 0.0f : -0.0f;
      if (row % 4 == 1) value = std::ldexp(value, k % 49 - 24);
      if (row % 4 == 2) value *= 1e38f;
    }
  }
  CheckRows(Product(format, c, x), {33, 200});
}

}  // namespace neurogrid::kernels
