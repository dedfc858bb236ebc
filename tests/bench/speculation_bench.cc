// Guessed tokens against plain decoding: the same scheduler over the same stage, the two in turn,
// tokens compared. By hand, see kUsage.
//
// Two ratios: of the clock, and by counts: what the steps that ran cost when each takes the median
// time of all steps with as many rows. The second knows no minute in which the machine was busy.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "coordinator/chain_shape.h"
#include "engine/device.h"
#include "engine/model/stage_memory.h"
#include "engine/model/synthetic.h"
#include "engine/stage.h"
#include "engine/text/tokenizer.h"

namespace neurogrid {
namespace {

constexpr int kContext = 2048;

constexpr char kUsage[] =
    "usage: speculation_bench PATH|SHAPE [QUANTIZATION [DEVICE [THREADS [ROUNDS [TOKENS "
    "[MS,...]]]]]]\n"
    "MS,...: what steps of 1, 2, ... rows take, in place of the clock; the last growth goes on";

constexpr char kText[] =
    "The lighthouse keeper wrote down the weather three times a day. On Monday the wind came from "
    "the north-west at 21 knots, the glass stood at 1009, and two fishing boats (Anna B. and "
    "Morgenrot) passed the outer buoy before noon. On Tuesday fog lay on the water until four; he "
    "rang the bell 118 times, cleaned lamp no. 2, and counted 340 litres of oil left in the "
    "cellar. "
    "On Wednesday a letter arrived from his sister in Trieste: she had sold the house at Via "
    "Giulia "
    "17, kept the piano, and would come to see him in the second week of May.";

GenerationRequest Ask(std::vector<int32_t> prompt, float temperature, int tokens) {
  GenerationRequest asked;
  asked.prompts = {std::move(prompt)};
  asked.tokens_max = tokens;
  asked.use_cache = false;  // two schedulers share the stage: neither may keep anything
  asked.ignore_eos = true;
  asked.sampling.temperature = temperature;
  asked.sampling.seed = 7;
  return asked;
}

struct Case {
  std::string name;
  std::vector<GenerationRequest> asked;  // at once
};

/// Texts with a tokenizer. Weights at random say nothing that repeats itself: there copying is one
/// token for ever, and prose is drawn from so few that pairs of them come again all the time.
std::vector<Case> CasesFor(const Tokenizer* tokenizer, int vocab_size, int tokens) {
  std::vector<int32_t> copy, prose;
  int copied = 0;  // tokens that may be drawn; 0: all
  int said = 0;
  if (tokenizer != nullptr) {
    const auto encode = [&](const std::string& text) {
      return tokenizer->Encode({{text, Origin::kTemplate}}, {}).value();
    };
    copy = encode(absl::StrCat("Text:\n", kText, "\n\nThe same text again:\n", kText,
                               "\n\nThe same text again:\nThe lighthouse keeper wrote down"));
    prose =
        encode("A long letter to a friend about the sea, the town and its people.\n\nDear Ruth,");
  } else {
    for (int i = 0; i < 128; ++i) copy.push_back((i * 7919 + 1) % vocab_size);
    prose = copy;
    copied = 1;
    said = 40;
  }
  const auto bounded = [](GenerationRequest asked, int most) {
    for (int32_t id = 0; id < most; ++id) asked.sampling.bias.emplace_back(id, 1000.0f);
    return asked;
  };
  const GenerationRequest drawn = bounded(Ask(prose, 1, tokens), said);
  const auto several = [&](int count) {
    std::vector<GenerationRequest> asked;
    for (int i = 0; i < count; ++i) {
      asked.push_back(bounded(Ask(prose, 1, tokens / 2), said));
      asked.back().sampling.seed = static_cast<uint64_t>(100 + i);
    }
    return asked;
  };
  return {{"copying, greedy", {bounded(Ask(copy, 0, tokens), copied)}},
          {"copying, drawn at 0.3", {bounded(Ask(copy, 0.3f, tokens), copied)}},
          {"prose, greedy", {bounded(Ask(prose, 0, tokens), said)}},
          {"prose, drawn at 1", {drawn}},
          {"2 x prose, drawn at 1", several(2)},
          {"4 x prose, drawn at 1", several(4)},
          {"8 x prose, drawn at 1", several(8)}};
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Times of steps by their number of rows.
using StepTimes = std::map<int, std::vector<double>>;

/// The clock, or one that only steps move, by their rows.
class StepClock {
 public:
  using Time = std::chrono::steady_clock::time_point;

  explicit StepClock(std::vector<double> ms) : ms_(std::move(ms)) {}
  Time now() const { return ms_.empty() ? std::chrono::steady_clock::now() : now_; }
  void Pass(int rows) {
    if (ms_.empty()) return;
    const auto count = static_cast<int>(ms_.size());
    const double last = ms_.back();
    const double growth = count > 1 ? last - ms_[ms_.size() - 2] : 0;
    const double ms = rows <= count ? ms_[static_cast<size_t>(rows - 1)]
                                    : last + growth * static_cast<double>(rows - count);
    now_ += std::chrono::nanoseconds(static_cast<int64_t>(ms * 1e6));
  }

 private:
  std::vector<double> ms_;  // by rows, from 1
  Time now_;
};

class Side {
 public:
  Side(Stage& stage, bool speculates, std::vector<double> ms)
      : stage_(stage), scheduler_(OptionsOf(stage, speculates)), clock_(std::move(ms)) {}

  struct Answer {
    std::vector<int32_t> tokens;  // of all requests, by step
    double tokens_per_s = 0;      // behind the first tokens
    StepTimes steps;              // likewise
  };
  absl::StatusOr<Answer> Run(const Case& c) {
    std::vector<std::vector<int32_t>> tokens;
    std::vector<RequestId> ids;
    for (const GenerationRequest& asked : c.asked) {
      Refusal refusal;
      const std::optional<RequestId> id = scheduler_.Admit(asked, clock_.now(), &refusal);
      if (!id.has_value()) return absl::FailedPreconditionError(refusal.message);
      ids.push_back(*id);
      tokens.emplace_back();
    }
    std::optional<StepClock::Time> start;
    size_t before = 0;
    const auto count = [&] {
      size_t all = 0;
      for (const auto& own : tokens) all += own.size();
      return all;
    };
    const auto take = [&](const std::vector<SchedulerEvent>& events) {
      for (const SchedulerEvent& event : events) {
        const size_t number = event.request - ids.front();
        if (event.token.has_value()) tokens[number].push_back(event.token->id);
      }
    };
    Answer answer;
    struct UnderWay {
      uint64_t id;
      int rows;
      StepClock::Time sent;
    };
    std::deque<UnderWay> under_way;
    StepClock::Time last_end = clock_.now();
    while (true) {
      while (std::optional<SchedulerStep> step = scheduler_.NextStep(clock_.now())) {
        under_way.push_back({step->id, step->batch.rows(), clock_.now()});
        NG_RETURN_IF_ERROR(stage_.Queue(step->batch, ConstTensor()));
      }
      if (under_way.empty()) break;
      const UnderWay oldest = under_way.front();
      under_way.pop_front();
      NG_ASSIGN_OR_RETURN(const Stage::Output output, stage_.Collect());
      clock_.Pass(oldest.rows);
      NG_ASSIGN_OR_RETURN(const std::vector<SchedulerEvent> events,
                          scheduler_.Commit(oldest.id, output.sampled, clock_.now()));
      const StepClock::Time begun = std::max(oldest.sent, last_end);
      last_end = clock_.now();
      if (start.has_value()) {
        answer.steps[oldest.rows].push_back(
            std::chrono::duration<double>(last_end - begun).count());
      }
      take(events);
      for (auto more = scheduler_.More(clock_.now()); !more.empty();
           more = scheduler_.More(clock_.now())) {
        take(more);
      }
      const bool all_begun =
          std::none_of(tokens.begin(), tokens.end(), [](const auto& own) { return own.empty(); });
      if (!start.has_value() && all_begun) {
        start = clock_.now();
        before = count();
      }
    }
    const double seconds = std::chrono::duration<double>(clock_.now() - *start).count();
    answer.tokens_per_s = static_cast<double>(count() - before) / seconds;
    for (const auto& own : tokens) {
      answer.tokens.insert(answer.tokens.end(), own.begin(), own.end());
    }
    return answer;
  }
  SchedulerStats stats() const { return scheduler_.stats(); }

 private:
  static SchedulerOptions OptionsOf(const Stage& stage, bool speculates) {
    Plan plan;
    plan.stages.emplace_back();
    return ChainShape(plan, stage.options().limits, stage.determinism_class(),
                      speculates ? "on" : "off");
  }

  Stage& stage_;
  Scheduler scheduler_;
  StepClock clock_;
};

BatchLimits LimitsOf(const ModelConfig& config) {
  BatchLimits limits;
  limits.rows_max = 512;
  limits.sequences_max = 16;
  limits.samples_max = 64;
  limits.positions_max = kContext;
  limits.vocab_size = config.vocab_size;
  limits.window = WidestWindow(config);
  if (AttendsToAll(config)) limits.pages = 4 * kContext / kPageTokens;
  if (limits.window > 0) limits.window_pages = 4 * kContext / kPageTokens;
  if (config.conv_taps > 0) limits.slots = 64;
  return limits;
}

/// Seconds of all steps, each priced like the others with its number of rows.
double PriceOf(const StepTimes& steps, const std::map<int, double>& prices) {
  double sum = 0;
  for (const auto& [rows, times] : steps)
    sum += prices.at(rows) * static_cast<double>(times.size());
  return sum;
}

void PrintByCounts(const std::vector<std::pair<std::string, std::array<StepTimes, 2>>>& counted) {
  StepTimes all;
  for (const auto& [name, sides] : counted) {
    for (const StepTimes& side : sides) {
      for (const auto& [rows, times] : side) {
        all[rows].insert(all[rows].end(), times.begin(), times.end());
      }
    }
  }
  std::map<int, double> prices;
  std::printf("rows: steps, ms       ");
  for (const auto& [rows, times] : all) {
    prices[rows] = Median(times);
    std::printf("  %d: %zu, %.3f", rows, times.size(), prices[rows] * 1e3);
  }
  std::printf("\n%-24s %10s %10s   %s\n", "by counts, ms", "plain", "guessing", "ratio");
  for (const auto& [name, sides] : counted) {
    const double plain = PriceOf(sides[0], prices);
    const double guessing = PriceOf(sides[1], prices);
    std::printf("%-24s %10.1f %10.1f   %5.3f  ", name.c_str(), plain * 1e3, guessing * 1e3,
                plain / guessing);
    for (const auto& [rows, times] : sides[1]) std::printf(" %d: %zu", rows, times.size());
    std::printf("\n");
  }
}

absl::Status Compare(Stage& stage, const std::vector<Case>& cases, int rounds,
                     const std::vector<double>& ms) {
  Side plain(stage, false, ms);
  Side guessing(stage, true, ms);
  std::printf("%-24s %10s %10s   %-22s %8s %8s\n", "tok/s", "plain", "guessing", "ratio", "guessed",
              "right");
  std::vector<std::pair<std::string, std::array<StepTimes, 2>>> counted;
  for (const Case& c : cases) {
    std::array<StepTimes, 2>& steps =
        counted.emplace_back(c.name, std::array<StepTimes, 2>()).second;
    std::vector<double> plain_speeds, speeds, ratios;
    const SchedulerStats before = guessing.stats();
    for (int round = 0; round < rounds; ++round) {
      Side::Answer expected, got;
      for (const bool guesses : {round % 2 == 1, round % 2 == 0}) {  // A B B A: neither is first
        NG_ASSIGN_OR_RETURN((guesses ? got : expected), (guesses ? guessing : plain).Run(c));
      }
      if (got.tokens != expected.tokens) {
        return absl::InternalError(absl::StrCat(c.name, ": guesses changed the tokens"));
      }
      for (auto [answer, side] : {std::pair(&expected, &steps[0]), std::pair(&got, &steps[1])}) {
        for (auto& [rows, times] : answer->steps) {
          (*side)[rows].insert((*side)[rows].end(), times.begin(), times.end());
        }
      }
      plain_speeds.push_back(expected.tokens_per_s);
      speeds.push_back(got.tokens_per_s);
      ratios.push_back(got.tokens_per_s / expected.tokens_per_s);
    }
    for (auto* values : {&plain_speeds, &speeds, &ratios})
      std::sort(values->begin(), values->end());
    const auto middle = static_cast<size_t>(rounds) / 2;
    const SchedulerStats after = guessing.stats();
    std::printf("%-24s %10.1f %10.1f   %4.2f (%4.2f to %4.2f)    %8lld %8lld\n", c.name.c_str(),
                plain_speeds[middle], speeds[middle], ratios[middle], ratios.front(), ratios.back(),
                static_cast<long long>(after.drafted_tokens - before.drafted_tokens),
                static_cast<long long>(after.accepted_tokens - before.accepted_tokens));
    std::fflush(stdout);
  }
  PrintByCounts(counted);
  return absl::OkStatus();
}

absl::Status Main(const std::vector<std::string>& words) {
  const auto word = [&](size_t i, const char* fallback) {
    return i < words.size() ? words[i] : std::string(fallback);
  };
  const bool real = word(0, "").find('/') != std::string::npos;
  int threads = 0;
  int rounds = 0;
  int tokens = 0;
  if (words.empty() || !absl::SimpleAtoi(word(3, "0"), &threads) ||
      !absl::SimpleAtoi(word(4, "5"), &rounds) || !absl::SimpleAtoi(word(5, "160"), &tokens) ||
      rounds < 1 || tokens < 2 || tokens > kContext / 2) {
    return absl::InvalidArgumentError(kUsage);
  }
  std::vector<double> ms;
  for (const absl::string_view part : absl::StrSplit(word(6, ""), ',', absl::SkipEmpty())) {
    if (!absl::SimpleAtod(part, &ms.emplace_back()) || ms.back() <= 0) {
      return absl::InvalidArgumentError(kUsage);
    }
  }
  NG_ASSIGN_OR_RETURN(const Precision precision, ParsePrecision(word(1, "auto")));
  NG_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                      real ? Checkpoint::Open(words[0]) : MakeSyntheticCheckpoint(words[0]));
  std::unique_ptr<Tokenizer> tokenizer;
  if (real) {
    NG_ASSIGN_OR_RETURN(tokenizer, checkpoint->gguf() != nullptr
                                       ? Tokenizer::FromGguf(*checkpoint->gguf())
                                       : Tokenizer::FromDirectory(words[0]));
  }
  NG_ASSIGN_OR_RETURN(const std::unique_ptr<Device> device, MakeDevice(word(2, "cpu"), threads));
  const ModelConfig& config = checkpoint->config();
  NG_ASSIGN_OR_RETURN(const std::unique_ptr<Stage> stage,
                      Stage::Load(*checkpoint, *device,
                                  {.layers = {0, config.layers_count()},
                                   .precision = precision,
                                   .limits = LimitsOf(config)}));
  return Compare(*stage, CasesFor(tokenizer.get(), config.vocab_size, tokens), rounds, ms);
}

}  // namespace
}  // namespace neurogrid

int main(int argc, char** argv) {
  const absl::Status status = neurogrid::Main({argv + 1, argv + argc});
  if (status.ok()) return 0;
  std::fprintf(stderr, "speculation_bench: %s\n", std::string(status.message()).c_str());
  return 1;
}
