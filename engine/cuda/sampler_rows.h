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
void FillSamplerRows(absl::Span<const SamplingRow> sampling, SamplerRows& result);

SampledToken TokenOf(const kernels::SamplerResult& result);

}  // namespace neurogrid
