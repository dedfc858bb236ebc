// Steps that a CUDA device repeats as graphs, beside the same steps run as they come.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstring>

#include "engine/model/stage_memory.h"
#include "engine/ops.h"
#include "engine/stage.h"
#include "tests/cuda/cuda_support.h"
#include "tests/engine/golden_support.h"

namespace neurogrid {
namespace {

using Catch::Matchers::ContainsSubstring;

constexpr int kVocab = 263;
constexpr int kSequences = 6;
constexpr int kPagesEach = 18;

/// Two stages of a model on a device of their own, and what they put out.
struct Pair {
  std::unique_ptr<Device> device;
  std::unique_ptr<Stage> first, last;
  std::vector<uint8_t> activations;
  std::vector<SampledToken> sampled;

  Pair(const Checkpoint& checkpoint, Precision precision, bool graphs) {
    auto opened = CudaDevice::Open(0, {.graphs = graphs});
    REQUIRE(opened.ok());
    device = *std::move(opened);
    const int layers = checkpoint.config().layers_count();
    const auto load = [&](LayerRange range) {
      auto stage = Stage::Load(checkpoint, *device,
                               {.layers = range,
                                .precision = precision,
                                .limits = TestLimits(kVocab, WidestWindow(checkpoint.config()))});
      INFO(stage.status().ToString());
      REQUIRE(stage.ok());
      return *std::move(stage);
    };
    first = load({0, 2});
    last = load({2, layers});
  }

  void Run(const Batch& batch) {
    const auto between = first->Run(batch, {});
    INFO(between.status().ToString());
    REQUIRE(between.ok());
    const ConstTensor& x = between->activations;
    activations.assign(x.as<uint8_t>(), x.as<uint8_t>() + x.bytes());
    auto output = last->Run(batch, x);
    INFO(output.status().ToString());
    REQUIRE(output.ok());
    sampled = std::move(output->sampled);
  }
};

/// Rows [first, end) of these sequences, each in pages and a slot of its own; drawn from with
/// logprobs, so that a bit of the logits shows. `guesses`: every row draws.
Batch BatchFor(const std::vector<int>& sequences, const std::vector<int>& first, int rows,
               int window, bool draws = true, bool guesses = false) {
  std::vector<SequencePart> slices;
  for (const int s : sequences) {
    const int begin = first[static_cast<size_t>(s)];
    SequencePart slice{
        .ids = {}, .first = begin, .pages = {}, .source = begin == 0 ? -1 : s, .slot = s};
    for (int i = 0; i < rows; ++i) slice.ids.push_back((begin + i) * 37 % kVocab + s);
    for (int page = 0; page * kPageTokens < begin + rows; ++page) {
      slice.pages.push_back(page * kSequences + s);  // page 0 holds position 0 of a sequence
    }
    slices.push_back(slice);
  }
  Batch batch = BatchOf(slices, window);
  for (int i = 0; i < batch.sequences(); ++i) {
    const int end = batch.sequence_offsets[static_cast<size_t>(i) + 1];
    for (int row = end - rows; guesses && row < end - 1; ++row) {
      batch.sampled_rows.push_back(row);
      batch.sampling.emplace_back().temperature = 0;
    }
    batch.sampled_rows.push_back(end - 1);
    SamplingRow row;
    row.seed = static_cast<uint64_t>(i) + 5;
    row.position = first[static_cast<size_t>(sequences[static_cast<size_t>(i)])] + rows;
    row.temperature = i % 2 == 0 || !draws ? 0.0f : 0.9f;
    row.top_k = i % 3 == 2 ? 7 : 0;
    row.top_logprobs = 5;
    if (i % 2 == 1) row.bias = {{i, 1.5f}, {i + 40, -100.0f}};
    batch.sampling.push_back(row);
  }
  return batch;
}

void CheckEqual(const std::vector<SampledToken>& a, const std::vector<SampledToken>& b) {
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    CAPTURE(i);
    CHECK(a[i].token == b[i].token);
    CHECK(a[i].logprob == b[i].logprob);
    REQUIRE(a[i].top.size() == b[i].top.size());
    for (size_t k = 0; k < a[i].top.size(); ++k) {
      CHECK(a[i].top[k].id == b[i].top[k].id);
      CHECK(a[i].top[k].logprob == b[i].top[k].logprob);
    }
  }
}
void CheckEqual(const Pair& a, const Pair& b) {
  CHECK(a.activations == b.activations);
  CheckEqual(a.sampled, b.sampled);
}

}  // namespace

TEST_CASE("steps repeated as graphs give the bits of steps that are not", "[cuda][graph]") {
  const auto [model, precision] = GENERATE(std::pair{std::string("llama"), Precision::kBf16},
                                           std::pair{std::string("gemma3"), Precision::kBf16},
                                           std::pair{std::string("lfm2"), Precision::kBf16},
                                           std::pair{std::string("lfm2"), Precision::kF32});
  CAPTURE(model, NameOf(precision));
  if (kAddressSanitizer && (model == "llama" || precision == Precision::kF32)) return;
  SeedFor(model);
  const std::unique_ptr<Checkpoint> checkpoint = OpenGolden("tiny/" + model);
  const int window = WidestWindow(checkpoint->config());
  Pair graphs(*checkpoint, precision, true);
  Pair eager(*checkpoint, precision, false);
  std::vector<int> lengths(kSequences);
  const auto both = [&](const std::vector<int>& sequences, int rows, bool draws = true,
                        bool guesses = false) {
    const Batch batch = BatchFor(sequences, lengths, rows, window, draws, guesses);
    graphs.Run(batch);
    eager.Run(batch);
    CheckEqual(graphs, eager);
    for (const int s : sequences) lengths[static_cast<size_t>(s)] += rows;
  };
  // One sequence is about to need a second split of 256 positions.
  both({3}, 254);
  both({0, 1, 2, 4, 5}, 7);
  for (int step = 0; step < 4; ++step) both({0, 2, 3}, 1);           // of a width of 4
  for (int step = 0; step < 3; ++step) both({0, 1, 2, 3, 4, 5}, 1);  // of a width of 8
  // Greedy rows need fewer kernels: what they queued must not serve the others.
  for (int step = 0; step < 3; ++step) both({0, 2}, 1, /*draws=*/false);
  both({2, 0}, 1);
  both({1}, 5);  // a prompt in between
  for (int step = 0; step < 3; ++step) both({5, 3, 1}, 1);
  CHECK(graphs.device->ops().Work().repeated >= 6);
  CHECK(eager.device->ops().Work().repeated == 0);
  // Rows of guesses: a few of one sequence, or of several; more than a convolution's chunk, across
  // the end of a split, and so many that attention takes the way of many rows.
  for (const std::vector<int>& sequences : {std::vector<int>{3}, {0, 2}, {1, 4, 5}}) {
    for (const int rows : {2, 4, 5, 12 / static_cast<int>(sequences.size())}) {
      CAPTURE(sequences, rows);
      const int64_t before = graphs.device->ops().Work().repeated;
      for (int step = 0; step < 4; ++step) both(sequences, rows, true, /*guesses=*/true);
      CHECK(graphs.device->ops().Work().repeated >= before + 2);
    }
  }
  // The last rows of a prompt are no such step, however few: no two prompts end alike.
  const int64_t before = graphs.device->ops().Work().repeated;
  for (const int rows : {5, 17}) {
    for (int step = 0; step < 3; ++step) both({0}, rows);
  }
  CHECK(graphs.device->ops().Work().repeated == before);
}

TEST_CASE("steps that are queued one behind the other have inputs of their own", "[cuda][graph]") {
  constexpr int kSteps = 40;
  const std::unique_ptr<Checkpoint> checkpoint = OpenGolden("tiny/lfm2");
  const auto run = [&](bool waits) {
    const auto device = CudaDevice::Open(0, {.graphs = true});
    REQUIRE(device.ok());
    const auto stage = Stage::Load(*checkpoint, **device,
                                   {.layers = {0, checkpoint->config().layers_count()},
                                    .precision = Precision::kBf16,
                                    .limits = TestLimits(kVocab, 0)});
    REQUIRE(stage.ok());
    std::vector<int> lengths(kSequences);
    std::vector<SampledToken> drawn;
    for (int step = 1; step <= kSteps; ++step) {
      Batch batch = BatchFor({0, 1, 2}, lengths, 1, 0);
      if (step < kSteps) {  // nothing to wait for
        batch.sampled_rows.clear();
        batch.sampling.clear();
      }
      const auto output = (*stage)->Run(batch, {});
      REQUIRE(output.ok());
      drawn = output->sampled;
      if (waits) REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
      for (int& length : lengths) ++length;
    }
    return drawn;
  };
  CheckEqual(run(false), run(true));
}

#if defined(NG_SIMT)
TEST_CASE("a step of one row queues no kernel more once its convolutions are known", "[cuda]") {
  const std::unique_ptr<Checkpoint> checkpoint = OpenGolden("tiny/lfm2");
  Pair eager(*checkpoint, Precision::kBf16, /*graphs=*/false);
  std::vector<int> lengths(kSequences);
  std::vector<int64_t> launches;
  for (int step = 0; step < 3; ++step) {
    const int64_t before = eager.device->ops().Work().launches;
    eager.Run(BatchFor({0}, lengths, 1, 0));
    ++lengths[0];
    launches.push_back(eager.device->ops().Work().launches - before);
  }
  // The first step of each stage sends its inputs again when it meets a convolution, no other does.
  CHECK(launches[1] == launches[0] - 2);
  CHECK(launches[2] == launches[1]);
}

TEST_CASE("steps of a shape seen before allocate nothing on a CUDA device", "[cuda][graph]") {
  const bool with_graphs = GENERATE(true, false);
  const std::unique_ptr<Checkpoint> checkpoint = OpenGolden("tiny/lfm2");
  Pair pair(*checkpoint, Precision::kBf16, with_graphs);
  std::vector<int> lengths(kSequences);
  const auto run = [&](const std::vector<int>& sequences, int rows) {
    pair.Run(BatchFor(sequences, lengths, rows, 0));
    for (const int s : sequences) lengths[static_cast<size_t>(s)] += rows;
  };
  run({0, 1, 2, 3}, 20);
  const uint64_t before = simt::Allocations();
  for (int step = 0; step < 4; ++step) run({0, 1, 2}, 1);
  run({4}, 60);
  for (int step = 0; step < 3; ++step) run({0, 1, 2, 3, 4}, 1);
  CHECK(simt::Allocations() == before);
}

TEST_CASE("a kernel that fails in a graph ends its stage, and is named", "[cuda][graph]") {
  const std::unique_ptr<Checkpoint> checkpoint = OpenGolden("tiny/llama");
  Pair pair(*checkpoint, Precision::kBf16, GENERATE(true, false));
  std::vector<int> lengths(kSequences);
  for (int step = 0; step < 3; ++step, ++lengths[0]) pair.Run(BatchFor({0}, lengths, 1, 0));
  simt::FailKernel("RopeAndWriteKv");
  const Batch batch = BatchFor({0}, lengths, 1, 0);
  const auto failed = pair.first->Run(batch, {});
  CHECK(failed.status().code() == absl::StatusCode::kInternal);
  CHECK_THAT(std::string(failed.status().message()), ContainsSubstring("RopeAndWriteKv"));
  simt::TakeFailure();
  CHECK_FALSE(pair.first->Run(batch, {}).ok());
}
#endif

}  // namespace neurogrid
