#include "engine/bench/bench_batches.h"

namespace neurogrid {
namespace {

void AddRows(const BatchLimits& limits, int sequence, int position, int rows, Batch& batch) {
  constexpr int64_t kTokenStep = 7919;
  for (int r = 0; r < rows; ++r) {
    const int64_t token = kTokenStep * (position + r) + 31 * sequence + 1;
    batch.tokens.push_back(static_cast<int32_t>(token % limits.vocab_size));
    batch.positions.push_back(position + r);
  }
  batch.sequence_offsets.push_back(batch.rows());
}

void AddPages(const BatchLimits& limits, int first, int count, Batch& batch) {
  for (int page = first; page < first + count; ++page) {
    batch.pages.push_back(limits.pages > 0 ? page : -1);
    if (limits.window > 0) batch.window_pages.push_back(page);
  }
  batch.page_offsets.push_back(static_cast<int>(batch.pages.size()));
}

Batch Empty() {
  Batch batch;
  batch.sequence_offsets = {0};
  batch.page_offsets = {0};
  return batch;
}

}  // namespace

Batch BenchBatch(const BatchLimits& limits, int sequences, int pages_each, int position, int rows) {
  Batch batch = Empty();
  for (int s = 0; s < sequences; ++s) {
    AddRows(limits, s, position, rows, batch);
    const int pages = (position + rows + kPageTokens - 1) / kPageTokens;
    AddPages(limits, s * pages_each, pages, batch);
    const bool recurrent = limits.slots > 0;
    batch.state_slots.push_back(recurrent ? s : -1);
    batch.state_sources.push_back(recurrent && position > 0 ? s : -1);
    batch.sampled_rows.push_back(batch.rows() - 1);
    SamplingRow sampling;
    sampling.temperature = 0;
    sampling.position = position + rows;
    batch.sampling.push_back(sampling);
  }
  return batch;
}

Batch FillingBatch(const BatchLimits& limits, int first, int count) {
  Batch batch = Empty();
  AddRows(limits, first, 0, count * kPageTokens, batch);
  AddPages(limits, first, count, batch);
  batch.state_slots.push_back(limits.slots > 0 ? first % limits.slots : -1);
  batch.state_sources.push_back(-1);
  return batch;
}

}  // namespace neurogrid
