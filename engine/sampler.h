// Draws one token from one row of logits: the last thing the last stage does.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "engine/batch.h"

namespace neurogrid {

/// A pure function of a row of logits and its SamplingRow, in this order, in float32:
///
///   1. lp = log_softmax(logits): what logprobs report. Banned ids and ids with bias <= -100 become
///      -inf.
///   2. Ids with in_window: x > 0 ? x / r : x * r, r = repetition_penalty. Then
///      x -= frequency_penalty * generated + presence_penalty * (generated > 0).
///   3. x += bias. temperature < 1e-5: the largest, the lowest id on ties. Else x = (x - max) / T.
///   4. min_p: drops p < min_p * p_max. top_k: keeps exactly k, ties by lowest id. top_p over the
///      renormalised rest: the shortest prefix by (p descending, id ascending) that sums to at
///      least top_p, one id at least.
///   5. argmax of x_i - log(-log(u_i)) (the Gumbel-max trick), u_i = (bits + 0.5) * 2^-32 with bits
///      of Philox4x32-10, key = seed, counter = (position, id / 4), word id % 4.
///
/// No sum decides the draw of step 5 and no state is kept, so neither batch mates nor the order of
/// arrival can change a token. A NaN or +inf among the logits, or nothing left to draw, fails the
/// row.
class Sampler {
 public:
  /// Holds memory for rows of `vocab_size` ids; drawing allocates nothing that grows with it.
  explicit Sampler(int vocab_size);

  /// `logits` [vocab_size]; penalties and bans are written into it. Padded ids of the model stay
  /// out of it.
  SampledToken Sample(absl::Span<float> logits, const SamplingRow& row);

  static int64_t ScratchBytes(int vocab_size) {
    return int64_t{vocab_size} * static_cast<int64_t>(sizeof(uint64_t));
  }

 private:
  /// Step 3: x = (logit - max) / T, so the largest is 0 and nothing overflows for any T.
  struct Scale {
    float max = 0;
    float temperature = 1;
    float operator()(float logit) const { return (logit - max) / temperature; }
  };

  void Edit(absl::Span<float> logits, int32_t id, float value);
  void ApplyEdits(absl::Span<float> logits, const SamplingRow& row);
  float RawOf(absl::Span<const float> logits, int32_t id) const;
  bool Gather(absl::Span<const float> logits, const Scale& scale, const SamplingRow& row);
  void KeepMass(float share, double total);

  std::vector<uint64_t> candidates_;                  // (order of x, ~id) packed: larger is better
  std::vector<std::pair<int32_t, float>> originals_;  // raw values of edited ids, first edit first
};

}  // namespace neurogrid
