#include "engine/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace neurogrid {
namespace {

using Scaling = RopeParameters::Scaling;

absl::Status CheckParameters(const RopeParameters& p, int half) {
  if (!(p.theta > 0)) return absl::InvalidArgumentError(absl::StrCat("rope theta is ", p.theta));
  if (p.scaling != Scaling::kNone && !(p.factor > 0)) {
    return absl::InvalidArgumentError(absl::StrCat("rope factor is ", p.factor));
  }
  const bool needs_original = p.scaling == Scaling::kLlama3 || p.scaling == Scaling::kYarn;
  if (needs_original && !(p.original_max_positions > 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("rope original_max_position_embeddings is ", p.original_max_positions));
  }
  if (p.scaling == Scaling::kLlama3 &&
      !(p.high_freq_factor > p.low_freq_factor && p.low_freq_factor > 0)) {
    return absl::InvalidArgumentError(absl::StrCat("rope low_freq_factor ", p.low_freq_factor,
                                                   " and high_freq_factor ", p.high_freq_factor,
                                                   " are not positive and ascending"));
  }
  if (p.scaling == Scaling::kYarn && !(p.theta > 1 && p.beta_fast > 0 && p.beta_slow > 0)) {
    return absl::InvalidArgumentError(absl::StrCat("rope theta ", p.theta, ", beta_fast ",
                                                   p.beta_fast, " or beta_slow ", p.beta_slow,
                                                   " is too small"));
  }
  if (!p.frequency_divisors.empty() && p.frequency_divisors.size() != static_cast<size_t>(half)) {
    return absl::InvalidArgumentError(absl::StrCat("rope has ", p.frequency_divisors.size(),
                                                   " frequency divisors but half a head has ", half,
                                                   " elements"));
  }
  for (const float divisor : p.frequency_divisors) {
    if (!(divisor > 0))
      return absl::InvalidArgumentError("a rope frequency divisor is not positive");
  }
  return absl::OkStatus();
}

/// Long waves are stretched by the factor, short ones kept, those between blended.
double Llama3(const RopeParameters& p, double f) {
  const double wavelength = 2 * std::numbers::pi / f;
  if (wavelength < p.original_max_positions / p.high_freq_factor) return f;
  if (wavelength > p.original_max_positions / p.low_freq_factor) return f / p.factor;
  const double smooth = (p.original_max_positions / wavelength - p.low_freq_factor) /
                        (p.high_freq_factor - p.low_freq_factor);
  return (1 - smooth) * f / p.factor + smooth * f;
}

/// The index whose wave turns `rotations` times over the original length.
double YarnBound(const RopeParameters& p, int head_dim, double rotations) {
  return head_dim * std::log(p.original_max_positions / (2 * std::numbers::pi * rotations)) /
         (2 * std::log(p.theta));
}

double Yarn(const RopeParameters& p, int head_dim, int j, double f) {
  double low = YarnBound(p, head_dim, p.beta_fast);
  double high = YarnBound(p, head_dim, p.beta_slow);
  if (p.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, head_dim - 1.0);
  if (low == high) high += 0.001;  // As the reference: no division by zero.
  const double ramp = std::clamp((j - low) / (high - low), 0.0, 1.0);
  return f / p.factor * ramp + f * (1 - ramp);
}

}  // namespace

absl::StatusOr<std::vector<float>> RopeFrequencies(const RopeParameters& p, int head_dim) {
  NG_CHECK(head_dim > 0 && head_dim % 2 == 0);
  const int half = head_dim / 2;
  NG_RETURN_IF_ERROR(CheckParameters(p, half));
  std::vector<float> frequencies(static_cast<size_t>(half));
  for (int j = 0; j < half; ++j) {
    double f = std::pow(p.theta, -2.0 * j / head_dim);
    switch (p.scaling) {
      case Scaling::kNone:
        break;
      case Scaling::kLinear:
        f /= p.factor;
        break;
      case Scaling::kLlama3:
        f = Llama3(p, f);
        break;
      case Scaling::kYarn:
        f = Yarn(p, head_dim, j, f);
        break;
    }
    const size_t index = static_cast<size_t>(j);
    if (!p.frequency_divisors.empty()) f /= static_cast<double>(p.frequency_divisors[index]);
    frequencies[index] = static_cast<float>(f);
  }
  return frequencies;
}

double RopeMagnitude(const RopeParameters& p) {
  if (p.scaling != Scaling::kYarn) return 1;
  if (p.attention_factor > 0) return p.attention_factor;
  return p.factor <= 1 ? 1 : 0.1 * std::log(p.factor) + 1;
}

absl::StatusOr<RopeTable> RopeTable::Make(const RopeParameters& parameters, int head_dim,
                                          int positions_max) {
  NG_ASSIGN_OR_RETURN(const std::vector<float> frequencies, RopeFrequencies(parameters, head_dim));
  const double magnitude = RopeMagnitude(parameters);
  RopeTable table;
  table.head_dim_ = head_dim;
  table.positions_max_ = positions_max;
  table.table_.resize(table.Offset(positions_max));
  const size_t half = frequencies.size();
  for (int position = 0; position < positions_max; ++position) {
    float* row = table.table_.data() + table.Offset(position);
    for (size_t j = 0; j < half; ++j) {
      // The reference multiplies in f32: the angle's rounding is part of the model.
      const float angle = static_cast<float>(position) * frequencies[j];
      row[j] = static_cast<float>(std::cos(static_cast<double>(angle)) * magnitude);
      row[half + j] = static_cast<float>(std::sin(static_cast<double>(angle)) * magnitude);
    }
  }
  return table;
}

}  // namespace neurogrid
