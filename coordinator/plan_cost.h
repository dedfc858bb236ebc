// What a stage costs in time and memory: the formulas that the planner searches over.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "common/config.h"
#include "coordinator/planner.h"

namespace neurogrid {

/// Bytes of a stage over `layers`, everything but its pages.
int64_t StageFixedBytes(const ModelFacts& model, LayerRange layers);
/// Bytes of the recurrent states of all slots.
int64_t StageStateBytes(const ModelFacts& model, LayerRange layers);
/// Bytes of one page over those of `layers` that see everything, and over those with a window.
int64_t StagePageBytes(const ModelFacts& model, LayerRange layers);
int64_t StageWindowPageBytes(const ModelFacts& model, LayerRange layers);

/// Pages that the declared workload fills.
int64_t PagesNeeded(const ModelFacts& model, const WorkloadConfig& workload);
/// Window pages beside `pages` pages: in the proportion in which a sequence of the workload fills
/// both, so that neither kind runs out first.
int64_t WindowPagesBeside(const ModelFacts& model, const WorkloadConfig& workload, int64_t pages);
/// Bytes of the caches, of both kinds, in which sequences of the workload fill `pages` pages.
int64_t StageCacheBytes(const ModelFacts& model, const WorkloadConfig& workload, LayerRange layers,
                        int64_t pages);
/// The most such pages within `bytes`; nothing when these layers cache nothing.
std::optional<int64_t> PagesWithin(const ModelFacts& model, const WorkloadConfig& workload,
                                   LayerRange layers, int64_t bytes);

/// Times of one node, in nanoseconds, from its bandwidth and matmul rate by the roofline:
///
///   decode step, b rows, mean context c   sum over layers of
///                                         max(weights / bandwidth, 2 * parameters * b / rate)
///                                         + b * min(c, window) * kv / bandwidth
///                                         + layer overhead
///   prompt of p tokens in chunks of q     sum over chunks and layers of
///                                         max(weights / bandwidth, 2 * parameters * q / rate)
///                                         + 4 * q * min(done + q / 2, window)
///                                             * attention_width / rate
///
/// Where the rate of further rows was measured, a layer's products on b rows take
///   weights / bandwidth + 2 * parameters * (min(b, 64) - 1) / row rate
///                       + 2 * parameters * max(b - 64, 0) / rate.
/// Ranges are priced by prefix sums.
class NodeCost {
 public:
  NodeCost(const ModelFacts& model, const NodeFacts& node, const WorkloadConfig& workload);

  /// [layers + 1]: a decode step of `rows` sequences over the layers before each.
  std::vector<int64_t> StepPrefixNs(int64_t rows) const;
  /// What every step costs beside its layers.
  int64_t overhead_ns() const { return node_.step_overhead_ns; }
  /// Final norm and head for `rows` rows.
  int64_t HeadNs(int64_t rows) const;
  /// What a step takes longer for weights that lie in slow memory, with so many bytes of caches.
  int64_t SlowNs(LayerRange layers, int64_t cache_bytes) const;
  /// A whole prompt over `layers`, the head for its last row included on the last stage.
  int64_t PromptNs(LayerRange layers, int64_t cache_bytes) const;
  /// Its first chunk, without the head.
  int64_t FirstChunkNs(LayerRange layers, int64_t cache_bytes) const;

 private:
  int64_t ChunkNs(const LayerFacts& layer, int64_t rows, int64_t done) const;
  double ProductS(int64_t bytes, int64_t parameters, int64_t rows) const;

  const ModelFacts* model_;
  NodeFacts node_;
  double context_ = 0;
  int64_t chunks_ = 1;
  std::vector<int64_t> prompt_ns_;       // [layers + 1]
  std::vector<int64_t> first_chunk_ns_;  // [layers + 1]
};

}  // namespace neurogrid
