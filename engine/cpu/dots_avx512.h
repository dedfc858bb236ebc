// Dot products in AVX-512: of pairs of bf16 with the BF16 part or by multiply-adds, of integers
// with the VNNI part or by products of words. The same bits either way; simd.h picks.
//
// Products of a row with all vectors of a panel's step are one piece of assembly: with intrinsics,
// and with one instruction a piece, GCC 12 moves accumulators between registers, spills them, or
// reads the weights again for each row.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace neurogrid {
namespace {

/// 32 bits in every lane: a pair of bf16 or int16, or four int8.
inline __m512i Broadcast32(const void* p) {
  int32_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return _mm512_set1_epi32(bits);
}

/// Sixteen int8 in 32 bits each.
inline __m512i WidenBytes(const void* p) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}

/// In instructions that no other processor repeats exactly but by FTZ and DAZ, see vec_avx2.h.
struct PairDotsByBf16 {
  static constexpr int kTileRows =
      6;  // 6 x 4 accumulators, 4 weights, 1 activation: 29 of 32 registers
  // Zen 4: much further would mislead the prefetcher.
  static constexpr int64_t kGroupAheadBytes = 128;

  using Pair = __m512bh;  // one pair of bf16 in every lane

  static Pair BroadcastPair(const void* p) {
    __m512i x = Broadcast32(p);
    asm("" : "+v"(x));  // One broadcast for four products, not a memory operand in each.
    return reinterpret_cast<Pair>(x);
  }
  /// The same for DotRow, which takes it from a register anyway.
  static Pair BroadcastPairOfRow(const void* p) { return reinterpret_cast<Pair>(Broadcast32(p)); }
  /// fma(w0, x0, fma(w1, x1, sum)), denormals flushed.
  static __m512 Dot(__m512 sum, __m512i w, Pair x) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(w), x);
  }
  /// Dot of a row with all vectors of a panel's step.
  static void DotRow(__m512 (&sum)[4], const __m512i (&w)[4], Pair x) {
    asm("vdpbf16ps %8, %4, %0\n\t"
        "vdpbf16ps %8, %5, %1\n\t"
        "vdpbf16ps %8, %6, %2\n\t"
        "vdpbf16ps %8, %7, %3"
        : "+v"(sum[0]), "+v"(sum[1]), "+v"(sum[2]), "+v"(sum[3])
        : "v"(w[0]), "v"(w[1]), "v"(w[2]), "v"(w[3]), "v"(x));
  }
  /// bf16 of 16 floats: to nearest, ties to even; denormals become zero.
  static __m256i RoundToBf16(__m512 x) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)); }
};

/// Each pair becomes two floats, by a shift and by a mask.
struct PairDotsByFma {
  static constexpr int kTileRows =
      5;  // 5 x 4 accumulators, 4 weights and 1 activation twice: 30 of 32 registers
  // Intel's processors (FastestOf): 1.1 to 1.5 times as fast as 128 bytes on Sapphire Rapids.
  static constexpr int64_t kGroupAheadBytes = 2048;

  struct Pair {
    __m512 first, second;
  };

  static __m512 Firsts(__m512i w) { return _mm512_castsi512_ps(_mm512_slli_epi32(w, 16)); }
  static __m512 Seconds(__m512i w) {
    return _mm512_castsi512_ps(_mm512_and_si512(w, _mm512_set1_epi32(-65536)));
  }
  static Pair BroadcastPair(const void* p) {
    const __m512i both = Broadcast32(p);
    return {Firsts(both), Seconds(both)};
  }
  static Pair BroadcastPairOfRow(const void* p) { return BroadcastPair(p); }
  static __m512 Dot(__m512 sum, __m512i w, const Pair& x) {
    return _mm512_fmadd_ps(Firsts(w), x.first, _mm512_fmadd_ps(Seconds(w), x.second, sum));
  }
  static void DotRow(__m512 (&sum)[4], const __m512i (&w)[4], const Pair& x) {
    asm("vfmadd231ps %13, %8, %0\n\t"
        "vfmadd231ps %13, %9, %1\n\t"
        "vfmadd231ps %13, %10, %2\n\t"
        "vfmadd231ps %13, %11, %3\n\t"
        "vfmadd231ps %12, %4, %0\n\t"
        "vfmadd231ps %12, %5, %1\n\t"
        "vfmadd231ps %12, %6, %2\n\t"
        "vfmadd231ps %12, %7, %3"
        : "+v"(sum[0]), "+v"(sum[1]), "+v"(sum[2]), "+v"(sum[3])
        : "v"(Firsts(w[0])), "v"(Firsts(w[1])), "v"(Firsts(w[2])), "v"(Firsts(w[3])),
          "v"(Seconds(w[0])), "v"(Seconds(w[1])), "v"(Seconds(w[2])), "v"(Seconds(w[3])),
          "v"(x.first), "v"(x.second));
  }
  static __m256i RoundToBf16(__m512 x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i upper = _mm512_srli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
    const __m512i half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, half), 16);
    const __mmask16 is_nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    const __mmask16 is_denormal = _mm512_testn_epi32_mask(bits, _mm512_set1_epi32(0x7f800000));
    const __m512i number = _mm512_mask_or_epi32(rounded, is_nan, upper, _mm512_set1_epi32(0x40));
    return _mm512_cvtepi32_epi16(
        _mm512_mask_and_epi32(number, is_denormal, upper, _mm512_set1_epi32(0x8000)));
  }
};

struct IntDotsByVnni {
  using Quad = __m512i;  // four int8 in every lane

  static Quad BroadcastQuad(const void* p) { return Broadcast32(p); }
  /// sum[c] + w[c]0 * x0 + w[c]1 * x1 of int16.
  static void DotInt(__m512i (&sum)[4], const __m512i (&w)[4], __m512i x) {
    asm("vpdpwssd %8, %4, %0\n\t"
        "vpdpwssd %8, %5, %1\n\t"
        "vpdpwssd %8, %6, %2\n\t"
        "vpdpwssd %8, %7, %3"
        : "+v"(sum[0]), "+v"(sum[1]), "+v"(sum[2]), "+v"(sum[3])
        : "v"(w[0]), "v"(w[1]), "v"(w[2]), "v"(w[3]), "v"(x));
  }
  static void DotInt(__m512i (&sum)[2], const __m512i (&w)[2], __m512i x) {
    asm("vpdpwssd %4, %2, %0\n\t"
        "vpdpwssd %4, %3, %1"
        : "+v"(sum[0]), "+v"(sum[1])
        : "v"(w[0]), "v"(w[1]), "v"(x));
  }
  /// sum[c] + w[c]0 * x0 + ... + w[c]3 * x3 of unsigned w and signed x.
  static void DotQuads(__m512i (&sum)[4], const __m512i (&w)[4], Quad x) {
    asm("vpdpbusd %8, %4, %0\n\t"
        "vpdpbusd %8, %5, %1\n\t"
        "vpdpbusd %8, %6, %2\n\t"
        "vpdpbusd %8, %7, %3"
        : "+v"(sum[0]), "+v"(sum[1]), "+v"(sum[2]), "+v"(sum[3])
        : "v"(w[0]), "v"(w[1]), "v"(w[2]), "v"(w[3]), "v"(x));
  }
  static void DotQuads(__m512i (&sum)[2], const __m512i (&w)[2], Quad x) {
    asm("vpdpbusd %4, %2, %0\n\t"
        "vpdpbusd %4, %3, %1"
        : "+v"(sum[0]), "+v"(sum[1])
        : "v"(w[0]), "v"(w[1]), "v"(x));
  }

  /// Codes of kBits, as bytes, beside activations of 8 bits.
  template <int kBits>
  struct ByteDots {
    static constexpr int kStepsMax = 8;      // whose products a Sum has room for: any number here
    static constexpr bool kInWords = false;  // what Broadcast reads, not bytes
    using Weight = __m512i;
    using Activation = __m512i;
    using Sum = __m512i;
    static Weight WeightOf(__m512i bytes) { return bytes; }
    static Activation Broadcast(const void* p) { return Broadcast32(p); }
    /// sum = the products of a step.
    template <int kColumns>
    static void First(Sum (&sum)[kColumns], const Weight (&w)[kColumns], Activation x) {
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) sum[c] = _mm512_setzero_si512();
      DotQuads(sum, w, x);
    }
    /// sum += the products of a step.
    template <int kColumns>
    static void Next(Sum (&sum)[kColumns], const Weight (&w)[kColumns], Activation x) {
      DotQuads(sum, w, x);
    }
    static __m512i TotalOf(Sum sum) { return sum; }
    /// Sixteen int8 as AddTimes wants them.
    static __m512i FactorsOf(const void* p) { return WidenBytes(p); }
    static __m512i AddTimes(__m512i total, Sum sum, __m512i factors) {
      return _mm512_add_epi32(total, _mm512_mullo_epi32(sum, factors));
    }
  };

  // Products of bytes with activations of 16 bits, which come as two signed bytes: x = 256 * high +
  // low, so that one is two of vpdpbusd.
  struct SplitFour {
    __m512i high, low;  // each four bytes in every lane
  };
  struct SplitSum {
    __m512i high, low;  // 256 * high + low
  };
  static SplitFour LoadSplit(const uint8_t* p) { return {Broadcast32(p), Broadcast32(p + 4)}; }
  static void StoreSplit(uint8_t* p, __m512i x) {
    const __m512i above = _mm512_srai_epi32(_mm512_add_epi32(x, _mm512_set1_epi32(128)), 8);
    const __m128i low = _mm512_cvtepi32_epi8(x);
    const __m128i high = _mm512_cvtepi32_epi8(above);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_unpacklo_epi32(high, low));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p) + 1, _mm_unpackhi_epi32(high, low));
  }
  static SplitSum StartSum(int32_t x) { return {_mm512_setzero_si512(), _mm512_set1_epi32(x)}; }
  static __m512i TotalOf(const SplitSum& sum) {
    return _mm512_add_epi32(_mm512_slli_epi32(sum.high, 8), sum.low);
  }
  static void DotFours(SplitSum (&sum)[4], const __m512i (&w)[4], const SplitFour& x) {
    asm("vpdpbusd %12, %8, %0\n\t"
        "vpdpbusd %12, %9, %1\n\t"
        "vpdpbusd %12, %10, %2\n\t"
        "vpdpbusd %12, %11, %3\n\t"
        "vpdpbusd %13, %8, %4\n\t"
        "vpdpbusd %13, %9, %5\n\t"
        "vpdpbusd %13, %10, %6\n\t"
        "vpdpbusd %13, %11, %7"
        : "+v"(sum[0].high), "+v"(sum[1].high), "+v"(sum[2].high), "+v"(sum[3].high),
          "+v"(sum[0].low), "+v"(sum[1].low), "+v"(sum[2].low), "+v"(sum[3].low)
        : "v"(w[0]), "v"(w[1]), "v"(w[2]), "v"(w[3]), "v"(x.high), "v"(x.low));
  }
  static void DotFours(SplitSum (&sum)[2], const __m512i (&w)[2], const SplitFour& x) {
    asm("vpdpbusd %6, %4, %0\n\t"
        "vpdpbusd %6, %5, %1\n\t"
        "vpdpbusd %7, %4, %2\n\t"
        "vpdpbusd %7, %5, %3"
        : "+v"(sum[0].high), "+v"(sum[1].high), "+v"(sum[0].low), "+v"(sum[1].low)
        : "v"(w[0]), "v"(w[1]), "v"(x.high), "v"(x.low));
  }
};

/// In words, because the product of bytes saturates at 16 bits.
struct IntDotsByWords {
  struct Quad {
    __m512i even, odd;  // bytes 0 and 2 of the four, bytes 1 and 3
  };

  static Quad BroadcastQuad(const void* p) {
    const __m512i bytes = Broadcast32(p);
    return {_mm512_srai_epi16(_mm512_slli_epi16(bytes, 8), 8), _mm512_srai_epi16(bytes, 8)};
  }
  static void DotInt(__m512i (&sum)[4], const __m512i (&w)[4], __m512i x) {
    __m512i products;
    asm("vpmaddwd %9, %5, %4\n\t"
        "vpaddd %4, %0, %0\n\t"
        "vpmaddwd %9, %6, %4\n\t"
        "vpaddd %4, %1, %1\n\t"
        "vpmaddwd %9, %7, %4\n\t"
        "vpaddd %4, %2, %2\n\t"
        "vpmaddwd %9, %8, %4\n\t"
        "vpaddd %4, %3, %3"
        : "+v"(sum[0]), "+v"(sum[1]), "+v"(sum[2]), "+v"(sum[3]), "=&v"(products)
        : "v"(w[0]), "v"(w[1]), "v"(w[2]), "v"(w[3]), "v"(x));
  }
  static void DotInt(__m512i (&sum)[2], const __m512i (&w)[2], __m512i x) {
    __m512i products;
    asm("vpmaddwd %5, %3, %2\n\t"
        "vpaddd %2, %0, %0\n\t"
        "vpmaddwd %5, %4, %2\n\t"
        "vpaddd %2, %1, %1"
        : "+v"(sum[0]), "+v"(sum[1]), "=&v"(products)
        : "v"(w[0]), "v"(w[1]), "v"(x));
  }
  /// Shifted up and down: a mask would take the last register.
  static __m512i Evens(__m512i w) { return _mm512_srli_epi16(_mm512_slli_epi16(w, 8), 8); }
  static __m512i Odds(__m512i w) { return _mm512_srli_epi16(w, 8); }
  static void DotQuads(__m512i (&sum)[4], const __m512i (&w)[4], const Quad& x) {
    __m512i products;
    asm("vpmaddwd %13, %5, %4\n\t"
        "vpaddd %4, %0, %0\n\t"
        "vpmaddwd %13, %6, %4\n\t"
        "vpaddd %4, %1, %1\n\t"
        "vpmaddwd %13, %7, %4\n\t"
        "vpaddd %4, %2, %2\n\t"
        "vpmaddwd %13, %8, %4\n\t"
        "vpaddd %4, %3, %3\n\t"
        "vpmaddwd %14, %9, %4\n\t"
        "vpaddd %4, %0, %0\n\t"
        "vpmaddwd %14, %10, %4\n\t"
        "vpaddd %4, %1, %1\n\t"
        "vpmaddwd %14, %11, %4\n\t"
        "vpaddd %4, %2, %2\n\t"
        "vpmaddwd %14, %12, %4\n\t"
        "vpaddd %4, %3, %3"
        : "+v"(sum[0]), "+v"(sum[1]), "+v"(sum[2]), "+v"(sum[3]), "=&v"(products)
        : "v"(Evens(w[0])), "v"(Evens(w[1])), "v"(Evens(w[2])), "v"(Evens(w[3])), "v"(Odds(w[0])),
          "v"(Odds(w[1])), "v"(Odds(w[2])), "v"(Odds(w[3])), "v"(x.even), "v"(x.odd));
  }
  static void DotQuads(__m512i (&sum)[2], const __m512i (&w)[2], const Quad& x) {
    __m512i products;
    asm("vpmaddwd %7, %3, %2\n\t"
        "vpaddd %2, %0, %0\n\t"
        "vpmaddwd %7, %4, %2\n\t"
        "vpaddd %2, %1, %1\n\t"
        "vpmaddwd %8, %5, %2\n\t"
        "vpaddd %2, %0, %0\n\t"
        "vpmaddwd %8, %6, %2\n\t"
        "vpaddd %2, %1, %1"
        : "+v"(sum[0]), "+v"(sum[1]), "=&v"(products)
        : "v"(Evens(w[0])), "v"(Evens(w[1])), "v"(Odds(w[0])), "v"(Odds(w[1])), "v"(x.even),
          "v"(x.odd));
  }

  /// Codes of fewer than 8 bits beside activations of 8: their products of pairs do not saturate,
  /// and some steps of them fit in 16 bits.
  template <int kBits>
  struct NarrowByteDots {
    static constexpr int kStepsMax = kBits == 4 ? 8 : kBits == 5 ? 4 : 2;
    static constexpr bool kInWords = false;
    static_assert(kStepsMax * 2 * ((1 << kBits) - 1) * 127 < 32768);
    using Weight = __m512i;
    using Activation = __m512i;
    using Sum = __m512i;  // two int16 for each output
    static Weight WeightOf(__m512i bytes) { return bytes; }
    static Activation Broadcast(const void* p) { return Broadcast32(p); }
    template <int kColumns>
    static void First(Sum (&sum)[kColumns], const Weight (&w)[kColumns], Activation x) {
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c)
        asm("vpmaddubsw %2, %1, %0" : "=v"(sum[c]) : "v"(w[c]), "v"(x));
    }
    template <int kColumns>
    static void Next(Sum (&sum)[kColumns], const Weight (&w)[kColumns], Activation x) {
      __m512i products;
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) {
        asm("vpmaddubsw %3, %2, %1\n\t"
            "vpaddw %1, %0, %0"
            : "+v"(sum[c]), "=&v"(products)
            : "v"(w[c]), "v"(x));
      }
    }
    static __m512i TotalOf(Sum sum) { return _mm512_madd_epi16(sum, _mm512_set1_epi16(1)); }
    static __m512i FactorsOf(const void* p) {
      const __m512i factors = WidenBytes(p);
      return _mm512_mask_blend_epi16(0xaaaaaaaa, factors, _mm512_slli_epi32(factors, 16));
    }
    static __m512i AddTimes(__m512i total, Sum sum, __m512i factors) {
      return _mm512_add_epi32(total, _mm512_madd_epi16(sum, factors));
    }
  };
  /// Codes of 8 bits.
  struct QuadByteDots {
    static constexpr int kStepsMax = 8;
    static constexpr bool kInWords = true;
    using Weight = __m512i;
    using Activation = Quad;
    using Sum = __m512i;
    static Weight WeightOf(__m512i bytes) { return bytes; }
    /// Of two pairs of words: activations 0 and 2, then 1 and 3.
    static Activation Broadcast(const uint8_t* p) { return {Broadcast32(p), Broadcast32(p + 4)}; }
    template <int kColumns>
    static void First(Sum (&sum)[kColumns], const Weight (&w)[kColumns], const Activation& x) {
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) sum[c] = _mm512_setzero_si512();
      DotQuads(sum, w, x);
    }
    template <int kColumns>
    static void Next(Sum (&sum)[kColumns], const Weight (&w)[kColumns], const Activation& x) {
      DotQuads(sum, w, x);
    }
    static __m512i TotalOf(Sum sum) { return sum; }
  };
  template <int kBits>
  using ByteDots = std::conditional_t<kBits == 8, QuadByteDots, NarrowByteDots<kBits>>;

  // Activations of 16 bits beside bytes: words 0 and 2 of each four, words 1 and 3.
  using SplitFour = Quad;
  using SplitSum = __m512i;
  static SplitFour LoadSplit(const uint8_t* p) { return {Broadcast32(p), Broadcast32(p + 4)}; }
  static void StoreSplit(uint8_t* p, __m512i x) {
    const __m256i order = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm256_shuffle_epi8(_mm512_cvtepi32_epi16(x), order));
  }
  static SplitSum StartSum(int32_t x) { return _mm512_set1_epi32(x); }
  static __m512i TotalOf(SplitSum sum) { return sum; }
  static void DotFours(SplitSum (&sum)[4], const __m512i (&w)[4], const SplitFour& x) {
    DotQuads(sum, w, x);
  }
  static void DotFours(SplitSum (&sum)[2], const __m512i (&w)[2], const SplitFour& x) {
    DotQuads(sum, w, x);
  }
};

}  // namespace
}  // namespace neurogrid
