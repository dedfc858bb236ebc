#include <cuda_fp16.h>

#include "kernels/embedding.h"
#include "kernels/launch.h"
#include "kernels/simt.cuh"
#include "kernels/vec.cuh"

namespace neurogrid::kernels {
namespace {

constexpr int kThreads = 128;
constexpr int kRowsMany = 512;  // from here on a block a row

__device__ int CodeAt(const uint8_t* plane, int bits, int row, int k) {
  const CodePlace place = PlaceOfCode(bits, row, k);
  const uint32_t word = reinterpret_cast<const uint32_t*>(plane)[place.word];
  return static_cast<int>(word >> place.shift & ((1u << bits) - 1));
}

/// Scale or minimum number `at` of a chunk; `header` is the unit's part of it, if it has one.
__device__ float ScaleAt(BlockScales scales, const uint8_t* header, const uint8_t* of_groups,
                         int row, int at) {
  const auto half = [](const uint8_t* halves, int i) {
    return __half2float(reinterpret_cast<const __half*>(halves)[i]);
  };
  switch (scales) {
    case BlockScales::kHalf:
      return half(of_groups, at);
    case BlockScales::kHalfTimesByte:
      return __fmul_rn(half(header, PlaceInHeader(row)), static_cast<float>(of_groups[at] - 128));
    case BlockScales::kFloat:
      return reinterpret_cast<const float*>(of_groups)[at];
  }
  return 0;
}

/// The bits of the reference dequantisation: product by product.
__device__ float BlockWeightAt(const Weights& table, int64_t row, int column) {
  const BlockFormat format = FormatOf(table.block_type);
  const int in_tile = static_cast<int>(row % kTileOutputs);
  const int chunk = column / kBlockChunkInputs;
  const int k = column % kBlockChunkInputs;
  const uint8_t* header = static_cast<const uint8_t*>(table.data) +
                          row / kTileOutputs * table.tile_bytes() +
                          int64_t{chunk / format.chunks_per_unit()} * format.unit_bytes();
  const uint8_t* data =
      header + format.header_bytes() + chunk % format.chunks_per_unit() * format.chunk_bytes();
  const uint8_t* low = data + format.codes_at();
  int code = CodeAt(low, format.low_bits, in_tile, k);
  if (format.high_bits > 0) {
    const uint8_t* high = low + BlockFormat::plane_bytes(format.low_bits);
    code |= CodeAt(high, format.high_bits, in_tile, k) << format.low_bits;
  }
  const int value = format.looks_up ? Iq4NlValue(code) : code - format.offset;
  const int at = PlaceOfScale(format, in_tile, k / format.group_inputs);
  const float product =
      __fmul_rn(ScaleAt(format.scales, header, data, in_tile, at), static_cast<float>(value));
  if (!format.has_minimum) return product;
  return product + ScaleAt(format.scales, header + format.header_scale_bytes(),
                           data + format.scale_bytes(), in_tile, at);
}

__device__ float WeightAt(const Weights& table, int64_t row, int column) {
  const int64_t first = row * table.stride();
  switch (table.format) {
    case WeightFormat::kF32:
      return static_cast<const float*>(table.data)[first + column];
    case WeightFormat::kBf16:
      return ToFloat(static_cast<const bf16*>(table.data)[first + column]);
    case WeightFormat::kInt8:
      return static_cast<float>(
                 static_cast<const int8_t*>(table.data)[first + Weights::Int8Place(column)]) *
             table.scales[row];
    case WeightFormat::kBlocks:
      return BlockWeightAt(table, row, column);
  }
  return 0;
}

template <typename T>
__global__ void EmbedKernel(T* y, Weights table, const int32_t* tokens, const int32_t* drawn,
                            float scale) {
  ReleaseSuccessor();
  const int64_t row = blockIdx.x;
  const int first = static_cast<int>(blockIdx.y * kThreads + threadIdx.x);
  WaitForPredecessor();
  const int32_t given = tokens[row];
  const int32_t token = given >= 0 ? given : drawn[-1 - given];
  for (int c = first; c < table.inputs; c += static_cast<int>(gridDim.y) * kThreads) {
    y[row * table.inputs + c] = FromFloat<T>(WeightAt(table, token, c) * scale);
  }
}

}  // namespace

template <typename T>
cudaError_t Embed(T* y, const Weights& table, const int32_t* tokens, const int32_t* drawn, int rows,
                  float scale, cudaStream_t stream) {
  const int column_blocks = rows < kRowsMany ? (table.inputs + kThreads - 1) / kThreads : 1;
  const LaunchShape shape{"Embed",
                          dim3(static_cast<unsigned>(rows), static_cast<unsigned>(column_blocks)),
                          dim3(kThreads), 0, stream};
  return Launch(shape, EmbedKernel<T>, y, table, tokens, drawn, scale);
}

template cudaError_t Embed(float*, const Weights&, const int32_t*, const int32_t*, int, float,
                           cudaStream_t);
template cudaError_t Embed(bf16*, const Weights&, const int32_t*, const int32_t*, int, float,
                           cudaStream_t);

}  // namespace neurogrid::kernels
