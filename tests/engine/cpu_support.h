// Random operands and every instruction set this machine runs.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "common/dtype.h"
#include "common/rng.h"
#include "common/tensor.h"
#include "engine/cpu/cpu_features.h"

namespace neurogrid {

inline std::vector<InstructionSet> InstructionSets() {
  return InstructionSetsOf(ReadCpuWords()).value();
}

/// Roughly normal values of deviation 1 with exponents that vary, from a seed.
inline std::vector<float> RandomFloats(uint64_t seed, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) {
    const uint64_t bits = SplitMix64(seed * 0x100000001b3u + i);
    double sum = -2;
    for (int part = 0; part < 4; ++part)
      sum += static_cast<double>(bits >> (16 * part) & 0xffff) / 65536;
    values[i] = static_cast<float>(sum * 1.7);
  }
  return values;
}

/// The same, already rounded to bf16.
inline std::vector<bf16> RandomBf16(uint64_t seed, int64_t count) {
  std::vector<bf16> values;
  for (const float value : RandomFloats(seed, count)) values.push_back(ToBf16(value));
  return values;
}

inline std::vector<float> Widen(const std::vector<bf16>& values) {
  std::vector<float> wide;
  for (const bf16 value : values) wide.push_back(ToFloat(value));
  return wide;
}

inline Tensor View(std::vector<float>& values, const Shape& shape) {
  NG_CHECK(shape.elements() == static_cast<int64_t>(values.size()));
  return {values.data(), DType::kF32, shape};
}
inline Tensor View(std::vector<bf16>& values, const Shape& shape) {
  NG_CHECK(shape.elements() == static_cast<int64_t>(values.size()));
  return {values.data(), DType::kBF16, shape};
}

/// Bit for bit: NaN equals itself, -0 differs from 0.
template <typename T>
bool SameBits(const std::vector<T>& a, const std::vector<T>& b) {
  // memcmp takes no null, which is what an empty vector may hold.
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

inline constexpr double kF32Unit = 0x1p-24;  // half an ulp, relative

/// A product in f64, and how far each of its elements may stray.
struct ExpectedProduct {
  std::vector<double> value;
  std::vector<double> bound;
};

/// The largest error as a share of what is allowed; NaN where y has one.
inline double WorstShare(const std::vector<float>& y, const ExpectedProduct& expected) {
  double worst = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    const double share = std::fabs(double{y[i]} - expected.value[i]) / expected.bound[i];
    if (!(share <= worst)) worst = share;  // a NaN stays
  }
  return worst;
}

}  // namespace neurogrid
