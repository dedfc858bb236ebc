// One chunk of blocks (block_format.h) on the tensor core, the same for few rows and for tiles.
//
// Integers of at most eight significant bits are bf16 numbers. A group is one chain of steps from
// zero, exact products beside the activations as they are; then
//
//   sum = fma(minimum, sum of the group's activations, sum)    where there are minimums
//   sum = fma(scale, chain, sum)
//
// for one group after the other. Sums of activations come from the tensor core too, times ones.
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
  static constexpr int kLowAt = kHeaderBytes + kFormat.codes_at();
  static constexpr int kHighAt = kLowAt + BlockFormat::plane_bytes(kLowBits);
  static constexpr int kStageBytes = kFormat.stage_bytes();
  static constexpr int kStepsOfGroup = kGroupInputs / 16;
};

/// bf16 integers of a pair, less `subtracted`: exact.
__device__ __forceinline__ uint32_t SubtractPairs(uint32_t pair, uint32_t subtracted) {
  __nv_bfloat162 a;
  __nv_bfloat162 b;
  memcpy(&a, &pair, sizeof(a));
  memcpy(&b, &subtracted, sizeof(b));
  a = __hsub2(a, b);
  memcpy(&pair, &a, sizeof(pair));
  return pair;
}

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

/// Values of IQ4_NL for the four codes in the low 16 bits, a byte each.
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

  __device__ __forceinline__ void Load(const uint8_t* stage, int lane) {
    low.Load(stage + B::kLowAt, lane);
    high.Load(stage + B::kHighAt, lane);
  }
  /// Step `step`, exactly.
  __device__ __forceinline__ void Widen(int step, uint32_t (&a)[4]) const {
    if constexpr (B::kFormat.looks_up) {
      const uint32_t word = low.WordOf(4 * step);
      const uint32_t first = LookUpIq4Nl(word);
      const uint32_t second = LookUpIq4Nl(word >> 16);
#pragma unroll
      for (unsigned r = 0; r < 4; ++r) {
        a[r] = WidenEvenBytes(__byte_perm(first, second, (r + 4) << 8 | r));
      }
    } else {
#pragma unroll
      for (int r = 0; r < 4; ++r) a[r] = Pair(4 * step + r);
    }
  }

 private:
  __device__ __forceinline__ uint32_t Pair(int pair) const {
    using Low = CodePlane<B::kLowBits>;
    const uint32_t word = low.WordOf(pair) >> Low::ShiftOf(pair);
    if constexpr (B::kLowBits == 8) {
      return WidenEvenBytes(word);
    } else {
      constexpr uint32_t kMask = 0x00010001u * ((1u << B::kLowBits) - 1);
      uint32_t bits = AndOr(word, kMask, 0x43004300u);  // 128 and the code: one unit each
      if constexpr (B::kHighBits > 0) {
        constexpr uint32_t kHighMask = 0x00010001u * (((1u << B::kHighBits) - 1) << B::kLowBits);
        const int shift = CodePlane<B::kHighBits>::ShiftOf(pair) - B::kLowBits;
        const uint32_t above = high.WordOf(pair);
        bits = AndOr(shift < 0 ? above << -shift : above >> shift, kHighMask, bits);
      }
      constexpr uint32_t kOffset = 0x00010001u * (0x4300u + B::kFormat.offset);
      return SubtractPairs(bits, kOffset);
    }
  }
};

/// Scales, or minimums, of this lane's two rows.
template <BlockType kType>
struct BlockScalesOf {
  using B = Blocks<kType>;
  float2 of_unit;
  uint32_t words[B::kScales == BlockScales::kFloat ? 1 : B::kScaleBytes / 32];  // a lane's share
  const uint8_t* floats;

  /// `header` and `scales`: where the stage holds those of this kind.
  __device__ __forceinline__ void Load(const uint8_t* header, const uint8_t* scales, int lane) {
    const int g = lane / 4;
    if constexpr (B::kScales == BlockScales::kFloat) {
      floats = scales + 8 * g;
    } else {
      constexpr int kWords = B::kScaleBytes / 32;
      if constexpr (kWords == 4) {
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
    }
    if constexpr (B::kScales == BlockScales::kHalfTimesByte) {
      of_unit = Halves(reinterpret_cast<const uint32_t*>(header)[g]);
    }
  }
  /// Of rows g and g + 8.
  __device__ __forceinline__ float2 Of(int group) const {
    if constexpr (B::kScales == BlockScales::kFloat) {
      return *reinterpret_cast<const float2*>(floats + 64 * group);
    } else if constexpr (B::kScales == BlockScales::kHalf) {
      return Halves(words[group]);
    } else {
      const uint32_t word = words[group / 2];
      const unsigned byte = 2 * (static_cast<unsigned>(group) % 2);
      return make_float2(__fmul_rn(of_unit.x, Factor(word, byte)),
                         __fmul_rn(of_unit.y, Factor(word, byte + 1)));
    }
  }

 private:
  __device__ __forceinline__ static float2 Halves(uint32_t word) {
    __half2 halves;
    memcpy(&halves, &word, sizeof(halves));
    return __half22float2(halves);
  }
  /// 2^23 and the byte, less 2^23 + 128: exact, without a conversion.
  __device__ __forceinline__ static float Factor(uint32_t word, unsigned byte) {
    return __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7540u | byte)) - 8388736.0f;
  }
};

template <int kN>
struct GroupChain {
  float sums[kN][4];

  __device__ __forceinline__ void Begin() {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[n][i] = 0;
    }
  }
  __device__ __forceinline__ void Step(const uint32_t (&a)[4], const uint32_t (&b)[kN][4],
                                       int step) {
#pragma unroll
    for (int n = 0; n < kN; ++n) Mma(sums[n], a, b[n][2 * (step % 2)], b[n][2 * (step % 2) + 1]);
  }
  /// totals += factor * sums, where rows g and g + 8 have a factor each.
  __device__ __forceinline__ void AddTo(float (&totals)[kN][4], float2 factor) const {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      totals[n][0] = fmaf(factor.x, sums[n][0], totals[n][0]);
      totals[n][1] = fmaf(factor.x, sums[n][1], totals[n][1]);
      totals[n][2] = fmaf(factor.y, sums[n][2], totals[n][2]);
      totals[n][3] = fmaf(factor.y, sums[n][3], totals[n][3]);
    }
  }
};

/// sums += one chunk of kM tiles, one stage after the other from `stage` on, times 8 kN rows of
/// activations. x.Piece(n, piece): this lane's address for ldmatrix, of inputs [32 piece, + 32) of
/// rows [8 n, + 8).
template <BlockType kType, int kM, int kN, typename Activations>
__device__ __forceinline__ void MultiplyBlocks(float (&sums)[kM][kN][4], const uint8_t* stage,
                                               const Activations& x, int lane) {
  using B = Blocks<kType>;
  BlockCodes<kType> codes[kM];
  BlockScalesOf<kType> scales[kM];
  BlockScalesOf<kType> minimums[kM];
#pragma unroll
  for (int m = 0; m < kM; ++m) {
    const uint8_t* tile = stage + m * B::kStageBytes;
    codes[m].Load(tile, lane);
    scales[m].Load(tile, tile + B::kHeaderBytes, lane);
    if constexpr (B::kHasMinimum) {
      minimums[m].Load(tile + B::kHeaderScaleBytes, tile + B::kHeaderBytes + B::kScaleBytes, lane);
    }
  }
  uint32_t b[kN][4];
#pragma unroll
  for (int group = 0; group < B::kGroups; ++group) {
    const int first = group * B::kStepsOfGroup;
    if (first % 2 == 0) {
#pragma unroll
      for (int n = 0; n < kN; ++n) LdMatrix(b[n], x.Piece(n, first / 2));
    }
    if constexpr (B::kHasMinimum) {
      constexpr uint32_t kOne = 0x3f803f80u;
      constexpr uint32_t kOnes[4] = {kOne, kOne, kOne, kOne};
      GroupChain<kN> x_sums;
      x_sums.Begin();
#pragma unroll
      for (int step = 0; step < B::kStepsOfGroup; ++step) x_sums.Step(kOnes, b, first + step);
#pragma unroll
      for (int m = 0; m < kM; ++m) x_sums.AddTo(sums[m], minimums[m].Of(group));
    }
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      GroupChain<kN> chain;
      chain.Begin();
#pragma unroll
      for (int step = 0; step < B::kStepsOfGroup; ++step) {
        uint32_t a[4];
        codes[m].Widen(first + step, a);
        chain.Step(a, b, first + step);
      }
      chain.AddTo(sums[m], scales[m].Of(group));
    }
  }
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
