#include "engine/bench/bench.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/bench/bench_batches.h"
#include "engine/bench/bench_report.h"
#include "engine/bench/bench_work.h"
#include "engine/bench/busy_threads.h"
#include "engine/bench/processor_time.h"
#include "engine/ops.h"
#include "engine/stage.h"

namespace neurogrid {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Reads a byte of every page that tensors lie on, which brings files into memory. What it returns
/// only keeps the reads.
uint8_t ReadFiles(const WeightStore& weights) {
  constexpr int64_t kPageBytes = 4096;
  uint8_t sum = 0;
  for (const auto& [name, entry] : weights.entries()) {
    const int64_t bytes = entry.cycle_elements > 0
                              ? BytesOf(entry.tensor.dtype, entry.cycle_elements)
                              : entry.tensor.bytes();
    const auto* data = static_cast<const volatile uint8_t*>(entry.tensor.data);
    for (int64_t at = 0; at < bytes; at += kPageBytes) sum ^= data[at];
  }
  return sum;
}

/// Loads the stage, phase by phase.
absl::StatusOr<std::unique_ptr<Stage>> TimedLoad(const Checkpoint& checkpoint, Device& device,
                                                 const StageOptions& options,
                                                 BenchSubject& subject) {
  const Clock::time_point start = Clock::now();
  ReadFiles(checkpoint.weights());
  subject.read_s = SecondsSince(start);
  const OwnTime before = ReadOwnTime();
  NG_ASSIGN_OR_RETURN(std::unique_ptr<Stage> stage, Stage::Load(checkpoint, device, options));
  const OwnTime after = ReadOwnTime();
  subject.load_s = SecondsSince(start);
  const Batch first = BenchBatch(options.limits, 1, 1, 0, 1);
  NG_RETURN_IF_ERROR(stage->Run(first, ConstTensor()).status());
  subject.first_token_s = SecondsSince(start);
  subject.pack_cpu_s = after.program_s - before.program_s;
  subject.touch_cpu_s = after.system_s - before.system_s;
  return stage;
}

/// One run of all steps of a case.
struct Run {
  double seconds = 0;
  HostWork work;
  double library_s = 0;
  double busy_s = 0;        // beside busy threads; 0: not measured
  DeviceCeilings ceilings;  // of the same round
};

/// The middle of what `of` makes of each run.
template <typename Of>
Spread SpreadOf(const std::vector<Run>& runs, Of of) {
  std::vector<double> values;
  for (const Run& run : runs) values.push_back(of(run));
  std::sort(values.begin(), values.end());
  return {values[values.size() / 2], values.front(), values.back()};
}

class Bench {
 public:
  Bench(Device& device, Stage& stage, const BenchModel& model, bool gpu)
      : device_(device), stage_(stage), model_(model), limits_(stage.options().limits), gpu_(gpu) {}

  /// Gives the pages of the case their content, and lets whatever is made once be made.
  absl::Status Prepare(const BenchCase& c);
  absl::StatusOr<Run> Time(const BenchCase& c);
  /// Of the vendor's library, for all steps; measured once a round for each size of step.
  absl::StatusOr<double> LibrarySeconds(const BenchCase& c);
  void BeginRound() { library_.clear(); }

 private:
  Batch BatchOf(const BenchCase& c, int step) const;

  Device& device_;
  Stage& stage_;
  const BenchModel& model_;
  BatchLimits limits_;
  bool gpu_;
  int filled_ = 0;                                 // pages
  std::map<std::pair<int, int>, double> library_;  // of (rows, samples)
};

absl::Status Bench::Prepare(const BenchCase& c) {
  const int at_once = std::max(1, limits_.rows_max / kPageTokens);
  const int pages = c.depth > 0 ? c.sequences * c.pages_each() : 0;
  const int last_whole = limits_.positions_max / kPageTokens;
  while (filled_ < pages && limits_.rows_max >= kPageTokens) {
    const int count = std::min({pages - filled_, at_once, last_whole});
    const Batch batch = FillingBatch(limits_, filled_, count);
    NG_RETURN_IF_ERROR(stage_.Run(batch, ConstTensor()).status());
    filled_ += count;
  }
  constexpr int kWarmSteps = 8;
  for (int step = 0; step < std::min(c.steps, kWarmSteps); ++step) {
    NG_RETURN_IF_ERROR(stage_.Run(BatchOf(c, step), ConstTensor()).status());
  }
  return absl::OkStatus();
}

Batch Bench::BatchOf(const BenchCase& c, int step) const {
  const int position = c.first_position() + step * c.rows;
  return BenchBatch(limits_, c.sequences, c.pages_each(), position, c.RowsOf(step));
}

absl::StatusOr<Run> Bench::Time(const BenchCase& c) {
  if (c.depth == 0 && c.first_position() == 1) {  // the token behind which it decodes
    const Batch first = BenchBatch(limits_, c.sequences, c.pages_each(), 0, 1);
    NG_RETURN_IF_ERROR(stage_.Run(first, ConstTensor()).status());
  }
  std::vector<Batch> batches;  // before the clock starts: making them is the bench's work
  for (int step = 0; step < c.steps; ++step) batches.push_back(BatchOf(c, step));
  // As a coordinator with a GPU: the next step is sent before the tokens of this one are known.
  const bool ahead = gpu_ && c.kind != BenchCase::Kind::kPrefill;
  for (size_t step = 1; ahead && step < batches.size(); ++step) {
    for (int row = 0; row < batches[step].rows(); ++row) {
      batches[step].tokens[static_cast<size_t>(row)] = DrawnBefore(row);
    }
  }
  const HostWork before = device_.ops().Work();
  const Clock::time_point start = Clock::now();
  for (size_t step = 0; step < batches.size(); ++step) {
    NG_RETURN_IF_ERROR(stage_.Queue(batches[step], ConstTensor()));
    if (!ahead || step > 0) NG_RETURN_IF_ERROR(stage_.Collect().status());
  }
  if (ahead) NG_RETURN_IF_ERROR(stage_.Collect().status());
  Run run;
  run.seconds = SecondsSince(start);
  const HostWork after = device_.ops().Work();
  run.work = {after.launches - before.launches, after.waited_s - before.waited_s};
  return run;
}

absl::StatusOr<double> Bench::LibrarySeconds(const BenchCase& c) {
  double seconds = 0;
  for (int step = 0; step < c.steps; ++step) {
    const std::pair<int, int> size(c.sequences * c.RowsOf(step), c.sequences);
    if (library_.find(size) == library_.end()) {
      NG_ASSIGN_OR_RETURN(library_[size],
                          device_.LibrarySeconds(model_.ShapesOf(size.first, size.second)));
    }
    seconds += library_[size];
  }
  return seconds;
}

BenchResult ResultOf(const BenchCase& c, const BenchModel& model, const std::vector<Run>& runs) {
  const BenchWork work = model.WorkOf(c);
  const double bytes = work.weight_bytes + work.cache_bytes;
  const double operations = work.matmul_operations + work.attention_operations;
  const auto median = [&](auto of) { return SpreadOf(runs, of).median; };
  BenchResult r;
  r.what = c;
  r.tokens_per_s = SpreadOf(runs, [&](const Run& run) { return c.tokens_in_all() / run.seconds; });
  const double seconds = c.tokens_in_all() / r.tokens_per_s.median;
  r.step_ms = 1e3 * seconds / c.steps;
  r.floor_share =
      median([&](const Run& run) { return work.FloorSeconds(run.ceilings) / run.seconds; });
  r.library_share = median([](const Run& run) { return run.library_s / run.seconds; });
  r.bytes_per_s = bytes / seconds;
  r.read_share =
      median([&](const Run& run) { return bytes / run.seconds / run.ceilings.read_bandwidth; });
  r.operations_per_s = operations / seconds;
  r.matmul_share =
      median([&](const Run& run) { return operations / run.seconds / run.ceilings.matmul_rate; });
  r.host_us_per_step =
      median([&](const Run& run) { return 1e6 * (run.seconds - run.work.waited_s) / c.steps; });
  r.launches_per_step =
      median([&](const Run& run) { return static_cast<double>(run.work.launches) / c.steps; });
  r.busy_cost =
      SpreadOf(runs, [](const Run& run) { return std::max(0.0, run.busy_s / run.seconds - 1); });
  return r;
}

DeviceCeilings MedianOf(const std::vector<Run>& runs) {
  const auto median = [&](double DeviceCeilings::*value) {
    return SpreadOf(runs, [&](const Run& run) { return run.ceilings.*value; }).median;
  };
  return {median(&DeviceCeilings::read_bandwidth), median(&DeviceCeilings::copy_bandwidth),
          median(&DeviceCeilings::matmul_rate)};
}

/// All rounds: in each, ceilings first, then every case.
absl::StatusOr<std::vector<std::vector<Run>>> Rounds(Bench& bench, Device& device,
                                                     const std::vector<BenchCase>& cases,
                                                     int rounds, BenchSubject& subject) {
  for (const BenchCase& c : cases) NG_RETURN_IF_ERROR(bench.Prepare(c));
  std::vector<std::vector<Run>> runs(cases.size());
  for (int round = 0; round < rounds; ++round) {
    bench.BeginRound();
    NG_ASSIGN_OR_RETURN(const DeviceCeilings ceilings, device.MeasureCeilings());
    for (size_t i = 0; i < cases.size(); ++i) {
      NG_ASSIGN_OR_RETURN(Run run, bench.Time(cases[i]));
      run.ceilings = ceilings;
      if (subject.busy_threads > 0) {
        const BusyThreads busy(subject.busy_threads);
        NG_ASSIGN_OR_RETURN(const Run slowed, bench.Time(cases[i]));
        run.busy_s = slowed.seconds;
      }
      if (subject.library.empty() && subject.precision == Precision::kBf16) {
        const absl::StatusOr<double> library = bench.LibrarySeconds(cases[i]);
        if (library.ok()) run.library_s = *library;
        if (!library.ok() && !absl::IsUnimplemented(library.status())) return library.status();
        if (!library.ok()) subject.library = std::string(library.status().message());
      }
      runs[i].push_back(run);
    }
  }
  return runs;
}

}  // namespace

std::optional<double> SecondsPerTokenBefore(const std::vector<BenchResult>& results) {
  double count = 0, depths = 0, seconds = 0, squares = 0, products = 0;
  for (const BenchResult& r : results) {
    if (r.what.kind != BenchCase::Kind::kDecode) continue;
    const double token_s = 1e-3 * r.step_ms;
    count += 1;
    depths += r.what.depth;
    seconds += token_s;
    squares += static_cast<double>(r.what.depth) * r.what.depth;
    products += r.what.depth * token_s;
  }
  const double spread = count * squares - depths * depths;
  const double slope = spread > 0 ? (count * products - depths * seconds) / spread : 0;
  if (slope <= 0) return std::nullopt;
  return slope;
}

absl::StatusOr<std::vector<Precision>> BenchPrecisions(const std::string& quantization,
                                                       bool synthetic) {
  if (synthetic && quantization == NameOf(Precision::kAuto)) {
    return std::vector<Precision>{Precision::kBf16, Precision::kInt8};
  }
  std::vector<Precision> precisions;
  for (const absl::string_view word : absl::StrSplit(quantization, ',')) {
    NG_ASSIGN_OR_RETURN(const Precision precision, ParsePrecision(word));
    precisions.push_back(precision);
  }
  return precisions;
}

absl::StatusOr<std::vector<BenchResult>> RunBench(const Checkpoint& checkpoint,
                                                  const std::string& name, Precision precision,
                                                  Device& device, const BenchOptions& options) {
  BenchSubject subject;
  subject.model = name;
  subject.precision = precision;
  subject.device = device.Report();
  subject.busy_threads = options.busy_threads;
  const bool gpu = subject.device.kind != "cpu";
  NG_ASSIGN_OR_RETURN(const std::vector<BenchCase> cases,
                      BenchCases(options, gpu, checkpoint.config()));
  const StageOptions stage_options{.layers = {0, checkpoint.config().layers_count()},
                                   .precision = precision,
                                   .limits = LimitsFor(cases, checkpoint.config())};
  NG_ASSIGN_OR_RETURN(const std::unique_ptr<Stage> stage,
                      TimedLoad(checkpoint, device, stage_options, subject));
  const BenchModel model(checkpoint, precision);
  subject.weight_bytes_per_step = model.weight_bytes_per_step();
  subject.cache_bytes_per_token = model.cache_bytes_per_token();
  Bench bench(device, *stage, model, gpu);
  const std::optional<ProcessorTime> before = ReadProcessorTime();
  NG_ASSIGN_OR_RETURN(const std::vector<std::vector<Run>> runs,
                      Rounds(bench, device, cases, options.rounds, subject));
  const std::optional<ProcessorTime> after = ReadProcessorTime();
  if (before && after) subject.foreign_share = ForeignShare(*before, *after);
  subject.condition = device.Condition();
  subject.date = absl::FormatTime("%Y-%m-%d %H:%M UTC", absl::Now(), absl::UTCTimeZone());
  if (!options.json) PrintSubject(subject, options.rounds);
  std::vector<BenchResult> results;
  for (size_t i = 0; i < cases.size(); ++i) {
    results.push_back(ResultOf(cases[i], model, runs[i]));
    if (options.json) {
      PrintJson(subject, MedianOf(runs[i]), results.back(), options.rounds);
    } else {
      PrintRow(subject, results.back());
    }
  }
  if (!options.json) PrintContextCost(subject, results);
  if (!options.json && !cases.empty()) PrintCeilings(subject, MedianOf(runs[0]));
  return results;
}

}  // namespace neurogrid
