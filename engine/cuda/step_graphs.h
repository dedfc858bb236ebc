// Steps of a stage as CUDA graphs, one for each shape of batch.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <list>

#include "engine/batch.h"
#include "engine/cuda/batch_inputs.h"
#include "engine/ops.h"

namespace neurogrid {

/// The first step of a shape runs as it is called, the second is captured, later ones are repeated:
/// what runs for the first time may load code and allocate, what is captured may not.
class StepGraphs : public StepMemory {
 public:
  explicit StepGraphs(const BatchLimits& limits) : limits_(limits) {}
  ~StepGraphs() override;
  StepGraphs(const StepGraphs&) = delete;
  StepGraphs& operator=(const StepGraphs&) = delete;

  /// The rows that a batch of so many takes part in: 1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, ...
  int RowsFor(int rows) const;
  /// As many samples as rows, where the stage may have so many.
  int SamplesFor(const Batch& batch, int rows) const;
  /// `batch` with rows of sequences that have no pages, behind its own.
  static Batch Widened(const Batch& batch, int rows, int samples);

  struct Entry {
    BatchShape shape;
    /// One for each block that inputs come from, or the first for all.
    cudaGraphExec_t graphs[Staging::kBlocks] = {};
    int64_t kernels = 0;
    bool captured() const { return graphs[0] != nullptr; }
    bool seen = false;
    bool draws = false;
  };
  /// Valid until the next call. Drops the one not used for longest where there are many.
  Entry& Find(const BatchShape& shape);
  static void Drop(Entry& entry);
  bool enabled() const { return enabled_; }
  void Disable() { enabled_ = false; }

 private:
  BatchLimits limits_;
  bool enabled_ = true;
  std::list<Entry> entries_;  // the last used first
};

}  // namespace neurogrid
