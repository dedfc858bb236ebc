#include "coordinator/bench.h"

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "common/json.h"

namespace neurogrid {
namespace {

using Clock = std::chrono::steady_clock;

/// Sequences that advance together; sequence s owns its own run of pages, and its slot.
class Sequences {
 public:
  Sequences(int count, int tokens_max, const BatchLimits& limits)
      : count_(count), pages_each_((tokens_max + kPageTokens - 1) / kPageTokens), limits_(limits) {}

  int pages() const { return count_ * pages_each_; }

  /// The next `rows` tokens of every sequence, the last row of each sampled greedily.
  Batch Next(int rows) {
    Batch batch;
    batch.sequence_offsets = {0};
    batch.page_offsets = {0};
    for (int s = 0; s < count_; ++s) {
      for (int r = 0; r < rows; ++r) {
        batch.tokens.push_back((7919 * (position_ + r) + 31 * s + 1) % limits_.vocab_size);
        batch.positions.push_back(position_ + r);
      }
      batch.sequence_offsets.push_back(batch.rows());
      const int used = (position_ + rows + kPageTokens - 1) / kPageTokens;
      for (int p = 0; p < used; ++p) {
        const int page = s * pages_each_ + p;
        batch.pages.push_back(limits_.pages > 0 ? page : -1);
        if (limits_.window > 0) batch.window_pages.push_back(page);
      }
      batch.page_offsets.push_back(static_cast<int>(batch.pages.size()));
      const bool recurrent = limits_.slots > 0;
      batch.state_slots.push_back(recurrent ? s : -1);
      batch.state_sources.push_back(recurrent && position_ > 0 ? s : -1);
      batch.sampled_rows.push_back(batch.rows() - 1);
      SamplingRow sampling;
      sampling.temperature = 0;
      sampling.position = position_ + rows;
      batch.sampling.push_back(sampling);
    }
    position_ += rows;
    return batch;
  }

 private:
  int count_;
  int pages_each_;
  BatchLimits limits_;
  int position_ = 0;
};

struct Case {
  std::string name;
  int sequences = 1;
  int steps = 1;
  int rows = 1;  // of a sequence in a step

  int tokens() const { return sequences * steps * rows; }
};

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

absl::StatusOr<double> TimeOnce(const BenchTarget& target, const Case& c) {
  Sequences sequences(c.sequences, c.steps * c.rows + 1, target.limits);
  const int pages = std::max(target.limits.pages, target.limits.window_pages);
  if (sequences.pages() > pages) {
    return absl::ResourceExhaustedError(absl::StrCat(c.name, " of ", c.sequences,
                                                     " sequences needs ", sequences.pages(),
                                                     " pages; the stage has ", pages));
  }
  if (c.rows == 1) {  // decoding starts behind one token
    NG_RETURN_IF_ERROR(target.run(sequences.Next(1)).status());
  }
  const Clock::time_point begin = Clock::now();
  for (int step = 0; step < c.steps; ++step) {
    NG_RETURN_IF_ERROR(target.run(sequences.Next(c.rows)).status());
  }
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

absl::StatusOr<BenchResult> Measure(const BenchTarget& target, const Case& c, int rounds) {
  NG_RETURN_IF_ERROR(TimeOnce(target, c).status());  // warm-up
  std::vector<double> speeds, read_shares, matmul_shares;
  // What one run reads: the weights once a step, and each token's cache once for each row after it.
  double context = 0;
  for (int step = 0; step < c.steps; ++step) context += (step + 1.0) * c.rows * c.sequences;
  const double bytes =
      static_cast<double>(c.steps) * static_cast<double>(target.weight_bytes_per_step) +
      context * static_cast<double>(target.kv_bytes_per_token);
  const double operations =
      2.0 * c.tokens() * static_cast<double>(target.parameters_body) +
      2.0 * c.steps * c.sequences * static_cast<double>(target.parameters_head);
  for (int round = 0; round < rounds; ++round) {
    const BenchTarget::Floor floor = target.floor();
    NG_ASSIGN_OR_RETURN(const double seconds, TimeOnce(target, c));
    speeds.push_back(c.tokens() / seconds);
    read_shares.push_back(bytes / seconds / floor.read_bandwidth);
    matmul_shares.push_back(operations / seconds / floor.matmul_rate);
  }
  BenchResult result;
  result.name = c.name;
  result.sequences = c.sequences;
  result.tokens = c.tokens();
  result.tokens_per_s = Median(speeds);
  result.tokens_per_s_min = *std::min_element(speeds.begin(), speeds.end());
  result.tokens_per_s_max = *std::max_element(speeds.begin(), speeds.end());
  result.bytes_per_s = bytes * result.tokens_per_s / c.tokens();
  result.read_share = Median(read_shares);
  result.operations_per_s = operations * result.tokens_per_s / c.tokens();
  result.matmul_share = Median(matmul_shares);
  return result;
}

void PrintJson(const BenchTarget& target, const BenchResult& r, int rounds) {
  Json line = Json(Json::Object());
  line.Set("engine", Json("neurogrid " NG_VERSION));
  line.Set("model", Json(target.model));
  line.Set("precision", Json(target.precision));
  line.Set("device", Json(target.device));
  line.Set("threads", Json(target.threads));
  line.Set("case", Json(r.name));
  line.Set("sequences", Json(r.sequences));
  line.Set("tokens", Json(r.tokens));
  line.Set("rounds", Json(rounds));
  line.Set("bytes_per_step", Json(target.weight_bytes_per_step));
  line.Set("tokens_per_s", Json(r.tokens_per_s));
  line.Set("tokens_per_s_min", Json(r.tokens_per_s_min));
  line.Set("tokens_per_s_max", Json(r.tokens_per_s_max));
  line.Set("gb_per_s", Json(r.bytes_per_s / 1e9));
  line.Set("share_of_raw_read", Json(r.read_share));
  line.Set("gop_per_s", Json(r.operations_per_s / 1e9));
  line.Set("share_of_dot_peak", Json(r.matmul_share));
  std::printf("%s\n", ToString(line).c_str());
  std::fflush(stdout);
}

void PrintRow(const BenchResult& r) {
  std::printf("%-8s %9d %7d %10.1f  (%.1f to %.1f) %8.1f %7.0f %% %9.0f %7.0f %%\n", r.name.c_str(),
              r.sequences, r.tokens, r.tokens_per_s, r.tokens_per_s_min, r.tokens_per_s_max,
              r.bytes_per_s / 1e9, r.read_share * 100, r.operations_per_s / 1e9,
              r.matmul_share * 100);
  std::fflush(stdout);
}

absl::StatusOr<std::vector<Case>> Cases(const BenchTarget& target, const BenchOptions& options) {
  std::vector<Case> cases;
  const int prompt = std::min(options.prompt_tokens, target.limits.rows_max);
  cases.push_back({"prefill", 1, 1, prompt});
  cases.push_back({"decode", 1, options.decode_tokens, 1});
  for (const absl::string_view word : absl::StrSplit(options.batches, ',', absl::SkipEmpty())) {
    int sequences = 0;
    if (!absl::SimpleAtoi(word, &sequences) || sequences < 1 ||
        sequences > target.limits.sequences_max) {
      return absl::InvalidArgumentError(absl::StrCat("--batches: \"", word,
                                                     "\" must be a whole number from 1 to ",
                                                     target.limits.sequences_max));
    }
    if (sequences > 1) cases.push_back({"batch", sequences, options.decode_tokens, 1});
  }
  return cases;
}

}  // namespace

absl::StatusOr<std::vector<BenchResult>> RunBench(const BenchTarget& target,
                                                  const BenchOptions& options) {
  NG_ASSIGN_OR_RETURN(const std::vector<Case> cases, Cases(target, options));
  if (!options.json) {
    std::printf("%s %s on %s, %d threads; %.3f GB a step; median of %d rounds (least to most)\n",
                target.model.c_str(), target.precision.c_str(), target.device.c_str(),
                target.threads, static_cast<double>(target.weight_bytes_per_step) / 1e9,
                options.rounds);
    std::printf(
        "case     sequences  tokens      tok/s                       GB/s  of read     Gop/s  of "
        "peak\n");
  }
  std::vector<BenchResult> results;
  for (const Case& c : cases) {
    NG_ASSIGN_OR_RETURN(BenchResult result, Measure(target, c, options.rounds));
    if (options.json) {
      PrintJson(target, result, options.rounds);
    } else {
      PrintRow(result);
    }
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace neurogrid
