// Products by the vendor's library where the order of arithmetic is free.
#include "engine/cuda/any_order.h"

#include <catch2/generators/catch_generators.hpp>
#include <cmath>

#include "engine/cuda/cuda_matrix.h"
#include "tests/cuda/cuda_support.h"
#include "tests/kernels/device.h"

namespace neurogrid {
namespace {

using kernels::Epilogue;

/// A number in (-1, 1) of its own for each index.
float Value(int64_t seed, int64_t i) {
  const uint64_t bits = SplitMix64(static_cast<uint64_t>(seed * 1'000'003 + i));
  return static_cast<float>(static_cast<double>(bits >> 11) * 0x1p-52 - 1);
}
constexpr int kRows = 19;
constexpr int kInputs = 72;
constexpr int kOutputs = 40;

/// Rows of weights.
auto Source(int64_t seed) {
  return [seed](int64_t first, int64_t count, float* out) {
    for (int64_t i = 0; i < count * kInputs; ++i) out[i] = Value(seed, first * kInputs + i);
    return absl::OkStatus();
  };
}

float Rounded(float x) { return __bfloat162float(__float2bfloat16(x)); }

double Activated(Epilogue epilogue, double x) {
  if (epilogue == Epilogue::kSiluGated) return x / (1 + std::exp(-x));
  return x / 2 *
         (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
}

TEST_CASE("the library's products have every epilogue of ours", "[determinism]") {
  const std::unique_ptr<Device> device = Cuda();
  auto& ops = static_cast<CudaOps&>(device->ops());
  const auto any = AnyOrder::Open(ops.stream()).value();
  const Epilogue epilogue =
      GENERATE(Epilogue::kStore, Epilogue::kAdd, Epilogue::kSiluGated, Epilogue::kGeluGated);
  const bool gated = epilogue == Epilogue::kSiluGated || epilogue == Epilogue::kGeluGated;
  const bool biased = GENERATE(false, true);
  const bool y_is_f32 = GENERATE(false, true);
  CAPTURE(static_cast<int>(epilogue), biased, y_is_f32);

  MatrixSpec spec{.outputs = kOutputs, .inputs = kInputs};
  if (biased) {
    for (int i = 0; i < (gated ? 2 : 1) * kOutputs; ++i) spec.bias.push_back(Value(3, i));
  }
  const auto rows_of_w = Source(1);
  const auto rows_of_up = Source(2);
  const Ops::RowSource up = rows_of_up;
  WeightUpload upload(CudaHeap(), ops.stream());
  const auto matrix = CudaMatrix::Pack(spec, rows_of_w, gated ? &up : nullptr, upload).value();
  const kernels::Weights& w = CudaMatrix::SectionsOf(*matrix).at(0).weights;

  std::vector<float> x(kRows * kInputs);
  std::vector<float> y(kRows * kOutputs);
  for (size_t i = 0; i < x.size(); ++i) x[i] = Rounded(Value(4, static_cast<int64_t>(i)));
  for (size_t i = 0; i < y.size(); ++i) y[i] = Rounded(Value(5, static_cast<int64_t>(i)));
  const kernels::Device<kernels::Bf16> dx(kernels::ToBf16(x));
  const kernels::Device<kernels::Bf16> y16(kernels::ToBf16(y));
  const kernels::Device<float> y32(y);
  any->Reserve(kRows);
  const absl::Status chosen = any->Choose(w);
  INFO(chosen.ToString());
  REQUIRE(chosen.ok());
  const kernels::MatMulOperands operands{
      y_is_f32 ? static_cast<void*>(y32.data()) : static_cast<void*>(y16.data()), y_is_f32,
      dx.data(), kRows, epilogue};
  if (epilogue == Epilogue::kAdd && !biased && !y_is_f32) {  // left to our kernels
    CHECK_FALSE(any->Prefers(operands, w));
    CHECK(any->Multiply(operands, w) == cudaErrorNotSupported);
    return;
  }
  REQUIRE(any->Multiply(operands, w) == cudaSuccess);
  REQUIRE(cudaStreamSynchronize(ops.stream()) == cudaSuccess);
  const std::vector<float> result = y_is_f32 ? y32.Read() : kernels::Widen(y16.Read());

  for (int r = 0; r < kRows; ++r) {
    for (int n = 0; n < kOutputs; ++n) {
      CAPTURE(r, n);
      const auto dot = [&](int64_t seed, int bias) {
        double sum = biased ? double{spec.bias[static_cast<size_t>(bias)]} : 0;
        for (int k = 0; k < kInputs; ++k) {
          sum += double{x[static_cast<size_t>(r * kInputs + k)]} *
                 Rounded(Value(seed, int64_t{n} * kInputs + k));
        }
        return sum;
      };
      double expected = dot(1, n);
      if (epilogue == Epilogue::kAdd) expected += y[static_cast<size_t>(r * kOutputs + n)];
      if (gated) expected = Activated(epilogue, expected) * dot(2, kOutputs + n);
      // f32 sums of 72 products below one: 72 roundings of at most 2^-24 * 72 each, twice with
      // gates; then one rounding to the type of y.
      const double sums = 72 * 72 * 0x1p-24 * (gated ? 2 * (1 + std::abs(expected)) : 1);
      const double rounding =
          y_is_f32 ? kernels::HalfUlp<float>(expected) : kernels::HalfUlp<kernels::Bf16>(expected);
      const double found = result[static_cast<size_t>(r * kOutputs + n)];
      CHECK(std::abs(found - expected) <= sums + rounding);
    }
  }
}

TEST_CASE("a product that was not tried goes our own way", "[determinism]") {
  const std::unique_ptr<Device> device = Cuda();
  auto& ops = static_cast<CudaOps&>(device->ops());
  const auto any = AnyOrder::Open(ops.stream()).value();
  const kernels::Weights w{.outputs = 16, .inputs = 64};
  const kernels::MatMulOperands operands{nullptr, false, nullptr, 4, Epilogue::kStore};
  CHECK(!any->Prefers(operands, w));
  CHECK(any->Multiply(operands, w) == cudaErrorNotSupported);
}

TEST_CASE("a device without one order says so in its class", "[determinism]") {
  const std::unique_ptr<Device> device = Cuda();
  const std::string before(device->ops().kernel_set());
  REQUIRE(device->AllowAnyOrder().ok());
  CHECK(device->ops().kernel_set() == before + "/any order");
}

}  // namespace
}  // namespace neurogrid
