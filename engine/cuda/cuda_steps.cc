// How CudaOps runs the steps of a batch: as they come, or as a graph of what an earlier batch of
// the same shape queued.
#include <atomic>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "engine/cuda/cuda_ops.h"
#include "kernels/launch.h"

namespace neurogrid {

std::unique_ptr<StepMemory> CudaOps::MakeStepMemory(const BatchLimits& limits) {
  uploads_.reset();  // the stage is whole
  if (!graphs_) return nullptr;
  return std::make_unique<StepGraphs>(limits);
}

void CudaOps::DoRunSteps(StepMemory* memory, const Batch& batch, Steps steps) {
  if (!BeginInputs(batch)) return;
  in_steps_ = true;
  draws_ = false;
  auto* graphs = static_cast<StepGraphs*>(memory);
  if (graphs != nullptr && graphs->enabled() && batch_.repeats()) {
    RunGraph(*graphs, batch, steps);
  } else if (SendInputs(batch)) {
    steps(batch);
    Ready();
  }
  in_steps_ = false;
  if (draws_) Await(batch.samples(), batch_parity_);
}

void CudaOps::RunGraph(StepGraphs& graphs, const Batch& batch, Steps steps) {
  const bool widens = batch_.decodes();
  const int rows = widens ? graphs.RowsFor(batch.rows()) : batch.rows();
  const int samples = widens ? graphs.SamplesFor(batch, rows) : batch.samples();
  batch_.Widen(rows, samples);
  if (!SendInputs(batch)) return;
  StepGraphs::Entry& entry = graphs.Find(batch_.shape());
  if (entry.graph == nullptr) {
    const Batch wide = widens ? StepGraphs::Widened(batch, rows, samples) : batch;
    begun_ = &wide;
    if (entry.seen) Capture(graphs, entry, wide, steps);
    if (entry.graph == nullptr && Healthy()) {
      steps(wide);
      Ready();
    }
    entry.seen = true;
    entry.draws = draws_;
    begun_ = nullptr;
    if (entry.graph == nullptr) return;
  } else {
    ++repeated_;
    draws_ = entry.draws;
    kernels::LaunchesQueued().fetch_add(entry.kernels, std::memory_order_relaxed);
  }
  if (Healthy())
    Note(cudaGraphLaunch(entry.graph, stream_), absl::StrCat("a graph of ", rows, " rows"));
}

/// Without memory for a graph this stage goes on without graphs.
void CudaOps::Capture(StepGraphs& graphs, StepGraphs::Entry& entry, const Batch& batch,
                      Steps steps) {
  const int64_t before = kernels::LaunchesQueued().load();
  Note(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "a graph");
  if (!Healthy()) return;
  steps(batch);
  Ready();
  cudaGraph_t graph = nullptr;
  Note(cudaStreamEndCapture(stream_, &graph), "a graph");
  if (Healthy()) {
    const cudaError_t error = cudaGraphInstantiate(&entry.graph, graph, 0);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // asked and answered: not sticky
      entry.graph = nullptr;
      graphs.Disable();
      LogWarning("cuda:", ordinal_, " has no memory for graphs; steps run without them");
    } else {
      Note(error, "a graph");
    }
  }
  if (graph != nullptr) cudaGraphDestroy(graph);
  entry.kernels = kernels::LaunchesQueued().load() - before;
}

}  // namespace neurogrid
