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
  if (!SendInputs(batch, /*recorded=*/true)) return;
  StepGraphs::Entry& entry = graphs.Find(batch_.shape());
  if (!entry.captured()) {
    const Batch wide = widens ? StepGraphs::Widened(batch, rows, samples) : batch;
    begun_ = &wide;
    if (entry.seen) Capture(graphs, entry, wide, steps);
    if (!entry.captured() && Healthy()) RunOnce(wide, steps);
    entry.seen = true;
    entry.draws = draws_;
    begun_ = nullptr;
    if (!entry.captured()) return;
  } else {
    ++repeated_;
    draws_ = entry.draws;
    kernels::LaunchesQueued().fetch_add(entry.kernels, std::memory_order_relaxed);
  }
  if (!Healthy()) return;
  Note(cudaGraphLaunch(entry.graphs[batch_.copy_left() ? batch_.block() : 0], stream_),
       absl::StrCat("a graph of ", rows, " rows"));
  if (batch_.copy_left() && Healthy()) health_.Update(batch_.Copied(stream_));
}

void CudaOps::RunOnce(const Batch& batch, Steps steps) {
  if (batch_.copy_left()) {
    health_.Update(batch_.Copy(batch_.block(), stream_));
    if (Healthy()) health_.Update(batch_.Copied(stream_));
  }
  if (!Healthy()) return;
  steps(batch);
  Ready();
}

/// A graph for each block that the inputs may lie in. Without memory for one this stage goes on
/// without graphs.
void CudaOps::Capture(StepGraphs& graphs, StepGraphs::Entry& entry, const Batch& batch,
                      Steps steps) {
  const int count = batch_.copy_left() ? Staging::kBlocks : 1;
  for (int block = 0; block < count && Healthy(); ++block) {
    const int64_t before = kernels::LaunchesQueued().load();
    Note(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "a graph");
    if (!Healthy()) return;
    if (batch_.copy_left()) health_.Update(batch_.Copy(block, stream_));
    steps(batch);
    Ready();
    cudaGraph_t graph = nullptr;
    Note(cudaStreamEndCapture(stream_, &graph), "a graph");
    const cudaError_t error =
        Healthy() ? cudaGraphInstantiate(&entry.graphs[block], graph, 0) : cudaSuccess;
    if (graph != nullptr) cudaGraphDestroy(graph);
    entry.kernels = kernels::LaunchesQueued().load() - before;
    if (block > 0) kernels::LaunchesQueued().fetch_sub(entry.kernels);  // one of them runs
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // asked and answered: not sticky
      entry.graphs[block] = nullptr;
      graphs.Drop(entry);
      graphs.Disable();
      LogWarning("cuda:", ordinal_, " has no memory for graphs; steps run without them");
      return;
    }
    Note(error, "a graph");
  }
}

}  // namespace neurogrid
