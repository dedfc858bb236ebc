#include "coordinator/chain_shape.h"

#include "absl/strings/match.h"

namespace neurogrid {

SchedulerOptions ChainShape(const Plan& plan, const BatchLimits& limits,
                            absl::string_view determinism_class, absl::string_view speculation) {
  SchedulerOptions shape;
  shape.limits = limits;
  shape.stages = static_cast<int>(plan.stages.size());
  shape.decode_groups = plan.decode_groups;
  shape.prefill_depth = shape.stages;  // the chain keeps order: chunks follow each other down it
  const bool gpus = HasGpu(determinism_class);
  // Several stages with GPUs were not measured: there guesses want to be asked for. Where bits
  // depend on the rows beside them guesses would change answers.
  const bool pays = speculation == "on" || !gpus || shape.stages == 1;
  shape.speculates =
      speculation != "off" && pays && !absl::StrContains(determinism_class, "any order");
  // A GPU runs the first step of a kind as it comes and records the second.
  shape.first_slow = gpus ? 2 : 0;
  // A GPU goes on by itself while its tokens travel; for a processor a step behind an end is time.
  shape.ahead = shape.stages == 1 && gpus;
  return shape;
}

}  // namespace neurogrid
