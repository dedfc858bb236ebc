// Products with blocks on sm_90a have the bits of the kernels that every device has, which are
// tested against f64 in matmul_blocks_test.cc.
#include "kernels/matmul_blocks_sm90.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "tests/kernels/packed_blocks.h"
#include "tests/support/sanitized.h"

namespace neurogrid::kernels {
namespace {

size_t Size(int a, int b) { return static_cast<size_t>(a) * static_cast<size_t>(b); }

struct Case {
  int outputs;
  int units;  // of inputs
  Epilogue epilogue;
  bool y_is_f32;
  bool with_bias;
  int less_inputs = 0;
  int extra_columns = 0;  // of y
};

bool Gated(const Case& c) {
  return c.epilogue == Epilogue::kSiluGated || c.epilogue == Epilogue::kGeluGated;
}

class Product {
 public:
  Product(BlockType type, const Case& c, int rows_max)
      : case_(c),
        inputs_(c.units * FormatOf(type).unit_inputs() - c.less_inputs),
        weights_(
            type, c.outputs, inputs_,
            c.with_bias ? RandomFloats(3, Size(Gated(c) ? 2 : 1, c.outputs)) : std::vector<float>(),
            Gated(c)),
        x_(ToBf16(RandomFloats(2, Size(rows_max, inputs_)))) {}

  bool Taken() const {
    return BlocksSm90Takes({nullptr, true, x_.data(), 64, case_.epilogue}, weights_.view());
  }
  /// Bytes of y for the first `rows` rows of x; run(operands, weights) queues the product.
  template <typename Run>
  std::vector<uint8_t> Bytes(int rows, const Run& run) const {
    const int width = case_.outputs + case_.extra_columns;
    const Device<uint8_t> y(OldBytes(Size(rows, width), case_.y_is_f32));
    const MatMulOperands operands{y.data(), case_.y_is_f32, x_.data(), rows, case_.epilogue, width};
    REQUIRE(run(operands, weights_.view()) == cudaSuccess);
    return y.Read();
  }

 private:
  Case case_;
  int inputs_;
  PackedBlocks weights_;
  Device<Bf16> x_;
};

void CheckRows(const Product& product, std::initializer_list<int> row_counts) {
  if (!product.Taken()) SKIP("these kernels need a device of sm_90");
  for (const int rows : row_counts) {
    const std::vector<uint8_t> expected =
        product.Bytes(rows, [](const MatMulOperands& operands, const Weights& w) {
          return MatMulBy(MatMulKernel::kWideTiles, operands, w, nullptr);
        });
    for (const bool tall : {false, true}) {
      CAPTURE(rows, tall);
      const std::vector<uint8_t> y =
          product.Bytes(rows, [tall](const MatMulOperands& operands, const Weights& w) {
            return MatMulBlocksSm90By(tall, operands, w, nullptr);
          });
      CHECK(SameBits(y, expected));
    }
  }
}

std::vector<BlockType> Types() {
  std::vector<BlockType> types = BlockTypes();
  std::erase(types, BlockType::kWide);
  return types;
}

}  // namespace

TEST_CASE("products with blocks on sm_90 have the bits of the common kernels",
          "[kernels][blocks][sm90]") {
  const BlockType type = GENERATE(from_range(Types()));
  // Inputs that fill no unit, outputs that fill no tile, fewer chunks than slices, more than a
  // ring, a y with odd rows, more tiles than multiprocessors.
  const Case c = GENERATE(values<Case>({
      {24, 1, Epilogue::kStore, true, false},
      {40, 11, Epilogue::kAdd, true, true},
      {400, 5, Epilogue::kAdd, false, true},
      {1500, 9, Epilogue::kSiluGated, false, true},
      {333, 3, Epilogue::kGeluGated, true, false},
      {2048, 8, Epilogue::kStore, false, false, 0, 3},
      {5001, 4, Epilogue::kStore, false, true, 0, 8},
  }));
  if (Sanitized()) {
    if ((static_cast<int>(type) + c.units) % 4 == 0 && c.outputs <= 400) {
      CheckRows(Product(type, c, 130), {65});
    }
    return;
  }
  CAPTURE(static_cast<int>(type), c.outputs, c.units, static_cast<int>(c.epilogue));
  CheckRows(Product(type, c, 300), {1, 17, 33, 64, 65, 128, 129, 300});
}

TEST_CASE("rows of blocks may end inside a chunk on sm_90", "[kernels][blocks][sm90]") {
  const BlockType type = GENERATE(BlockType::kQ4_0, BlockType::kQ4_1, BlockType::kQ8_0);
  const Case c{200, 9, Epilogue::kStore, true, false, 96};
  CheckRows(Product(type, c, 100), {33, 100});
}

}  // namespace neurogrid::kernels
