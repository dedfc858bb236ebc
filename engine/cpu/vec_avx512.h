// Sixteen lanes in AVX-512 as every processor with it has it. Included by simd.h alone, which adds
// the dot products.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "engine/cpu/dots_avx512.h"

namespace neurogrid {
namespace {

/// The operations kernels are written in; vec_avx2.h has the same ones, bit for bit.
template <class PairDots, class IntDots>
struct Avx512Lanes : PairDots, IntDots {
  template <int kRows>
  static constexpr int kTileColumns = 4;
  template <int kRows>
  static constexpr int kPanelColumns = 4;
  template <int kRows>
  static constexpr int kPanelColumnsAtOnce = 4;
  static constexpr int64_t kA8AheadBytes = 0;
  /// Columns at a time of a tile of int8-a8 whose totals stay in registers; 0: they do not.
  template <int kRows>
  static constexpr int kA8TotalColumns = kRows > 4 ? 2 : 0;

  using Float = __m512;   // 16 floats
  using Int = __m512i;    // 16 int32
  using Pairs = __m512i;  // 16 pairs of bf16
  using Words = __m512i;  // 16 pairs of int16
  using Word2 = __m512i;  // one pair of int16 in every lane
  using Quads = __m512i;  // 16 times four uint8

  static Float Zero() { return _mm512_setzero_ps(); }
  static Float Set(float x) { return _mm512_set1_ps(x); }
  static Float Load(const float* p) { return _mm512_loadu_ps(p); }
  static void Store(float* p, Float x) { _mm512_storeu_ps(p, x); }
  static Float Add(Float a, Float b) { return _mm512_add_ps(a, b); }
  static Float Sub(Float a, Float b) { return _mm512_sub_ps(a, b); }
  static Float Mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static Float Div(Float a, Float b) { return _mm512_div_ps(a, b); }
  /// b where either is a NaN.
  static Float Max(Float a, Float b) { return _mm512_max_ps(a, b); }
  static Float Min(Float a, Float b) { return _mm512_min_ps(a, b); }
  /// a * b + c, rounded once.
  static Float Fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  static Float Round(Float x) {
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  /// x * 2^n for whole n in [-126, 127].
  static Float ScaleByPowerOf2(Float x, Float n) { return _mm512_scalef_ps(x, n); }
  /// x, or `other` where a < b.
  static Float UnlessLess(Float x, Float a, Float b, Float other) {
    return _mm512_mask_mov_ps(x, _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), other);
  }
  /// x in lanes [first, last), `other` elsewhere.
  static Float KeepLanes(Float x, int first, int last, Float other) {
    const uint32_t below_last = last >= 16 ? 0xffffu : last <= 0 ? 0u : (1u << last) - 1u;
    const uint32_t below_first = first <= 0 ? 0u : first >= 16 ? 0xffffu : (1u << first) - 1u;
    const __mmask16 keep = static_cast<__mmask16>(below_last & ~below_first);
    return _mm512_mask_mov_ps(other, keep, x);
  }

  static __m256 LowHalf(Float x) { return _mm512_castps512_ps256(x); }
  static __m256 HighHalf(Float x) { return _mm512_extractf32x8_ps(x, 1); }

  /// Of each two lanes that lie kDistance apart, 1, 2, 4 or 8: their sum, then their difference.
  template <int kDistance>
  static Float Butterfly(Float x) {
    constexpr int kSwap = kDistance == 1 || kDistance == 4 ? 0xb1 : 0x4e;
    constexpr __mmask16 kUpper = kDistance == 1   ? 0xaaaa
                                 : kDistance == 2 ? 0xcccc
                                 : kDistance == 4 ? 0xf0f0
                                                  : 0xff00;
    Float other;
    if constexpr (kDistance < 4) {
      other = _mm512_permute_ps(x, kSwap);
    } else {
      other = _mm512_shuffle_f32x4(x, x, kSwap);
    }
    return _mm512_mask_sub_ps(_mm512_add_ps(x, other), kUpper, other, x);
  }

  static Float LoadBf16(const uint16_t* p) {
    const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
  }
  /// Rounds to nearest, ties to even; denormals become zero.
  static void StoreBf16(uint16_t* p, Float x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), PairDots::RoundToBf16(x));
  }

  static Pairs LoadPairs(const void* p) { return _mm512_loadu_si512(p); }
  /// The first `lanes` pairs, zeros after them; reads no byte beyond.
  static Pairs LoadFirstPairs(const void* p, int lanes) {
    return _mm512_maskz_loadu_epi32(static_cast<__mmask16>((1u << lanes) - 1u), p);
  }
  /// Zero in the second element of every pair.
  static Pairs FirstOfPairs(Pairs w) { return _mm512_and_si512(w, _mm512_set1_epi32(0xffff)); }

  static Float LoadFirst(const float* p, int lanes) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << lanes) - 1u), p);
  }
  static Float Broadcast(const void* p) {
    float value;
    std::memcpy(&value, p, sizeof(value));
    __m512 x = _mm512_set1_ps(value);
    asm("" : "+v"(x));
    return x;
  }

  static Int ZeroInt() { return _mm512_setzero_si512(); }
  static Int SetInt(int32_t x) { return _mm512_set1_epi32(x); }
  static Int AddInt(Int a, Int b) { return _mm512_add_epi32(a, b); }
  /// 32 int8 as 16 pairs of int16.
  static Words LoadBytePairs(const void* p) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  }
  static Word2 BroadcastWords(const void* p) { return Broadcast32(p); }
  static Quads LoadQuads(const void* p) { return _mm512_loadu_si512(p); }
  static Float ToFloat(Int x) { return _mm512_cvtepi32_ps(x); }

  static Float LoadHalves(const void* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  }
  static Float LoadInt8(const void* p) {
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))));
  }

  // Codes of packed_groups.h beside activations of 16 bits. Tiles of 1 x 4 and 4 x 2 sums, in two
  // parts each with VNNI, leave room for what scales have made of them.
  static constexpr int kGroupTileRows = 4;
  static constexpr int kGroupColumns = 2;
  static constexpr int kFewRowsMax = 1;
  static constexpr int kFewRowsColumns = 4;
  template <int kColumns>
  static constexpr int kGroupColumnsAtOnce = kColumns;
  static constexpr int64_t kGroupAheadBytes = PairDots::kGroupAheadBytes;
  static constexpr int kWideRowsMin = 12;
  static constexpr int kWideRowsMinOf4 = 64;
  // Beside activations of 8 bits: 6 x 2 or 3 x 4 sums, and as many totals.
  static constexpr int kByteTileRows = 6;
  template <int kRows>
  static constexpr int kByteColumns = kRows <= 3 ? 4 : 2;
  using Bytes = __m512i;  // 16 times four
  using Fours = __m512i;
  using CodeTable = __m512i;  // 16 bytes, four times
  /// Of values + `offset`.
  static CodeTable LoadTable(const int8_t* values, int offset) {
    return _mm512_broadcast_i32x4(
        _mm_add_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)),
                     _mm_set1_epi8(static_cast<char>(offset))));
  }
  static Bytes LoadBytes(const void* p) { return _mm512_loadu_si512(p); }
  static void StoreBytes(void* p, Bytes x) { _mm512_storeu_si512(p, x); }
  /// Words shifted right by `count`, left by a negative one: bits move between bytes.
  static Bytes ShiftBytes(Bytes x, int count) {
    if (count == 0) return x;
    return count > 0 ? _mm512_srli_epi16(x, static_cast<unsigned>(count))
                     : _mm512_slli_epi16(x, static_cast<unsigned>(-count));
  }
  static Bytes MaskBytes(Bytes x, int mask) {
    return _mm512_and_si512(x, _mm512_set1_epi8(static_cast<char>(mask)));
  }
  /// x | (y & mask)
  static Bytes OrMasked(Bytes x, Bytes y, int mask) {
    return _mm512_ternarylogic_epi64(x, y, _mm512_set1_epi8(static_cast<char>(mask)), 0xf8);
  }
  /// Of bytes below 16.
  static Bytes LookUp(Bytes x, const CodeTable& table) { return _mm512_shuffle_epi8(table, x); }
  static Fours FoursOf(Bytes x) { return x; }
  /// Rounds to nearest even and stores 16 integers as LoadSplit takes them, in 32 bytes; |x| must
  /// be below 32640.
  static void StoreSplit(uint8_t* p, Float x) { IntDots::StoreSplit(p, _mm512_cvtps_epi32(x)); }
  /// Rounds to nearest even and stores 16 int16; |x| must be below 32768.
  static void StoreInt16(int16_t* p, Float x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x)));
  }
  /// The same to 16 int8; |x| must be below 128.
  static void StoreInt8(int8_t* p, Float x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x)));
  }
};

}  // namespace
}  // namespace neurogrid
