// LFM2's gated convolution over time, with its last products kept in slots:
//
//   g[t, c]   = B[t, c] * U[t, c] of the sequence; before its first row those of its source slot
//   z[t, c]   = bias[c] + sum over j < K of taps[j, c] * g[t - (K - 1) + j, c], j ascending
//   out[t, c] = C[t, c] * z[t, c]
//
// g, z and out are rounded to T, sums are f32 multiply-adds. A thread takes 16 bytes of
// up to four rows of a sequence and the products before them, so chunks are independent; taps are
// there before the predecessor has ended. A single row is bound by latency, many by memory.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

namespace neurogrid::kernels {

/// Rows of one sequence. The products before the sequence's first row come from `source`: a slot,
/// oldest first, or -1: zeros.
struct ConvolutionChunk {
  int32_t first_row;   // of the sequence, in the batch
  int32_t first;       // of this chunk, in the sequence
  int32_t rows;        // of this chunk
  int32_t whole_rows;  // of the sequence
  int32_t source;
  int32_t slot;  // written with the last products of the sequence; -1: none
};

struct ConvolutionSequence {
  int32_t first_row;
  int32_t rows;
  int32_t source;
  int32_t slot;
};
/// Appends a sequence's chunks: those that may write their slot at once, and in `states` the ones
/// whose slot is written when all chunks have been computed.
void AddSequence(const ConvolutionSequence& sequence, std::vector<ConvolutionChunk>& chunks,
                 std::vector<ConvolutionChunk>& states);

template <typename T>
struct ConvolutionOperands {
  T* out;             // [rows, columns]
  const T* bcu;       // [rows, 3 * columns]
  const float* taps;  // [taps_count, columns]
  const float* bias;  // [columns]; or null
  T* state;  // slot i: [taps_count - 1, columns] at state + i * slot_stride, all aligned to 16
             // bytes
  int64_t slot_stride;
  int columns;
  int taps_count;
};

/// chunks, states: inputs of the step. At most 16 taps, else InvalidValue. T: float or
/// __nv_bfloat16.
template <typename T>
cudaError_t ShortConvolution(const ConvolutionOperands<T>& operands, const ConvolutionChunk* chunks,
                             int chunks_count, const ConvolutionChunk* states, int states_count,
                             cudaStream_t stream);

}  // namespace neurogrid::kernels
