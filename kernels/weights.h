// A weight matrix as it lies on the device.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/block_format.h"

namespace neurogrid::kernels {

enum class WeightFormat { kF32, kBf16, kInt8, kBlocks };

inline constexpr int kTileOutputs = 16;  // rows of the tensor core's tile

/// Row-major [padded outputs][stride]: outputs padded to tiles of 16, inputs to 128 bytes, with
/// zeros.
///
/// int8: a row's 16 bytes of one step hold, four by four, inputs 2q, 2q + 8, 2q + 1, 2q + 9 for q =
/// 0 .. 3: what lane q of the tensor core wants, its even bytes being one pair. Blocks are no rows
/// but tiles of 16 of them: block_format.h. gated: a tile is 8 gate outputs, then the 8 up outputs
/// of the same numbers.
struct Weights {
  WeightFormat format = WeightFormat::kBf16;
  const void* data = nullptr;
  const float* scales = nullptr;  // [padded outputs]; int8 alone
  const float* bias = nullptr;    // [padded outputs] in the order of the rows; or null
  int outputs = 0;                // gated: of the gate, as of the result
  int inputs = 0;
  bool gated = false;
  BlockType block_type = BlockType::kWide;  // blocks alone

  __host__ __device__ int packed_outputs() const {
    const int tile = gated ? kTileOutputs / 2 : kTileOutputs;
    return (outputs + tile - 1) / tile * kTileOutputs;
  }
  /// Elements from one row to the next.
  __host__ __device__ int stride() const { return PaddedInputs(format, inputs); }

  /// From one tile of 16 rows to the next.
  __host__ __device__ int64_t tile_bytes() const {
    if (format != WeightFormat::kBlocks) {
      return int64_t{kTileOutputs} * stride() * ElementBytes(format);
    }
    const BlockFormat blocks = FormatOf(block_type);
    const int units = (inputs + blocks.unit_inputs() - 1) / blocks.unit_inputs();
    return int64_t{units} * blocks.unit_bytes();
  }
  __host__ __device__ int64_t bytes() const {
    return packed_outputs() / kTileOutputs * tile_bytes();
  }

  __host__ __device__ static constexpr int ElementBytes(WeightFormat format) {
    return format == WeightFormat::kF32 ? 4 : format == WeightFormat::kBf16 ? 2 : 1;
  }
  __host__ __device__ static constexpr int PaddedInputs(WeightFormat format, int inputs) {
    const int unit = 128 / ElementBytes(format);
    return (inputs + unit - 1) / unit * unit;
  }
  /// The row of the packed matrix that holds output `n`, of the gate or of what it is multiplied
  /// with.
  __host__ __device__ static constexpr int PackedRow(bool gated, bool up, int n) {
    constexpr int kHalf = kTileOutputs / 2;
    return gated ? n / kHalf * kTileOutputs + (up ? kHalf : 0) + n % kHalf : n;
  }
  /// Where input k of an int8 row lies.
  __host__ __device__ static constexpr int Int8Place(int k) {
    return k - k % 16 + k % 8 / 2 * 4 + k % 2 * 2 + k % 16 / 8;
  }
};

inline constexpr int kSlicedOutputsMax = 4096;  // packed

/// The order of summation over K, one for each shape of weights and every number of rows:
/// slice s of `slices` adds chunks s, s + slices, ... of 128 bytes of a
/// row in one chain of steps of 16; slices then add from the first to the last. Eight slices keep
/// every multiprocessor busy with one row of activations where there are few outputs.
__host__ __device__ constexpr int SlicesOf(int packed_outputs) {
  return packed_outputs <= kSlicedOutputsMax ? 8 : 1;
}

}  // namespace neurogrid::kernels
