// Integers of at most eight bits become bf16, exactly, two at a time.
#pragma once

#include <cstdint>

#include "kernels/mma.cuh"

namespace neurogrid::kernels {

/// Two bf16 of value 2^exponent.
__device__ __forceinline__ constexpr uint32_t PairOfPower(int exponent) {
  return 0x00010001u * (static_cast<uint32_t>(exponent + 127) << 7);
}
/// Two bf16 -`value`, for integers below 2^8 over 2^bits.
__device__ __forceinline__ constexpr uint32_t PairOfMinus(int value, int bits) {
  if (value == 0) return 0;
  int log = 0;
  while (value >> (log + 1) > 0) ++log;
  const int exponent = log - bits + 127;
  const int fraction = (value << 7 >> log) & 127;
  return 0x00010001u *
         (0x8000u | static_cast<uint32_t>(exponent) << 7 | static_cast<uint32_t>(fraction));
}

/// A mask of `bits` bits from bit `at` on, in either half.
__device__ __forceinline__ constexpr uint32_t PairOfField(int bits, int at) {
  return 0x00010001u * (((1u << bits) - 1) << at);
}

/// (field - kOffset) / 2^kUnitBits of 128 and a field from bit kAt on.
template <int kAt, int kOffset, int kUnitBits>
__device__ __forceinline__ uint32_t FinishField(uint32_t pair) {
  static_assert(128 + (kOffset << kAt) < 256);
  return FmaPairs(pair, PairOfPower(-kAt - kUnitBits),
                  PairOfMinus(128 + (kOffset << kAt), kAt + kUnitBits));
}

/// (field - kOffset) / 2^kUnitBits of either half of a word as bf16, exactly, where a field is
/// kBits bits from bit kAt on.
///
/// Below 2^8 the bits of a bf16 number are an integer of units of 2^-133, the least number there
/// is: with an exponent of 0 or 1 the unit is one and the same. So one mask and one fma serve a
/// field in bits 0 to 7. The largest factor, 2^127, leaves a field that ends at bit 8 with units of
/// 2^(2 - kBits); below, the exponent of 128 makes any unit possible.
template <int kBits, int kAt, int kOffset, int kUnitBits>
__device__ __forceinline__ uint32_t WidenField(uint32_t word) {
  constexpr uint32_t kMask = PairOfField(kBits, kAt);
  if constexpr (kAt + kBits < 8) {
    return FinishField<kAt, kOffset, kUnitBits>(AndOr(word, kMask, PairOfPower(7)));
  } else {
    static_assert(kAt + kBits == 8 && kUnitBits == kBits - 2);
    return FmaPairs(word & kMask, PairOfPower(127), PairOfMinus(kOffset, kUnitBits));
  }
}

/// Two's complement bytes come times 2^-kInt8UnitBits, sums of them are to be multiplied with
/// kInt8Units: powers of two, so neither changes what is rounded.
inline constexpr int kInt8UnitBits = 6;
inline constexpr float kInt8Units = 1 << kInt8UnitBits;

/// Bytes 0 and 2 of r. Turning a sign bit adds 128.
__device__ __forceinline__ uint32_t WidenEvenBytes(uint32_t r) {
  return FmaPairs(AndXor(r, PairOfField(8, 0), 0x00800080u), PairOfPower(127),
                  PairOfMinus(128, kInt8UnitBits));
}

/// Operand A of one step from a lane's bytes of rows g (low) and g + 8 (high).
__device__ __forceinline__ void WidenStep(uint32_t (&a)[4], uint32_t low, uint32_t high) {
  a[0] = WidenEvenBytes(low);
  a[1] = WidenEvenBytes(high);
  a[2] = WidenEvenBytes(low >> 8);
  a[3] = WidenEvenBytes(high >> 8);
}

}  // namespace neurogrid::kernels
