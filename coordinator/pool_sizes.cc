#include "coordinator/pool_sizes.h"

#include <algorithm>

#include "coordinator/plan_cost.h"
#include "coordinator/plan_step.h"
#include "coordinator/window_pages.h"
#include "engine/model/stage_memory.h"

namespace neurogrid {
namespace {

constexpr int kRowsMax = 512;                  // prefill chunk and decodes of a step together
constexpr int kSamplesMax = 256;               // logits rows of a step
constexpr int64_t kWeightsPerSavedState = 50;  // bytes: saved states take 2 % of the weights'
constexpr int kSavedStatesMax = 4096;

}  // namespace

void SetPages(const Plan& plan, const ModelFacts& model, const Config& config,
              BatchLimits& limits) {
  const int64_t tokens = config.workload.prompt_tokens + config.workload.output_tokens;
  const int64_t declared = config.workload.concurrency * PagesOf(tokens);
  // Twice what is declared leaves the prefix cache as much room as the running sequences.
  const int64_t pages = std::min(plan.pages, 2 * std::max(PagesOf(config.max_seq_len), declared));
  const LayerRange all = {0, static_cast<int>(model.layers.size())};
  limits.pages = StagePageBytes(model, all) > 0 ? static_cast<int>(pages) : 0;
  limits.window_pages = static_cast<int>(WindowPagesBeside(model, config.workload, pages));
}

BatchLimits LimitsFor(const ModelConfig& model, const Config& config, Precision precision,
                      int tokenizer_vocab_size) {
  BatchLimits limits;
  limits.rows_max = std::clamp(config.max_seq_len, kStepRowsMin, kRowsMax);
  limits.sequences_max = std::min(config.max_running, limits.rows_max);
  limits.samples_max = std::min(kSamplesMax, limits.rows_max);
  limits.positions_max = model.max_positions > 0 ? std::min(config.max_seq_len, model.max_positions)
                                                 : config.max_seq_len;
  limits.vocab_size = std::min(model.vocab_size, tokenizer_vocab_size);
  limits.window = WidestWindow(model);
  limits.slots = SlotsFor(model, precision, config.max_running);
  return limits;
}

int SlotsFor(const ModelConfig& model, Precision precision, int running_max) {
  const ModelMemory memory = MemoryOf(model, precision);
  const LayerRange all = {0, model.layers_count()};
  const int64_t state = StateBytes(memory, all);
  if (state == 0) return 0;
  const int64_t share = StageWeightBytes(memory, all) / kWeightsPerSavedState / state;
  return running_max + static_cast<int>(std::clamp<int64_t>(
                           share, running_max, std::max(running_max, kSavedStatesMax)));
}

}  // namespace neurogrid
