// One chunk of blocks (block_format.h) on the tensor core, the same for few rows and for tiles.
//
// Integers of at most eight significant bits are bf16 numbers. A group is one chain of steps from
// zero, exact products beside the activations as they are; then
//
//   sum = fma(minimum, sum of the group's activations, sum)    where there are minimums
//   sum = fma(scale, chain, sum)
//
// for one group after the other. Sums of activations come from the tensor core too, times ones.
// All that is added is smaller by a power of two where that makes codes cheaper to widen
// (widen.cuh): the sums of all chunks come times kSumScale.
#pragma once

#include <cuda_fp16.h>

#include "kernels/matmul.cuh"

namespace neurogrid::kernels {

template <BlockType kType>
struct Blocks {
  static constexpr BlockFormat kFormat = FormatOf(kType);
  static constexpr int kLowBits = kFormat.low_bits;
  static constexpr int kHighBits = kFormat.high_bits;
  static constexpr int kGroupInputs = kFormat.group_inputs;
  static constexpr int kGroups = kFormat.groups();
  static constexpr BlockScales kScales = kFormat.scales;
  static constexpr bool kHasMinimum = kFormat.has_minimum;
  static constexpr int kHeaderBytes = kFormat.header_bytes();
  static constexpr int kHeaderScaleBytes = kFormat.header_scale_bytes();
  static constexpr int kScaleBytes = kFormat.scale_bytes();
  static constexpr int kStageBytes = kFormat.stage_bytes();
  static constexpr int kStepsOfGroup = kGroupInputs / 16;
  // Values are widened to their 2^-kUnitBits: see WidenField.
  static constexpr int kUnitBits = kFormat.looks_up ? 6 : kHighBits > 0 ? 0 : kLowBits - 2;
  static constexpr float kSumScale = 1 << kUnitBits;
};

/// The words of this lane in a plane of kBits.
template <int kBits>
struct CodePlane {
  static constexpr int kWords = 2 * kBits;
  static constexpr int kPairsOfWord = 16 / kBits;
  uint32_t words[kWords];

  __device__ __forceinline__ void Load(const uint8_t* plane, int lane) {
    if constexpr (kBits == 1) {
      const uint2 two = reinterpret_cast<const uint2*>(plane)[lane];
      words[0] = two.x;
      words[1] = two.y;
    } else {
#pragma unroll
      for (int i = 0; i < kWords / 4; ++i) {
        const uint4 four = reinterpret_cast<const uint4*>(plane)[32 * i + lane];
        words[4 * i] = four.x;
        words[4 * i + 1] = four.y;
        words[4 * i + 2] = four.z;
        words[4 * i + 3] = four.w;
      }
    }
  }
  __device__ __forceinline__ uint32_t WordOf(int pair) const { return words[pair / kPairsOfWord]; }
  __device__ __forceinline__ static constexpr int ShiftOf(int pair) {
    return kBits * (pair % kPairsOfWord);
  }
};

template <>
struct CodePlane<0> {
  __device__ __forceinline__ void Load(const uint8_t*, int) {}
};

/// Values of IQ4_NL plus 128 for the four codes in the low 16 bits, a byte each.
__device__ __forceinline__ uint32_t LookUpIq4Nl(uint32_t codes) {
  const uint32_t three_bits = codes & 0x7777u;
  const uint32_t low = __byte_perm(Iq4NlWord(0), Iq4NlWord(1), three_bits);
  const uint32_t high = __byte_perm(Iq4NlWord(2), Iq4NlWord(3), three_bits);
  return __byte_perm(low, high, 0x3210u | (codes & 0x8888u) >> 1);
}

/// The codes of one chunk, as this lane's operands A.
template <BlockType kType>
struct BlockCodes {
  using B = Blocks<kType>;
  CodePlane<B::kLowBits> low;
  CodePlane<B::kHighBits> high;

  __device__ __forceinline__ void Load(const uint8_t* chunk, int lane) {
    low.Load(chunk + B::kFormat.codes_at(), lane);
    high.Load(chunk + B::kFormat.codes_at() + BlockFormat::plane_bytes(B::kLowBits), lane);
  }
  /// Step kStep, exactly.
  template <int kStep>
  __device__ __forceinline__ void Widen(uint32_t (&a)[4]) const {
    if constexpr (B::kFormat.looks_up) {
      const uint32_t word = low.WordOf(4 * kStep);
      const uint32_t first = LookUpIq4Nl(word);
      const uint32_t second = LookUpIq4Nl(word >> 16);
#pragma unroll
      for (unsigned r = 0; r < 4; ++r) {
        a[r] = WidenField<8, 0, 128, B::kUnitBits>(__byte_perm(first, second, (r + 4) << 8 | r));
      }
    } else {
      a[0] = Pair<4 * kStep>();
      a[1] = Pair<4 * kStep + 1>();
      a[2] = Pair<4 * kStep + 2>();
      a[3] = Pair<4 * kStep + 3>();
    }
  }

 private:
  template <int kPair>
  __device__ __forceinline__ uint32_t Pair() const {
    using Low = CodePlane<B::kLowBits>;
    constexpr int kShift = Low::ShiftOf(kPair);
    const uint32_t word = low.WordOf(kPair);
    if constexpr (B::kHighBits == 0) {
      return WidenField<B::kLowBits, kShift % 8, B::kFormat.offset, B::kUnitBits>(word >>
                                                                                  (kShift / 8 * 8));
    } else {
      constexpr int kRight = CodePlane<B::kHighBits>::ShiftOf(kPair) - B::kLowBits;
      uint32_t above = high.WordOf(kPair);
      if constexpr (kRight < 0) {
        above <<= -kRight;
      } else {
        above >>= kRight;
      }
      const uint32_t pair = AndOr(word >> kShift, PairOfField(B::kLowBits, 0), PairOfPower(7));
      return FinishField<0, B::kFormat.offset, B::kUnitBits>(
          AndOr(above, PairOfField(B::kHighBits, B::kLowBits), pair));
    }
  }
};

/// Scales, or minimums, of this lane's two rows.
template <BlockType kType>
struct BlockScalesOf {
  using B = Blocks<kType>;
  static constexpr int kWords =
      B::kScales == BlockScales::kFloat ? 2 * B::kGroups : B::kScaleBytes / 32;
  uint32_t words[kWords];
  uint32_t of_unit;  // two halves

  /// `header` and `scales`: where the stage holds those of this kind.
  __device__ __forceinline__ void Load(const uint8_t* header, const uint8_t* scales, int lane) {
    const int g = lane / 4;
    if constexpr (B::kScales == BlockScales::kFloat) {
#pragma unroll
      for (int group = 0; group < B::kGroups; ++group) {
        const uint2 two = reinterpret_cast<const uint2*>(scales)[8 * group + g];
        words[2 * group] = two.x;
        words[2 * group + 1] = two.y;
      }
    } else if constexpr (kWords == 4) {
      const uint4 four = reinterpret_cast<const uint4*>(scales)[g];
      words[0] = four.x;
      words[1] = four.y;
      words[2] = four.z;
      words[3] = four.w;
    } else {
      static_assert(kWords == 2);
      const uint2 two = reinterpret_cast<const uint2*>(scales)[g];
      words[0] = two.x;
      words[1] = two.y;
    }
    if constexpr (B::kScales == BlockScales::kHalfTimesByte) {
      of_unit = reinterpret_cast<const uint32_t*>(header)[g];
    }
  }
  /// Of rows g and g + 8.
  __device__ __forceinline__ float2 Of(int group) const {
    if constexpr (B::kScales == BlockScales::kFloat) {
      return make_float2(__uint_as_float(words[2 * group]), __uint_as_float(words[2 * group + 1]));
    } else if constexpr (B::kScales == BlockScales::kHalf) {
      return Halves(words[group]);
    } else {
      const uint32_t word = words[group / 2];
      const unsigned byte = 2 * (static_cast<unsigned>(group) % 2);
      const float2 unit = Halves(of_unit);
      return make_float2(fmaf(unit.x, Factor(word, byte), __fmul_rn(unit.x, -kFactorZero)),
                         fmaf(unit.y, Factor(word, byte + 1), __fmul_rn(unit.y, -kFactorZero)));
    }
  }

 private:
  // 2^15 + 128. An f16 times this is exact in f32, and so is its product with a factor.
  static constexpr float kFactorZero = 32896;

  __device__ __forceinline__ static float2 Halves(uint32_t word) {
    __half2 halves;
    memcpy(&halves, &word, sizeof(halves));
    return __half22float2(halves);
  }
  /// 2^15 and the byte, without a conversion.
  __device__ __forceinline__ static float Factor(uint32_t word, unsigned byte) {
    return __uint_as_float(__byte_perm(word, 0x47000000u, 0x7404u | byte << 4));
  }
};

/// What a lane holds of one chunk of a tile.
template <BlockType kType>
struct BlockOperand {
  using B = Blocks<kType>;
  BlockCodes<kType> codes;
  BlockScalesOf<kType> scales;
  BlockScalesOf<kType> minimums;

  __device__ __forceinline__ void Load(const uint8_t* header, const uint8_t* chunk, int lane) {
    codes.Load(chunk, lane);
    scales.Load(header, chunk, lane);
    if constexpr (B::kHasMinimum) {
      minimums.Load(header + B::kHeaderScaleBytes, chunk + B::kScaleBytes, lane);
    }
  }
  /// From a header with its chunk behind it.
  __device__ __forceinline__ void Load(const uint8_t* stage, int lane) {
    Load(stage, stage + B::kHeaderBytes, lane);
  }
};

/// Sums of the activations of one group, of rows 2 q and 2 q + 1 for lane 4 g + q. b: operands B of
/// its first step and on.
template <BlockType kType>
__device__ __forceinline__ float2 SumOfGroup(const uint32_t (&b)[4], int first_step) {
  using B = Blocks<kType>;
  constexpr uint32_t kOne = PairOfPower(-B::kUnitBits);
  constexpr uint32_t kOnes[4] = {kOne, kOne, kOne, kOne};
  float sums[4] = {};
#pragma unroll
  for (int step = first_step; step < first_step + B::kStepsOfGroup; ++step) {
    Mma(sums, kOnes, b[2 * (step % 2)], b[2 * (step % 2) + 1]);
  }
  return make_float2(sums[0], sums[1]);
}

/// totals += minimum * sums of activations, where rows g and g + 8 have a minimum each.
__device__ __forceinline__ void AddMinimums(float (&totals)[4], float2 minimum, float2 x_sums) {
  totals[0] = fmaf(minimum.x, x_sums.x, totals[0]);
  totals[1] = fmaf(minimum.x, x_sums.y, totals[1]);
  totals[2] = fmaf(minimum.y, x_sums.x, totals[2]);
  totals[3] = fmaf(minimum.y, x_sums.y, totals[3]);
}
__device__ __forceinline__ void AddChain(float (&totals)[4], float2 scale,
                                         const float (&chain)[4]) {
  totals[0] = fmaf(scale.x, chain[0], totals[0]);
  totals[1] = fmaf(scale.x, chain[1], totals[1]);
  totals[2] = fmaf(scale.y, chain[2], totals[2]);
  totals[3] = fmaf(scale.y, chain[3], totals[3]);
}

/// Group kGroup and all behind it.
template <BlockType kType, int kGroup, int kM, int kN, typename Activations>
__device__ __forceinline__ void MultiplyGroups(float (&sums)[kM][kN][4],
                                               const BlockOperand<kType> (&w)[kM],
                                               const Activations& x, uint32_t (&b)[kN][4]) {
  using B = Blocks<kType>;
  constexpr int kFirst = kGroup * B::kStepsOfGroup;
  if constexpr (kFirst % 2 == 0) {
#pragma unroll
    for (int n = 0; n < kN; ++n) LdMatrix(b[n], x.Piece(n, kFirst / 2));
  }
  if constexpr (B::kHasMinimum) {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      const float2 x_sums = x.template SumOf<kType>(n, kGroup, b[n]);
#pragma unroll
      for (int m = 0; m < kM; ++m) AddMinimums(sums[m][n], w[m].minimums.Of(kGroup), x_sums);
    }
  }
#pragma unroll
  for (int m = 0; m < kM; ++m) {
    float chain[kN][4] = {};
    uint32_t a[4];
    w[m].codes.template Widen<kFirst>(a);
#pragma unroll
    for (int n = 0; n < kN; ++n)
      Mma(chain[n], a, b[n][2 * (kFirst % 2)], b[n][2 * (kFirst % 2) + 1]);
    if constexpr (B::kStepsOfGroup == 2) {
      w[m].codes.template Widen<kFirst + 1>(a);
#pragma unroll
      for (int n = 0; n < kN; ++n) Mma(chain[n], a, b[n][2], b[n][3]);
    }
    const float2 scale = w[m].scales.Of(kGroup);
#pragma unroll
    for (int n = 0; n < kN; ++n) AddChain(sums[m][n], scale, chain[n]);
  }
  if constexpr (kGroup + 1 < B::kGroups) MultiplyGroups<kType, kGroup + 1>(sums, w, x, b);
}

/// sums += one chunk of kM tiles times 8 kN rows of activations. x.Piece(n, piece): this lane's
/// address for ldmatrix, of inputs [32 piece, + 32) of rows [8 n, + 8); x.SumOf<kType>(n, group,
/// b): SumOfGroup of those rows, whose operands B are b.
template <BlockType kType, int kM, int kN, typename Activations>
__device__ __forceinline__ void MultiplyBlocks(float (&sums)[kM][kN][4],
                                               const BlockOperand<kType> (&w)[kM],
                                               const Activations& x) {
  uint32_t b[kN][4];
  MultiplyGroups<kType, 0>(sums, w, x, b);
}

/// Copies chunk `chunk` of a tile behind its header; thread `first` of so many.
template <BlockType kType>
__device__ __forceinline__ void CopyBlocks(uint8_t* stage, const uint8_t* tile, int chunk,
                                           bool live, int first, int threads) {
  using B = Blocks<kType>;
  constexpr int kChunksOfUnit = B::kFormat.chunks_per_unit();
  const uint8_t* unit =
      tile + static_cast<int64_t>(chunk / kChunksOfUnit) * B::kFormat.unit_bytes();
  const int skipped = chunk % kChunksOfUnit * B::kFormat.chunk_bytes();
  for (int at = 16 * first; at < B::kStageBytes; at += 16 * threads) {
    CopyAsync16(stage + at, unit + at + (at < B::kHeaderBytes ? 0 : skipped), live);
  }
}

/// Calls run with a tag of the type.
template <BlockType kType>
struct BlockTag {
  static constexpr BlockType kValue = kType;
};
template <typename Run>
cudaError_t ForBlockType(BlockType type, Run run) {
  switch (type) {
    case BlockType::kQ4_0:
      return run(BlockTag<BlockType::kQ4_0>());
    case BlockType::kQ4_1:
      return run(BlockTag<BlockType::kQ4_1>());
    case BlockType::kQ5_0:
      return run(BlockTag<BlockType::kQ5_0>());
    case BlockType::kQ5_1:
      return run(BlockTag<BlockType::kQ5_1>());
    case BlockType::kQ8_0:
      return run(BlockTag<BlockType::kQ8_0>());
    case BlockType::kQ2_K:
      return run(BlockTag<BlockType::kQ2_K>());
    case BlockType::kQ3_K:
      return run(BlockTag<BlockType::kQ3_K>());
    case BlockType::kQ4_K:
      return run(BlockTag<BlockType::kQ4_K>());
    case BlockType::kQ5_K:
      return run(BlockTag<BlockType::kQ5_K>());
    case BlockType::kQ6_K:
      return run(BlockTag<BlockType::kQ6_K>());
    case BlockType::kIQ4_NL:
      return run(BlockTag<BlockType::kIQ4_NL>());
    case BlockType::kWide:
      return run(BlockTag<BlockType::kWide>());
  }
  return cudaErrorInvalidValue;
}

// Both give the same bits for any number of rows; the first takes a matrix only if a row of x fits.
cudaError_t MatMulFewRowsOfBlocks(const MatMulOperands& operands, const Weights& w,
                                  cudaStream_t stream);
bool FewRowsOfBlocksFit(const Weights& w);
cudaError_t MatMulTilesOfBlocks(bool wide, const MatMulOperands& operands, const Weights& w,
                                cudaStream_t stream);

}  // namespace neurogrid::kernels
