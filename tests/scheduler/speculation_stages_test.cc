// Guesses over real stages: with and without them the same tokens, logprobs and ends, bit for bit.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <deque>
#include <map>

#include "common/json.h"
#include "common/rng.h"
#include "coordinator/scheduler.h"
#include "engine/batch_check.h"
#include "engine/model/stage_memory.h"
#include "engine/stage.h"
#include "tests/engine/test_device.h"
#include "tests/support/golden.h"

namespace neurogrid {
namespace {

struct ModelCase {
  const char* name;
  int cut;  // first layer of the second stage; 0: one stage
  Precision precision;
};

/// All that a client sees of a choice.
struct Answer {
  struct Token {
    int32_t id = 0;
    float logprob = 0;
    std::vector<std::pair<int32_t, float>> top;
    bool operator==(const Token&) const = default;
  };
  std::vector<Token> tokens;
  std::optional<FinishReason> finish;
  std::string stop_reason;
  bool operator==(const Answer&) const = default;
};

class GuessedChain {
 public:
  GuessedChain(const ModelCase& model, bool speculates)
      : checkpoint_(Checkpoint::Open(Golden(model.name)).value()),
        device_(TestDevice()),
        limits_(LimitsOf(checkpoint_->config(), model.precision)),
        scheduler_(OptionsOf(model, speculates)) {
    const int layers = checkpoint_->config().layers_count();
    for (const LayerRange range :
         {LayerRange{0, model.cut > 0 ? model.cut : layers}, LayerRange{model.cut, layers}}) {
      if (model.cut == 0 && !stages_.empty()) break;
      const StageOptions options{.layers = range, .precision = model.precision, .limits = limits_};
      stages_.push_back(Stage::Load(*checkpoint_, *device_, options).value());
    }
  }

  int vocab_size() const { return limits_.vocab_size; }
  SchedulerStats stats() const { return scheduler_.stats(); }

  /// Answers of all choices, and the tokens that the requests were told to have.
  std::pair<std::map<std::pair<size_t, int>, Answer>, int64_t> AnswersTo(
      const std::vector<GenerationRequest>& asked) {
    std::map<RequestId, size_t> numbers;
    for (size_t i = 0; i < asked.size(); ++i) {
      Refusal refusal;
      numbers[scheduler_.Admit(asked[i], now_, &refusal).value()] = i;
    }
    std::map<std::pair<size_t, int>, Answer> answers;
    int64_t counted = 0;
    const auto take = [&](const std::vector<SchedulerEvent>& events) {
      for (const SchedulerEvent& event : events) {
        REQUIRE(event.error.ToString() == "OK");
        Answer& answer = answers[{numbers.at(event.request), event.choice}];
        REQUIRE(!answer.finish.has_value());
        if (event.token.has_value()) {
          Answer::Token token{event.token->id, event.token->logprob, {}};
          for (const TokenLogprob& top : event.token->top) {
            token.top.emplace_back(top.id, top.logprob);
          }
          answer.tokens.push_back(std::move(token));
        }
        answer.finish = event.finish;
        answer.stop_reason = event.finish.has_value() ? ToString(event.stop_reason) : "";
        if (event.usage.has_value()) counted += event.usage->completion_tokens;
      }
    };
    std::deque<SchedulerStep> under_way;
    while (true) {
      while (std::optional<SchedulerStep> step = scheduler_.NextStep(now_)) {
        REQUIRE(CheckBatch(step->batch, limits_).ToString() == "OK");
        under_way.push_back(*std::move(step));
      }
      if (under_way.empty()) break;
      Stage::Output output;
      for (const std::unique_ptr<Stage>& stage : stages_) {
        output = stage->Run(under_way.front().batch, output.activations).value();
      }
      const auto events = scheduler_.Commit(under_way.front().id, output.sampled, now_);
      REQUIRE(events.status().ToString() == "OK");
      under_way.pop_front();
      take(*events);
      for (auto more = scheduler_.More(now_); !more.empty(); more = scheduler_.More(now_)) {
        take(more);
      }
    }
    CHECK(scheduler_.idle());
    const SchedulerStats stats = scheduler_.stats();
    for (const PoolStats& pool : {stats.pages, stats.window_pages, stats.slots}) {
      CHECK(pool.free + pool.cached == pool.total);
    }
    return {answers, counted};
  }

 private:
  static BatchLimits LimitsOf(const ModelConfig& config, Precision precision) {
    BatchLimits limits;
    limits.rows_max = 64;
    limits.sequences_max = 16;
    limits.samples_max = 64;
    limits.positions_max = 160;
    limits.vocab_size = config.vocab_size;
    limits.window = WidestWindow(config);
    if (AttendsToAll(config)) limits.pages = 150;
    if (limits.window > 0) limits.window_pages = 150;
    if (StateBytes(MemoryOf(config, precision), {0, config.layers_count()}) > 0) limits.slots = 60;
    return limits;
  }
  SchedulerOptions OptionsOf(const ModelCase& model, bool speculates) const {
    SchedulerOptions options;
    options.limits = limits_;
    options.stages = options.prefill_depth = model.cut > 0 ? 2 : 1;
    options.model_digest = checkpoint_->digest();
    options.speculates = speculates;
    return options;
  }

  std::shared_ptr<const Checkpoint> checkpoint_;
  std::unique_ptr<Device> device_;
  BatchLimits limits_;
  Scheduler scheduler_;
  std::vector<std::unique_ptr<Stage>> stages_;
  SteadyTime now_;
};

/// Prompts at random and such that repeat themselves; greedy and drawn, penalised, biased, ended in
/// every way.
std::vector<GenerationRequest> RequestsOf(int vocab_size, uint64_t seed) {
  const auto random = [&seed](int bound) {
    seed = SplitMix64(seed);
    return static_cast<int>(seed % static_cast<uint64_t>(bound));
  };
  std::vector<GenerationRequest> requests;
  for (int i = 0; i < 12; ++i) {
    GenerationRequest asked;
    std::vector<int32_t> prompt;
    const int period = i % 3 == 0 ? 60 : 3 + random(9);
    for (int t = 0; t < 20 + random(40); ++t) {
      prompt.push_back(t < period ? random(vocab_size)
                                  : prompt[prompt.size() - static_cast<size_t>(period)]);
    }
    asked.prompts = {prompt};
    asked.n = i % 4 == 1 ? 2 : 1;
    asked.tokens_max = 10 + random(50);
    asked.sampling.temperature = i % 2 == 0 ? 0 : 0.2f;
    asked.sampling.seed = seed;
    asked.sampling.top_logprobs = i % 3 - 1 + (i % 3 == 2 ? 2 : 0);  // -1, 0, 3
    if (i % 4 == 2) asked.sampling.repetition_penalty = 1.02f;
    if (i % 4 == 2) asked.sampling.repeat_last_n = 1 + random(30);
    if (i % 5 == 3) asked.sampling.frequency_penalty = 0.05f;
    if (i % 5 == 4) asked.sampling.presence_penalty = 0.1f;
    if (i % 3 == 1) asked.sampling.bias = {{prompt[0], 2.0f}, {prompt[1], 3.0f}};
    asked.ignore_eos = i % 3 == 0;
    asked.tokens_min = i % 4 == 3 ? 8 : 0;
    asked.end_ids = {prompt[2], prompt[4]};
    if (i % 5 == 1) asked.stop_ids = {prompt[3]};
    requests.push_back(std::move(asked));
  }
  return requests;
}

TEST_CASE("guesses change no token, no logprob and no end on real stages",
          "[speculation][stages]") {
  const ModelCase model = GENERATE(
      ModelCase{"tiny/qwen3", 0, Precision::kF32}, ModelCase{"tiny/qwen3", 2, Precision::kBf16},
      ModelCase{"tiny/gemma2", 0, Precision::kBf16}, ModelCase{"tiny/gemma3", 2, Precision::kF32},
      ModelCase{"tiny/mistral-window", 1, Precision::kInt8},
      ModelCase{"tiny/lfm2", 0, Precision::kBf16}, ModelCase{"tiny/lfm2-bias", 2, Precision::kF32});
  CAPTURE(model.name, model.cut);
  GuessedChain plain(model, false);
  GuessedChain guessing(model, true);
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    CAPTURE(seed);
    const std::vector<GenerationRequest> requests = RequestsOf(plain.vocab_size(), seed);
    const auto expected = plain.AnswersTo(requests);
    const auto got = guessing.AnswersTo(requests);
    CHECK(got.second == expected.second);
    REQUIRE(got.first.size() == expected.first.size());
    for (const auto& [key, answer] : expected.first) {
      CAPTURE(key.first, key.second, answer.tokens.size());
      CHECK(got.first.at(key) == answer);
    }
    for (const GenerationRequest& request : requests) {  // and one after the other
      CHECK(guessing.AnswersTo({request}).second == plain.AnswersTo({request}).second);
    }
  }
  CHECK(plain.stats().drafted_tokens == 0);
  CHECK(guessing.stats().accepted_tokens > 50);
  CHECK(guessing.stats().drafted_tokens > guessing.stats().accepted_tokens);
}

}  // namespace
}  // namespace neurogrid
