// How large a chain's steps are, and how many pages and state slots it holds.
#pragma once

#include "common/config.h"
#include "coordinator/plan.h"
#include "coordinator/planner.h"
#include "engine/batch.h"
#include "engine/model/model_config.h"
#include "engine/model/precision.h"

namespace neurogrid {

/// State slots of a model: one for each sequence that runs, and as many saved states again, more
/// where they are small beside the weights. 0 for a model without recurrent state.
int SlotsFor(const ModelConfig& model, Precision precision, int running_max);

/// What every stage of a chain is built for; pages are filled in from the plan.
BatchLimits LimitsFor(const ModelConfig& model, const Config& config, Precision precision,
                      int tokenizer_vocab_size);

/// Sets both kinds of pages of `limits` to those worth holding: the plan's, but no more than every
/// running sequence could ever fill.
void SetPages(const Plan& plan, const ModelFacts& model, const Config& config, BatchLimits& limits);

}  // namespace neurogrid
