#include "engine/bench/bench_report.h"

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/json.h"

namespace neurogrid {
namespace {

constexpr double kGiga = 1e9;

std::string Percent(double share) {
  return share > 0 ? absl::StrFormat("%.0f %%", share * 100) : "-";
}

}  // namespace

void PrintSubject(const BenchSubject& s, int rounds) {
  absl::PrintF("%s %s on %s (%s, %s, %d %s)\n%s%s%s\n", s.model, std::string(NameOf(s.precision)),
               s.device.name, s.device.kind, s.device.instruction_set, s.device.cores,
               s.device.kind == "cpu" ? "threads" : "multiprocessors", s.date,
               s.condition.empty() ? "" : "; ", s.condition);
  absl::PrintF("%.3f GB of weights a step, %d B of cache a token; median of %d rounds\n",
               static_cast<double>(s.weight_bytes_per_step) / kGiga, s.cache_bytes_per_token,
               rounds);
  absl::PrintF(
      "loaded in %.2f s, %.2f s of it to see the files; then, of all processors, %.2f s to pack "
      "and %.2f s of the system to touch memory first; first token after %.2f s\n",
      s.load_s, s.read_s, s.pack_cpu_s, s.touch_cpu_s, s.first_token_s);
  absl::PrintF("%-8s %5s %6s %6s %10s  %-22s %9s %6s %8s %8s %7s %10s %7s %8s %9s\n", "case",
               "seqs", "tokens", "depth", "tok/s", "(least to most)", "ms/step", "floor", "library",
               "GB/s", "read", "Gop/s", "peak", "host us", "launches");
  std::fflush(stdout);
}

void PrintRow(const BenchSubject& s, const BenchResult& r) {
  const bool queued = r.launches_per_step > 0;
  absl::PrintF("%-8s %5d %6d %6d %10.1f  %-22s %9.3f %6s %8s %8.1f %7s %10.0f %7s %8s %9s\n",
               r.what.name(), r.what.sequences, r.what.tokens, r.what.depth, r.tokens_per_s.median,
               absl::StrFormat("(%.1f to %.1f)", r.tokens_per_s.least, r.tokens_per_s.most),
               r.step_ms, Percent(r.floor_share), Percent(r.library_share), r.bytes_per_s / kGiga,
               Percent(r.read_share), r.operations_per_s / kGiga, Percent(r.matmul_share),
               queued ? absl::StrFormat("%.1f", r.host_us_per_step) : "-",
               queued ? absl::StrFormat("%.1f", r.launches_per_step) : "-");
  if (s.busy_threads > 0) {
    absl::PrintF("         beside %d busy thread%s: %.0f %% more time (%.0f to %.0f)\n",
                 s.busy_threads, s.busy_threads == 1 ? "" : "s", 100 * r.busy_cost.median,
                 100 * r.busy_cost.least, 100 * r.busy_cost.most);
  }
  std::fflush(stdout);
}

void PrintContextCost(const BenchSubject& s, const std::vector<BenchResult>& results) {
  const std::optional<double> seconds = SecondsPerTokenBefore(results);
  if (!seconds) return;
  absl::PrintF(
      "context: a token costs %.2f ms more for each 1,000 before it; their keys and values are "
      "%.1f MB: %.1f GB/s\n",
      1e6 * *seconds, 1e-3 * static_cast<double>(s.cache_bytes_per_token),
      static_cast<double>(s.cache_bytes_per_token) / *seconds / kGiga);
}

void PrintCeilings(const BenchSubject& subject, const DeviceCeilings& c) {
  absl::PrintF("ceilings: read %.1f GB/s, copy %s, matmul %.0f Gop/s\n", c.read_bandwidth / kGiga,
               c.copy_bandwidth > 0 ? absl::StrFormat("%.1f GB/s", c.copy_bandwidth / kGiga) : "-",
               c.matmul_rate / kGiga);
  if (subject.foreign_share) {
    absl::PrintF("other processes took %.0f %% of the processors\n", 100 * *subject.foreign_share);
  }
  if (!subject.library.empty()) absl::PrintF("library: %s\n", subject.library);
  std::fflush(stdout);
}

void PrintJson(const BenchSubject& s, const DeviceCeilings& c, const BenchResult& r, int rounds) {
  Json line = Json(Json::Object());
  line.Set("engine", Json("neurogrid " NG_VERSION));
  line.Set("date", Json(s.date));
  line.Set("model", Json(s.model));
  line.Set("precision", Json(NameOf(s.precision)));
  line.Set("device", Json(s.device.name));
  line.Set("kind", Json(s.device.kind));
  line.Set("condition", Json(s.condition));
  line.Set("cores", Json(s.device.cores));
  line.Set("foreign_share", s.foreign_share ? Json(*s.foreign_share) : Json());
  line.Set("load_s", Json(s.load_s));
  line.Set("read_s", Json(s.read_s));
  line.Set("pack_cpu_s", Json(s.pack_cpu_s));
  line.Set("touch_cpu_s", Json(s.touch_cpu_s));
  line.Set("first_token_s", Json(s.first_token_s));
  line.Set("case", Json(r.what.name()));
  line.Set("sequences", Json(r.what.sequences));
  line.Set("depth", Json(r.what.depth));
  line.Set("tokens", Json(r.what.tokens_in_all()));
  line.Set("steps", Json(r.what.steps));
  line.Set("rounds", Json(rounds));
  line.Set("bytes_per_step", Json(s.weight_bytes_per_step));
  line.Set("tokens_per_s", Json(r.tokens_per_s.median));
  line.Set("tokens_per_s_min", Json(r.tokens_per_s.least));
  line.Set("tokens_per_s_max", Json(r.tokens_per_s.most));
  line.Set("step_ms", Json(r.step_ms));
  line.Set("share_of_floor", Json(r.floor_share));
  line.Set("share_of_library", Json(r.library_share));
  line.Set("gb_per_s", Json(r.bytes_per_s / kGiga));
  line.Set("share_of_raw_read", Json(r.read_share));
  line.Set("gop_per_s", Json(r.operations_per_s / kGiga));
  line.Set("share_of_dot_peak", Json(r.matmul_share));
  line.Set("host_us_per_step", Json(r.host_us_per_step));
  line.Set("launches_per_step", Json(r.launches_per_step));
  line.Set("busy_threads", Json(s.busy_threads));
  if (s.busy_threads > 0) line.Set("busy_cost", Json(r.busy_cost.median));
  line.Set("read_gb_per_s", Json(c.read_bandwidth / kGiga));
  line.Set("copy_gb_per_s", Json(c.copy_bandwidth / kGiga));
  line.Set("matmul_gop_per_s", Json(c.matmul_rate / kGiga));
  absl::PrintF("%s\n", ToString(line));
  std::fflush(stdout);
}

}  // namespace neurogrid
