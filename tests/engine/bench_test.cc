// What a bench counts, against numbers counted by hand.
#include "engine/bench/bench.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>

#include "absl/strings/match.h"
#include "engine/batch_check.h"
#include "engine/bench/bench_batches.h"
#include "engine/bench/bench_work.h"
#include "engine/bench/processor_time.h"
#include "engine/model/synthetic.h"
#include "tests/support/golden.h"

namespace neurogrid {
namespace {

BenchOptions Options(const std::string& prompts, const std::string& depths,
                     const std::string& batches) {
  BenchOptions options;
  options.prompts = prompts;
  options.depths = depths;
  options.batches = batches;
  options.decode_tokens = 2;
  return options;
}

TEST_CASE("the built-in shapes have the weights of their models", "[bench]") {
  // performance.md 1.3: body and head in 10^9 weights, each rounded to three digits, and bytes of
  // keys and values of a token; norms, in f32, are beside them.
  const auto check = [](const char* name, double weights, int64_t cache_bytes) {
    CAPTURE(name);
    const auto checkpoint = MakeSyntheticCheckpoint(name).value();
    const BenchModel model(*checkpoint, Precision::kBf16);
    CHECK(std::abs(static_cast<double>(model.weight_bytes_per_step()) / 2e9 - weights) < 2e-3);
    CHECK(model.cache_bytes_per_token() == cache_bytes);
  };
  check("lfm2.5-1.2b", 1.036 + 0.134, 12 << 10);
  check("llama-3.2-1b", 0.973 + 0.263, 32 << 10);
  check("llama-3.1-8b", 6.979 + 0.525, 128 << 10);
  check("smollm2-135m", 0.1062 + 0.0283, 45 << 9);
}

TEST_CASE("a floor adds keys and values to weights", "[bench]") {
  const BenchWork work{
      .weight_bytes = 100, .cache_bytes = 30, .matmul_operations = 400, .attention_operations = 10};
  CHECK(work.FloorSeconds({.read_bandwidth = 10, .matmul_rate = 100}) == 10 + 3);
  CHECK(work.FloorSeconds({.read_bandwidth = 50, .matmul_rate = 10}) == 40 + 1);
}

TEST_CASE("the share of other processes is the busy time that is not the bench's own", "[bench]") {
  // user nice system idle iowait irq softirq steal guest guest_nice, in ticks of 10 ms.
  const std::string before = "cpu  100 20 30 1000 50 1 2 3 70 5\ncpu0 1 2 3 4 5 6 7 8\n";
  const std::string after = "cpu  400 40 80 1400 80 2 4 10 90 6\ncpu0 1 2 3 4 5 6 7 8\n";
  const ProcessorTime first = ParseProcessorTime(before, 100, 0.5).value();
  CHECK(first.busy_s == Catch::Approx(1.56));
  CHECK(first.idle_s == Catch::Approx(10.5));
  const ProcessorTime second = ParseProcessorTime(after, 100, 2.3).value();
  // Busy 3.8 s, idle 4.3 s, of which 1.8 s are our own.
  CHECK(ForeignShare(first, second) == Catch::Approx(2.0 / 8.1));
  CHECK(ForeignShare(first, first) == 0);
  CHECK_FALSE(ParseProcessorTime("intr 1 2 3", 100, 0).has_value());
  CHECK_FALSE(ParseProcessorTime("cpu 1 2 3", 100, 0).has_value());
  CHECK(ReadProcessorTime().has_value());
}

TEST_CASE("work is what the steps of a case read and compute", "[bench]") {
  // Hidden 96, 4 heads of 24, 2 kv heads, 4 layers, ffn 160, vocabulary 263, untied or not.
  const auto checkpoint = MakeSyntheticCheckpoint(Golden("tiny/qwen2/config.json")).value();
  const ModelConfig& config = checkpoint->config();
  const BenchModel model(*checkpoint, Precision::kBf16);
  const BenchCase decode{.kind = BenchCase::Kind::kBatch,
                         .sequences = 3,
                         .depth = 10,
                         .steps = 2,
                         .rows = 1,
                         .tokens = 2};
  const BenchWork work = model.WorkOf(decode);
  CHECK(work.weight_bytes == 2 * static_cast<double>(model.weight_bytes_per_step()));
  CHECK(work.cache_bytes == 3 * (11 + 12) * static_cast<double>(model.cache_bytes_per_token()));
  const double layer = 96.0 * (96 + 2 * 2 * config.head_dim) + 96 * 96 + 3 * 96 * 160;
  CHECK(work.matmul_operations == 2 * 3 * 2 * (4 * layer + 96 * 263));
  CHECK(work.attention_operations == 4 * 3 * 4.0 * 4 * config.head_dim * (11 + 12));

  double weights = 0;
  for (const MatMulShape& shape : model.ShapesOf(1, 1)) {
    weights += static_cast<double>(shape.outputs * shape.inputs);
  }
  CHECK(weights == 4 * layer + 96 * 263);
}

TEST_CASE("a prompt longer than a chunk takes several steps", "[bench]") {
  const auto checkpoint = MakeSyntheticCheckpoint(Golden("tiny/qwen2/config.json")).value();
  BenchOptions options = Options("40", "", "");
  options.chunk_tokens = 16;
  const auto cases = BenchCases(options, false, checkpoint->config()).value();
  REQUIRE(cases[0].steps == 3);
  CHECK(cases[0].RowsOf(1) == 16);
  CHECK(cases[0].RowsOf(2) == 8);
  // Rows 1..40 see 1..40 keys.
  const BenchModel model(*checkpoint, Precision::kBf16);
  CHECK(model.WorkOf(cases[0]).attention_operations ==
        4.0 * 4 * 4 * checkpoint->config().head_dim * (40 * 41 / 2));
}

TEST_CASE("a prompt behind a depth reads what lies before it", "[bench]") {
  const auto checkpoint = MakeSyntheticCheckpoint(Golden("tiny/qwen2/config.json")).value();
  BenchOptions options = Options("40", "", "");
  options.prompt_depths = "0,20";
  const auto cases = BenchCases(options, false, checkpoint->config()).value();
  REQUIRE(cases[1].kind == BenchCase::Kind::kPrefill);
  CHECK(cases[0].depth == 0);
  CHECK(cases[1].first_position() == 20);
  CHECK(cases[1].pages_each() == 4);
  // Rows 1..40 see 21..60 keys.
  const BenchModel model(*checkpoint, Precision::kBf16);
  CHECK(model.WorkOf(cases[1]).attention_operations ==
        4.0 * 4 * 4 * checkpoint->config().head_dim * (60 * 61 / 2 - 20 * 21 / 2));
}

TEST_CASE("what depth costs is the slope through the times of single sequences", "[bench]") {
  const auto result = [](BenchCase::Kind kind, int depth, double step_ms) {
    BenchResult r;
    r.what = {.kind = kind, .depth = depth};
    r.step_ms = step_ms;
    return r;
  };
  using Kind = BenchCase::Kind;
  std::vector<BenchResult> results = {result(Kind::kPrefill, 512, 900),
                                      result(Kind::kDecode, 0, 30)};
  CHECK_FALSE(SecondsPerTokenBefore(results).has_value());
  results.push_back(result(Kind::kDecode, 1000, 31.5));
  CHECK(SecondsPerTokenBefore(results).value() == Catch::Approx(1.5e-6));
  // Around the means, 1,000 tokens and 31 ms: (1,000 * 1 + 1,000 * 0.5) / (2 * 1,000^2).
  results.push_back(result(Kind::kDecode, 2000, 31.5));
  CHECK(SecondsPerTokenBefore(results).value() == Catch::Approx(0.75e-6));
  results = {result(Kind::kDecode, 0, 30), result(Kind::kDecode, 1000, 29)};
  CHECK_FALSE(SecondsPerTokenBefore(results).has_value());
}

TEST_CASE("every batch of a bench is one that a stage takes", "[bench]") {
  for (const char* name : {"tiny/lfm2", "tiny/gemma3", "tiny/mistral-window", "tiny/qwen3"}) {
    CAPTURE(name);
    const auto checkpoint =
        MakeSyntheticCheckpoint(Golden(std::string(name) + "/config.json")).value();
    BenchOptions options = Options("40,17", "0,33", "1,4");
    options.prompt_depths = "0,33";
    const auto cases = BenchCases(options, false, checkpoint->config()).value();
    const BatchLimits limits = LimitsFor(cases, checkpoint->config());
    for (const BenchCase& c : cases) {
      CAPTURE(c.name(), c.sequences, c.depth);
      for (int step = 0; step < c.steps; ++step) {
        const Batch batch = BenchBatch(limits, c.sequences, c.pages_each(),
                                       c.first_position() + step * c.rows, c.RowsOf(step));
        const absl::Status status = CheckBatch(batch, limits);
        INFO(status.ToString());
        CHECK(status.ok());
      }
    }
    CHECK(CheckBatch(FillingBatch(limits, 1, 2), limits).ok());
  }
}

TEST_CASE("a bench refuses lists that no model can run", "[bench]") {
  const auto checkpoint = MakeSyntheticCheckpoint(Golden("tiny/qwen2/config.json")).value();
  const auto message = [&](const BenchOptions& options) {
    return std::string(BenchCases(options, false, checkpoint->config()).status().message());
  };
  CHECK(message(Options("0", "", "")) == "--prompt: \"0\" must be a whole number from 1 to 256");
  CHECK(message(Options("8", "255", "")) ==
        "--depths: \"255\" must be a whole number from 0 to 254");
  CHECK(message(Options("8", "", "1,x")) ==
        "--batches: \"x\" must be a whole number from 1 to 1024");
  BenchOptions behind = Options("8,200", "", "");
  behind.prompt_depths = "57";
  CHECK(message(behind) == "--prompt-depths: \"57\" must be a whole number from 0 to 56");
  BenchOptions deep = Options("8", "", "");
  deep.batch_depth = 255;
  CHECK(absl::StrContains(message(deep), "--batch-depth: 255 is more than the 254 tokens"));
}

TEST_CASE("a bench's own lists end where the model does", "[bench]") {
  // 8,192 positions: a GPU's 32,768 are not among them.
  const auto checkpoint = MakeSyntheticCheckpoint("smollm2-135m").value();
  ModelConfig config = checkpoint->config();
  REQUIRE(config.max_positions == 8192);
  const auto depths_of = [&](const BenchOptions& options) {
    const auto cases = BenchCases(options, /*gpu=*/true, config).value();
    std::vector<std::pair<std::string, int>> depths;
    for (const BenchCase& c : cases) {
      depths.emplace_back(c.name(), c.kind == BenchCase::Kind::kPrefill ? c.tokens : c.depth);
    }
    return depths;
  };
  using Depths = std::vector<std::pair<std::string, int>>;
  CHECK(depths_of(Options("", "", "8")) == Depths{{"prefill", 512},
                                                  {"prefill", 2048},
                                                  {"prefill", 8192},
                                                  {"decode", 0},
                                                  {"decode", 4096},
                                                  {"batch", 1024}});
  config.max_positions = 700;
  CHECK(depths_of(Options("", "", "8")) == Depths{{"prefill", 512}, {"decode", 0}, {"batch", 698}});
  config.max_positions = 1;
  CHECK(BenchCases(Options("", "", ""), true, config).status().message() ==
        "--decode: 2 is more than the 1 tokens that the model has");
}

TEST_CASE("auto of a synthetic model means bf16 and int8", "[bench]") {
  const std::vector<Precision> both = {Precision::kBf16, Precision::kInt8};
  CHECK(BenchPrecisions("auto", true).value() == both);
  CHECK(BenchPrecisions("bf16,int8", false).value() == both);
  CHECK(BenchPrecisions("auto", false).value() == std::vector<Precision>{Precision::kAuto});
  CHECK(!BenchPrecisions("bf16,fp4", true).ok());
}

}  // namespace
}  // namespace neurogrid
