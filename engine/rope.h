// Rotary position embedding: tables of cosines and sines.
#pragma once

#include <cstdint>
#include <vector>

#include "common/status.h"
#include "engine/model/model_config.h"

namespace neurogrid {

/// cos and sin of position * f_j for j < head_dim / 2, with the frequencies of models.md 2.4.
/// Rotation pairs element j with j + head_dim / 2:
///
///   x'[j]                = x[j] cos - x[j + head_dim / 2] sin
///   x'[j + head_dim / 2] = x[j + head_dim / 2] cos + x[j] sin
class RopeTable {
 public:
  RopeTable() = default;
  /// InvalidArgument when a parameter makes no frequency: a factor or theta that is not positive,
  /// an original length that is missing, divisors of another count than head_dim / 2.
  static absl::StatusOr<RopeTable> Make(const RopeParameters& parameters, int head_dim,
                                        int positions_max);

  int head_dim() const { return head_dim_; }
  int positions_max() const { return positions_max_; }
  int64_t bytes() const { return static_cast<int64_t>(table_.size() * sizeof(float)); }
  /// [head_dim / 2] each.
  const float* cosines(int position) const { return table_.data() + Offset(position); }
  const float* sines(int position) const { return cosines(position) + head_dim_ / 2; }

 private:
  size_t Offset(int position) const { return static_cast<size_t>(position) * head_dim_; }

  int head_dim_ = 0;
  int positions_max_ = 0;
  std::vector<float> table_;  // [positions_max][2][head_dim / 2]
};

/// The frequencies f_j, j < head_dim / 2, in radians a position, rounded to f32 as the reference
/// does.
absl::StatusOr<std::vector<float>> RopeFrequencies(const RopeParameters& parameters, int head_dim);

/// What cosines and sines are multiplied by: YaRN's attention factor, 1 elsewhere.
double RopeMagnitude(const RopeParameters& parameters);

}  // namespace neurogrid
