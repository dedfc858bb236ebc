// Chooses a tile for products of more rows, and starts it.
#include <cuda.h>

#include <algorithm>
#include <iterator>

#include "kernels/device_limits.h"
#include "kernels/launch.h"
#include "kernels/matmul_sm90.cuh"
#include "kernels/matmul_sm90.h"
#include "kernels/matmul_sm90_split.cuh"
#include "kernels/tensor_map.h"

namespace neurogrid::kernels {
namespace {

constexpr int kRowsMin = 9;  // below, the kernel for few rows is faster

int Ceil(int a, int b) { return (a + b - 1) / b; }
bool Aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

template <typename T, int kBlocks>
cudaError_t LaunchTile(const MatMulOperands& operands, const Weights& w, cudaStream_t stream) {
  const bool is_int8 = T::kFormat == WeightFormat::kInt8;
  CUtensorMap w_map;
  CUtensorMap x_map;
  cudaError_t error =
      EncodeTensorMap({w.data, is_int8, w.packed_outputs(), w.stride()}, T::kOutputs, w_map);
  if (error != cudaSuccess) return error;
  error = EncodeTensorMap({operands.x, false, operands.rows, w.inputs}, T::kRows, x_map);
  if (error != cudaSuccess) return error;
  const Output out(operands, w);
  const int row_tiles = Ceil(operands.rows, T::kRows);
  const int tiles = Ceil(w.packed_outputs(), T::kOutputs) * row_tiles;
  const Sm90Arguments arguments{w.packed_outputs(),
                                operands.rows,
                                row_tiles,
                                tiles,
                                w.stride() / kChunkInputs<T::kFormat>,
                                row_tiles == 1 ? kEvictFirst : kEvictNormal,
                                Aligned(out.y) && out.stride % 8 == 0};
  const int blocks =
      T::kSplit ? tiles * kClusterBlocks : std::min(tiles, kBlocks * MultiprocessorCount());
  const LaunchShape shape{"MatMul, sm_90", dim3(static_cast<unsigned>(blocks)), dim3(T::kThreads),
                          T::kSharedBytes, stream};
  if constexpr (T::kSplit) {
    return Launch(shape, Sm90SplitKernel<T>, out, arguments, w_map, x_map);
  } else {
    return Launch(shape, Sm90Kernel<T>, out, arguments, w_map, x_map);
  }
}

/// Whether the device has these kernels and they can read x and w.
bool Readable(const MatMulOperands& operands, const Weights& w) {
  static const bool has = DeviceAttribute(cudaDevAttrComputeCapabilityMajor) == 9 &&
                          DeviceAttribute(cudaDevAttrComputeCapabilityMinor) == 0 &&
                          TensorMapEncoder() != nullptr;
  const bool format = w.format == WeightFormat::kBf16 || w.format == WeightFormat::kInt8;
  return has && format && w.inputs % 8 == 0 && Aligned(operands.x) && Aligned(w.data);
}

using Launcher = cudaError_t (*)(const MatMulOperands&, const Weights&, cudaStream_t);
struct Variant {
  const char* name;  // outputs by rows
  int outputs;
  int rows;
  int slices;
  bool split;
  struct Kernel {
    Launcher launch = nullptr;  // null: does not fit
    // Microseconds with one block's work and with two on each multiprocessor; 2,048 inputs, H200.
    float one_us = 0;
    float two_us = 0;
  };
  Kernel bf16;
  Kernel int8;

  const Kernel& kernel(WeightFormat format) const {
    return format == WeightFormat::kInt8 ? int8 : bf16;
  }
};

template <WeightFormat kFormat, int kGroups, int kOwned, int kRows, int kStages, int kSlices,
          int kBlocks, bool kSplit>
constexpr Variant::Kernel MakeKernel(float one_us, float two_us) {
  if constexpr (kStages == 0) {
    return {};
  } else {
    return {LaunchTile<Tile<kFormat, kGroups, kOwned, kRows, kStages, kSlices, kSplit>, kBlocks>,
            one_us, two_us};
  }
}

struct Microseconds {
  float one;
  float two;
};
template <int kGroups, int kOwned, int kRows, int kSlices, int kBf16Stages, int kInt8Stages,
          int kBlocks, bool kSplit = false>
constexpr Variant MakeVariant(const char* name, Microseconds bf16, Microseconds int8) {
  return {name,
          kGroups * kOwned,
          kRows,
          kSlices,
          kSplit,
          MakeKernel<WeightFormat::kBf16, kGroups, kOwned, kRows, kBf16Stages, kSlices, kBlocks,
                     kSplit>(bf16.one, bf16.two),
          MakeKernel<WeightFormat::kInt8, kGroups, kOwned, kRows, kInt8Stages, kSlices, kBlocks,
                     kSplit>(int8.one, int8.two)};
}

// A chunk of int8 is 128 inputs, so its stages are larger.
constexpr Variant kVariants[] = {
    MakeVariant<2, 64, 256, 1, 4, 0, 1>("128x256", {26, 52}, {}),
    MakeVariant<2, 64, 128, 1, 4, 4, 1>("128x128", {14.9f, 29.8f}, {15.5f, 29.6f}),
    MakeVariant<2, 64, 64, 1, 4, 4, 2>("128x64", {12.2f, 21}, {11, 20.4f}),
    MakeVariant<1, 64, 64, 1, 4, 4, 2>("64x64", {11, 12.5f}, {10.5f, 11.2f}),
    MakeVariant<1, 64, 32, 1, 8, 8, 2>("64x32", {8.8f, 9.2f}, {7.1f, 12.5f}),
    MakeVariant<2, 64, 128, 8, 4, 4, 1>("128x128, slices", {16, 32}, {17.4f, 35.6f}),
    MakeVariant<1, 64, 128, 8, 4, 4, 2>("64x128, slices", {12.4f, 23.7f}, {12.6f, 25.3f}),
    MakeVariant<1, 64, 64, 8, 4, 4, 2>("64x64, slices", {10.4f, 12}, {8.7f, 17}),
    MakeVariant<1, 32, 64, 8, 8, 4, 2>("32x64, slices", {7.8f, 8.9f}, {8.1f, 16}),
    MakeVariant<1, 64, 32, 8, 8, 8, 2>("64x32, slices", {7.1f, 8.1f}, {7.1f, 13.5f}),
    MakeVariant<2, 64, 32, 8, 4, 4, 1, true>("128x32, split", {8.2f, 11}, {10.6f, 17}),
    MakeVariant<2, 64, 64, 8, 4, 4, 1, true>("128x64, split", {9.4f, 14}, {13.3f, 23}),
};

/// The part of those microseconds that more inputs do not lengthen.
float Start(const Variant& v, WeightFormat format) {
  if (!v.split) return 0.25f;
  return format == WeightFormat::kInt8 ? 0.87f : 0.59f;
}

/// The time of whole rounds of blocks over the device: two of a multiprocessor may overlap.
float Cost(const Variant& v, const Weights& w, int rows) {
  const int tiles = Ceil(w.packed_outputs(), v.outputs) * Ceil(rows, v.rows);
  const int rounds = Ceil(v.split ? tiles * kClusterBlocks : tiles, MultiprocessorCount());
  const Variant::Kernel& kernel = v.kernel(w.format);
  const float us = static_cast<float>(rounds / 2) * kernel.two_us +
                   static_cast<float>(rounds % 2) * kernel.one_us;
  const float start = Start(v, w.format);
  return us * (start + (1 - start) * static_cast<float>(w.inputs) / 2048);
}

int Choose(const Weights& w, int rows) {
  int best = -1;
  for (int i = 0; i < static_cast<int>(std::size(kVariants)); ++i) {
    if (!Sm90VariantFits(i, w)) continue;
    if (best < 0 || Cost(kVariants[i], w, rows) < Cost(kVariants[best], w, rows)) best = i;
  }
  return best;
}

}  // namespace

int Sm90Variants() { return static_cast<int>(std::size(kVariants)); }
const char* Sm90VariantName(int variant) { return kVariants[variant].name; }
bool Sm90VariantFits(int variant, const Weights& w) {
  return kVariants[variant].slices == SlicesOf(w.packed_outputs()) &&
         kVariants[variant].kernel(w.format).launch != nullptr;
}

bool Sm90Takes(const MatMulOperands& operands, const Weights& w) {
  return operands.rows >= kRowsMin && Readable(operands, w);
}

cudaError_t MatMulSm90By(int variant, const MatMulOperands& operands, const Weights& w,
                         cudaStream_t stream) {
  if (!Readable(operands, w) || !Sm90VariantFits(variant, w)) return cudaErrorInvalidValue;
  return kVariants[variant].kernel(w.format).launch(operands, w, stream);
}

cudaError_t MatMulSm90(const MatMulOperands& operands, const Weights& w, cudaStream_t stream) {
  return kVariants[Choose(w, operands.rows)].kernel(w.format).launch(operands, w, stream);
}

}  // namespace neurogrid::kernels
