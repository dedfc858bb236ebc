// The scheduler against a chain of stages in which any mistake changes the tokens: random arrivals,
// cancels, shared prompts and too few pages, several steps in flight.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <map>
#include <string>

#include "common/rng.h"
#include "coordinator/scheduler.h"
#include "coordinator/window_pages.h"
#include "engine/batch_check.h"
#include "hash_chain.h"

namespace neurogrid {
namespace {

class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(SplitMix64(seed)) {}
  int Below(int bound) {
    state_ = SplitMix64(state_);
    return static_cast<int>(state_ % static_cast<uint64_t>(bound));
  }
  bool One(int in) { return Below(in) == 0; }

 private:
  uint64_t state_;
};

struct Client {
  GenerationRequest asked;
  std::vector<std::vector<int32_t>> tokens;  // [choices]
  std::vector<std::vector<float>> scores;    // [choices]
  std::vector<std::vector<int32_t>> forced;  // [choices]
  std::vector<bool> finished;
  std::vector<bool> finished_by_text;
  bool ended = false;
  bool cancelled = false;  // or failed
  GenerationUsage usage;
};

class Simulation {
 public:
  Simulation(uint64_t seed, int pages, int requests)
      : dice_(seed),
        requests_left_(requests),
        options_(OptionsOf(pages)),
        scheduler_(options_),
        chain_(options_.stages, options_.limits) {
    const int families = 1 + dice_.Below(3);
    for (int f = 0; f < families; ++f) shared_.push_back(Ids(dice_.Below(pages * 8)));
  }

  void Run() {
    int64_t quiet = 0;
    while (requests_left_ > 0 || !scheduler_.idle()) {
      now_ += std::chrono::microseconds(100 + dice_.Below(1000));
      if (!Turn()) {
        ++quiet;
      } else {
        quiet = 0;
      }
      REQUIRE(quiet < 10'000);  // nothing hangs
    }
  }

  void CheckTheEnd() {
    const SchedulerStats stats = scheduler_.stats();
    CHECK(stats.running == 0);
    CHECK(stats.waiting == 0);
    CHECK(stats.steps_in_flight == 0);
    for (const PoolStats& pool : {stats.pages, stats.window_pages, stats.slots}) {
      CHECK(pool.free + pool.cached == pool.total);
    }
    for (auto& [id, client] : clients_) {
      CAPTURE(id);
      CHECK(client.ended);
      int64_t told = 0;
      for (const auto& tokens : client.tokens) told += static_cast<int64_t>(tokens.size());
      if (!client.cancelled) CHECK(client.usage.completion_tokens == told);
      for (size_t c = 0; c < client.tokens.size(); ++c) CheckChoice(client, static_cast<int>(c));
    }
  }

  int64_t preemptions() const { return scheduler_.stats().preemptions; }
  SchedulerStats stats() const { return scheduler_.stats(); }
  int64_t prefix_hits() const { return scheduler_.stats().prefix_hits; }
  int64_t losses() const { return losses_; }

 private:
  SchedulerOptions OptionsOf(int pages) {
    SchedulerOptions options;
    options.stages = 1 + dice_.Below(4);
    options.steps_in_flight = options.stages + dice_.Below(2);
    options.decode_groups = 1 + dice_.Below(options.stages);
    options.prefill_depth = dice_.One(3) ? options.stages : 1;
    options.limits.rows_max = 32 + dice_.Below(100);
    options.limits.samples_max = 32 + dice_.Below(64);
    options.limits.sequences_max = 1 + dice_.Below(32);
    SetKinds(pages, options.limits);
    // Where every layer has a window nothing else bounds the context.
    const int longest = options.limits.pages > 0 ? 100'000 : pages * 20;
    options.limits.positions_max = dice_.One(3) ? pages * 5 : longest;
    options.limits.vocab_size = kHashVocab;
    options.running_max = 1 + dice_.Below(40);
    options.queue_wait_max = absl::Hours(10);
    options.queued_tokens_max = 1 << 30;
    options.tenant_running_max = 1 + dice_.Below(20);
    options.model_digest = "model";
    options.speculates = !dice_.One(3);
    if (dice_.One(3)) {
      options.stages = options.steps_in_flight = options.decode_groups = options.prefill_depth = 1;
      options.ahead = true;
    }
    return options;
  }

  /// Models whose layers see everything, have a window, carry a state, or some of each.
  void SetKinds(int pages, BatchLimits& limits) {
    const int kind = dice_.Below(5);
    const bool windowed = kind == 1 || kind == 2 || kind == 4;
    if (kind != 2) limits.pages = pages;
    if (windowed) {
      limits.window = 1 + dice_.Below(100);
      limits.window_pages = 2 + dice_.Below(pages);
    }
    if (kind >= 3) limits.slots = 1 + dice_.Below(dice_.One(2) ? 6 : 60);
  }

  std::vector<int32_t> Ids(int count) {
    std::vector<int32_t> ids;
    for (int i = 0; i < count; ++i) ids.push_back(dice_.Below(kHashVocab));
    return ids;
  }

  GenerationRequest Ask() {
    const auto context = static_cast<int>(scheduler_.context_tokens_max());
    GenerationRequest asked;
    asked.tenant = dice_.One(2) ? "" : std::string(1, static_cast<char>('a' + dice_.Below(3)));
    asked.cache_salt = dice_.One(4) ? "salt" : "";
    asked.use_cache = !dice_.One(4);
    asked.n = dice_.One(4) ? 1 + dice_.Below(4) : 1;
    const int prompts = dice_.One(8) ? 2 : 1;
    asked.tokens_max = dice_.One(10) ? 0 : 1 + dice_.Below(dice_.One(3) ? context : 30);
    asked.tokens_min = dice_.One(4) ? dice_.Below(static_cast<int>(asked.tokens_max) + 1) : 0;
    asked.tokens_min = std::min<int64_t>(asked.tokens_min, context / 2);
    for (int p = 0; p < prompts; ++p) {
      std::vector<int32_t> prompt =
          shared_[static_cast<size_t>(dice_.Below(static_cast<int>(shared_.size())))];
      prompt.resize(static_cast<size_t>(dice_.Below(static_cast<int>(prompt.size()) + 1)));
      for (const int32_t id : Ids(1 + dice_.Below(40))) prompt.push_back(id);
      const int room = context - static_cast<int>(std::max<int64_t>(1, asked.tokens_min));
      if (static_cast<int>(prompt.size()) > room) prompt.resize(static_cast<size_t>(room));
      asked.prompts.push_back(std::move(prompt));
    }
    asked.ignore_eos = dice_.One(3);
    asked.echo_logprobs = dice_.One(5);
    if (!dice_.One(3)) asked.end_ids = {0, 7};
    if (dice_.One(3)) asked.stop_ids = {5};
    asked.sampling.temperature = dice_.One(2) ? 0 : 1;
    asked.sampling.seed = static_cast<uint64_t>(dice_.Below(1 << 30));
    if (dice_.One(4)) asked.sampling.presence_penalty = 0.5f;
    if (dice_.One(4)) {
      asked.sampling.repetition_penalty = 1.1f;
      asked.sampling.repeat_last_n = dice_.Below(30) - 1;
      if (asked.sampling.repeat_last_n == 0) asked.sampling.repeat_last_n = -1;
    }
    return asked;
  }

  /// One thing happens; false when nothing did.
  bool Turn() {
    switch (dice_.Below(8)) {
      case 0:
        return Arrive();
      case 1:
        return dice_.One(100) ? Restart() : Disturb();
      case 2:
      case 3:
        return Issue();
      case 4:
      case 5:
        return Receive();
      default:
        return chain_.Turn(dice_.Below(chain_.stages()));
    }
  }

  bool Arrive() {
    if (requests_left_ == 0) return false;
    --requests_left_;
    Client client;
    client.asked = Ask();
    const size_t choices = client.asked.prompts.size() * static_cast<size_t>(client.asked.n);
    client.tokens.resize(choices);
    client.scores.resize(choices);
    client.finished.resize(choices);
    client.finished_by_text.resize(choices);
    Refusal refusal;
    const std::optional<RequestId> id = scheduler_.Admit(client.asked, now_, &refusal);
    CAPTURE(refusal.message);
    if (!id.has_value()) {
      REQUIRE(refusal.kind == Refusal::Kind::kRateLimited);
      return true;
    }
    client.forced.resize(choices);
    if (dice_.One(6)) {
      for (size_t c = 0; c < choices; ++c) {
        client.forced[c] = Ids(dice_.Below(20));
        scheduler_.Force(*id, static_cast<int>(c), client.forced[c]);
      }
    }
    clients_.emplace(*id, std::move(client));
    return true;
  }

  /// The chain is lost, and sometimes the next one comes later: one of the same kind, whose pages
  /// and slots hold nothing.
  bool Restart() {
    ++losses_;
    if (dice_.One(2)) {
      TakeErrors(scheduler_.Park(now_));
      for (int i = dice_.Below(10); i > 0; --i) dice_.One(2) ? Arrive() : Disturb();
    }
    TakeErrors(scheduler_.Reset(options_, now_));
    for (const PoolStats& pool :
         {scheduler_.stats().pages, scheduler_.stats().window_pages, scheduler_.stats().slots}) {
      REQUIRE(pool.free == pool.total);
    }
    chain_ = HashChain(options_.stages, options_.limits);
    return true;
  }

  void TakeErrors(const std::vector<SchedulerEvent>& events) {
    for (const SchedulerEvent& event : events) {
      REQUIRE(event.error.code() == absl::StatusCode::kAborted);  // under way in three losses
      TakeError(event);
    }
  }

  void TakeError(const SchedulerEvent& event) {
    Client& client = clients_.at(event.request);
    REQUIRE(!event.error.ok());
    REQUIRE(!client.ended);
    client.ended = client.cancelled = true;
  }

  bool Disturb() {
    if (clients_.empty()) return false;
    auto at = clients_.begin();
    std::advance(at, dice_.Below(static_cast<int>(clients_.size())));
    auto& [id, client] = *at;
    if (client.ended) return false;
    if (dice_.One(6)) {
      scheduler_.Cancel(id);
      client.ended = client.cancelled = true;
    } else if (dice_.One(6)) {
      scheduler_.Pause(id, true);
      paused_.push_back(id);
    } else if (!paused_.empty()) {
      scheduler_.Pause(paused_.back(), false);
      paused_.pop_back();
    }
    return true;
  }

  bool Issue() {
    std::optional<SchedulerStep> step = scheduler_.NextStep(now_);
    if (!step.has_value()) {
      if (requests_left_ == 0 && chain_.in_flight() == 0 && !paused_.empty()) Disturb();
      return false;
    }
    const absl::Status fits = CheckBatch(step->batch, options_.limits);
    REQUIRE(fits.ToString() == "OK");
    CheckWindows(step->batch);
    chain_.Send(*std::move(step));
    if (options_.prefill_depth == 1 && !options_.ahead) REQUIRE(chain_.IdsAreExclusive());
    return true;
  }

  /// Nobody keeps more window pages than its window and the rows under way need.
  void CheckWindows(const Batch& batch) {
    if (options_.limits.window == 0) return;
    for (int s = 0; s < batch.sequences(); ++s) {
      const int rows = batch.sequence_offsets[s + 1] - batch.sequence_offsets[s];
      const int ahead = options_.prefill_depth == 1
                            ? rows + (options_.ahead ? options_.limits.rows_max : 0)
                            : options_.prefill_depth * options_.limits.rows_max;
      const auto held = std::count_if(batch.window_pages.begin() + batch.page_offsets[s],
                                      batch.window_pages.begin() + batch.page_offsets[s + 1],
                                      [](int32_t page) { return page >= 0; });
      REQUIRE(held <= WindowPagesMax(options_.limits.window, ahead));
    }
  }

  bool Receive() {
    HashChain::Result result;
    if (!chain_.Receive(result)) return false;
    if (dice_.One(400)) {
      const auto failed =
          scheduler_.FailStep(result.step, absl::InternalError("a stage failed"), now_);
      REQUIRE(failed.status().ToString() == "OK");
      for (const SchedulerEvent& event : *failed) TakeError(event);
      return true;
    }
    if (!result.sampled.empty() && dice_.One(400)) {
      result.sampled[static_cast<size_t>(dice_.Below(static_cast<int>(result.sampled.size())))]
          .failed = true;
    }
    const auto events = scheduler_.Commit(result.step, result.sampled, now_);
    REQUIRE(events.status().ToString() == "OK");
    for (const SchedulerEvent& event : *events) Take(event);
    while (true) {
      const std::vector<SchedulerEvent> more = scheduler_.More(now_);
      if (more.empty()) return true;
      for (const SchedulerEvent& event : more) Take(event);
    }
  }

  void Take(const SchedulerEvent& event) {
    if (!event.error.ok()) return TakeError(event);
    Client& client = clients_.at(event.request);
    REQUIRE(!client.cancelled);
    const auto choice = static_cast<size_t>(event.choice);
    REQUIRE(!client.finished[choice]);
    if (event.token.has_value()) client.tokens[choice].push_back(event.token->id);
    for (const GeneratedToken& token : event.prompt) {
      client.scores[choice].push_back(token.logprob);
    }
    if (event.finish.has_value()) client.finished[choice] = true;
    if (event.usage.has_value()) End(client, *event.usage);
    if (!event.finish.has_value() && dice_.One(60)) {  // a stop string
      client.finished[choice] = client.finished_by_text[choice] = true;
      const auto usage = scheduler_.Finish(event.request, event.choice, now_);
      if (usage.has_value()) End(client, *usage);
    }
  }

  void End(Client& client, const GenerationUsage& usage) {
    REQUIRE(!client.ended);
    client.ended = true;
    client.usage = usage;
  }

  void CheckChoice(const Client& client, int choice) {
    CAPTURE(choice);
    const auto c = static_cast<size_t>(choice);
    const std::vector<int32_t> alone =
        AloneTokens(client.asked, choice, options_.stages, scheduler_.context_tokens_max(),
                    ShapeOf(options_.limits), client.forced[c]);
    const std::vector<int32_t>& got = client.tokens[c];
    REQUIRE(got.size() <= alone.size());
    CHECK(std::equal(got.begin(), got.end(), alone.begin()));
    if (client.cancelled) return;
    CHECK(client.finished[c]);
    if (!client.finished_by_text[c]) CHECK(got.size() == alone.size());
    if (client.asked.echo_logprobs && (!got.empty() || client.asked.tokens_max == 0)) {
      CHECK(client.scores[c] ==
            AlonePromptScores(client.asked.prompts[c / static_cast<size_t>(client.asked.n)],
                              options_.stages, ShapeOf(options_.limits)));
    }
  }

  Dice dice_;
  int requests_left_ = 0;
  SchedulerOptions options_;
  Scheduler scheduler_;
  HashChain chain_;
  SteadyTime now_;
  int64_t losses_ = 0;
  std::vector<std::vector<int32_t>> shared_;  // beginnings of prompts
  std::map<RequestId, Client> clients_;
  std::vector<RequestId> paused_;
};

void RunSeeds(uint64_t first, uint64_t last) {
  int64_t preemptions = 0;
  int64_t hits = 0;
  int64_t losses = 0;
  int64_t replayed = 0;
  int64_t drafted = 0;
  int64_t accepted = 0;
  for (uint64_t seed = first; seed < last; ++seed) {
    CAPTURE(seed);
    const int pages = 4 + static_cast<int>(SplitMix64(seed) % 60);
    Simulation simulation(seed, pages, 40);
    simulation.Run();
    simulation.CheckTheEnd();
    preemptions += simulation.preemptions();
    hits += simulation.prefix_hits();
    losses += simulation.losses();
    replayed += simulation.stats().replayed_tokens;
    drafted += simulation.stats().drafted_tokens;
    accepted += simulation.stats().accepted_tokens;
  }
  CHECK(preemptions > 0);  // the worlds are as hard as they are meant to be
  CHECK(hits > 0);
  CHECK(losses > 50);
  CHECK(replayed > 10'000);
  CHECK(accepted > 500);
  CHECK(drafted - accepted > 500);
}

TEST_CASE("whatever comes and goes, every request gets the tokens it gets alone",
          "[scheduler][U20]") {
  RunSeeds(0, 100);
}

TEST_CASE("every request gets its own tokens over many more seeds", "[.][long]") {
  RunSeeds(1000, 3000);
}

}  // namespace
}  // namespace neurogrid
