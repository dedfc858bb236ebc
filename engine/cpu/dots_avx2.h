// Dot products of integers in AVX2, by products of words or with the VNNI part that came to AVX
// after AVX-512. The same bits; simd.h picks. In assembly, as in dots_avx512.h and for its reasons.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace neurogrid {
namespace {

/// Sixteen int32, or as many pairs of int16, or fours of bytes.
struct Int256x2 {
  __m256i a, b;
};

/// 32 bits in every lane: a pair of bf16 or int16, or four int8.
inline __m256i Broadcast32(const void* p) {
  int32_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return _mm256_set1_epi32(bits);
}

inline Int256x2 Load256x2(const void* p) {
  const __m256i* q = static_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
}

struct IntDotsByWords {
  struct Quads {
    Int256x2 even, odd;  // bytes 0 and 2 of each four, bytes 1 and 3
  };
  struct Quad {
    __m256i even, odd;
  };

  /// Shifted up and down: a mask would take the last register.
  static __m256i Evens(__m256i w) { return _mm256_srli_epi16(_mm256_slli_epi16(w, 8), 8); }
  static Quads LoadQuads(const void* p) {
    const auto [a, b] = Load256x2(p);
    return {{Evens(a), Evens(b)}, {_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8)}};
  }
  static Quad BroadcastQuad(const void* p) {
    const __m256i bytes = Broadcast32(p);
    return {_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8), _mm256_srai_epi16(bytes, 8)};
  }
  static void DotWords(Int256x2& sum, const Int256x2& w, __m256i x) {
    __m256i products;
    asm("vpmaddwd %5, %3, %2\n\t"
        "vpaddd %2, %0, %0\n\t"
        "vpmaddwd %5, %4, %2\n\t"
        "vpaddd %2, %1, %1"
        : "+x"(sum.a), "+x"(sum.b), "=&x"(products)
        : "x"(w.a), "x"(w.b), "x"(x));
  }
  template <int kColumns>
  static void DotInt(Int256x2 (&sum)[kColumns], const Int256x2 (&w)[kColumns], __m256i x) {
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) DotWords(sum[c], w[c], x);
  }
  /// In words, because the product of bytes saturates at 16 bits.
  template <int kColumns>
  static void DotQuads(Int256x2 (&sum)[kColumns], const Quads (&w)[kColumns], const Quad& x) {
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) {
      DotWords(sum[c], w[c].even, x.even);
      DotWords(sum[c], w[c].odd, x.odd);
    }
  }
};

struct IntDotsByVnni {
  using Quads = Int256x2;
  using Quad = __m256i;

  static Quads LoadQuads(const void* p) { return Load256x2(p); }
  static Quad BroadcastQuad(const void* p) { return Broadcast32(p); }
  template <int kColumns>
  static void DotInt(Int256x2 (&sum)[kColumns], const Int256x2 (&w)[kColumns], __m256i x) {
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) {
      asm("%{vex%} vpdpwssd %4, %2, %0\n\t"
          "%{vex%} vpdpwssd %4, %3, %1"
          : "+x"(sum[c].a), "+x"(sum[c].b)
          : "x"(w[c].a), "x"(w[c].b), "x"(x));
    }
  }
  template <int kColumns>
  static void DotQuads(Int256x2 (&sum)[kColumns], const Quads (&w)[kColumns], Quad x) {
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) {
      asm("%{vex%} vpdpbusd %4, %2, %0\n\t"
          "%{vex%} vpdpbusd %4, %3, %1"
          : "+x"(sum[c].a), "+x"(sum[c].b)
          : "x"(w[c].a), "x"(w[c].b), "x"(x));
    }
  }
};

}  // namespace
}  // namespace neurogrid
