// Chooses a tile for products of more rows, and starts it.
#include <cuda.h>

#include <algorithm>
#include <iterator>

#include "kernels/device_limits.h"
#include "kernels/launch.h"
#include "kernels/matmul_sm90.cuh"
#include "kernels/matmul_sm90.h"
#include "kernels/matmul_sm90_split.cuh"
#include "kernels/sum_slices.h"
#include "kernels/tensor_map.h"

namespace neurogrid::kernels {
namespace {

constexpr int kRowsMin = 9;         // below, the kernel for few rows is faster
constexpr int kSplitRowsMax = 256;  // above, there are blocks enough

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
  CUtensorMap y_map{};  // read where boxes are stored alone
  const bool boxes = StoresBoxes<T>(out);
  if (boxes) {
    const MatrixView view{
        out.y,         false,
        operands.rows, out.columns,
        out.stride,    w.gated ? BoxOfY<T, true>::kRowBytes : BoxOfY<T, false>::kRowBytes};
    error =
        EncodeTensorMap(view, w.gated ? BoxOfY<T, true>::kRows : BoxOfY<T, false>::kRows, y_map);
    if (error != cudaSuccess) return error;
  }
  const int row_tiles = Ceil(operands.rows, T::kRows);
  const int tiles = Ceil(w.packed_outputs(), T::kOutputs) * row_tiles;
  const Sm90Arguments arguments{w.packed_outputs(),
                                operands.rows,
                                row_tiles,
                                tiles,
                                w.stride() / kChunkInputs<T::kFormat>,
                                row_tiles == 1 ? kEvictFirst : kEvictNormal,
                                HasWideStores(out),
                                boxes};
  const int blocks =
      T::kSplit ? tiles * kSplitSlices : std::min(tiles, kBlocks * MultiprocessorCount());
  const LaunchShape shape{"MatMul, sm_90", dim3(static_cast<unsigned>(blocks)), dim3(T::kThreads),
                          T::kSharedBytes, stream};
  if constexpr (T::kSplit) {
    error = Launch(shape, Sm90SplitKernel<T>, operands.slices, arguments, w_map, x_map);
    return error == cudaSuccess ? SumSlices(operands, w, stream) : error;
  } else {
    return Launch(shape, Sm90Kernel<T>, out, arguments, w_map, x_map, y_map);
  }
}

bool DeviceHasThem() {
  static const bool has = RunsSm90() && TensorMapEncoder() != nullptr;
  return has;
}

/// Whether the device has these kernels and they can read x and w.
bool Readable(const MatMulOperands& operands, const Weights& w) {
  const bool format = w.format == WeightFormat::kBf16 || w.format == WeightFormat::kInt8;
  return DeviceHasThem() && format && w.inputs % 8 == 0 && Aligned(operands.x) && Aligned(w.data);
}

using Launcher = cudaError_t (*)(const MatMulOperands&, const Weights&, cudaStream_t);
/// With one block's work and with two on each multiprocessor, of 2,048 inputs on an H200; `start`
/// is the part that more inputs do not lengthen.
struct Microseconds {
  float one = 0;
  float two = 0;
  float start = 0.25f;
};
struct Variant {
  const char* name;  // outputs by rows
  int outputs;
  int rows;
  int slices;
  bool split;
  struct Kernel {
    Launcher launch = nullptr;  // null: does not fit
    Microseconds us;
  };
  Kernel bf16;
  Kernel int8;

  const Kernel& kernel(WeightFormat format) const {
    return format == WeightFormat::kInt8 ? int8 : bf16;
  }
};

template <WeightFormat kFormat, int kGroups, int kOwned, int kRows, int kStages, int kSlices,
          int kBlocks, bool kSplit>
constexpr Variant::Kernel MakeKernel(Microseconds us) {
  if constexpr (kStages == 0) {
    return {};
  } else {
    return {LaunchTile<Tile<kFormat, kGroups, kOwned, kRows, kStages, kSlices, kSplit>, kBlocks>,
            us};
  }
}

template <int kGroups, int kOwned, int kRows, int kSlices, int kBf16Stages, int kInt8Stages,
          int kBlocks, bool kSplit = false>
constexpr Variant MakeVariant(const char* name, Microseconds bf16, Microseconds int8) {
  return {name,
          kGroups * kOwned,
          kRows,
          kSlices,
          kSplit,
          MakeKernel<WeightFormat::kBf16, kGroups, kOwned, kRows, kBf16Stages, kSlices, kBlocks,
                     kSplit>(bf16),
          MakeKernel<WeightFormat::kInt8, kGroups, kOwned, kRows, kInt8Stages, kSlices, kBlocks,
                     kSplit>(int8)};
}

// A chunk of int8 is 128 inputs, so its stages are larger.
constexpr Variant kVariants[] = {
    MakeVariant<2, 64, 256, 1, 4, 0, 1>("128x256", {25.5f, 46}, {}),
    MakeVariant<2, 64, 128, 1, 4, 4, 1>("128x128", {13.7f, 28}, {12.7f, 25, 0.3f}),
    MakeVariant<2, 64, 64, 1, 8, 4, 2>("128x64", {12.2f, 21}, {11.4f, 22.6f, 0.45f}),
    MakeVariant<1, 64, 64, 1, 4, 4, 2>("64x64", {11, 12.5f}, {10.5f, 11.2f, 0.45f}),
    MakeVariant<1, 64, 32, 1, 8, 8, 2>("64x32", {8.8f, 9.2f}, {7.1f, 12.5f, 0.45f}),
    MakeVariant<2, 64, 128, 8, 4, 4, 1>("128x128, slices", {13.9f, 27.5f}, {13.9f, 27.6f, 0.25f}),
    MakeVariant<1, 64, 128, 8, 4, 4, 2>("64x128, slices", {12.4f, 23.7f}, {12.6f, 25.3f, 0.45f}),
    MakeVariant<1, 64, 64, 8, 4, 4, 2>("64x64, slices", {10.4f, 12}, {8.7f, 17, 0.45f}),
    MakeVariant<1, 32, 64, 8, 8, 4, 2>("32x64, slices", {7.8f, 8.9f}, {8.1f, 16, 0.45f}),
    MakeVariant<1, 64, 32, 8, 8, 8, 2>("64x32, slices", {7.1f, 8.1f}, {7.1f, 13.5f, 0.45f}),
    MakeVariant<1, 64, 32, 8, 4, 4, 1, true>("64x32, split", {6.6f, 7.2f, 0.72f},
                                             {7.5f, 7.8f, 0.89f}),
    MakeVariant<1, 64, 64, 8, 0, 4, 1, true>("64x64, split", {}, {7.7f, 8.8f, 0.89f}),
    MakeVariant<2, 64, 64, 8, 4, 0, 1, true>("128x64, split", {7.2f, 9.5f, 0.66f}, {}),
    MakeVariant<2, 64, 64, 8, 8, 0, 1, true>("128x64, split, long ring", {9, 16, 0.86f}, {}),
    MakeVariant<2, 64, 128, 8, 4, 4, 1, true>("128x128, split", {10.2f, 17.1f, 0.77f},
                                              {14.1f, 21.3f, 0.91f}),
    MakeVariant<2, 64, 256, 8, 4, 0, 1, true>("128x256, split", {15.4f, 28.5f, 0.83f}, {}),
};

/// The time of whole rounds of blocks over the device: two of a multiprocessor may overlap.
float Cost(const Variant& v, const MatMulOperands& operands, const Weights& w) {
  constexpr float kNorm = 1.5f;  // a kernel of its own, less what it adds to SumSlices
  const int tiles = Ceil(w.packed_outputs(), v.outputs) * Ceil(operands.rows, v.rows);
  const int rounds = Ceil(v.split ? tiles * kSplitSlices : tiles, MultiprocessorCount());
  const Microseconds& us = v.kernel(w.format).us;
  const float whole =
      static_cast<float>(rounds / 2) * us.two + static_cast<float>(rounds % 2) * us.one;
  const bool norms_apart =
      operands.next.parameters.weight != nullptr && !(v.split && SumSlicesNorms(operands, w));
  return whole * (us.start + (1 - us.start) * static_cast<float>(w.inputs) / 2048) +
         (norms_apart ? kNorm : 0);
}

int Choose(const MatMulOperands& operands, const Weights& w) {
  int best = -1;
  for (int i = 0; i < static_cast<int>(std::size(kVariants)); ++i) {
    if (!Sm90VariantFits(i, operands, w)) continue;
    if (best < 0 || Cost(kVariants[i], operands, w) < Cost(kVariants[best], operands, w)) {
      best = i;
    }
  }
  return best;
}

}  // namespace

int Sm90Variants() { return static_cast<int>(std::size(kVariants)); }
const char* Sm90VariantName(int variant) { return kVariants[variant].name; }
bool Sm90VariantFits(int variant, const MatMulOperands& operands, const Weights& w) {
  const Variant& v = kVariants[variant];
  if (v.slices != SlicesOf(w.packed_outputs()) || v.kernel(w.format).launch == nullptr)
    return false;
  if (!v.split) return true;
  const int64_t floats = int64_t{v.slices} * operands.rows * w.packed_outputs();
  const int chunks = w.stride() * Weights::ElementBytes(w.format) / kChunkBytes;
  return operands.slices != nullptr && floats <= operands.slices_floats && chunks >= v.slices;
}

bool Sm90Takes(const MatMulOperands& operands, const Weights& w) {
  return operands.rows >= kRowsMin && Readable(operands, w);
}

cudaError_t MatMulSm90By(int variant, const MatMulOperands& operands, const Weights& w,
                         cudaStream_t stream) {
  if (!Readable(operands, w) || !Sm90VariantFits(variant, operands, w))
    return cudaErrorInvalidValue;
  return kVariants[variant].kernel(w.format).launch(operands, w, stream);
}

int64_t SliceFloatsMaxSm90(int rows) {
  return DeviceHasThem() ? int64_t{kSplitSlices} * std::min(rows, kSplitRowsMax) * kSlicedOutputsMax
                         : 0;
}

bool Sm90NormsNext(const MatMulOperands& operands, const Weights& w) {
  return kVariants[Choose(operands, w)].split && SumSlicesNorms(operands, w);
}

cudaError_t MatMulSm90(const MatMulOperands& operands, const Weights& w, cudaStream_t stream) {
  return kVariants[Choose(operands, w)].kernel(w.format).launch(operands, w, stream);
}

}  // namespace neurogrid::kernels
