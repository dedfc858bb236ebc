// y[r, n] = sum over k of x[r, k] * w[n, k], in one order over k for any number of rows, and what
// is done with the sum before it is rounded once.
//
// bf16 and int8 weights go through the tensor core, weights as operand A, so a row's bits do not
// depend on its neighbours. Slices of K (weights.h) add up in order.
//   few rows   one warp streams a slice of 16 outputs through a ring of its own; bound by the
//              weights' bytes. The ring fills before the predecessor has ended. One or two rows
//              each block norms for itself: less time than a kernel between two others takes.
//   more rows  tiles of 128 or 32 outputs by 64 rows through shared memory, slice after slice.
// Blocks (block_format.h) do the same with slices whatever the outputs, and their scales between
// the tensor core and the sums. f32 weights: one chain of multiply-adds over k for each sum; the
// reference, not fast.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/rms_norm.h"
#include "kernels/short_convolution.h"
#include "kernels/weights.h"

namespace neurogrid::kernels {

enum class Epilogue {
  kStore,      // y = sum + bias
  kAdd,        // y += sum + bias
  kSiluGated,  // y = SiLU(gate sum + bias) * (up sum + bias); gated weights alone
  kGeluGated,  // the same with GELU, tanh form
};

/// What is done to x before it is multiplied: norm(x[sources[r]]) takes the place of x[r], with the
/// bits of RmsNorm (rms_norm.h), and goes to `normed` as well.
struct MatMulNorm {
  NormParameters parameters{};       // weight null: none of this
  const int32_t* sources = nullptr;  // [rows] an input of the step; null: rows in order
  void* normed = nullptr;            // [rows, inputs], other memory than x and y
};

/// Where x comes from if it is the result of a short convolution: the bits of ShortConvolution, and
/// what it writes is written as well. For what FewRowsConvolve says alone.
struct MatMulConvolution {
  ConvolutionOperands<__nv_bfloat16> operands{};  // out null: none of this; x is not read
  const ConvolutionChunk* chunks = nullptr;       // [rows] of one row each; inputs of the step
  uint32_t* arrivals = nullptr;                   // [kArrivals] zeros, and zeros again afterwards
};
inline constexpr int kArrivals = 8;

/// What is done to y behind the product: normed = norm(y), with the bits of RmsNorm.
struct MatMulNextNorm {
  NormParameters parameters{};  // weight null: none of this
  void* normed = nullptr;       // [rows, outputs], other memory than x and y
};

/// x [rows, inputs] bf16; f32 for f32 weights. y [rows, outputs]. inputs is a multiple of 8.
struct MatMulOperands {
  void* y;
  bool y_is_f32;
  const void* x;
  int rows;
  Epilogue epilogue;
  int y_stride = 0;  // elements from one row of y to the next; 0: w.outputs
  MatMulNorm norm{};
  // Scratch for slices that several blocks sum; null or too short for them: one block does.
  float* slices = nullptr;
  int64_t slices_floats = 0;
  MatMulConvolution convolution{};
  MatMulNextNorm next{};  // only where MatMulNormsNext says so
};

/// Scratch that products of up to so many rows make use of on this device.
int64_t SliceFloatsMax(int rows);

/// Whether MatMul does operands.next too, in a kernel that it needs anyway.
bool MatMulNormsNext(const MatMulOperands& operands, const Weights& w);
cudaError_t MatMul(const MatMulOperands& operands, const Weights& w, cudaStream_t stream);

/// What a GPU has; the form of a kernel depends on it, its bits do not.
struct GpuLimits {
  int multiprocessors;
  int shared_max;  // bytes of shared memory a block may ask for
};
GpuLimits LimitsOfGpu();  // of the current device

/// The kernel for few rows, if it takes so many of these inputs there.
bool FewRowsFit(const Weights& w, int rows, const GpuLimits& gpu);
/// If it also norms so many: else MatMul queues a kernel for that.
bool FewRowsNorm(const Weights& w, int rows, const GpuLimits& gpu);
/// If it convolves so many of these, each a sequence's only row.
bool FewRowsConvolve(const Weights& w, int rows, int taps, const GpuLimits& gpu);
cudaError_t MatMulFewRows(const MatMulOperands& operands, const Weights& w, const GpuLimits& gpu,
                          cudaStream_t stream);

/// Which kernel runs may be forced by tests; the bits are the same. No kernel norms here.
enum class MatMulKernel { kFewRows, kWideTiles, kNarrowTiles };
/// InvalidValue where the kernel cannot take so many rows of so many inputs.
cudaError_t MatMulBy(MatMulKernel kernel, const MatMulOperands& operands, const Weights& w,
                     cudaStream_t stream);

}  // namespace neurogrid::kernels
