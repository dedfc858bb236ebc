// SamplingRow as the sampler's kernel takes it.
#pragma once

#include <vector>

#include "absl/types/span.h"
#include "engine/batch.h"
#include "kernels/sampler.h"

namespace neurogrid {

struct SamplerRows {
  std::vector<kernels::SamplerRow> rows;
  std::vector<kernels::LogitEdit> edits;
  kernels::SamplerNeeds needs = {};
};
/// The results of two draws lie row by row beside each other: `parity` is this one's.
void FillSamplerRows(absl::Span<const SamplingRow> sampling, int parity, SamplerRows& result);
constexpr int ResultPlace(int row, int parity) { return 2 * row + parity; }

SampledToken TokenOf(const kernels::SamplerResult& result);

}  // namespace neurogrid
