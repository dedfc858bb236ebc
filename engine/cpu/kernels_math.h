// Functions of sixteen lanes, written once over Simd.
#pragma once

#include "engine/cpu/simd.h"

namespace neurogrid {
namespace {

/// x[i] = p(r[i]) * 2^n[i], and 0 where x[i] was below `least`. Coefficients of p from the highest
/// on. Each step is taken for all i before the next: one vector's chain of instructions would leave
/// the processor waiting, which does not look far enough ahead to start the next vector's.
template <int kCount, int kCoefficients>
[[gnu::always_inline]] inline void PolynomialTimesPowerOf2(
    Simd::Float (&x)[kCount], const Simd::Float (&n)[kCount], const Simd::Float (&r)[kCount],
    const float (&coefficients)[kCoefficients], float least) {
  using S = Simd;
  S::Float p[kCount];
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) p[i] = S::Set(coefficients[0]);
#pragma GCC unroll 8
  for (int k = 1; k < kCoefficients; ++k) {
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) p[i] = S::Fma(p[i], r[i], S::Set(coefficients[k]));
  }
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) {
    x[i] = S::UnlessLess(S::ScaleByPowerOf2(p[i], n[i]), x[i], S::Set(least), S::Zero());
  }
}

/// x[i] = e^x[i] within 2 ulps; 0 below -87, at most e^88; NaN stays NaN.
/// x = n ln 2 + r with |r| <= ln 2 / 2; the Taylor series to degree 7 leaves r^8 / 8! < 6e-9.
template <int kCount>
inline void ExpEach(Simd::Float (&x)[kCount]) {
  using S = Simd;
  constexpr float kCoefficients[] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24,
                                     1.0f / 6,    0.5f,       1.0f,       1.0f};
  S::Float n[kCount];
  S::Float r[kCount];
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) r[i] = S::Min(S::Set(88.0f), S::Max(S::Set(-87.0f), x[i]));
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) n[i] = S::Round(S::Mul(r[i], S::Set(1.44269504088896341f)));
    // ln 2 in two parts; the first has 10 bits, so its product with n is exact.
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) r[i] = S::Fma(n[i], S::Set(-0.693359375f), r[i]);
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) r[i] = S::Fma(n[i], S::Set(2.12194440e-4f), r[i]);
  PolynomialTimesPowerOf2(x, n, r, kCoefficients, -87.0f);
}

inline Simd::Float Exp(Simd::Float x) {
  Simd::Float each[] = {x};
  ExpEach(each);
  return each[0];
}

/// x[i] = 2^x[i] with a relative error below 2^-22; 0 below -126, at most 2^127; NaN stays NaN.
/// x = n + r with |r| <= 1/2, exactly; the polynomial of degree 5 with the least relative error,
/// 1e-7, among those that are 1 at 0. Half the instructions of ExpEach, taken in the same order.
template <int kCount>
inline void Exp2Each(Simd::Float (&x)[kCount]) {
  using S = Simd;
  constexpr float kCoefficients[] = {1.32647273e-3f, 9.67151299e-3f, 5.55073358e-2f,
                                     0.240222424f,   0.693147004f,   1.0f};
  S::Float n[kCount];
  S::Float r[kCount];
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) n[i] = S::Round(x[i]);
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) r[i] = S::Sub(x[i], n[i]);
  // From -126 on p * 2^n is no denormal: where n is -126, r is not negative.
  PolynomialTimesPowerOf2(x, n, r, kCoefficients, -126.0f);
}

inline Simd::Float Exp2(Simd::Float x) {
  Simd::Float each[] = {x};
  Exp2Each(each);
  return each[0];
}

/// x / (1 + e^-x).
inline Simd::Float Silu(Simd::Float x) {
  using S = Simd;
  return S::Div(x, S::Add(S::Set(1.0f), Exp(S::Sub(S::Zero(), x))));
}

/// x / 2 * (1 + tanh u) = x / (1 + e^-2u) with u = sqrt(2 / pi) (x + 0.044715 x^3): no cancellation
/// where tanh u is near -1.
inline Simd::Float Gelu(Simd::Float x) {
  using S = Simd;
  constexpr float kLinear = -1.5957691216057308f;             // -2 sqrt(2 / pi)
  constexpr float kCubic = -1.5957691216057308f * 0.044715f;  // and of x^2 beside it
  const S::Float factor = S::Fma(S::Mul(x, x), S::Set(kCubic), S::Set(kLinear));
  return S::Div(x, S::Add(S::Set(1.0f), Exp(S::Mul(x, factor))));
}

/// Within 2e-7 of tanh x.
inline Simd::Float Tanh(Simd::Float x) {
  using S = Simd;
  const S::Float e = Exp(S::Add(x, x));
  return S::Sub(S::Set(1.0f), S::Div(S::Set(2.0f), S::Add(e, S::Set(1.0f))));
}

/// The sum of the lanes as a tree: lane i + lane i + 8, then + 4, 2, 1.
inline float SumOfLanes(Simd::Float x) {
  const __m256 eight = _mm256_add_ps(Simd::LowHalf(x), Simd::HighHalf(x));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

inline float MaxOfLanes(Simd::Float x) {
  const __m256 eight = _mm256_max_ps(Simd::LowHalf(x), Simd::HighHalf(x));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

/// One step of a dot product is 4 bytes: a pair of bf16 ...
struct Bf16Steps {
  using Weight = Simd::Pairs;
  using Activation = Simd::Pair;
  static constexpr int kElements = 2;
  static Weight Load(const void* p) { return Simd::LoadPairs(p); }
  static Weight LoadFirst(const void* p, int lanes) { return Simd::LoadFirstPairs(p, lanes); }
  static Weight FirstElements(const Weight& w) { return Simd::FirstOfPairs(w); }
  static Activation Broadcast(const void* p) { return Simd::BroadcastPair(p); }
  static Activation BroadcastOfRow(const void* p) { return Simd::BroadcastPairOfRow(p); }
  template <int kColumns>
  static void DotRow(Simd::Float (&sum)[kColumns], const Weight (&w)[kColumns],
                     const Activation& x) {
    Simd::DotRow(sum, w, x);
  }
  static Simd::Float Dot(Simd::Float sum, const Weight& w, const Activation& x) {
    return Simd::Dot(sum, w, x);
  }
};

/// ... or one f32.
struct F32Steps {
  using Weight = Simd::Float;
  using Activation = Simd::Float;
  static constexpr int kElements = 1;
  static Weight Load(const void* p) { return Simd::Load(static_cast<const float*>(p)); }
  static Weight LoadFirst(const void* p, int lanes) {
    return Simd::LoadFirst(static_cast<const float*>(p), lanes);
  }
  static Weight FirstElements(const Weight& w) { return w; }
  static Activation Broadcast(const void* p) { return Simd::Broadcast(p); }
  static Activation BroadcastOfRow(const void* p) { return Simd::Broadcast(p); }
  template <int kColumns>
  static void DotRow(Simd::Float (&sum)[kColumns], const Weight (&w)[kColumns],
                     const Activation& x) {
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) sum[c] = Dot(sum[c], w[c], x);
  }
  static Simd::Float Dot(Simd::Float sum, const Weight& w, const Activation& x) {
    return Simd::Fma(w, x, sum);
  }
};

inline Simd::Float LoadAs(const uint8_t* p, bool is_bf16) {
  return is_bf16 ? Simd::LoadBf16(reinterpret_cast<const uint16_t*>(p))
                 : Simd::Load(reinterpret_cast<const float*>(p));
}

inline void StoreAs(uint8_t* p, bool is_bf16, Simd::Float x) {
  if (is_bf16) {
    Simd::StoreBf16(reinterpret_cast<uint16_t*>(p), x);
  } else {
    Simd::Store(reinterpret_cast<float*>(p), x);
  }
}

/// Up to 16 values from p, zeros after them.
inline Simd::Float LoadSome(const uint8_t* p, bool is_bf16, int64_t count) {
  if (count >= 16) return LoadAs(p, is_bf16);
  alignas(64) uint8_t values[64] = {};
  std::memcpy(values, p, static_cast<size_t>(count) * (is_bf16 ? 2 : 4));
  return LoadAs(values, is_bf16);
}

inline void StoreSome(uint8_t* p, bool is_bf16, Simd::Float x, int64_t count) {
  if (count >= 16) {
    StoreAs(p, is_bf16, x);
    return;
  }
  alignas(64) uint8_t values[64];
  StoreAs(values, is_bf16, x);
  std::memcpy(p, values, static_cast<size_t>(count) * (is_bf16 ? 2 : 4));
}

}  // namespace
}  // namespace neurogrid
