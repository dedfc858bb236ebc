// What a sequence of products is to its kernel: tables, shared memory, the thread that copies, and
// how rows come and results go.
#pragma once

#include <cuda.h>

#include "kernels/matmul_few_rows.cuh"
#include "kernels/matmul_sequence_sm90.h"
#include "kernels/short_convolution.cuh"
#include "kernels/wgmma.cuh"

namespace neurogrid::kernels {

inline constexpr int kSequenceWarps = kFewRowsWarps;  // that multiply; one more copies
inline constexpr int kSequenceMultipliers = kSequenceWarps * kWarpThreads;
inline constexpr int kSequenceThreads = kSequenceMultipliers + kWarpThreads;
inline constexpr int kSequenceStageBytes = kSequenceWarps * kStageWeightBytes;
inline constexpr int kSequenceStagesMax = 12;
inline constexpr int kSequenceConvolutionsMax = 3;
inline constexpr int kSequenceTaps = 3;  // of every published LFM2
inline constexpr int kSequencePartStride = 20;
/// A thread has a piece of a row that is normed or convolved.
inline constexpr int kSequenceRowMax = kSequenceMultipliers * 8;
inline constexpr WeightFormat kSequenceFormat = WeightFormat::kBf16;

/// Two values and a tag.
using RowWord = uint64_t;

struct SequencedProduct {
  const RowWord* x_words;  // made by the product before; null: x
  const bf16* x;
  RowWord* words;            // of y, for the product behind; or null
  void* y;                   // null: a later product writes it
  const RowWord* old_words;  // what is added to, as a product of the launch made it; null: old
  const bf16* old;
  const float* bias;
  const float* norm;  // null: none
  const int32_t* sources;
  bf16* normed;  // null: a later product writes it
  float epsilon;
  int inputs;
  int tiles;
  int first_job;
  int job_tiles;  // each of a warp, one chain over K; 0: one tile, a slice of K a warp
  int stages;     // of a job
  int stage_chunks;
  int convolution;  // of x; -1: none
  Epilogue epilogue;
  bool y_is_f32;
  bool rounds_before_weight;
};

struct SequencedConvolution {
  const float* taps;
  const float* bias;
  bf16* state;
  bf16* out;  // null: a later one writes it
  const ConvolutionChunk* chunk;
  int64_t slot_stride;
};

/// What launches of one stream hand on to each other.
struct SequenceState {
  unsigned ended;  // blocks of the running launch; 0 before it
  uint32_t tag;    // of the last launch
};

/// What a block keeps in shared memory: of arguments of so many products each first look costs what
/// a look at memory does.
struct alignas(16) SequenceTables {
  SequencedProduct products[kSequenceProductsMax];
  SequencedConvolution convolutions[kSequenceConvolutionsMax];
};
struct SequenceArguments {
  SequenceTables tables;
  SequenceState* state;
  int count;
  int jobs;
  int stages;      // of the ring
  int under_way;   // bytes at a time: more would stand before what blocks hand to each other
  int x_bytes[2];  // rows of products of even and odd numbers
};
struct SequenceMaps {
  CUtensorMap at[kSequenceProductsMax];
};
static_assert(sizeof(SequenceArguments) + sizeof(SequenceMaps) <= 4096);

/// A block's shared memory.
struct SequenceShared {
  uint8_t* ring;
  uint32_t ring_address;
  uint8_t* x;
  float* parts;
  float* sums;
  uint32_t barriers;
  SequenceTables* tables;
  int* stage_bytes;  // of the thread that copies

  static constexpr int kPartFloats = kSequenceWarps * kSequencePartStride;
  static constexpr int kBehindX = 4 * (2 * kPartFloats + kNormWarpsMax);
  static constexpr int kOfStage = kSequenceStageBytes + 3 * kBarrierBytes;
  __host__ __device__ static constexpr int Bytes(int stages, int x_bytes) {
    return kSwizzleBytes + stages * kOfStage + x_bytes + static_cast<int>(sizeof(SequenceTables)) +
           kBehindX + 16;
  }

  __device__ __forceinline__ explicit SequenceShared(const SequenceArguments& a)
      : ring(SwizzleAligned(SharedMemory<uint8_t>())), ring_address(SharedAddress(ring)) {
    x = ring + a.stages * kSequenceStageBytes;
    tables = reinterpret_cast<SequenceTables*>(x + a.x_bytes[0] + a.x_bytes[1]);
    parts = reinterpret_cast<float*>(tables + 1);
    sums = parts + 2 * kPartFloats;
    barriers = SharedAddress(sums + kNormWarpsMax);
    stage_bytes = reinterpret_cast<int*>(sums + kNormWarpsMax) + a.stages * 2 * kBarrierBytes / 4;
  }
  /// By the threads that multiply.
  __device__ __forceinline__ void CopyTables(const SequenceArguments& a) const {
    constexpr int kPieces = static_cast<int>(sizeof(SequenceTables) / sizeof(uint4));
    for (int i = static_cast<int>(threadIdx.x); i < kPieces; i += kSequenceMultipliers) {
      reinterpret_cast<uint4*>(tables)[i] = reinterpret_cast<const uint4*>(&a.tables)[i];
    }
  }
  __device__ __forceinline__ uint32_t Full(int slot) const {
    return barriers + static_cast<uint32_t>(slot * 2 * kBarrierBytes);
  }
  __device__ __forceinline__ uint32_t Empty(int slot) const { return Full(slot) + kBarrierBytes; }
};

/// A way around the ring.
struct RingPlace {
  int slot = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void Next(int stages) {
    if (++slot < stages) return;
    slot = 0;
    parity ^= 1;
  }
};

/// The product that a job is of, from `index` on.
__device__ __forceinline__ int ProductOf(const SequenceTables& tables, int count, int job,
                                         int index) {
  while (index + 1 < count && job >= tables.products[index + 1].first_job) ++index;
  return index;
}

/// The thread that copies the weights of a block's jobs: every so many'th of all. Before the
/// predecessor has ended it touches nothing else.
class SequenceFeeder {
 public:
  __device__ __forceinline__ SequenceFeeder(const SequenceArguments& a, const SequenceMaps& maps,
                                            const SequenceShared& shared)
      : a_(a), maps_(maps), shared_(shared), job_(static_cast<int>(blockIdx.x)) {}

  /// What may be under way of the first job, before the tables are in shared memory.
  __device__ __forceinline__ void Begin() {
    if (job_ >= a_.jobs) return;
    index_ = ProductOf(a_.tables, a_.count, job_, 0);
    const SequencedProduct& p = a_.tables.products[index_];
    const Boxes boxes(p, job_);
    while (stage_ < p.stages && under_way_ + boxes.bytes <= a_.under_way) CopyStage(p, boxes);
  }

  __device__ __forceinline__ void Run() {
    for (; job_ < a_.jobs; job_ += static_cast<int>(gridDim.x)) {
      index_ = ProductOf(*shared_.tables, a_.count, job_, index_);
      const SequencedProduct& p = shared_.tables->products[index_];
      const Boxes boxes(p, job_);
      while (stage_ < p.stages) {
        WaitBarrier(shared_.Empty(place_.slot), place_.parity ^ 1);
        while (under_way_ + boxes.bytes > a_.under_way) {
          WaitBarrier(shared_.Full(oldest_.slot), oldest_.parity);
          under_way_ -= shared_.stage_bytes[oldest_.slot];
          oldest_.Next(a_.stages);
        }
        CopyStage(p, boxes);
      }
      stage_ = 0;
    }
    ReleaseSuccessor();
  }

 private:
  struct Boxes {
    int row;
    int bytes;
    __device__ __forceinline__ Boxes(const SequencedProduct& p, int job) {
      const bool sliced = p.job_tiles == 0;
      row = (job - p.first_job) * kTileOutputs * (sliced ? 1 : p.job_tiles);
      bytes = kStageWeightBytes * (sliced ? kSequenceWarps : p.job_tiles * p.stage_chunks);
    }
  };
  __device__ __forceinline__ void CopyStage(const SequencedProduct& p, const Boxes& boxes) {
    const uint32_t full = shared_.Full(place_.slot);
    under_way_ += boxes.bytes;
    shared_.stage_bytes[place_.slot] = boxes.bytes;
    ArriveExpecting(full, static_cast<uint32_t>(boxes.bytes));
    CopySlicedBox(shared_.ring_address + static_cast<uint32_t>(place_.slot * kSequenceStageBytes),
                  maps_.at[index_], boxes.row, stage_ * p.stage_chunks, full, kEvictFirst);
    place_.Next(a_.stages);
    ++stage_;
  }

  const SequenceArguments& a_;
  const SequenceMaps& maps_;
  const SequenceShared& shared_;
  int job_;
  int index_ = 0;
  int stage_ = 0;
  RingPlace place_;
  RingPlace oldest_;  // under way
  int under_way_ = 0;
};

using RowPiece = Vec<bf16>;

/// Eight values that blocks of this launch make, once they are there.
__device__ __forceinline__ RowPiece LoadMade(const RowWord* words, uint32_t tag) {
  RowWord low[2];
  RowWord high[2];
  bool made;
  do {
    LoadTwoWords(low, words);
    LoadTwoWords(high, words + 2);
    made =
        static_cast<uint32_t>(low[0] >> 32) == tag && static_cast<uint32_t>(low[1] >> 32) == tag &&
        static_cast<uint32_t>(high[0] >> 32) == tag && static_cast<uint32_t>(high[1] >> 32) == tag;
  } while (!made);
  const uint32_t values[4] = {static_cast<uint32_t>(low[0]), static_cast<uint32_t>(low[1]),
                              static_cast<uint32_t>(high[0]), static_cast<uint32_t>(high[1])};
  RowPiece piece;
  memcpy(&piece, values, sizeof(values));
  return piece;
}

/// Pieces of eight values each, of columns that a warp's lanes have side by side; below 0: none.
/// One lane asks for the first until it is there: all of them would fill the way that weights take.
template <int kCount>
__device__ __forceinline__ void LoadMade(RowPiece (&pieces)[kCount], const RowWord* words,
                                         const int (&columns)[kCount], uint32_t tag) {
  if (threadIdx.x % kWarpThreads == 0 && columns[0] >= 0) LoadMade(words + columns[0] / 2, tag);
  __syncwarp();
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (columns[i] >= 0) pieces[i] = LoadMade(words + columns[i] / 2, tag);
  }
}

template <int kCount>
__device__ __forceinline__ void LoadRow(RowPiece (&pieces)[kCount], const SequencedProduct& p,
                                        const int (&columns)[kCount], uint32_t tag) {
#pragma unroll
  for (RowPiece& piece : pieces) piece = RowPiece{};
  if (p.x_words != nullptr) return LoadMade(pieces, p.x_words, columns, tag);
  const bf16* x = p.x + (p.sources != nullptr ? int64_t{p.sources[0]} * p.inputs : 0);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (columns[i] < 0) continue;
    const uint4 bits = __ldcg(reinterpret_cast<const uint4*>(x + columns[i]));
    memcpy(&pieces[i], &bits, sizeof(bits));
  }
}

/// Rows r, r + 1, r + 8, r + 9 of a tile of weights, for r = 0, 2, 4, 6.
class TileQuad {
 public:
  __device__ __forceinline__ TileQuad(const SequencedProduct& p, int tile, int r, uint32_t tag)
      : p_(p), tag_(tag), row_(kTileOutputs * tile + r) {}

  /// What a product's end needs beside its sums, before they are there.
  __device__ __forceinline__ void Load() {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = row_ + i / 2 * 8 + i % 2;
      if (p_.bias != nullptr) biases_[i] = p_.bias[row];
    }
    if (p_.epilogue != Epilogue::kAdd) return;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      old_[half] = p_.old_words != nullptr ? LoadWord(OldWord(half)) : LoadOldPair(half);
    }
  }

  __device__ __forceinline__ void Store(float (&sums)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (p_.bias != nullptr) sums[i] += biases_[i];
    }
    if (p_.epilogue == Epilogue::kSiluGated || p_.epilogue == Epilogue::kGeluGated) {
      float gated[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        gated[i] = __fmul_rn(
            p_.epilogue == Epilogue::kSiluGated ? Silu(sums[i]) : GeluTanh(sums[i]), sums[2 + i]);
      }
      return StorePair((row_ - row_ % kTileOutputs) / 2 + row_ % kTileOutputs, gated[0], gated[1]);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float low = sums[2 * half];
      float high = sums[2 * half + 1];
      if (p_.epilogue == Epilogue::kAdd) {
        // Made before the row that was read, but another thread saw that.
        while (p_.old_words != nullptr && static_cast<uint32_t>(old_[half] >> 32) != tag_) {
          old_[half] = LoadWord(OldWord(half));
        }
        const auto old = static_cast<uint32_t>(old_[half]);
        low = __uint_as_float(old << 16) + low;
        high = __uint_as_float(old & 0xffff0000u) + high;
      }
      StorePair(row_ + 8 * half, low, high);
    }
  }

 private:
  __device__ __forceinline__ const RowWord* OldWord(int half) const {
    return p_.old_words + (row_ + 8 * half) / 2;
  }
  __device__ __forceinline__ RowWord LoadOldPair(int half) const {
    return __ldcg(reinterpret_cast<const uint32_t*>(p_.old + row_ + 8 * half));
  }
  __device__ __forceinline__ void StorePair(int column, float low, float high) const {
    if (p_.y_is_f32) {
      *reinterpret_cast<float2*>(static_cast<float*>(p_.y) + column) = float2{low, high};
      return;
    }
    const uint32_t pair = PackBf16(low, high);
    if (p_.words != nullptr) {
      StoreWord(p_.words + column / 2, static_cast<RowWord>(tag_) << 32 | pair);
    }
    if (p_.y != nullptr) *reinterpret_cast<uint32_t*>(static_cast<bf16*>(p_.y) + column) = pair;
  }

  const SequencedProduct& p_;
  uint32_t tag_;
  int row_;
  float biases_[4] = {};
  RowWord old_[2] = {};
};

}  // namespace neurogrid::kernels
