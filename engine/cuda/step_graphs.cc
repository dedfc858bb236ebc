#include "engine/cuda/step_graphs.h"

#include <algorithm>
#include <iterator>

namespace neurogrid {
namespace {

constexpr size_t kGraphsMax = 64;  // or pairs of them; a megabyte or less each
constexpr int kRows[] = {1, 2, 4, 8, 12, 16, 24, 32, 48, 64};
constexpr int kMoreRows = 32;

}  // namespace

StepGraphs::~StepGraphs() {
  for (Entry& entry : entries_) Drop(entry);
}

void StepGraphs::Drop(Entry& entry) {
  for (cudaGraphExec_t& graph : entry.graphs) {
    if (graph != nullptr) cudaGraphExecDestroy(graph);
    graph = nullptr;
  }
}

int StepGraphs::RowsFor(int rows) const {
  const auto* found = std::lower_bound(std::begin(kRows), std::end(kRows), rows);
  const int wide =
      found != std::end(kRows) ? *found : (rows + kMoreRows - 1) / kMoreRows * kMoreRows;
  return std::min(wide, limits_.rows_max);
}

int StepGraphs::SamplesFor(const Batch& batch, int rows) const {
  if (batch.samples() == 0) return 0;
  return std::max(batch.samples(), std::min(rows, limits_.samples_max));
}

Batch StepGraphs::Widened(const Batch& batch, int rows, int samples) {
  Batch wide = batch;
  const auto count = static_cast<size_t>(rows);
  wide.tokens.resize(count, 0);
  wide.positions.resize(count, 0);
  for (int row = batch.rows(); row < rows; ++row) {
    wide.sequence_offsets.push_back(row + 1);
    wide.page_offsets.push_back(wide.page_offsets.back());
  }
  wide.state_slots.resize(count, -1);
  wide.state_sources.resize(count, -1);
  wide.sampled_rows.resize(static_cast<size_t>(samples), 0);
  wide.sampling.resize(static_cast<size_t>(samples));
  return wide;
}

StepGraphs::Entry& StepGraphs::Find(const BatchShape& shape) {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.shape == shape; });
  if (found != entries_.end()) {
    entries_.splice(entries_.begin(), entries_, found);
    return entries_.front();
  }
  if (entries_.size() == kGraphsMax) {
    Drop(entries_.back());
    entries_.pop_back();
  }
  return entries_.emplace_front(Entry{.shape = shape});
}

}  // namespace neurogrid
