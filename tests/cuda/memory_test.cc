// Memory of a CUDA device: what a stage takes beside what is planned for it, and weights that lie
// on the host.
#include <cuda_runtime.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <chrono>

#include "absl/strings/match.h"
#include "engine/model/stage_memory.h"
#include "engine/model/synthetic.h"
#include "engine/stage.h"
#include "engine/workspace_bytes.h"
#include "tests/cuda/cuda_support.h"
#include "tests/engine/golden_support.h"

namespace neurogrid {
namespace {

#if defined(NG_SIMT)
constexpr bool kEmulated = true;
#else
constexpr bool kEmulated = false;
#endif

/// On a GPU what is free is also what other processes leave: these run when asked for by name,
/// alone.
constexpr const char* kAlone = kEmulated ? "[cuda][memory]" : "[.][alone][cuda][memory]";

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

int64_t FreeBytes() {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  REQUIRE(cudaMemGetInfo(&free_bytes, &total_bytes) == cudaSuccess);
  return static_cast<int64_t>(free_bytes);
}

/// Of the device's memory so much stays free.
class Leave {
 public:
  explicit Leave(int64_t bytes) {
#if defined(NG_SIMT)
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    REQUIRE(cudaMemGetInfo(&free_bytes, &total_bytes) == cudaSuccess);
    simt::SetMemory(total_bytes - free_bytes + static_cast<size_t>(bytes));
#else
    auto ballast = CudaBuffer::Allocate(FreeBytes() - bytes);
    REQUIRE(ballast.ok());
    ballast_ = *std::move(ballast);
#endif
  }
#if defined(NG_SIMT)
  ~Leave() { simt::SetMemory(0); }
#endif

 private:
  CudaBuffer ballast_;
};

StageOptions OptionsFor(const Checkpoint& checkpoint, Precision precision) {
  const ModelConfig& config = checkpoint.config();
  return {.layers = {0, config.layers_count()},
          .precision = precision,
          .limits = TestLimits(config.vocab_size, WidestWindow(config))};
}

int64_t PlannedBytes(const Checkpoint& checkpoint, const StageOptions& options) {
  const ModelConfig& config = checkpoint.config();
  const ModelMemory memory =
      MemoryOf(config, checkpoint.weights(), options.precision, WeightLayout::kTiles);
  return StageWeightBytes(memory, options.layers) + StageWorkspaceBytes(config, options) +
         GpuScratchBytes(config, options.limits) +
         options.limits.pages * PageBytes(memory, options.layers, kPageTokens) +
         options.limits.window_pages * WindowPageBytes(memory, options.layers, kPageTokens) +
         options.limits.slots * StateBytes(memory, options.layers);
}

/// A prompt of two sequences and some steps; what was drawn.
std::vector<SampledToken> Use(Stage& stage) {
  const int vocab = stage.options().limits.vocab_size;
  std::vector<SampledToken> all;
  for (int step = 0; step < 6; ++step) {
    std::vector<SequencePart> slices;
    for (int s = 0; s < 2; ++s) {
      const int first = step == 0 ? 0 : 20 + step - 1;
      SequencePart slice{.ids = {}, .first = first, .pages = {s, 2 + s}, .source = -1, .slot = s};
      if (step > 0) slice.source = s;
      for (int i = 0; i < (step == 0 ? 20 : 1); ++i) {
        slice.ids.push_back(((first + i) * 37 + s) % vocab);
      }
      slices.push_back(slice);
    }
    Batch batch = BatchOf(slices, stage.options().limits.window);
    for (int s = 0; s < 2; ++s) {
      batch.sampled_rows.push_back(batch.sequence_offsets[static_cast<size_t>(s) + 1] - 1);
      SamplingRow row;
      row.position = 20 + step;
      row.temperature = 0.8f;
      row.top_k = 9;
      batch.sampling.push_back(row);
    }
    const auto output = stage.Run(batch, {});
    INFO(output.status().ToString());
    REQUIRE(output.ok());
    all.insert(all.end(), output->sampled.begin(), output->sampled.end());
  }
  return all;
}

void CheckEqual(const std::vector<SampledToken>& a, const std::vector<SampledToken>& b) {
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    CHECK(a[i].token == b[i].token);
    CHECK(a[i].logprob == b[i].logprob);
  }
}

std::unique_ptr<Device> Managed() {
  auto device = CudaDevice::Open(0, {.host = HostShare{int64_t{16} << 30}});
  INFO(device.status().ToString());
  REQUIRE(device.ok());
  return *std::move(device);
}

TEST_CASE("a stage takes no more of a GPU's memory than is planned for it", kAlone) {
  const std::string name = GENERATE("llama", "gemma3", "lfm2");
  const Precision precision = GENERATE(Precision::kBf16, Precision::kInt8);
  CAPTURE(name, NameOf(precision));
  const std::unique_ptr<Checkpoint> checkpoint = OpenGolden("tiny/" + name);
  const StageOptions options = OptionsFor(*checkpoint, precision);
  const auto device = Cuda();
  const int64_t before = FreeBytes();
  const auto stage = Stage::Load(*checkpoint, *device, options).value();
  Use(*stage);
  CHECK(before - FreeBytes() <= PlannedBytes(*checkpoint, options));
}

TEST_CASE("weights that a GPU has no room for stay on the host, and the answers are the same",
          kAlone) {
  const std::unique_ptr<Checkpoint> checkpoint =
      !kEmulated ? MakeSyntheticCheckpoint("lfm2.5-1.2b").value() : OpenGolden("tiny/llama");
  const StageOptions options = OptionsFor(*checkpoint, Precision::kBf16);
  std::vector<SampledToken> expected;
  int64_t taken = 0;
  int64_t weights = 0;
  {
    const auto device = Cuda();
    const int64_t before = FreeBytes();
    const auto stage = Stage::Load(*checkpoint, *device, options).value();
    expected = Use(*stage);
    taken = before - FreeBytes();
    weights = stage->memory().weight_bytes;
    CHECK(taken <= PlannedBytes(*checkpoint, options));
  }
  // On a GPU two hundredths of its memory are kept free.
  const int64_t kept = !kEmulated ? Cuda()->Report().memory_total_bytes / 50 : 0;
  const auto managed = Managed();
  const Leave room(taken - weights / 2 + kept);
  if (kEmulated) {
    const auto refused = Stage::Load(*checkpoint, *Cuda(), options);
    CHECK(absl::IsResourceExhausted(refused.status()));
  }
  const int64_t before = FreeBytes();
  const auto stage = Stage::Load(*checkpoint, *managed, options);
  INFO(stage.status().ToString());
  REQUIRE(stage.ok());
  CHECK(before - FreeBytes() < taken);
  CHECK(before - FreeBytes() > taken - weights);
  const auto start = std::chrono::steady_clock::now();
  CheckEqual(Use(**stage), expected);
  if (!kEmulated) WARN("steps over the bus took " << SecondsSince(start) << " s");
}

#if defined(NG_SIMT)
TEST_CASE("a GPU without managed memory says so by name", "[cuda][memory]") {
  simt::SetManagedMemory(false);
  const auto refused = CudaDevice::Open(0, {.host = HostShare{}});
  simt::SetManagedMemory(true);
  CHECK(absl::IsFailedPrecondition(refused.status()));
  CHECK(absl::StrContains(refused.status().message(), "managed memory"));
  CHECK(absl::StrContains(refused.status().message(), "cuda:0"));
}
#else
TEST_CASE("a GPU's report counts the host's memory where weights may lie there", kAlone) {
  const int64_t own = Cuda()->Report().memory_free_bytes;
  const DeviceReport report = Managed()->Report();
  CHECK(report.host_memory_bytes == int64_t{16} << 30);
  CHECK(report.memory_free_bytes > own + (int64_t{15} << 30));
  CHECK(report.host_bandwidth > 1e9);
  CHECK(report.host_bandwidth < report.read_bandwidth);
}

TEST_CASE("kernels are loaded before free memory is reported, and a plan leaves little", kAlone) {
  const auto checkpoint = MakeSyntheticCheckpoint("lfm2.5-1.2b").value();
  const Precision precision = GENERATE(Precision::kBf16, Precision::kInt8);
  const StageOptions options = OptionsFor(*checkpoint, precision);
  const auto device = Cuda();
  const int64_t before = device->Report().memory_free_bytes;
  const auto start = std::chrono::steady_clock::now();
  const auto stage = Stage::Load(*checkpoint, *device, options).value();
  const double seconds = SecondsSince(start);
  Use(*stage);
  const int64_t taken = before - FreeBytes();
  const int64_t planned = PlannedBytes(*checkpoint, options);
  WARN(NameOf(precision) << ": planned " << planned << ", taken " << taken << "; loaded "
                         << stage->memory().weight_bytes << " in " << seconds << " s");
  CHECK(taken <= planned);
  CHECK(taken > planned - (int64_t{300} << 20));
}
#endif

}  // namespace
}  // namespace neurogrid
