// The slices of a product become y: in order, once rounded. Numbers are chosen so that every sum
// but the one that asks for the order is exact.
#include "kernels/sum_slices.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "kernels/finish_matmul.h"
#include "kernels/rms_norm.h"
#include "tests/kernels/packed.h"
#include "tests/kernels/seeds.h"

namespace neurogrid::kernels {
namespace {

constexpr int kSlices = 8;
constexpr int kRows = 5;

size_t Size(int a, int b) { return static_cast<size_t>(a) * static_cast<size_t>(b); }

/// What a case makes of its slices, and what is asked of it.
struct Summed {
  Weights weights;
  std::vector<float> slices;  // [slices, rows, packed outputs]
  std::vector<float> scales;
  std::vector<float> bias;
  std::vector<float> old;  // of y
  int stride = 0;
  bool elsewhere = false;  // added up already, by FinishMatMul's caller

  double Sum(int row, int packed) const {
    double sum = 0;
    for (int slice = 0; slice < kSlices; ++slice) {
      sum += double{slices[Size(slice * kRows + row, weights.packed_outputs()) +
                           static_cast<size_t>(packed)]};
    }
    return sum * double{scales[static_cast<size_t>(packed)]} +
           double{bias[static_cast<size_t>(packed)]};
  }
};

/// Eighths up to 16: eight of them, times a power of two, plus such a bias and old value, are f32.
Summed Exact(int outputs, bool gated, int stride) {
  Summed s;
  s.weights.format = WeightFormat::kInt8;
  s.weights.outputs = outputs;
  s.weights.inputs = 1024;
  s.weights.gated = gated;
  s.stride = stride;
  const int packed = s.weights.packed_outputs();
  const auto eighths = [](uint64_t seed, size_t count) {
    std::vector<float> values(count);
    for (size_t i = 0; i < count; ++i) {
      values[i] = static_cast<float>(static_cast<int>(SplitMix64(seed + i) % 257) - 128) / 8;
    }
    return values;
  };
  s.slices = eighths(1000, Size(kSlices * kRows, packed));
  s.bias = eighths(1, static_cast<size_t>(packed));
  s.old = eighths(5000000, Size(kRows, stride));
  for (int i = 0; i < packed; ++i) s.scales.push_back(std::ldexp(1.0f, i % 5 - 4));
  return s;
}

/// Widened bytes, and so their sums, come times 2^-6 (widen.cuh); here the sums are whole.
Device<float> ScalesOfWholeSums(const Summed& s) {
  std::vector<float> scales = s.scales;
  for (float& scale : scales) scale *= 0x1p-6f;
  return Device<float>(scales);
}

template <typename T>
std::vector<T> Run(const Summed& s, Epilogue epilogue, const std::vector<T>& old) {
  const Device<float> slices(s.slices);
  const Device<float> scales = ScalesOfWholeSums(s);
  const Device<float> bias(s.bias);
  const Device<T> y(old);
  Weights w = s.weights;
  w.scales = scales.data();
  w.bias = bias.data();
  MatMulOperands operands{y.data(), sizeof(T) == sizeof(float), nullptr, kRows, epilogue, s.stride};
  if (s.elsewhere) {
    std::vector<float> sums;
    for (int row = 0; row < kRows; ++row) {
      for (int n = 0; n < w.packed_outputs(); ++n) {
        sums.push_back(static_cast<float>(s.Sum(row, n) - double{s.bias[static_cast<size_t>(n)]}));
      }
    }
    w.format = WeightFormat::kBf16;
    w.scales = nullptr;
    const Device<float> made(sums);
    REQUIRE(FinishMatMul(operands, w, made.data(), nullptr) == cudaSuccess);
    return y.Read();
  }
  operands.slices = slices.data();
  REQUIRE(SumSlices(operands, w, nullptr) == cudaSuccess);
  return y.Read();
}

float Value(float x) { return x; }
float Value(Bf16 x) { return __bfloat162float(x); }

template <typename T>
void CheckPlain(const Summed& s, Epilogue epilogue, const std::vector<T>& old) {
  const std::vector<T> y = Run(s, epilogue, old);
  for (int row = 0; row < kRows; ++row) {
    for (int n = 0; n < s.stride; ++n) {
      const size_t at = Size(row, s.stride) + static_cast<size_t>(n);
      const bool written = n < s.weights.outputs;
      double expected = written ? s.Sum(row, n) : 0;
      if (!written || epilogue == Epilogue::kAdd) expected += double{Value(old[at])};
      const std::vector<float> exact = {static_cast<float>(expected)};
      REQUIRE(double{exact[0]} == expected);
      CAPTURE(row, n);
      CHECK(Value(y[at]) == (sizeof(T) == 2 ? Value(ToBf16(exact)[0]) : exact[0]));
    }
  }
}

}  // namespace

TEST_CASE("sums, of slices or made elsewhere, become y with scale and bias, rounded once",
          "[kernels]") {
  const Seeded seeded;
  const bool elsewhere = GENERATE(false, true);
  const Epilogue epilogue = GENERATE(Epilogue::kStore, Epilogue::kAdd);
  // Whole pieces, outputs that fill no tile, rows of y that start at odd places.
  const int outputs = GENERATE(64, 131);
  const int stride = outputs + GENERATE(0, 3, 8);
  CAPTURE(static_cast<int>(epilogue), outputs, stride, elsewhere);
  Summed s = Exact(outputs, false, stride);
  s.elsewhere = elsewhere;
  CheckPlain(s, epilogue, s.old);
  CheckPlain(s, epilogue, ToBf16(s.old));
}

TEST_CASE("a gate's sums pass through SiLU and multiply those of the up", "[kernels]") {
  const Seeded seeded;
  const int outputs = GENERATE(40, 19);
  Summed s = Exact(outputs, true, outputs);
  s.elsewhere = GENERATE(false, true);
  const std::vector<float> y = Run(s, Epilogue::kSiluGated, s.old);
  for (int row = 0; row < kRows; ++row) {
    for (int n = 0; n < outputs; ++n) {
      const double gate = s.Sum(row, Weights::PackedRow(true, false, n));
      const double expected =
          gate / (1 + std::exp(-gate)) * s.Sum(row, Weights::PackedRow(true, true, n));
      CAPTURE(row, n, gate);
      // SiLU and the product: 8 ulps, as in matmul_test.
      CHECK(std::abs(double{y[Size(row, outputs) + static_cast<size_t>(n)]} - expected) <=
            std::abs(expected) * std::ldexp(8.0, -23));
    }
  }
}

TEST_CASE("rows normed next have the bits of a norm of their own", "[kernels]") {
  const Seeded seeded;
  const int outputs = GENERATE(64, 1000, 2056, 4096);
  const Epilogue epilogue = GENERATE(Epilogue::kStore, Epilogue::kAdd);
  const bool rounds = GENERATE(false, true);
  CAPTURE(outputs, static_cast<int>(epilogue), rounds);
  const Summed s = Exact(outputs, false, outputs);
  const Device<float> slices(s.slices);
  const Device<float> scales = ScalesOfWholeSums(s);
  const Device<float> bias(s.bias);
  const Device<float> weight(RandomFloats(7, static_cast<size_t>(outputs)));
  const Device<Bf16> y(ToBf16(s.old));
  const Device<Bf16> normed(Size(kRows, outputs));
  const NormParameters norm{weight.data(), 1e-5f, rounds};
  Weights w = s.weights;
  w.scales = scales.data();
  w.bias = bias.data();
  MatMulOperands operands{y.data(), false, nullptr, kRows, epilogue};
  operands.slices = slices.data();
  operands.next = {norm, normed.data()};
  REQUIRE(SumSlicesNorms(operands, w));
  REQUIRE(SumSlices(operands, w, nullptr) == cudaSuccess);
  CHECK(SameBits(y.Read(), Run(s, epilogue, ToBf16(s.old))));
  const Device<Bf16> alone(Size(kRows, outputs));
  REQUIRE(RmsNorm(alone.data(), static_cast<const Bf16*>(y.data()), nullptr, kRows, outputs, norm,
                  nullptr) == cudaSuccess);
  CHECK(SameBits(normed.Read(), alone.Read()));
}

TEST_CASE("only whole rows of bf16 are normed with the sums of their slices", "[kernels]") {
  const Device<Bf16> y(Size(kRows, 64));
  const auto norms = [&](int outputs, bool f32, int stride, bool gated) {
    Weights w;
    w.outputs = outputs;
    w.inputs = 1024;
    w.gated = gated;
    return SumSlicesNorms({y.data(), f32, nullptr, kRows, Epilogue::kStore, stride}, w);
  };
  CHECK(norms(64, false, 0, false));
  CHECK_FALSE(norms(64, true, 0, false));
  CHECK_FALSE(norms(56, false, 64, false));
  CHECK_FALSE(norms(41, false, 0, false));
  CHECK_FALSE(norms(64, false, 0, true));
}

TEST_CASE("slices add from the first to the last", "[kernels]") {
  const Seeded seeded;
  Summed s = Exact(16, false, 16);
  s.scales.assign(16, 1.0f);
  s.bias.assign(16, 0.0f);
  for (int slice = 0; slice < kSlices; ++slice) {
    for (int i = 0; i < kRows * 16; ++i) {
      s.slices[Size(slice, kRows * 16) + static_cast<size_t>(i)] = slice == 0 ? 0x1p24f : 1.0f;
    }
  }
  // 2^24 + 1 is no f32 and rounds back; seven ones first would have counted.
  for (const float value : Run(s, Epilogue::kStore, s.old)) CHECK(value == 0x1p24f);
}

}  // namespace neurogrid::kernels
