// Products on sm_90a that convolve what they have summed: the bits of the product and of
// ShortConvolution behind it, in what it keeps too.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "kernels/device_limits.h"
#include "kernels/matmul_convolving.h"
#include "tests/kernels/packed.h"

namespace neurogrid::kernels {
namespace {

constexpr int kTaps = 3;
constexpr int kSlots = 80;
constexpr int kRowsMax = 64;

size_t Size(int a, int b) { return static_cast<size_t>(a) * static_cast<size_t>(b); }

/// A row of each of some sequences: first tokens, rows that go on in their slot or in another one,
/// rows that leave nothing.
std::vector<ConvolutionChunk> ChunksOf(int rows) {
  std::vector<ConvolutionChunk> chunks;
  for (int row = 0; row < rows; ++row) {
    const int source = row % 5 == 1 ? -1 : row % 5 == 2 ? kSlots - 1 : row;
    const int slot = row % 7 == 3 ? -1 : row;
    chunks.push_back({row, 0, 1, 1, source, slot});
  }
  return chunks;
}

class ConvolvedProduct {
 public:
  ConvolvedProduct(WeightFormat format, int columns, int inputs, bool with_bias)
      : columns_(columns),
        weights_(format, 3 * columns, inputs, RandomFloats(1, Size(3 * columns, inputs), 0.1f),
                 with_bias ? RandomFloats(2, Size(3, columns)) : std::vector<float>()),
        x_(RandomOf<Bf16>(3, Size(kRowsMax + 1, inputs))),
        taps_(RandomFloats(4, Size(kTaps, columns))),
        bias_(with_bias ? RandomFloats(5, Size(1, columns)) : std::vector<float>(1)),
        with_bias_(with_bias),
        y_(Size(kRowsMax, 3 * columns)),
        out_(Size(kRowsMax, columns)),
        state_(Size(kSlots * (kTaps - 1), columns)) {}

  const Weights& weights() const { return weights_.view(); }
  ConvolvingOperands Operands(int rows) const {
    return {{y_.data(), false, x_.data(), rows, Epilogue::kStore},
            {out_.data(), y_.data(), taps_.data(), with_bias_ ? bias_.data() : nullptr,
             state_.data(), int64_t{kTaps - 1} * columns_, columns_, kTaps},
            nullptr};
  }

  struct Result {
    std::vector<Bf16> y, out, state;
    bool operator==(const Result& other) const {
      return SameBits(y, other.y) && SameBits(out, other.out) && SameBits(state, other.state);
    }
  };
  /// In one kernel or in two.
  Result Run(int rows, bool together) {
    y_.Write(RandomOf<Bf16>(7, static_cast<size_t>(y_.count())));
    out_.Write(RandomOf<Bf16>(8, static_cast<size_t>(out_.count())));
    state_.Write(RandomOf<Bf16>(9, static_cast<size_t>(state_.count())));
    const Device<ConvolutionChunk> chunks(ChunksOf(rows));
    ConvolvingOperands operands = Operands(rows);
    operands.chunks = chunks.data();
    if (together) {
      REQUIRE(ConvolvingMatMul(operands, weights(), nullptr) == cudaSuccess);
    } else {
      REQUIRE(MatMulBy(MatMulKernel::kWideTiles, operands.product, weights(), nullptr) ==
              cudaSuccess);
      REQUIRE(ShortConvolution(operands.next, chunks.data(), rows, nullptr, 0, nullptr) ==
              cudaSuccess);
    }
    return {y_.Read(), out_.Read(), state_.Read()};
  }

 private:
  int columns_;
  PackedWeights weights_;
  Device<Bf16> x_;
  Device<float> taps_;
  Device<float> bias_;
  bool with_bias_;
  Device<Bf16> y_;
  Device<Bf16> out_;
  Device<Bf16> state_;
};

}  // namespace

TEST_CASE("a convolution that comes next has the bits of one of its own on sm_90",
          "[kernels][sm90]") {
  const WeightFormat format = GENERATE(WeightFormat::kBf16, WeightFormat::kInt8);
  const bool with_bias = GENERATE(false, true);
  // Inputs that fill no chunk, fewer chunks than the ring has places, more.
  const int inputs = GENERATE(72, 712, 2048);
  const int columns = inputs == 2048 ? 2048 : 1376;
  CAPTURE(static_cast<int>(format), with_bias, inputs);
  ConvolvedProduct product(format, columns, inputs, with_bias);
  if (!RunsSm90()) SKIP("needs a GPU of compute capability 9.0");
  for (const int rows : {17, 32, 33, 50, 64}) {
    CAPTURE(rows);
    REQUIRE(MatMulConvolves(product.Operands(rows), product.weights()));
    const auto apart = product.Run(rows, false);
    CHECK(product.Run(rows, true) == apart);
  }
}

TEST_CASE("a product on sm_90 that cannot convolve says so", "[kernels][sm90]") {
  const ConvolvedProduct product(WeightFormat::kBf16, 1376, 72, false);
  const ConvolvingOperands operands = product.Operands(64);
  const Weights& w = product.weights();
  if (!RunsSm90()) SKIP("needs a GPU of compute capability 9.0");
  REQUIRE(MatMulConvolves(operands, w));
  const auto refused = [&](const auto& change, int outputs = 3 * 1376) {
    ConvolvingOperands other = operands;
    change(other);
    Weights weights = w;
    weights.outputs = outputs;
    return !MatMulConvolves(other, weights) &&
           ConvolvingMatMul(other, weights, nullptr) == cudaErrorInvalidValue;
  };
  const float norm = 1;
  CHECK(refused([](ConvolvingOperands& o) { o.product.rows = 65; }));
  CHECK(refused([](ConvolvingOperands& o) { o.product.rows = 8; }));
  CHECK(refused([](ConvolvingOperands& o) { o.product.y_is_f32 = true; }));
  CHECK(refused([](ConvolvingOperands& o) { o.product.epilogue = Epilogue::kAdd; }));
  CHECK(refused([&](ConvolvingOperands& o) { o.product.norm.parameters.weight = &norm; }));
  CHECK(refused([&](ConvolvingOperands& o) { o.product.next.parameters.weight = &norm; }));
  CHECK(refused([](ConvolvingOperands& o) { o.next.taps_count = 4; }));
  CHECK(refused([](ConvolvingOperands& o) { o.next.columns = 688; }));
  CHECK(refused([](ConvolvingOperands& o) { o.next.columns = 1384; }, 3 * 1384));  // not of 16
  CHECK(refused([](ConvolvingOperands& o) { o.next.columns = 1360; }, 3 * 1360));  // slices
}

}  // namespace neurogrid::kernels
