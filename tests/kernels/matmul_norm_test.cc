// Products of rows that are normed on their way: the bits of RmsNorm and of a product behind it.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <utility>

#include "kernels/matmul.h"
#include "kernels/rms_norm.h"
#include "tests/kernels/device.h"
#include "tests/kernels/packed.h"
#include "tests/kernels/seeds.h"

namespace neurogrid::kernels {
namespace {

size_t Size(int a, int b) { return static_cast<size_t>(a) * static_cast<size_t>(b); }

/// Rows of x, of which a product takes some in an order of their own.
template <typename T>
class NormedProduct {
 public:
  static constexpr int kSources = 11;

  NormedProduct(WeightFormat format, int outputs, int inputs, bool rounds_before_weight)
      : outputs_(outputs),
        inputs_(inputs),
        weights_(format, outputs, inputs, RandomFloats(1, Size(outputs, inputs), 0.3f), {}, false),
        x_(RandomOf<T>(2, Size(kSources, inputs), 3)),
        weight_(RandomFloats(3, Size(inputs, 1))),
        norm_{weight_.data(), 1e-5f, rounds_before_weight} {}

  const Weights& weights() const { return weights_.view(); }

  struct Result {
    std::vector<float> y;
    std::vector<T> normed;
    bool operator==(const Result& other) const {
      return SameBits(y, other.y) && SameBits(normed, other.normed);
    }
  };
  /// One kernel after the other.
  Result Apart(const int32_t* sources, int rows) const {
    return Run(rows, [&](float* y, T* normed) {
      REQUIRE(RmsNorm(normed, x_.data(), sources, rows, inputs_, norm_, nullptr) == cudaSuccess);
      return MatMul({y, true, normed, rows, Epilogue::kStore}, weights_.view(), nullptr);
    });
  }
  /// By `multiply`, which takes operands with a norm.
  template <typename Multiply>
  Result Together(const int32_t* sources, int rows, const Multiply& multiply) const {
    return Run(rows, [&](float* y, T* normed) {
      return multiply(
          MatMulOperands{y, true, x_.data(), rows, Epilogue::kStore, 0, {norm_, sources, normed}});
    });
  }

 private:
  template <typename Queue>
  Result Run(int rows, const Queue& queue) const {
    const Device<float> y(Size(rows, outputs_));
    const Device<T> normed(Size(rows, inputs_));
    REQUIRE(queue(y.data(), normed.data()) == cudaSuccess);
    return {y.Read(), normed.Read()};
  }

  int outputs_;
  int inputs_;
  PackedWeights weights_;
  Device<T> x_;
  Device<float> weight_;
  NormParameters norm_;
};

template <typename T>
void CheckFormat(WeightFormat format, int outputs, int inputs, bool rounds_before_weight) {
  const NormedProduct<T> product(format, outputs, inputs, rounds_before_weight);
  const Device<int32_t> sources(std::vector<int32_t>{10, 3, 3, 0, 7, 1, 9, 2, 5});
  for (const auto& [rows, picks] : {std::pair{1, true}, {2, false}, {3, true}, {9, false}}) {
    CAPTURE(static_cast<int>(format), outputs, inputs, rows, picks);
    const int32_t* from = picks ? sources.data() : nullptr;
    const auto apart = product.Apart(from, rows);
    CHECK(product.Together(from, rows, [&](const MatMulOperands& operands) {
      return MatMul(operands, product.weights(), nullptr);
    }) == apart);
    for (const GpuLimits& gpu : {GpuLimits{3, 99 * 1024}, {300, 163 * 1024}}) {
      if (gpu.shared_max > LimitsOfGpu().shared_max) continue;  // on sm_75
      if (!FewRowsNorm(product.weights(), rows, gpu)) continue;
      CHECK(product.Together(from, rows, [&](const MatMulOperands& operands) {
        return MatMulFewRows(operands, product.weights(), gpu, nullptr);
      }) == apart);
    }
  }
}

}  // namespace

TEST_CASE("a product norms rows in the bits of the norm's own kernel", "[kernels]") {
  const Seeded seeded;
  // Eight slices and one chain; rows of more pieces than threads, and of fewer.
  const auto [outputs, inputs, rounds] = GENERATE(table<int, int, bool>(
      {{40, 1352, false}, {40, 1352, true}, {4112, 136, true}, {24, 3080, false}, {24, 96, true}}));
  CheckFormat<float>(WeightFormat::kF32, outputs, inputs, rounds);
  CheckFormat<Bf16>(WeightFormat::kBf16, outputs, inputs, rounds);
  CheckFormat<Bf16>(WeightFormat::kInt8, outputs, inputs, rounds);
}

TEST_CASE("few rows are normed by the kernel that multiplies them", "[kernels]") {
  const GpuLimits gpu{132, 227 * 1024};
  const WeightFormat format = GENERATE(WeightFormat::kBf16, WeightFormat::kInt8);
  Weights w;
  w.inputs = 2048;
  for (const int outputs : {3072, 16384, 65536}) {
    w.outputs = outputs;
    w.format = format;
    CHECK(FewRowsNorm(w, 1, gpu));
    CHECK(FewRowsNorm(w, 2, gpu));
    CHECK_FALSE(FewRowsNorm(w, 3, gpu));
    w.format = WeightFormat::kF32;
    CHECK_FALSE(FewRowsNorm(w, 1, gpu));
  }
}

}  // namespace neurogrid::kernels
