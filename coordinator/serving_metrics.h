// The figures of GET /metrics (api.md 1), fed by scheduler events and by refusals.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace neurogrid {

/// What a node says of its device; what it does not know has no series.
struct DeviceFigures {
  std::string node;
  std::optional<double> temperature_c = {};
  std::optional<double> power_w = {};
  std::optional<double> utilization = {};
  std::optional<double> memory_used_bytes = {};
};

/// Thread-safe. Times are seconds.
class ServingMetrics {
 public:
  ServingMetrics();
  ~ServingMetrics();

  // State of the moment.
  void SetRunning(int64_t requests);
  void SetWaiting(int64_t requests);
  void SetKvUsage(double fraction);
  /// Sequences that lost their chain and do not run again yet.
  void SetParked(int64_t sequences);
  /// Of all nodes there are. One caller at a time.
  void SetDevices(absl::Span<const DeviceFigures> devices);
  /// How many nodes there are by their states. One caller at a time.
  void SetWorkers(const std::map<std::string, int>& by_state);
  /// The plan in force: its number only grows.
  void SetEpoch(uint64_t epoch);
  /// Pages of the kind that will run out first.
  void SetKvPages(int64_t used, int64_t cached, int64_t free);

  // Counts.
  void AddPrefixCache(int64_t tokens_asked, int64_t tokens_hit);
  void AddPromptTokens(int64_t tokens);
  void AddGenerationTokens(int64_t tokens);
  void AddPreemption();
  /// Tokens pass through a chain again, `seconds` after the one before it was lost.
  void AddTakeover(double seconds);
  /// Computed again after a loss.
  void AddReplayed(int64_t tokens);
  /// Guessed tokens that were run, and those of them that were drawn.
  void AddSpeculation(int64_t drafted, int64_t accepted);
  /// `reason` as in finish_reason.
  void AddFinished(absl::string_view reason);
  /// The client left; `phase` is queued, prefill, decode or recovering.
  void AddCancelled(absl::string_view phase);
  /// `code` of an error object; those not in api.md 3 count as "other".
  void AddRefused(absl::string_view code);

  // Times.
  void ObserveFirstToken(double seconds);
  void ObserveInterToken(double seconds);
  void ObserveRequest(double seconds);
  void ObserveQueue(double seconds);
  void ObservePrefill(double seconds);
  void ObserveDecode(double seconds);

  /// Prometheus text format 0.0.4.
  std::string Expose() const;

 private:
  struct Series;
  std::unique_ptr<Series> series_;
};

}  // namespace neurogrid
