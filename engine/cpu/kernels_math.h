// Functions of sixteen lanes, written once over Simd.
#pragma once

#include "engine/cpu/simd.h"

namespace neurogrid {
namespace {

/// e^x within 2 ulps; 0 below -87, at most e^88; NaN stays NaN.
/// x = n ln 2 + r with |r| <= ln 2 / 2; the Taylor series to degree 7 leaves r^8 / 8! < 6e-9.
inline Simd::Float Exp(Simd::Float x) {
  using S = Simd;
  const S::Float bounded = S::Min(S::Set(88.0f), S::Max(S::Set(-87.0f), x));
  const S::Float n = S::Round(S::Mul(bounded, S::Set(1.44269504088896341f)));
  // ln 2 in two parts; the first has 10 bits, so its product with n is exact.
  S::Float r = S::Fma(n, S::Set(-0.693359375f), bounded);
  r = S::Fma(n, S::Set(2.12194440e-4f), r);
  S::Float p = S::Set(1.0f / 5040);
  p = S::Fma(p, r, S::Set(1.0f / 720));
  p = S::Fma(p, r, S::Set(1.0f / 120));
  p = S::Fma(p, r, S::Set(1.0f / 24));
  p = S::Fma(p, r, S::Set(1.0f / 6));
  p = S::Fma(p, r, S::Set(0.5f));
  p = S::Fma(p, r, S::Set(1.0f));
  p = S::Fma(p, r, S::Set(1.0f));
  return S::UnlessLess(S::ScaleByPowerOf2(p, n), x, S::Set(-87.0f), S::Zero());
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
  float lanes[16];
  Simd::Store(lanes, x);
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

inline float MaxOfLanes(Simd::Float x) {
  float lanes[16];
  Simd::Store(lanes, x);
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i)
      lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
  }
  return lanes[0];
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

}  // namespace
}  // namespace neurogrid
