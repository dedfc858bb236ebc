// The order of steps is the contract in the header; here each costs only when its parameter is on.
#include "engine/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>

#include "common/check.h"
#include "common/rng.h"

namespace neurogrid {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kGreedyTemperature = 1e-5f;
constexpr float kBan = -100.0f;

/// Maps a float to an integer of the same order (no NaN); the compiler vectorises integer maxima.
int32_t OrderOf(float x) {
  const int32_t bits = std::bit_cast<int32_t>(x);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}
float FromOrder(int32_t order) {
  return std::bit_cast<float>(order ^ ((order >> 31) & 0x7fffffff));
}

struct Peak {
  float max = -kInfinity;
  bool finite = true;  // no NaN and no +inf
};

Peak PeakOf(absl::Span<const float> x) {
  int32_t order_max = std::numeric_limits<int32_t>::min();
  int32_t magnitude_max = 0;  // of NaN: above that of infinity
  for (const float value : x) {
    order_max = std::max(order_max, OrderOf(value));
    magnitude_max = std::max(magnitude_max, std::bit_cast<int32_t>(value) & 0x7fffffff);
  }
  Peak peak;
  peak.finite = magnitude_max <= std::bit_cast<int32_t>(kInfinity);
  if (!peak.finite || x.empty()) return peak;
  peak.max = FromOrder(order_max);
  peak.finite = peak.max < kInfinity;
  return peak;
}

/// Descending order of these numbers is (x descending, id ascending). -0 counts as +0.
uint64_t Pack(float x, int32_t id) {
  const auto order = static_cast<uint32_t>(OrderOf(x + 0.0f)) ^ 0x80000000u;
  return uint64_t{order} << 32 | static_cast<uint32_t>(~id);
}
float PackedValue(uint64_t packed) {
  return FromOrder(static_cast<int32_t>(static_cast<uint32_t>(packed >> 32) ^ 0x80000000u));
}
int32_t PackedId(uint64_t packed) { return ~static_cast<int32_t>(packed & 0xffffffffu); }

double SumOfExponentials(absl::Span<const float> x, float max) {
  double sum = 0;
  for (const float value : x) sum += std::exp(value - max);
  return sum;
}

/// The `count` largest raw logits, descending, ties by lowest id.
std::vector<TokenLogprob> Largest(absl::Span<const float> x, int count, double log_total) {
  std::vector<uint64_t> best;  // descending; a row rarely improves it, so insertion is cheap
  const auto kept = std::min(static_cast<size_t>(count), x.size());
  for (size_t i = 0; i < x.size() && kept > 0; ++i) {
    if (best.size() == kept && x[i] <= PackedValue(best.back())) continue;
    const uint64_t packed = Pack(x[i], static_cast<int32_t>(i));
    best.insert(std::upper_bound(best.begin(), best.end(), packed, std::greater<>()), packed);
    if (best.size() > kept) best.pop_back();
  }
  std::vector<TokenLogprob> top;
  for (const uint64_t packed : best) {
    top.push_back({PackedId(packed), static_cast<float>(double{PackedValue(packed)} - log_total)});
  }
  return top;
}

/// Keeps the best of x_i + Gumbel noise while ids come in any order.
class Draw {
 public:
  explicit Draw(const SamplingRow& row)
      : seed_(row.seed), position_(static_cast<uint32_t>(row.position)) {}

  void Offer(float x, int32_t id) {
    if (!(x > -kInfinity)) return;
    const auto block = static_cast<uint32_t>(id) / 4;
    // Noise lies in (-3.2, 22.9): u is at least 2^-33 away from 0 and from 1.
    if (double{x} + 22.9 < best_) return;
    if (block != block_) {
      words_ = Philox(seed_, {position_, block, 0, 0});
      block_ = block;
    }
    const uint32_t bits = words_[static_cast<size_t>(id) % 4];
    if (CannotWin(x, bits)) return;
    const double u = (static_cast<double>(bits) + 0.5) * 0x1p-32;
    const double score = double{x} - std::log(-std::log(u));
    if (score > best_ || (score == best_ && id < token_)) {
      best_ = score;
      token_ = id;
    }
  }
  int32_t token() const { return token_; }

 private:
  /// Spares the two logarithms: -log(u) >= 1 - u, so noise beats a lead d only if 1 - u <= exp(-d).
  /// exp(-d) <= 2^-floor(1.44 d), which is a test of leading bits; one bit is kept as margin.
  bool CannotWin(float x, uint32_t bits) const {
    const double lead = best_ - double{x};
    if (!(lead > 1.4)) return false;  // also while nothing is best yet
    const int leading_ones = std::min(static_cast<int>(lead * 1.44) - 1, 31);
    return leading_ones > 0 && std::countl_one(bits) < leading_ones;
  }

  uint64_t seed_;
  uint32_t position_;
  uint32_t block_ = std::numeric_limits<uint32_t>::max();
  std::array<uint32_t, 4> words_ = {};
  double best_ = -std::numeric_limits<double>::infinity();
  int32_t token_ = -1;
};

int32_t LowestIdOf(absl::Span<const float> x, float value) {
  return static_cast<int32_t>(std::find(x.begin(), x.end(), value) - x.begin());
}

}  // namespace

Sampler::Sampler(int vocab_size) { candidates_.reserve(static_cast<size_t>(vocab_size)); }

void Sampler::Edit(absl::Span<float> logits, int32_t id, float value) {
  float& logit = logits[static_cast<size_t>(id)];
  originals_.emplace_back(id, logit);
  logit = value;
}

/// Steps 1 to 3 up to the temperature.
void Sampler::ApplyEdits(absl::Span<float> logits, const SamplingRow& row) {
  for (const int32_t id : row.banned) Edit(logits, id, -kInfinity);
  for (const auto& [id, bias] : row.bias) {
    if (bias <= kBan) Edit(logits, id, -kInfinity);
  }
  for (const SamplingRow::Count& count : row.counts) {
    float x = logits[static_cast<size_t>(count.id)];
    if (count.in_window) x = x > 0 ? x / row.repetition_penalty : x * row.repetition_penalty;
    if (count.generated > 0) {
      x -= row.frequency_penalty * static_cast<float>(count.generated) + row.presence_penalty;
    }
    Edit(logits, count.id, x);
  }
  for (const auto& [id, bias] : row.bias) {
    if (bias > kBan) Edit(logits, id, logits[static_cast<size_t>(id)] + bias);
  }
}

float Sampler::RawOf(absl::Span<const float> logits, int32_t id) const {
  for (const auto& [edited, raw] : originals_) {
    if (edited == id) return raw;
  }
  return logits[static_cast<size_t>(id)];
}

/// Step 4 into candidates_, in no order. False when nothing is dropped, so
/// that the draw may read the row itself.
bool Sampler::Gather(absl::Span<const float> logits, const Scale& scale, const SamplingRow& row) {
  const size_t k = row.top_k > 0 ? static_cast<size_t>(row.top_k) : logits.size();
  const bool limit_count = k < logits.size();
  const bool limit_mass = row.top_p < 1;
  if (!limit_count && !limit_mass && row.min_p <= 0) return false;
  const float floor = row.min_p > 0 ? std::log(row.min_p) : -kInfinity;

  double total = 0;  // mass that top_p is a share of
  if (limit_mass && !limit_count) {
    for (const float logit : logits) {
      if (const float x = scale(logit); x >= floor) total += std::exp(x);
    }
  }
  // The answer is a prefix of the ids in descending order: they are taken from the top in layers
  // until a layer holds the answer, so that only few are ever sorted.
  for (const float depth : {-2.0f, -4.0f, -8.0f, -16.0f, -32.0f, -kInfinity}) {
    const float cutoff = std::max(depth, floor);
    candidates_.clear();
    double mass = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      const float x = scale(logits[i]);
      if (x < cutoff || x == -kInfinity) continue;
      candidates_.push_back(Pack(x, static_cast<int32_t>(i)));
      if (total > 0) mass += std::exp(x);
    }
    if (cutoff == floor) break;
    if (limit_count ? candidates_.size() >= k : limit_mass && mass >= row.top_p * total) break;
  }
  if (candidates_.size() > k) {
    const auto end = candidates_.begin() + static_cast<std::ptrdiff_t>(k);
    std::nth_element(candidates_.begin(), end, candidates_.end(), std::greater<>());
    candidates_.resize(k);
  }
  if (limit_mass) KeepMass(row.top_p, total);
  return true;
}

/// Keeps the shortest prefix of candidates_ in descending order with `share` of `total`; 0: of
/// their own mass. Halves the range in which the prefix ends until it is worth sorting: a flat row
/// has tens of thousands of candidates.
void Sampler::KeepMass(float share, double total) {
  const auto mass_of = [&](size_t first, size_t last) {
    double mass = 0;
    for (size_t i = first; i < last; ++i) mass += std::exp(PackedValue(candidates_[i]));
    return mass;
  };
  if (total == 0) total = mass_of(0, candidates_.size());
  const double wanted = share * total;
  const auto at = [&](size_t i) { return candidates_.begin() + static_cast<std::ptrdiff_t>(i); };
  size_t first = 0;  // everything before is kept: less than `wanted`
  size_t last = candidates_.size();
  double sum = 0;  // of everything before `first`
  while (last - first > 64) {
    const size_t middle = first + (last - first) / 2;
    std::nth_element(at(first), at(middle), at(last), std::greater<>());
    const double mass = mass_of(first, middle);
    if (sum + mass >= wanted) {
      last = middle;
    } else {
      sum += mass;
      first = middle;
    }
  }
  std::sort(at(first), at(last), std::greater<>());
  size_t kept = first;
  while (kept < last && (kept == 0 || sum < wanted)) {
    sum += std::exp(PackedValue(candidates_[kept++]));
  }
  candidates_.resize(kept);
}

SampledToken Sampler::Sample(absl::Span<float> logits, const SamplingRow& row) {
  SampledToken result;
  originals_.clear();
  Peak peak = PeakOf(logits);
  result.failed = !peak.finite || peak.max == -kInfinity;
  if (result.failed) return result;

  const bool report = row.top_logprobs >= 0 || row.target >= 0;
  double log_total = 0;
  if (report) {
    log_total = double{peak.max} + std::log(SumOfExponentials(logits, peak.max));
    result.top = Largest(logits, std::max(row.top_logprobs, 0), log_total);
  }
  const auto finish = [&](int32_t token) {
    result.token = token;
    if (report) result.logprob = static_cast<float>(double{RawOf(logits, token)} - log_total);
    return std::move(result);
  };
  if (row.target >= 0) return finish(row.target);

  ApplyEdits(logits, row);
  if (!originals_.empty()) peak = PeakOf(logits);
  result.failed = !peak.finite || peak.max == -kInfinity;
  if (result.failed) return result;
  if (row.temperature < kGreedyTemperature) return finish(LowestIdOf(logits, peak.max));

  const Scale scale{peak.max, row.temperature};
  Draw draw(row);
  if (Gather(logits, scale, row)) {
    for (const uint64_t packed : candidates_) draw.Offer(PackedValue(packed), PackedId(packed));
  } else {
    for (size_t i = 0; i < logits.size(); ++i) {
      draw.Offer(scale(logits[i]), static_cast<int32_t>(i));
    }
  }
  return finish(draw.token());
}

}  // namespace neurogrid
