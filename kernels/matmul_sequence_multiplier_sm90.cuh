// The warps of a sequence's kernel that multiply.
#pragma once

#include "kernels/matmul_sequence_sm90.cuh"

namespace neurogrid::kernels {

inline constexpr int kSequenceRowPieces = 4;  // of a thread at a time

/// A warp that multiplies.
class SequenceMultiplier {
  static constexpr int kThreads = kSequenceMultipliers;
  static constexpr int kKept = kSequenceTaps - 1;

 public:
  __device__ __forceinline__ SequenceMultiplier(const SequenceArguments& a,
                                                const SequenceShared& shared)
      : a_(a),
        shared_(shared),
        tables_(*shared.tables),
        warp_(static_cast<int>(threadIdx.x) / kWarpThreads),
        lane_(static_cast<int>(threadIdx.x) % kWarpThreads),
        adder_(warp_) {}

  __device__ __forceinline__ void Run() {
    tag_ = static_cast<volatile SequenceState*>(a_.state)->tag + 1;
    int index = 0;
    int former = -1;
    for (int job = static_cast<int>(blockIdx.x); job < a_.jobs;
         job += static_cast<int>(gridDim.x)) {
      index = ProductOf(tables_, a_.count, job, index);
      const SequencedProduct& p = tables_.products[index];
      if (index != former) {
        BringRow(p, index, job == p.first_job);
      }
      former = index;
      const int x = 2 * kChunkInputs<kSequenceFormat>;
      const uint8_t* row = RowAt(index) + lane_ / 8 * 16;
      if (p.job_tiles == 0) {
        MultiplySlices(p, job - p.first_job, row, x);
      } else {
        MultiplyChains(p, job - p.first_job, row, x);
      }
    }
    if (keeps_ >= 0) {
      AwaitAll(tables_.products[kept_product_]);
      Sync();
      Keep();
    }
    // All threads that needed the tag have met since they read it.
    if (threadIdx.x == 0 && atomicAdd(&a_.state->ended, 1u) == gridDim.x - 1) {
      a_.state->ended = 0;
      a_.state->tag = tag_;
    }
  }

 private:
  __device__ __forceinline__ static void Sync() { SyncThreads<kThreads>(1); }
  __device__ __forceinline__ static int ColumnOf(int i) {
    return (static_cast<int>(threadIdx.x) + i * kThreads) * RowPiece::kCount;
  }

  /// Rows of products of even and odd numbers lie side by side: one is read while the next arrives.
  __device__ __forceinline__ uint8_t* RowAt(int index) const {
    return shared_.x + (index % 2 == 0 ? 0 : a_.x_bytes[0]);
  }
  /// The product's row to shared memory, for all warps. `first`: this block has the product's first
  /// job, so that it writes what is written once.
  __device__ __forceinline__ void BringRow(const SequencedProduct& p, int index, bool first) {
    auto* to = reinterpret_cast<bf16*>(RowAt(index));
    if (p.norm != nullptr) {
      BringNormed(p, to, first);
    } else if (p.convolution >= 0) {
      BringConvolved(p, index, to, first);
      return;
    } else {
      BringGiven(p, to);
    }
    Sync();
    Keep();
  }

  __device__ __forceinline__ void BringGiven(const SequencedProduct& p, bf16* to) const {
    for (int i = 0; i * kThreads * RowPiece::kCount < p.inputs; i += kSequenceRowPieces) {
      int columns[kSequenceRowPieces];
#pragma unroll
      for (int j = 0; j < kSequenceRowPieces; ++j) {
        columns[j] = ColumnOf(i + j) < p.inputs ? ColumnOf(i + j) : -1;
      }
      RowPiece pieces[kSequenceRowPieces];
      LoadRow(pieces, p, columns, tag_);
#pragma unroll
      for (int j = 0; j < kSequenceRowPieces; ++j) {
        if (columns[j] >= 0) StoreVec(to + columns[j], pieces[j]);
      }
    }
  }

  /// In the bits of RmsNorm, as RowNorm (matmul_few_rows.cuh) does it.
  __device__ __forceinline__ void BringNormed(const SequencedProduct& p, bf16* to, bool first) {
    const int column = ColumnOf(0);
    const bool live = column < p.inputs;
    float weights[RowPiece::kCount] = {};
    if (live) LoadFloats(weights, p.norm + column);
    const int columns[1] = {live ? column : -1};
    RowPiece pieces[1];
    LoadRow(pieces, p, columns, tag_);
    RowPiece& x = pieces[0];
    const float of_warp = WarpSum(AddSquares(0.0f, x));
    if (lane_ == 0) shared_.sums[warp_] = of_warp;
    Sync();
    const int warps = NormThreads<bf16>(p.inputs) / kWarpThreads;
    float squares = 0;
#pragma unroll
    for (int i = 0; i < kSequenceWarps; ++i) {
      if (i < warps) squares += shared_.sums[i];
    }
    if (!live) return;
    const float factor = NormFactor(squares, p.inputs, p.epsilon);
#pragma unroll
    for (int i = 0; i < RowPiece::kCount; ++i) {
      x.at[i] = Normed(x.at[i], factor, weights[i], p.rounds_before_weight);
    }
    StoreVec(to + column, x);
    if (first && p.normed != nullptr) StoreVec(p.normed + column, x);
  }

  /// In the bits of ShortConvolution. What is kept of it is written when all blocks have read what
  /// was kept before: when the row behind is there.
  __device__ __forceinline__ void BringConvolved(const SequencedProduct& p, int index, bf16* to,
                                                 bool first) {
    const SequencedConvolution& c = tables_.convolutions[p.convolution];
    const int column = ColumnOf(0);
    const bool live = column < p.inputs;
    float taps[kSequenceTaps][RowPiece::kCount] = {};
    float bias[RowPiece::kCount] = {};
    RowPiece products[kSequenceTaps] = {};
    if (live) {
#pragma unroll
      for (int j = 0; j < kSequenceTaps; ++j) LoadFloats(taps[j], c.taps + j * p.inputs + column);
      if (c.bias != nullptr) LoadFloats(bias, c.bias + column);
      const int source = c.chunk->source;
      if (source >= 0) {
#pragma unroll
        for (int i = 0; i < kKept; ++i) {
          products[i] = LoadVec(c.state + source * c.slot_stride + i * p.inputs + column);
        }
      }
    }
    const int columns[3] = {live ? column : -1, live ? column + p.inputs : -1,
                            live ? column + 2 * p.inputs : -1};
    RowPiece bcu[3];
    LoadRow(bcu, p, columns, tag_);
    RowPiece x;
#pragma unroll
    for (int i = 0; i < RowPiece::kCount; ++i) {
      products[kKept].at[i] = GatedProduct(bcu[0].at[i], bcu[2].at[i]);
      float z = bias[i];
#pragma unroll
      for (int j = 0; j < kSequenceTaps; ++j) z = AddTap(z, taps[j][i], products[j].at[i]);
      x.at[i] = Gated(bcu[1].at[i], z);
    }
    if (live) StoreVec(to + column, x);
    if (live && first && c.out != nullptr) StoreVec(c.out + column, x);
    Sync();
    Keep();
    if (!first) return;
    keeps_ = p.convolution;
    kept_product_ = index;
#pragma unroll
    for (int i = 0; i < kKept; ++i) kept_[i] = products[i + 1];
  }

  __device__ __forceinline__ void Keep() {
    if (keeps_ < 0) return;
    const SequencedConvolution& c = tables_.convolutions[keeps_];
    const int inputs = tables_.products[kept_product_].inputs;
    keeps_ = -1;
    const int slot = c.chunk->slot;
    if (slot < 0 || ColumnOf(0) >= inputs) return;
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      StoreVec(c.state + slot * c.slot_stride + i * inputs + ColumnOf(0), kept_[i]);
    }
  }

  /// Until the product's result is there.
  __device__ __forceinline__ void AwaitAll(const SequencedProduct& p) const {
    const int outputs = p.tiles * kTileOutputs;
    for (int i = 0; ColumnOf(i) < outputs; ++i) {
      LoadMade(p.words + ColumnOf(i) / 2, tag_);
    }
  }

  __device__ __forceinline__ static void LoadFloats(float (&to)[RowPiece::kCount],
                                                    const float* from) {
#pragma unroll
    for (int i = 0; i < RowPiece::kCount; i += Vec<float>::kCount) {
      const Vec<float> some = LoadVec(from + i);
#pragma unroll
      for (int j = 0; j < Vec<float>::kCount; ++j) to[i + j] = some.at[j];
    }
  }

  /// sums += kChunks chunks of 16 rows of weights, so many bytes apart, times those of x: all are
  /// loaded before the first is multiplied.
  template <int kChunks>
  __device__ __forceinline__ void Take(float (&sums)[1][4], const uint8_t* w, int apart,
                                       const uint8_t* x, int x_apart) const {
    Fragments<kSequenceFormat, 1> fragments[kChunks];
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      LoadWeights(fragments[chunk].w, w + chunk * apart, LaneOfWeights(lane_));
#pragma unroll
      for (int i = 0; i < 2 * kParts<kSequenceFormat>; ++i) {
        LdMatrix(fragments[chunk].x[i][0], x + chunk * x_apart + 64 * i);
      }
    }
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      Multiply<kSequenceFormat, 1>(sums, fragments[chunk]);
    }
  }
  __device__ __forceinline__ const uint8_t* Stage() const {
    return shared_.ring + place_.slot * kSequenceStageBytes;
  }
  __device__ __forceinline__ void Release() {
    __syncwarp();
    if (lane_ == 0) Arrive(shared_.Empty(place_.slot));
    place_.Next(a_.stages);
  }

  /// A warp has a tile of its own, if there is one for it.
  __device__ __forceinline__ void MultiplyChains(const SequencedProduct& p, int job,
                                                 const uint8_t* row, int chunk_bytes) {
    const int tile = job * p.job_tiles + warp_;
    const bool live = warp_ < p.job_tiles && tile < p.tiles;
    const bool stores = live && lane_ % 8 == 0;
    TileQuad quad(p, tile, lane_ / 4, tag_);
    if (stores) quad.Load();
    float sums[1][4] = {};
    for (int stage = 0; stage < p.stages; ++stage) {
      WaitBarrier(shared_.Full(place_.slot), place_.parity);
      if (live) {
        const uint8_t* w = Stage() + warp_ * kStageWeightBytes;
        const int apart = p.job_tiles * kStageWeightBytes;
        int left = p.stage_chunks;
        for (; left >= 2; left -= 2) {
          Take<2>(sums, w, apart, row, chunk_bytes);
          w += 2 * apart;
          row += 2 * chunk_bytes;
        }
        if (left > 0) {
          Take<1>(sums, w, apart, row, chunk_bytes);
          row += chunk_bytes;
        }
      }
      Release();
    }
    const float next_low = __shfl_down_sync(kFullMask, sums[0][0], 4);
    const float next_high = __shfl_down_sync(kFullMask, sums[0][2], 4);
    float four[4] = {sums[0][0], next_low, sums[0][2], next_high};
    if (stores) quad.Store(four);
  }

  /// A warp has a slice of the tile. Another one each time adds them, so that none falls behind.
  __device__ __forceinline__ void MultiplySlices(const SequencedProduct& p, int tile,
                                                 const uint8_t* row, int chunk_bytes) {
    const bool stores = adder_ == 0 && lane_ < 4;
    TileQuad quad(p, tile, 2 * lane_, tag_);
    if (stores) quad.Load();
    row += warp_ * chunk_bytes;
    float sums[1][4] = {};
    for (int stage = 0; stage < p.stages; ++stage) {
      WaitBarrier(shared_.Full(place_.slot), place_.parity);
      Take<1>(sums, Stage() + warp_ * kStageWeightBytes, 0, row, 0);
      row += kSequenceWarps * chunk_bytes;
      Release();
    }
    float* parts = shared_.parts + buffer_ * SequenceShared::kPartFloats;
    if (lane_ % 4 == 0) {
      float* part = parts + warp_ * kSequencePartStride + lane_ / 4;
      part[0] = sums[0][0];
      part[8] = sums[0][2];
    }
    Sync();
    if (stores) {
      float four[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* part = parts + 2 * lane_ + i / 2 * 8 + i % 2;
        four[i] = part[0];
#pragma unroll
        for (int slice = 1; slice < kSequenceWarps; ++slice) {
          four[i] += part[slice * kSequencePartStride];
        }
      }
      quad.Store(four);
    }
    buffer_ ^= 1;  // the next tile's sums go elsewhere, so one barrier a tile is enough
    adder_ = adder_ == 0 ? kSequenceWarps - 1 : adder_ - 1;
  }

  const SequenceArguments& a_;
  const SequenceShared& shared_;
  const SequenceTables& tables_;
  int warp_;
  int lane_;
  int adder_;  // 0: this warp adds the next tile's slices
  int buffer_ = 0;
  uint32_t tag_ = 0;
  RingPlace place_;
  int keeps_ = -1;  // the convolution whose products are to be kept
  int kept_product_ = 0;
  RowPiece kept_[kKept];
};

}  // namespace neurogrid::kernels
