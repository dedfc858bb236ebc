// Draws one token from each row of logits, on the device: a pure function of the row and its
// parameters, in this order, in f32:
//
//   1. lp = log_softmax(logits): what logprobs report. Banned ids become -inf.
//   2. Ids with in_window: x > 0 ? x / r : x * r. Then x -= frequency * generated + presence where
//      generated > 0. Then x += bias.
//   3. temperature < 1e-5: the largest, the lowest id on ties. Else x = (x - max) / temperature.
//   4. min_p: drops p < min_p * p_max. top_k: keeps exactly k, ties by lowest id. top_p over the
//      rest: the shortest prefix by (p descending, id ascending) with at least top_p of its mass.
//   5. argmax of x_i - log(-log(u_i)), u_i = (bits + 0.5) * 2^-32 with bits of Philox4x32-10, key =
//      seed, counter = (position, id / 4), word id % 4.
//
// Slices of 1024 ids of all rows run side by side, in two to five kernels:
//
//   peaks       the largest of each slice, behind its edits; sums and largest for logprobs
//   histogram   rows with top_k: how many lie in each of 2048 bins of x; rows with top_p alone: how
//               much probability. Masses are integers of 2^-40, so no sum has an order
//   cut         rows with either: the bin in which the row is cut
//   draw        rows that draw: ids in bins above that compete at once, those in it are listed
//   finish      one block a row: cuts the list exactly, up to 256 ids by comparing each with all,
//               more by sorting them; merges the slices
//
// Where the list would be too long, finish cuts the whole row by itself. Bound by latency for few
// rows: one or two microseconds a kernel.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace neurogrid::kernels {

inline constexpr int kTopLogprobsMax = 20;

/// What a row does to one id. Those of a row lie in ascending order of ids; several of one id
/// apply in the order in which they lie.
struct LogitEdit {
  enum Kind : int32_t { kBan, kCount, kBias };
  int32_t id;
  Kind kind;
  int32_t generated;  // kCount: times in the output
  int32_t in_window;  // kCount
  float bias;         // kBias
};

struct SamplerRow {
  uint64_t seed;
  int32_t position;
  float temperature;
  float top_p;
  float min_p;
  int32_t top_k;  // <= 0: off
  float repetition_penalty;
  float presence_penalty;
  float frequency_penalty;
  int32_t top_logprobs;  // -1: no logprobs
  int32_t target;        // >= 0: draw nothing, report this id
  int32_t first_edit;
  int32_t edits;
  int32_t result;  // its place among the results; -1: nothing is wanted of the row

  __host__ __device__ bool draws() const { return target < 0 && !(temperature < 1e-5f); }
  __host__ __device__ bool limited() const { return draws() && (top_k > 0 || top_p < 1); }
};

struct SamplerResult {
  int32_t token;
  float logprob;   // 0 unless asked for
  int32_t failed;  // NaN or +inf among the logits, or nothing left to draw
  int32_t top_count;
  int32_t top_ids[kTopLogprobsMax];  // descending, ties by lowest id
  float top_logprobs[kTopLogprobsMax];
};

struct SamplerOperands {
  float* logits;  // [rows, stride]; edited
  int64_t stride;
  int vocab_size;
  const SamplerRow* rows;  // [rows]  an input of the step
  const LogitEdit* edits;  // of all rows; an input of the step
  float* raw;              // [edits]: scratch
  void* scratch;           // SamplerScratchBytes
  SamplerResult* results;  // at the places that the rows name
  int32_t* drawn;          // [rows]  the token again, where the next step finds it
};

/// What the host knows of the rows; kernels that no row needs are left out.
struct SamplerNeeds {
  bool draws;    // some row draws
  bool limited;  // some row is limited
};

int64_t SamplerScratchBytes(int rows, int vocab_size);

cudaError_t Sample(const SamplerOperands& operands, int rows, const SamplerNeeds& needs,
                   cudaStream_t stream);

}  // namespace neurogrid::kernels
