#include "coordinator/local_chain.h"

#include <algorithm>
#include <future>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "engine/batch_check.h"
#include "engine/device.h"
#include "engine/model/stage_memory.h"
#include "engine/stage.h"

namespace neurogrid {

absl::StatusOr<std::shared_ptr<LocalChain>> LocalChain::Load(
    std::shared_ptr<const Checkpoint> checkpoint, const Config& config, Precision precision,
    const BatchLimits& limits, const OnProgress& progress) {
  NG_ASSIGN_OR_RETURN(std::shared_ptr<Device> device, MakeDevice(config.device, config.threads));
  StageOptions options;
  options.layers = {0, checkpoint->config().layers_count()};
  options.precision = precision;
  options.limits = limits;
  NG_ASSIGN_OR_RETURN(std::unique_ptr<Stage> stage,
                      Stage::Load(*checkpoint, *device, options, progress));
  return std::shared_ptr<LocalChain>(
      new LocalChain(std::move(checkpoint), std::move(device), std::move(stage)));
}

LocalChain::LocalChain(std::shared_ptr<const Checkpoint> checkpoint, std::shared_ptr<Device> device,
                       std::unique_ptr<Stage> stage)
    : checkpoint_(std::move(checkpoint)), device_(std::move(device)), stage_(std::move(stage)) {}

LocalChain::~LocalChain() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void LocalChain::Begin(OnResult on_result) {
  on_result_ = std::move(on_result);
  thread_ = std::thread([this] { Loop(); });
}

void LocalChain::Submit(uint64_t step, Batch batch) {
  {
    const std::lock_guard lock(mutex_);
    queue_.emplace_back(step, std::move(batch));
  }
  changed_.notify_one();
}

const std::string& LocalChain::determinism_class() const { return stage_->determinism_class(); }

void LocalChain::Loop() {
  while (true) {
    std::pair<uint64_t, Batch> next;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stop_ || !queue_.empty(); });
      if (stop_) return;
      next = std::move(queue_.front());
      queue_.pop_front();
    }
    absl::Status checked = CheckBatch(next.second, stage_->options().limits);
    if (!checked.ok()) {
      on_result_(next.first, std::move(checked));
      continue;
    }
    absl::StatusOr<Stage::Output> output = stage_->Run(next.second, ConstTensor());
    if (output.ok()) {
      on_result_(next.first, std::move(output->sampled));
    } else {
      on_result_(next.first, std::move(output).status());
    }
  }
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
  target.limits.positions_max = tokens;
  target.limits.vocab_size = model.vocab_size;
  StageOptions stage_options;
  stage_options.layers = {0, model.layers_count()};
  stage_options.precision = precision;
  stage_options.limits = target.limits;
  NG_ASSIGN_OR_RETURN(std::shared_ptr<Stage> stage,
                      Stage::Load(*checkpoint, *device, stage_options, nullptr));
  const ModelMemory memory = MemoryOf(model, precision);
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
