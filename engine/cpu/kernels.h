// The single-threaded kernels, compiled once for each instruction set: what matmul.cc, attention.cc
// and their neighbours split over threads. Every entry gives the same bits in every set.
#pragma once

#include <cstdint>

#include "engine/cpu/cpu_features.h"
#include "engine/cpu/packed_matrix.h"

namespace neurogrid {

inline constexpr int kPanelRowsMax =
    192;  // rows of one PanelJob: 48 KiB of sums, beside a panel in L2

/// Activations of int8-a8 share a scale in groups of so many inputs.
inline constexpr int64_t kA8GroupInputs = 128;

/// Beside rows of int8: what each group's integers count, and where its sum starts: -128 times the
/// sum of its integers, which takes back the 128 that is added to every weight.
struct A8Groups {
  const float* scales;    // [rows][count]
  const int32_t* starts;  // [rows][count]
  int64_t count;          // of a row
};

/// Beside rows of 16-bit integers in blocks of kGroupBlockInputs, for weights in groups.
struct GroupedRows {
  const float* scales;  // [rows][blocks] powers of two
  int64_t scales_stride;
  const int32_t* sums;  // [rows][groups] of the integers
  int64_t sums_stride;
};

/// Beside rows of 8-bit integers, for weights in groups: of each unit of 32 or 256 inputs a scale.
struct ByteRows {
  const float* scales;  // [rows][units]
  int64_t scales_stride;
  const float* totals;  // [rows][groups] sums of the integers times their scale; units of 32 only
  const int16_t* sums;  // [rows][groups] sums of the integers; units of 256 only
  int64_t sums_stride;  // of either
};

enum class Epilogue { kStore, kAdd, kSiluGated, kGeluGated };

/// One panel of weights times some rows of activations.
struct PanelJob {
  PackedMatrix::Format format;
  Epilogue epilogue;
  const GroupFormat* groups;  // kGroups only
  const uint8_t* panel;       // [steps][64][4 bytes], [steps][64][2] int8, or blocks of groups
  const uint8_t* next_panel;  // what this thread will probably read next; null: nothing
  const float* w_scales;      // [64]; int8 and int8-a8 only
  const float* bias;          // [outputs]; or null. Of the gate when gated
  const float* up_bias;       // [outputs]; or null. Gated only
  const uint8_t* x;  // [rows] of steps * 4 bytes: two bf16 or int16, four int8, or one f32 a step
  int64_t x_stride_bytes;
  const float* x_scales;  // [rows]; int8 only
  A8Groups x_groups;      // int8-a8 only
  bool x_is_bytes;        // kGroups only: int8 with x_bytes, else split int16 with x_blocks
  GroupedRows x_blocks;
  ByteRows x_bytes;
  int64_t steps;
  int rows;    // at most kPanelRowsMax
  uint8_t* y;  // [rows][outputs]
  int64_t y_stride_bytes;
  bool y_is_bf16;
  int outputs;  // values to write a row: at most 64, or 32 when gated
};

inline constexpr int kSplitTokens = 256;      // of one attention split
inline constexpr int kAttentionRowsMax = 24;  // (query, head) rows that share each load of K and V
inline constexpr int kAttentionJobRowsMax = 64;  // of all kv heads of a job; a multiple of 16

/// Queries at consecutive positions times heads of one kv head, or of several, over one sequence's
/// pages. Row r of a kv head is query r / heads, head r % heads; the next kv head's rows follow.
struct AttentionJob {
  bool is_bf16;      // pages, q and out; else f32
  const uint8_t* q;  // [queries] rows of [kv_heads][heads][head_dim]
  int64_t q_stride_bytes;
  uint8_t* out;  // as q
  int64_t out_stride_bytes;
  int queries;
  int kv_heads;
  int heads;  // of each kv head
  int head_dim;
  int first_position;  // of query 0
  float scale;
  float softcap;          // 0: none
  int window;             // 0: none
  const uint8_t* keys;    // the first kv head's tile in page 0; the next head's follows
  const uint8_t* values;  // as keys
  int64_t stride_bytes;   // from page to page
  int64_t tile_bytes;
  const int32_t* pages;  // of the sequence, from position 0

  int head_rows() const { return queries * heads; }
  int rows() const { return kv_heads * head_rows(); }
  /// Whether tiles are read in the order of memory.
  bool streams() const { return kv_heads > 1; }
  int padded_dim() const { return (head_dim + 15) / 16 * 16; }
  int last_position() const { return first_position + queries - 1; }
  int first_key(int position) const {
    return window > 0 && position >= window ? position - window + 1 : 0;
  }
  int first_split() const { return first_key(first_position) / kSplitTokens; }
  int last_split() const { return last_position() / kSplitTokens + 1; }  // half-open
};

/// Floats of a softmax state: maximum and sum of each row (kAttentionJobRowsMax slots each), then
/// outputs [rows][padded_dim].
constexpr int64_t AttentionStateFloats(int rows, int padded_dim) {
  return 2 * kAttentionJobRowsMax + int64_t{rows} * padded_dim;
}

/// Floats of scores, probabilities, queries and one split's state.
constexpr int64_t AttentionWorkFloats(int padded_dim) {
  return 2 * kAttentionJobRowsMax * kSplitTokens + kAttentionJobRowsMax * padded_dim +
         AttentionStateFloats(kAttentionJobRowsMax, padded_dim);
}

/// Some channels of one sequence through a short convolution. Pointers stand at the first of them.
struct ConvolutionJob {
  bool is_bf16;      // activations and states; else f32
  int rows;          // of the sequence in this batch
  int channels;      // of this job
  int taps_count;    // at most kConvolutionTapsMax
  const uint8_t* b;  // [rows]
  const uint8_t* c;  // [rows]
  const uint8_t* u;  // [rows]
  int64_t in_stride_bytes;
  uint8_t* out;  // [rows]
  int64_t out_stride_bytes;
  const float* taps;  // [taps_count] rows of taps_stride
  int64_t taps_stride;
  const float* bias;      // or null
  const uint8_t* source;  // [taps_count - 1] rows of the state read, or null: zeros
  uint8_t* target;        // the same of the state written, perhaps the source; or null
  int64_t state_stride_bytes;
};

struct Kernels {
  void (*multiply_panel)(const PanelJob& job);

  /// q[i] = round(x[i] * 32767 / max|x|) and returns max|x| / 32767; a NaN, and zeros, when x is
  /// not finite. q has room for a multiple of 16, which is filled with zeros.
  float (*quantize_row)(const uint16_t* x, int64_t count, int16_t* q);

  /// Each kA8GroupInputs inputs times an orthogonal matrix that makes one large value many middling
  /// ones: Hadamard's of 128, divided by sqrt(128). The last inputs, if fewer, in blocks of 64, 32
  /// and 16, each at most once; those that fill none stay. What it does it also takes back.
  void (*spread_inputs)(float* x, int64_t count);

  /// Of each kA8GroupInputs inputs, after spread_inputs: q[i] = round(x[i] * 127 / max|x|), the
  /// scale max|x| / 127, a NaN where x is not finite, and start = -128 * (the sum of q). q as in
  /// quantize_row.
  void (*quantize_groups)(const uint16_t* x, int64_t count, int8_t* q, float* scales,
                          int32_t* starts);

  /// Of each kGroupBlockInputs inputs: q[i] = round(x[i] / scale), to even where two are as near.
  /// The scale is 2^-15 times a power of two, the least for which |q| stays below 32640, but 2^-115
  /// at least; a NaN, and zeros in q, where x is not finite. sums_of_16[i] = the sum of q[16 * i
  /// ...], sums_of_32 likewise. q is in an order of its own, 2 bytes an input; count is a multiple
  /// of 32.
  void (*quantize_blocks)(const uint16_t* x, int64_t count, uint8_t* q, float* scales,
                          int32_t* sums_of_16, int32_t* sums_of_32);

  /// Of each unit of `unit_inputs` inputs, 32 or 256: q[i] = round(x[i] * 127 / max|x|), the scale
  /// max|x| / 127, a NaN where x is not finite. sums_of_16[i] = the sum of q[16 * i ...],
  /// sums_of_32 likewise. count is a multiple of 32.
  void (*quantize_units)(const uint16_t* x, int64_t count, int64_t unit_inputs, int8_t* q,
                         float* scales, int16_t* sums_of_16, int16_t* sums_of_32);

  /// state = the splits [first, last) merged in order. `work`: AttentionWorkFloats.
  void (*attend)(const AttentionJob& job, int first_split, int last_split, float* state,
                 float* work);
  /// state = state merged with `next`, whose keys come after.
  void (*merge_attention)(const AttentionJob& job, float* state, const float* next);
  void (*finish_attention)(const AttentionJob& job, const float* state);

  /// y = w * x / sqrt(mean(x^2) + epsilon), see elementwise.h.
  void (*rms_norm_bf16)(uint16_t* y, const uint16_t* x, const float* w, int64_t count,
                        float epsilon, bool rounds_before_weight);
  void (*rms_norm_f32)(float* y, const float* x, const float* w, int64_t count, float epsilon);

  /// Rotates a head of 2 * half elements in place.
  void (*rotate_bf16)(uint16_t* x, const float* cosines, const float* sines, int half);
  void (*rotate_f32)(float* x, const float* cosines, const float* sines, int half);

  /// The contract of Ops::ShortConvolution for one job.
  void (*convolve)(const ConvolutionJob& job);

  /// y = cap * tanh(y / cap).
  void (*softcap)(float* y, int64_t count, float cap);

  double (*sum_of_exponentials)(const float* values, int64_t count, float maximum, float scale);

  /// Reads `bytes`, a multiple of 256, as fast as memory gives them; the result only keeps the
  /// reads.
  float (*sum_memory)(const uint8_t* data, int64_t bytes);
  /// `rounds` rounds of independent bf16 dot products in registers, peak_operations in each.
  float (*chain_dots)(int64_t rounds);
  int64_t peak_operations;
};

const Kernels& KernelsFor(InstructionSet set);

extern const Kernels kAvx2Kernels;
extern const Kernels kAvxVnniKernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kAvx512VnniKernels;
extern const Kernels kAvx512Bf16Kernels;

}  // namespace neurogrid
