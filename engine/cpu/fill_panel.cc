#include "engine/cpu/fill_panel.h"

#include <emmintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/check.h"
#include "common/dtype.h"

namespace neurogrid {
namespace {

constexpr int kOutputs = PackedMatrix::kPanelOutputs;

using Format = PackedMatrix::Format;

/// Writes [64][inputs] floats as they are.
void FillF32Panel(const float* rows, int64_t inputs, float* panel) {
  constexpr int64_t kLineInputs = 16;
  for (int64_t line = 0; line < inputs; line += kLineInputs) {
    const int64_t end = std::min(inputs, line + kLineInputs);
    for (int n = 0; n < kOutputs; ++n) {
      for (int64_t k = line; k < end; ++k) panel[k * kOutputs + n] = rows[n * inputs + k];
    }
  }
}

/// ToBf16 of four values, in the low halves of lanes and sign-extended.
__m128i RoundToBf16(__m128 x) {
  const __m128i bits = _mm_castps_si128(x);
  const __m128i odd = _mm_and_si128(_mm_srli_epi32(bits, 16), _mm_set1_epi32(1));
  const __m128i half = _mm_add_epi32(odd, _mm_set1_epi32(0x7fff));
  const __m128i rounded = _mm_srai_epi32(_mm_add_epi32(bits, half), 16);
  const __m128i quiet = _mm_or_si128(_mm_srai_epi32(bits, 16), _mm_set1_epi32(0x40));
  const __m128i is_nan = _mm_castps_si128(_mm_cmpunord_ps(x, x));
  return _mm_or_si128(_mm_and_si128(is_nan, quiet), _mm_andnot_si128(is_nan, rounded));
}

/// A row becomes bf16 in the first half of its own space.
void RoundInPlace(float* row, int64_t inputs) {
  auto* out = reinterpret_cast<uint8_t*>(row);
  int64_t k = 0;
  for (; k + 8 <= inputs; k += 8) {
    const __m128i both =
        _mm_packs_epi32(RoundToBf16(_mm_loadu_ps(row + k)), RoundToBf16(_mm_loadu_ps(row + k + 4)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * k), both);
  }
  for (; k < inputs; ++k) {
    const bf16 rounded = ToBf16(row[k]);
    std::memcpy(out + 2 * k, &rounded, sizeof rounded);
  }
}

/// max|row| / 127, or a NaN for a row with a value that is not finite.
float ScaleOf(const float* row, int64_t inputs) {
  const __m128 magnitude = _mm_castsi128_ps(_mm_set1_epi32(0x7fffffff));
  __m128 largest = _mm_setzero_ps();
  __m128 infinite = _mm_setzero_ps();
  int64_t k = 0;
  for (; k + 4 <= inputs; k += 4) {
    const __m128 x = _mm_loadu_ps(row + k);
    const __m128 zero = _mm_sub_ps(x, x);  // but a NaN of what is not finite
    infinite = _mm_or_ps(infinite, _mm_cmpunord_ps(zero, zero));
    largest = _mm_max_ps(largest, _mm_and_ps(x, magnitude));
  }
  float lanes[4];
  _mm_storeu_ps(lanes, largest);
  float most = std::max(std::max(lanes[0], lanes[1]), std::max(lanes[2], lanes[3]));
  bool finite = _mm_movemask_ps(infinite) == 0;
  for (; k < inputs; ++k) {
    finite &= std::isfinite(row[k]);
    most = std::max(most, std::fabs(row[k]));
  }
  return finite ? most / 127.0f : std::nanf("");
}

/// A row becomes bytes of value / scale + offset in the first quarter of its own space.
void QuantizeInPlace(float* row, int64_t inputs, float scale, int offset) {
  auto* out = reinterpret_cast<uint8_t*>(row);
  if (!(scale > 0)) {
    std::memset(out, offset, static_cast<size_t>(inputs));
    return;
  }
  const __m128 scales = _mm_set1_ps(scale);
  const __m128i offsets = _mm_set1_epi8(static_cast<char>(offset));
  const auto four = [&](const float* from) {
    return _mm_cvtps_epi32(_mm_div_ps(_mm_loadu_ps(from), scales));
  };
  int64_t k = 0;
  for (; k + 16 <= inputs; k += 16) {
    const __m128i low = _mm_packs_epi32(four(row + k), four(row + k + 4));
    const __m128i high = _mm_packs_epi32(four(row + k + 8), four(row + k + 12));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + k),
                     _mm_add_epi8(_mm_packs_epi16(low, high), offsets));
  }
  for (; k < inputs; ++k) {
    const int64_t q = std::lrint(row[k] / scale);
    out[k] = static_cast<uint8_t>(q + offset);
  }
}

/// Four steps of four outputs, four bytes each: rows of `stride` bytes become columns of a panel.
void TransposeWords(const uint8_t* rows, int64_t stride, uint8_t* panel) {
  __m128 words[4];
  for (int n = 0; n < 4; ++n) {
    words[n] = _mm_loadu_ps(reinterpret_cast<const float*>(rows + n * stride));
  }
  _MM_TRANSPOSE4_PS(words[0], words[1], words[2], words[3]);
  for (int step = 0; step < 4; ++step) {
    _mm_storeu_ps(reinterpret_cast<float*>(panel + step * 4 * kOutputs), words[step]);
  }
}

/// Eight steps of four outputs, two bytes each.
void TransposePairs(const uint8_t* rows, int64_t stride, uint8_t* panel) {
  const auto load = [&](int n) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows + n * stride));
  };
  const __m128i low_02 = _mm_unpacklo_epi16(load(0), load(2));
  const __m128i low_13 = _mm_unpacklo_epi16(load(1), load(3));
  const __m128i high_02 = _mm_unpackhi_epi16(load(0), load(2));
  const __m128i high_13 = _mm_unpackhi_epi16(load(1), load(3));
  const __m128i two_steps[4] = {
      _mm_unpacklo_epi16(low_02, low_13), _mm_unpackhi_epi16(low_02, low_13),
      _mm_unpacklo_epi16(high_02, high_13), _mm_unpackhi_epi16(high_02, high_13)};
  for (int i = 0; i < 4; ++i) {
    uint8_t* const to = panel + 2 * i * 2 * kOutputs;
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), two_steps[i]);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to + 2 * kOutputs),
                     _mm_unpackhi_epi64(two_steps[i], two_steps[i]));
  }
}

/// Writes 64 rows of `bytes`, each `stride` from the one before, as steps of kUnit bytes of every
/// row. Lines of rows are read whole while they are in cache.
template <int kUnit>
void Interleave(const uint8_t* rows, int64_t stride, int64_t bytes, uint8_t* panel) {
  constexpr int64_t kLine = 64;
  constexpr int64_t kVector = 16;
  const int64_t whole = bytes / kLine * kLine;
  for (int64_t line = 0; line < whole; line += kLine) {
    for (int64_t n = 0; n < kOutputs; n += 4) {
      for (int64_t at = line; at < line + kLine; at += kVector) {
        const uint8_t* const from = rows + n * stride + at;
        uint8_t* const to = panel + at * kOutputs + n * kUnit;
        if constexpr (kUnit == 4) {
          TransposeWords(from, stride, to);
        } else {
          TransposePairs(from, stride, to);
        }
      }
    }
  }
  for (int64_t n = 0; n < kOutputs; ++n) {
    for (int64_t at = whole; at < bytes; at += kUnit) {
      const auto size = static_cast<size_t>(std::min<int64_t>(kUnit, bytes - at));
      std::memcpy(panel + at * kOutputs + n * kUnit, rows + n * stride + at, size);
    }
  }
}

/// The scales of a panel's rows, and their integers + offset, kUnit of a row together.
template <int kUnit>
void FillIntPanel(float* rows, int64_t inputs, int offset, uint8_t* panel, float* scales) {
  for (int n = 0; n < kOutputs; ++n) {
    scales[n] = ScaleOf(rows + n * inputs, inputs);
    QuantizeInPlace(rows + n * inputs, inputs, scales[n], offset);
  }
  Interleave<kUnit>(reinterpret_cast<const uint8_t*>(rows), inputs * int64_t{sizeof(float)}, inputs,
                    panel);
}

}  // namespace

void FillBf16Panel(const bf16* rows, int64_t inputs, uint8_t* panel) {
  const int64_t bytes = inputs * int64_t{sizeof(bf16)};
  Interleave<4>(reinterpret_cast<const uint8_t*>(rows), bytes, bytes, panel);
}

void FillPanel(Format format, float* rows, int64_t inputs, uint8_t* panel, float* scales) {
  switch (format) {
    case Format::kGroups:
      NG_CHECK(false);  // of blocks, not floats: GroupPacker
    case Format::kF32:
      return FillF32Panel(rows, inputs, reinterpret_cast<float*>(panel));
    case Format::kBf16:
      for (int n = 0; n < kOutputs; ++n) RoundInPlace(rows + n * inputs, inputs);
      return Interleave<4>(reinterpret_cast<const uint8_t*>(rows), inputs * int64_t{sizeof(float)},
                           inputs * int64_t{sizeof(bf16)}, panel);
    case Format::kInt8:
      return FillIntPanel<2>(rows, inputs, 0, panel, scales);
    case Format::kInt8A8:
      return FillIntPanel<4>(rows, inputs, 128, panel, scales);
  }
}

}  // namespace neurogrid
