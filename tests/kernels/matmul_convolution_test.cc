// Products of rows that are convolved on their way: the bits of ShortConvolution and of a product
// behind it, in what it keeps too.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "kernels/matmul.h"
#include "tests/kernels/device.h"
#include "tests/kernels/packed.h"
#include "tests/kernels/seeds.h"

namespace neurogrid::kernels {
namespace {

constexpr int kSlots = 3;
constexpr int kTaps = 3;
constexpr int kOutputs = 40;

size_t Size(int a, int b) { return static_cast<size_t>(a) * static_cast<size_t>(b); }

/// One row of each of some sequences.
class ConvolvedProduct {
 public:
  ConvolvedProduct(WeightFormat format, int columns, bool with_bias)
      : columns_(columns),
        with_bias_(with_bias),
        weights_(format, kOutputs, columns, RandomFloats(1, Size(kOutputs, columns), 0.3f)),
        bcu_(RandomOf<Bf16>(2, Size(2, 3 * columns))),
        taps_(RandomFloats(3, Size(kTaps, columns))),
        bias_(RandomFloats(4, Size(1, columns))) {}

  const Weights& weights() const { return weights_.view(); }

  struct Result {
    std::vector<float> y;
    std::vector<Bf16> convolved;
    std::vector<Bf16> state;
    bool operator==(const Result& other) const {
      return SameBits(y, other.y) && SameBits(convolved, other.convolved) &&
             SameBits(state, other.state);
    }
  };
  /// One kernel after the other.
  Result Apart(const std::vector<ConvolutionChunk>& chunks) {
    return Run(chunks, [&](const MatMulOperands& operands) {
      const MatMulConvolution& c = operands.convolution;
      REQUIRE(ShortConvolution(c.operands, c.chunks, operands.rows, nullptr, 0, nullptr) ==
              cudaSuccess);
      return MatMul({operands.y, true, c.operands.out, operands.rows, Epilogue::kAdd},
                    weights_.view(), nullptr);
    });
  }
  /// By `multiply`, which takes operands with a convolution.
  template <typename Multiply>
  Result Together(const std::vector<ConvolutionChunk>& chunks, const Multiply& multiply) {
    return Run(chunks, multiply);
  }

 private:
  template <typename Queue>
  Result Run(const std::vector<ConvolutionChunk>& chunks, const Queue& queue) {
    const auto rows = static_cast<int>(chunks.size());
    const Device<float> y(RandomFloats(5, Size(rows, kOutputs)));
    const Device<Bf16> convolved(Size(rows, columns_));
    const Device<Bf16> state(RandomOf<Bf16>(6, Size(kSlots * (kTaps - 1), columns_)));
    const Device<ConvolutionChunk> device_chunks(chunks);
    MatMulOperands operands{y.data(), true, nullptr, rows, Epilogue::kAdd};
    operands.convolution = {
        {convolved.data(), bcu_.data(), taps_.data(), with_bias_ ? bias_.data() : nullptr,
         state.data(), int64_t{kTaps - 1} * columns_, columns_, kTaps},
        device_chunks.data(),
        arrivals_.data()};
    REQUIRE(queue(operands) == cudaSuccess);
    CHECK(arrivals_.Read() == std::vector<uint32_t>(kArrivals));
    return {y.Read(), convolved.Read(), state.Read()};
  }

  int columns_;
  bool with_bias_;
  PackedWeights weights_;
  Device<Bf16> bcu_;
  Device<float> taps_;
  Device<float> bias_;
  Device<uint32_t> arrivals_{std::vector<uint32_t>(kArrivals)};
};

ConvolutionChunk RowOf(int row, int source, int slot) { return {row, 0, 1, 1, source, slot}; }

}  // namespace

TEST_CASE("a product convolves rows in the bits of the convolution's own kernel", "[kernels]") {
  const Seeded seeded;
  const WeightFormat format = GENERATE(WeightFormat::kBf16, WeightFormat::kInt8);
  const bool with_bias = GENERATE(false, true);
  // A thread for each eight columns, less than that, and columns that end within a chunk.
  const int columns = GENERATE(2048, 136, 1352);
  CAPTURE(static_cast<int>(format), with_bias, columns);
  ConvolvedProduct product(format, columns, with_bias);
  const std::vector<std::vector<ConvolutionChunk>> batches = {
      {RowOf(0, 1, 1)},                  // in place
      {RowOf(0, -1, 0)},                 // a first token
      {RowOf(0, 2, 0), RowOf(1, 1, 1)},  // from elsewhere
      {RowOf(0, 2, 2), RowOf(1, -1, -1)}};
  for (const std::vector<ConvolutionChunk>& chunks : batches) {
    CAPTURE(chunks.size(), chunks[0].source);
    const auto apart = product.Apart(chunks);
    for (const GpuLimits& gpu : {GpuLimits{2, 99 * 1024}, {300, 163 * 1024}, LimitsOfGpu()}) {
      if (gpu.shared_max > LimitsOfGpu().shared_max) continue;  // on sm_75
      REQUIRE(FewRowsConvolve(product.weights(), static_cast<int>(chunks.size()), kTaps, gpu));
      CHECK(product.Together(chunks, [&](const MatMulOperands& operands) {
        return MatMulFewRows(operands, product.weights(), gpu, nullptr);
      }) == apart);
    }
  }
}

TEST_CASE("a product that cannot convolve says so", "[kernels]") {
  const GpuLimits gpu{132, 227 * 1024};
  Weights w;
  w.inputs = 2048;
  w.outputs = 2048;
  CHECK(FewRowsConvolve(w, 2, kTaps, gpu));
  CHECK_FALSE(FewRowsConvolve(w, 3, kTaps, gpu));
  CHECK_FALSE(FewRowsConvolve(w, 1, 4, gpu));
  w.outputs = 8192;  // one chain
  CHECK_FALSE(FewRowsConvolve(w, 1, kTaps, gpu));
  w.outputs = 2048;
  w.inputs = 4096;
  CHECK_FALSE(FewRowsConvolve(w, 1, kTaps, gpu));
  w.format = WeightFormat::kF32;
  MatMulOperands operands{};
  Bf16 somewhere{};
  operands.rows = 1;
  operands.convolution.operands.out = &somewhere;
  operands.convolution.operands.taps_count = kTaps;
  CHECK(MatMul(operands, w, nullptr) == cudaErrorInvalidValue);
}

}  // namespace neurogrid::kernels
