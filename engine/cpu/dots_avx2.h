// Dot products of integers in AVX2, by products of words or with the VNNI part that came to AVX
// after AVX-512. The same bits; simd.h picks. In assembly, as in dots_avx512.h and for its reasons.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

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

inline Int256x2 AddInt256x2(const Int256x2& x, const Int256x2& y) {
  return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)};
}

/// Sixteen int8 in 32 bits each.
inline Int256x2 WidenBytes(const void* p) {
  const __m128i bytes = _mm_loadu_si128(static_cast<const __m128i*>(p));
  return {_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8))};
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

  /// Codes of fewer than 8 bits beside activations of 8: their products of pairs do not saturate,
  /// and some steps of them fit in 16 bits.
  template <int kBits>
  struct NarrowByteDots {
    static constexpr int kStepsMax = kBits == 4 ? 8 : kBits == 5 ? 4 : 2;
    static constexpr bool kInWords = false;
    static_assert(kStepsMax * 2 * ((1 << kBits) - 1) * 127 < 32768);
    using Weight = Int256x2;
    using Activation = __m256i;
    using Sum = Int256x2;  // two int16 for each output
    static Weight WeightOf(const Int256x2& bytes) { return bytes; }
    static Activation Broadcast(const void* p) { return Broadcast32(p); }
    template <int kColumns>
    static void First(Sum (&sum)[kColumns], const Weight (&w)[kColumns], Activation x) {
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) {
        asm("vpmaddubsw %2, %1, %0" : "=x"(sum[c].a) : "x"(w[c].a), "x"(x));
        asm("vpmaddubsw %2, %1, %0" : "=x"(sum[c].b) : "x"(w[c].b), "x"(x));
      }
    }
    template <int kColumns>
    static void Next(Sum (&sum)[kColumns], const Weight (&w)[kColumns], Activation x) {
      __m256i products;
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) {
        asm("vpmaddubsw %5, %3, %2\n\t"
            "vpaddw %2, %0, %0\n\t"
            "vpmaddubsw %5, %4, %2\n\t"
            "vpaddw %2, %1, %1"
            : "+x"(sum[c].a), "+x"(sum[c].b), "=&x"(products)
            : "x"(w[c].a), "x"(w[c].b), "x"(x));
      }
    }
    static Int256x2 TotalOf(const Sum& sum) {
      const __m256i ones = _mm256_set1_epi16(1);
      return {_mm256_madd_epi16(sum.a, ones), _mm256_madd_epi16(sum.b, ones)};
    }
    static __m256i Twice(__m256i x) {
      return _mm256_blend_epi16(x, _mm256_slli_epi32(x, 16), 0xaa);
    }
    static Int256x2 FactorsOf(const void* p) {
      const Int256x2 factors = WidenBytes(p);
      return {Twice(factors.a), Twice(factors.b)};
    }
    static Int256x2 AddTimes(const Int256x2& total, const Sum& sum, const Int256x2& factors) {
      return AddInt256x2(
          total, {_mm256_madd_epi16(sum.a, factors.a), _mm256_madd_epi16(sum.b, factors.b)});
    }
  };
  /// Codes of 8 bits.
  struct QuadByteDots {
    static constexpr int kStepsMax = 8;
    static constexpr bool kInWords = true;
    using Weight = Quads;
    using Activation = Quad;
    using Sum = Int256x2;
    static Weight WeightOf(const Int256x2& bytes) {
      const __m256i even = _mm256_set1_epi16(0xff);
      return {{_mm256_and_si256(bytes.a, even), _mm256_and_si256(bytes.b, even)},
              {_mm256_srli_epi16(bytes.a, 8), _mm256_srli_epi16(bytes.b, 8)}};
    }
    /// Of two pairs of words: activations 0 and 2, then 1 and 3.
    static Activation Broadcast(const uint8_t* p) { return {Broadcast32(p), Broadcast32(p + 4)}; }
    template <int kColumns>
    static void First(Sum (&sum)[kColumns], const Weight (&w)[kColumns], const Activation& x) {
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) sum[c] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
      DotQuads(sum, w, x);
    }
    template <int kColumns>
    static void Next(Sum (&sum)[kColumns], const Weight (&w)[kColumns], const Activation& x) {
      DotQuads(sum, w, x);
    }
    static Int256x2 TotalOf(const Sum& sum) { return sum; }
  };
  template <int kBits>
  using ByteDots = std::conditional_t<kBits == 8, QuadByteDots, NarrowByteDots<kBits>>;
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

  /// Codes of kBits, as bytes, beside activations of 8 bits.
  template <int kBits>
  struct ByteDots {
    static constexpr int kStepsMax = 8;      // whose products a Sum has room for: any number here
    static constexpr bool kInWords = false;  // what Broadcast reads, not bytes
    using Weight = Int256x2;
    using Activation = __m256i;
    using Sum = Int256x2;
    static Weight WeightOf(const Int256x2& bytes) { return bytes; }
    static Activation Broadcast(const void* p) { return Broadcast32(p); }
    /// sum = the products of a step.
    template <int kColumns>
    static void First(Sum (&sum)[kColumns], const Weight (&w)[kColumns], Activation x) {
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) sum[c] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
      DotQuads(sum, w, x);
    }
    /// sum += the products of a step.
    template <int kColumns>
    static void Next(Sum (&sum)[kColumns], const Weight (&w)[kColumns], Activation x) {
      DotQuads(sum, w, x);
    }
    static Int256x2 TotalOf(const Sum& sum) { return sum; }
    /// Sixteen int8 as AddTimes wants them.
    static Int256x2 FactorsOf(const void* p) { return WidenBytes(p); }
    static Int256x2 AddTimes(const Int256x2& total, const Sum& sum, const Int256x2& factors) {
      return AddInt256x2(
          total, {_mm256_mullo_epi32(sum.a, factors.a), _mm256_mullo_epi32(sum.b, factors.b)});
    }
  };
};

}  // namespace
}  // namespace neurogrid
