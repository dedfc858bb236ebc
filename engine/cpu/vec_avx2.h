// Sixteen lanes in AVX2 with FMA: two registers for each of AVX-512's, and the same bits.
// The bf16 dot product instruction computes fma(w0, x0, fma(w1, x1, sum)) with denormals flushed,
// which two FMAs repeat when FTZ and DAZ are set, as ThreadPool does. Included by simd.h alone,
// which adds the dot products of integers.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "engine/cpu/dots_avx2.h"

namespace neurogrid {
namespace {

template <class IntDots>
struct Avx2Lanes : IntDots {
  static constexpr int kTileRows =
      4;  // 8 accumulators, 4 halves of weights, 2 of activations: 14 of 16
  template <int kRows>
  static constexpr int kTileColumns = kRows == 1 ? 2 : 1;
  // One row reads a panel line after line, as memory gives it: in passes over a part of its columns
  // memory would wait for all but the first. Each column's weights are widened by themselves.
  template <int kRows>
  static constexpr int kPanelColumns = kRows == 1 ? 4 : 1;
  template <int kRows>
  static constexpr int kPanelColumnsAtOnce = 1;
  // One row of int8-a8 asks for its panel so far ahead: with some 60 instructions for four lines a
  // core looks ahead too little, and is 1.2 times as fast so. bf16 and int8 gain nothing.
  static constexpr int64_t kA8AheadBytes = 2048;
  template <int kRows>
  static constexpr int kA8TotalColumns = 0;

  struct Float {
    __m256 a, b;
  };
  using Int = Int256x2;
  struct Pairs {
    Float first, second;
  };
  struct Pair {
    __m256 first, second;
  };
  using Words = Int;
  using Word2 = __m256i;

  static Float Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static Float Set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static Float Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static void Store(float* p, Float x) {
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
  }
  static Float Add(Float x, Float y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
  static Float Sub(Float x, Float y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
  static Float Mul(Float x, Float y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
  static Float Div(Float x, Float y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
  static Float Max(Float x, Float y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
  static Float Min(Float x, Float y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
  static Float Fma(Float x, Float y, Float z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
  }
  static Float Round(Float x) {
    constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(x.a, kNearest), _mm256_round_ps(x.b, kNearest)};
  }
  static __m256 PowerOf2(__m256 n) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
  }
  static Float ScaleByPowerOf2(Float x, Float n) {
    return {_mm256_mul_ps(x.a, PowerOf2(n.a)), _mm256_mul_ps(x.b, PowerOf2(n.b))};
  }
  static Float UnlessLess(Float x, Float y, Float z, Float other) {
    return {_mm256_blendv_ps(x.a, other.a, _mm256_cmp_ps(y.a, z.a, _CMP_LT_OQ)),
            _mm256_blendv_ps(x.b, other.b, _mm256_cmp_ps(y.b, z.b, _CMP_LT_OQ))};
  }
  /// All ones in lanes [first, last) of lanes [base, base + 8).
  static __m256i LaneMask(int base, int first, int last) {
    const __m256i lane =
        _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(base));
    return _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(first), lane),
                               _mm256_cmpgt_epi32(_mm256_set1_epi32(last), lane));
  }
  static Float KeepLanes(Float x, int first, int last, Float other) {
    return {_mm256_blendv_ps(other.a, x.a, _mm256_castsi256_ps(LaneMask(0, first, last))),
            _mm256_blendv_ps(other.b, x.b, _mm256_castsi256_ps(LaneMask(8, first, last)))};
  }

  static __m256 LowHalf(Float x) { return x.a; }
  static __m256 HighHalf(Float x) { return x.b; }

  template <int kDistance>
  static __m256 ButterflyOfHalf(__m256 x) {
    __m256 other;
    if constexpr (kDistance == 4) {
      other = _mm256_permute2f128_ps(x, x, 1);
    } else {
      other = _mm256_permute_ps(x, kDistance == 1 ? 0xb1 : 0x4e);
    }
    constexpr int kUpper = kDistance == 1 ? 0xaa : kDistance == 2 ? 0xcc : 0xf0;
    return _mm256_blend_ps(_mm256_add_ps(x, other), _mm256_sub_ps(other, x), kUpper);
  }
  template <int kDistance>
  static Float Butterfly(Float x) {
    if constexpr (kDistance == 8) return {_mm256_add_ps(x.a, x.b), _mm256_sub_ps(x.a, x.b)};
    return {ButterflyOfHalf<kDistance>(x.a), ButterflyOfHalf<kDistance>(x.b)};
  }

  static __m256 WidenBf16(const uint16_t* p) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
  }
  static Float LoadBf16(const uint16_t* p) { return {WidenBf16(p), WidenBf16(p + 8)}; }
  /// bf16 bits in the low halves of 32-bit lanes.
  static __m256i RoundToBf16(__m256 x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_srli_epi32(
        _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
    const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x40));
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m256i exponent = _mm256_and_si256(bits, _mm256_set1_epi32(0x7f800000));
    const __m256i is_denormal = _mm256_cmpeq_epi32(exponent, _mm256_setzero_si256());
    const __m256i sign = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x8000));
    return _mm256_blendv_epi8(_mm256_blendv_epi8(rounded, quiet, is_nan), sign, is_denormal);
  }
  /// 16 int32 that fit in 16 bits, signed or not, to 16 words in order.
  static void StoreLowWords(void* p, __m256i packed) {
    _mm256_storeu_si256(static_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
  }
  static void StoreBf16(uint16_t* p, Float x) {
    StoreLowWords(p, _mm256_packus_epi32(RoundToBf16(x.a), RoundToBf16(x.b)));
  }

  static __m256 Firsts(__m256i w) { return _mm256_castsi256_ps(_mm256_slli_epi32(w, 16)); }
  static __m256 Seconds(__m256i w) {
    return _mm256_castsi256_ps(_mm256_and_si256(w, _mm256_set1_epi32(-65536)));
  }
  static Pairs Split(__m256i low, __m256i high) {
    return {{Firsts(low), Firsts(high)}, {Seconds(low), Seconds(high)}};
  }
  static Pairs LoadPairs(const void* p) {
    const __m256i* q = static_cast<const __m256i*>(p);
    return Split(_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1));
  }
  static Pairs LoadFirstPairs(const void* p, int lanes) {
    const int* q = static_cast<const int*>(p);
    return Split(_mm256_maskload_epi32(q, LaneMask(0, 0, lanes)),
                 _mm256_maskload_epi32(q + 8, LaneMask(8, 0, lanes)));
  }
  static Pairs FirstOfPairs(const Pairs& w) { return {w.first, Zero()}; }
  static Pair BroadcastPair(const void* p) {
    const __m256i both = Broadcast32(p);
    return {Firsts(both), Seconds(both)};
  }
  static Pair BroadcastPairOfRow(const void* p) { return BroadcastPair(p); }
  static Float Dot(Float sum, const Pairs& w, Pair x) {
    return {_mm256_fmadd_ps(w.first.a, x.first, _mm256_fmadd_ps(w.second.a, x.second, sum.a)),
            _mm256_fmadd_ps(w.first.b, x.first, _mm256_fmadd_ps(w.second.b, x.second, sum.b))};
  }

  template <int kColumns>
  static void DotRow(Float (&sum)[kColumns], const Pairs (&w)[kColumns], Pair x) {
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) {
      asm("vfmadd231ps %7, %4, %0\n\t"
          "vfmadd231ps %7, %5, %1\n\t"
          "vfmadd231ps %6, %2, %0\n\t"
          "vfmadd231ps %6, %3, %1"
          : "+x"(sum[c].a), "+x"(sum[c].b)
          : "x"(w[c].first.a), "x"(w[c].first.b), "x"(w[c].second.a), "x"(w[c].second.b),
            "x"(x.first), "x"(x.second));
    }
  }

  static Float LoadFirst(const float* p, int lanes) {
    return {_mm256_maskload_ps(p, LaneMask(0, 0, lanes)),
            _mm256_maskload_ps(p + 8, LaneMask(8, 0, lanes))};
  }
  static Float Broadcast(const void* p) {
    float value;
    std::memcpy(&value, p, sizeof(value));
    return Set(value);
  }

  static Int ZeroInt() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static Int SetInt(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
  static Int AddInt(const Int& x, const Int& y) { return AddInt256x2(x, y); }
  static Words LoadBytePairs(const void* p) {
    const __m128i* q = static_cast<const __m128i*>(p);
    return {_mm256_cvtepi8_epi16(_mm_loadu_si128(q)), _mm256_cvtepi8_epi16(_mm_loadu_si128(q + 1))};
  }
  static Word2 BroadcastWords(const void* p) { return Broadcast32(p); }
  static Float ToFloat(Int x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }

  static Float LoadHalves(const void* p) {
    const __m128i* q = static_cast<const __m128i*>(p);
    return {_mm256_cvtph_ps(_mm_loadu_si128(q)), _mm256_cvtph_ps(_mm_loadu_si128(q + 1))};
  }
  static Float LoadInt8(const void* p) {
    const __m128i bytes = _mm_loadu_si128(static_cast<const __m128i*>(p));
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
  }

  // A chain of sixteen outputs, and what scales have made of it, take four registers.
  static constexpr int kGroupTileRows = 4;
  static constexpr int kGroupColumns = 1;
  static constexpr int kFewRowsMax = 1;
  static constexpr int kFewRowsColumns = 2;
  template <int kColumns>
  static constexpr int kGroupColumnsAtOnce = 1;
  // As much as a pass over half of a group's columns takes from memory, and again: 128 bytes are 5
  // to 20 % slower.
  static constexpr int64_t kGroupAheadBytes = 2048;
  static constexpr int kWideRowsMin = 8;
  static constexpr int kWideRowsMinOf4 = 8;
  // Beside activations of 8 bits: 6 registers of sums and of totals, 2 weights, an activation,
  // products.
  static constexpr int kByteTileRows = 3;
  template <int kRows>
  static constexpr int kByteColumns = kRows == 1 ? 2 : 1;
  using Bytes = Int;
  struct Fours {
    Words even, odd;  // bytes 0 and 2 of each four, bytes 1 and 3
  };
  struct SplitFour {
    Word2 even, odd;  // activations 0 and 2 of each four, and 1 and 3
  };
  using SplitSum = Int;
  using CodeTable = __m256i;  // 16 bytes, twice
  static CodeTable LoadTable(const int8_t* values, int offset) {
    return _mm256_broadcastsi128_si256(
        _mm_add_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)),
                     _mm_set1_epi8(static_cast<char>(offset))));
  }
  static Bytes LoadBytes(const void* p) {
    const __m256i* q = static_cast<const __m256i*>(p);
    return {_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
  }
  static void StoreBytes(void* p, const Bytes& x) {
    __m256i* q = static_cast<__m256i*>(p);
    _mm256_storeu_si256(q, x.a);
    _mm256_storeu_si256(q + 1, x.b);
  }
  static __m256i ShiftWords(__m256i x, int count) {
    return count > 0 ? _mm256_srli_epi16(x, count) : _mm256_slli_epi16(x, -count);
  }
  static Bytes ShiftBytes(const Bytes& x, int count) {
    return {ShiftWords(x.a, count), ShiftWords(x.b, count)};
  }
  static Bytes MaskBytes(const Bytes& x, int mask) {
    const __m256i bits = _mm256_set1_epi8(static_cast<char>(mask));
    return {_mm256_and_si256(x.a, bits), _mm256_and_si256(x.b, bits)};
  }
  static Bytes OrMasked(const Bytes& x, const Bytes& y, int mask) {
    const Bytes kept = MaskBytes(y, mask);
    return {_mm256_or_si256(x.a, kept.a), _mm256_or_si256(x.b, kept.b)};
  }
  static Bytes LookUp(const Bytes& x, CodeTable table) {
    return {_mm256_shuffle_epi8(table, x.a), _mm256_shuffle_epi8(table, x.b)};
  }
  static Fours FoursOf(const Bytes& x) {
    const __m256i even = _mm256_set1_epi16(0xff);
    return {{_mm256_and_si256(x.a, even), _mm256_and_si256(x.b, even)},
            {_mm256_srli_epi16(x.a, 8), _mm256_srli_epi16(x.b, 8)}};
  }
  static SplitFour LoadSplit(const uint8_t* p) {
    return {BroadcastWords(p), BroadcastWords(p + 4)};
  }
  static SplitSum StartSum(int32_t x) { return SetInt(x); }
  static Int TotalOf(const SplitSum& sum) { return sum; }
  template <int kColumns>
  static void DotFours(SplitSum (&sum)[kColumns], const Fours (&w)[kColumns], const SplitFour& x) {
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) {
      Int one[1] = {sum[c]};
      IntDots::DotInt(one, {w[c].even}, x.even);
      IntDots::DotInt(one, {w[c].odd}, x.odd);
      sum[c] = one[0];
    }
  }
  static void StoreSplit(uint8_t* p, Float x) {
    StoreInt16(reinterpret_cast<int16_t*>(p), x);
    const __m256i order = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
    __m256i* q = reinterpret_cast<__m256i*>(p);
    _mm256_storeu_si256(q, _mm256_shuffle_epi8(_mm256_loadu_si256(q), order));
  }
  static void StoreInt16(int16_t* p, Float x) {
    StoreLowWords(p, _mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)));
  }
  static void StoreInt8(int8_t* p, Float x) {
    alignas(32) int16_t words[16];
    StoreInt16(words, x);
    const __m128i* q = reinterpret_cast<const __m128i*>(words);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm_packs_epi16(_mm_load_si128(q), _mm_load_si128(q + 1)));
  }
};

}  // namespace
}  // namespace neurogrid
