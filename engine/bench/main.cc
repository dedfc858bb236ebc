// neurogrid-gpu-bench: the coordinator's verb bench on a machine that has nothing but a GPU.
#include <cstdio>
#include <functional>
#include <map>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/bench/bench.h"
#include "engine/model/synthetic.h"

namespace neurogrid {
namespace {

constexpr char kUsage[] =
    "usage: neurogrid-gpu-bench --synthetic SHAPE | --model PATH [--device cuda:0]\n"
    "  [--quantization bf16,int8] [--prompt 512,2048,8192] [--prompt-depths 0]\n"
    "  [--depths 0,4096,32768]\n"
    "  [--batches 1,8,64,256] [--batch-depth 1024] [--decode 64] [--chunk 8192] [--rounds 5]\n"
    "  [--busy-threads 0] [--determinism on|off] [--managed-memory] [--json]\n"
    "SHAPE: lfm2.5-1.2b, llama-3.2-1b, llama-3.1-8b, llama-1b, smollm2-135m or a config.json\n";

struct Flags {
  std::string model;
  std::string device = "cuda:0";
  std::string quantization = "auto";
  std::string determinism = "on";
  DeviceMemory memory = DeviceMemory::kOwn;
  BenchOptions bench;
};

struct Number {
  int* value;
  int low = 1;
  int high = 1 << 20;
};

absl::Status SetNumber(absl::string_view text, const Number& number) {
  if (absl::SimpleAtoi(text, number.value) && *number.value >= number.low &&
      *number.value <= number.high) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" must be a whole number from ", number.low, " to ", number.high));
}

absl::StatusOr<Flags> Parse(int argc, const char* const* argv) {
  Flags flags;
  BenchOptions& b = flags.bench;
  const std::map<absl::string_view, std::string*> texts = {{"--determinism", &flags.determinism},
                                                           {"--model", &flags.model},
                                                           {"--device", &flags.device},
                                                           {"--quantization", &flags.quantization},
                                                           {"--synthetic", &b.synthetic},
                                                           {"--prompt", &b.prompts},
                                                           {"--prompt-depths", &b.prompt_depths},
                                                           {"--depths", &b.depths},
                                                           {"--batches", &b.batches}};
  const std::map<absl::string_view, Number> numbers = {
      {"--batch-depth", {&b.batch_depth, 0}},
      {"--decode", {&b.decode_tokens}},
      {"--chunk", {&b.chunk_tokens}},
      {"--busy-threads", {&b.busy_threads, 0, 1024}},
      {"--rounds", {&b.rounds}}};
  for (int i = 1; i < argc; ++i) {
    const absl::string_view flag = argv[i];
    if (flag == "--json") {
      b.json = true;
      continue;
    }
    if (flag == "--managed-memory") {
      flags.memory = DeviceMemory::kManaged;
      continue;
    }
    const auto text = texts.find(flag);
    const auto number = numbers.find(flag);
    if (text == texts.end() && number == numbers.end()) {
      return absl::InvalidArgumentError(absl::StrCat("\"", flag, "\" is no flag\n", kUsage));
    }
    if (++i == argc) return absl::InvalidArgumentError(absl::StrCat(flag, " needs a value"));
    if (text != texts.end()) {
      *text->second = argv[i];
      continue;
    }
    const absl::Status set = SetNumber(argv[i], number->second);
    if (!set.ok()) return absl::InvalidArgumentError(absl::StrCat(flag, ": ", set.message()));
  }
  if (flags.determinism != "on" && flags.determinism != "off") {
    return absl::InvalidArgumentError(
        absl::StrCat("--determinism: \"", flags.determinism, "\" is neither on nor off"));
  }
  if (flags.model.empty() == b.synthetic.empty()) return absl::InvalidArgumentError(kUsage);
  return flags;
}

absl::Status Main(int argc, const char* const* argv) {
  NG_ASSIGN_OR_RETURN(const Flags flags, Parse(argc, argv));
  const bool synthetic = !flags.bench.synthetic.empty();
  NG_ASSIGN_OR_RETURN(const std::vector<Precision> precisions,
                      BenchPrecisions(flags.quantization, synthetic));
  NG_ASSIGN_OR_RETURN(
      const std::unique_ptr<Checkpoint> checkpoint,
      synthetic ? MakeSyntheticCheckpoint(flags.bench.synthetic) : Checkpoint::Open(flags.model));
  NG_ASSIGN_OR_RETURN(const std::unique_ptr<Device> device,
                      MakeDevice(flags.device, 0, flags.memory));
  if (flags.determinism == "off") NG_RETURN_IF_ERROR(device->AllowAnyOrder());
  for (const Precision precision : precisions) {
    NG_RETURN_IF_ERROR(RunBench(*checkpoint, synthetic ? flags.bench.synthetic : flags.model,
                                precision, *device, flags.bench)
                           .status());
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace neurogrid

int main(int argc, char** argv) {
  if (argc == 2 && absl::string_view(argv[1]) == "--help") {
    std::fputs(neurogrid::kUsage, stdout);
    return 0;
  }
  const absl::Status status = neurogrid::Main(argc, argv);
  if (status.ok()) return 0;
  std::fprintf(stderr, "neurogrid-gpu-bench: %s\n", std::string(status.message()).c_str());
  return 1;
}
