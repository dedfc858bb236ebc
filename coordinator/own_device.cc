#include "coordinator/own_device.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "engine/device.h"
#include "engine/model/stage_memory.h"
#include "engine/stage.h"

namespace neurogrid {

absl::StatusOr<ReportedNode> OwnNode(const Config& config) {
  if (config.device == "none") {
    return absl::FailedPreconditionError("device is none: there is nothing here to plan for");
  }
  NG_ASSIGN_OR_RETURN(const std::unique_ptr<Device> device,
                      MakeDevice(config.device, config.threads));
  const DeviceReport report = device->Report();
  ReportedNode node;
  node.id = "local";
  node.is_cpu = report.kind == "cpu";
  node.with_coordinator = true;
  node.memory_total_bytes = report.memory_total_bytes;
  node.memory_free_bytes = report.memory_free_bytes;
  node.read_bandwidth = report.read_bandwidth;
  node.matmul_rate = report.matmul_rate;
  return node;
}

absl::StatusOr<BenchTarget> MakeBenchTarget(std::shared_ptr<const Checkpoint> checkpoint,
                                            const std::string& name, const Config& config,
                                            const BenchOptions& options) {
  NG_ASSIGN_OR_RETURN(const Precision precision, ParsePrecision(config.quantization));
  NG_ASSIGN_OR_RETURN(std::shared_ptr<Device> device, MakeDevice(config.device, config.threads));
  const ModelConfig& model = checkpoint->config();
  int sequences = 1;
  for (const absl::string_view word : absl::StrSplit(options.batches, ',')) {
    int count = 0;
    if (absl::SimpleAtoi(word, &count)) sequences = std::clamp(count, sequences, 1024);
  }
  const int tokens = std::max(options.prompt_tokens, options.decode_tokens + 1) + 1;
  BenchTarget target;
  target.limits.rows_max = std::max(options.prompt_tokens, sequences);
  target.limits.sequences_max = sequences;
  target.limits.samples_max = sequences;
  target.limits.pages = sequences * ((options.decode_tokens + 1 + kPageTokens) / kPageTokens) +
                        (tokens + kPageTokens - 1) / kPageTokens;
  target.limits.window = WidestWindow(model);
  if (target.limits.window > 0) target.limits.window_pages = target.limits.pages;
  if (!AttendsToAll(model)) target.limits.pages = 0;
  if (StateBytes(MemoryOf(model, precision), {0, model.layers_count()}) > 0) {
    target.limits.slots = sequences;
  }
  target.limits.positions_max = tokens;
  target.limits.vocab_size = model.vocab_size;
  StageOptions stage_options;
  stage_options.layers = {0, model.layers_count()};
  stage_options.precision = precision;
  stage_options.limits = target.limits;
  NG_ASSIGN_OR_RETURN(std::shared_ptr<Stage> stage,
                      Stage::Load(*checkpoint, *device, stage_options, nullptr));
  const ModelMemory memory = MemoryOf(model, checkpoint->weights(), precision);
  target.model = name;
  target.precision = config.quantization;
  for (const ModelMemory::Layer& layer : memory.layers) {
    target.weight_bytes_per_step += layer.weight_bytes;
    target.parameters_body += layer.parameters;
    target.kv_bytes_per_token += layer.kv_bytes_per_token;
  }
  target.weight_bytes_per_step += memory.head_bytes;
  target.parameters_head = memory.head_parameters;
  const DeviceReport report = device->Report();
  target.device = report.name;
  target.threads = config.threads > 0 ? config.threads : report.cores;
  target.run = [checkpoint, device,
                stage](const Batch& batch) -> absl::StatusOr<std::vector<SampledToken>> {
    NG_ASSIGN_OR_RETURN(Stage::Output output, stage->Run(batch, ConstTensor()));
    return std::move(output.sampled);
  };
  target.floor = [device] {
    const DeviceSpeed speed = device->MeasureSpeed();
    return BenchTarget::Floor{speed.read_bandwidth, speed.matmul_rate};
  };
  return target;
}

}  // namespace neurogrid
