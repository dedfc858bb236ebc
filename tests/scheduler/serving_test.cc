// The serving thread over a chain without a model: readers in their own threads, losses, drains.
#include "coordinator/serving.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <climits>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/text/tokenizer.h"
#include "tests/scheduler/hash_chain.h"
#include "tests/support/golden.h"

namespace neurogrid {
namespace {

constexpr int kStages = 2;
constexpr int kPages = 64;

const Tokenizer& TinyTokenizer() {
  static const std::unique_ptr<Tokenizer> tokenizer =
      Tokenizer::FromDirectory(Golden("tiny/llama")).value();
  return *tokenizer;
}

SchedulerOptions Shape() {
  SchedulerOptions shape;
  shape.limits = {.rows_max = 64,
                  .sequences_max = 64,
                  .samples_max = 64,
                  .pages = kPages,
                  .slots = 0,
                  .positions_max = 512,
                  .vocab_size = kHashVocab};
  shape.stages = kStages;
  shape.speculates = true;
  return shape;
}

/// The hash chain as a chain of workers: a thread of its own runs the stages. It hangs after
/// `results_max` steps.
class ThreadedChain final : public Chain {
 public:
  ThreadedChain(Serving& serving, uint64_t tag, int results_max = INT_MAX)
      : serving_(serving), tag_(tag), results_left_(results_max), thread_([this] { Loop(); }) {}
  ~ThreadedChain() override {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  void Submit(uint64_t step, Batch batch) override {
    {
      const std::lock_guard lock(mutex_);
      chain_.Send({step, std::move(batch)});
    }
    changed_.notify_all();
  }

 private:
  void Loop() {
    std::unique_lock lock(mutex_);
    while (!stop_) {
      changed_.wait(lock, [&] { return stop_ || (results_left_ > 0 && chain_.in_flight() > 0); });
      chain_.TurnAll();
      HashChain::Result result;
      while (results_left_ > 0 && chain_.Receive(result)) {
        --results_left_;
        lock.unlock();
        serving_.StepDone(tag_, result.step, std::move(result.sampled));
        lock.lock();
      }
    }
  }

  Serving& serving_;
  uint64_t tag_;
  int results_left_;
  HashChain chain_{kStages, Shape().limits};
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  std::thread thread_;
};

/// Computes NaN, as a stage with a broken weight does.
class BrokenChain final : public Chain {
 public:
  BrokenChain(Serving& serving, uint64_t tag) : serving_(serving), tag_(tag) {}
  void Submit(uint64_t step, Batch batch) override {
    SampledToken failed;
    failed.failed = true;
    serving_.StepDone(tag_, step, std::vector<SampledToken>(batch.sampled_rows.size(), failed));
    ++steps_;
  }
  int steps() const { return steps_; }

 private:
  Serving& serving_;
  uint64_t tag_;
  std::atomic<int> steps_ = 0;
};

void BringUp(Serving& serving, uint64_t tag, int results_max = INT_MAX) {
  serving.ChainUp(tag, std::make_shared<ThreadedChain>(serving, tag, results_max), Shape(), "test");
  while (serving.state() != ServingState::kReady) std::this_thread::yield();
}

GenerationRequest Ask(int number) {
  GenerationRequest request;
  request.id = "test";
  request.prompts.emplace_back();
  for (int i = 0; i < 5 + number % 37; ++i) request.prompts[0].push_back((number + i) % kHashVocab);
  request.tokens_max = 4 + number % 20;
  request.sampling.temperature = number % 2 == 0 ? 0 : 1;  // 0 repeats itself: guesses come true
  request.sampling.seed = static_cast<uint64_t>(number);
  return request;
}

struct Answer {
  std::vector<int32_t> tokens;
  std::string text;
  absl::Status error;
};

/// Reads to the end, or leaves after `tokens_max` tokens.
Answer Read(Generation& generation, size_t tokens_max) {
  Answer answer;
  while (answer.tokens.size() < tokens_max) {
    absl::StatusOr<std::vector<GenerationEvent>> events = generation.Next(absl::Seconds(60));
    if (!events.ok()) {
      answer.error = events.status();
      return answer;
    }
    for (const GenerationEvent& event : *events) {
      answer.text += TextOf(event.pieces, AnswerPiece::Kind::kContent);
      for (const GeneratedToken& token : event.tokens) answer.tokens.push_back(token.id);
    }
    if (generation.done()) return answer;
  }
  return answer;
}

void WaitUntilIdle(Serving& serving) {
  while (!serving.idle() || serving.stats().pages.free + serving.stats().pages.cached != kPages) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

TEST_CASE("of 32 readers half leave; the rest get their own tokens and all pages come back",
          "[serving][threads]") {
  Serving serving(TinyTokenizer(), {}, nullptr);
  BringUp(serving, 1);
  std::vector<Answer> answers(32);
  std::vector<std::thread> readers;
  for (int n = 0; n < 32; ++n) {
    readers.emplace_back([&, n] {
      Refusal refusal;
      const std::unique_ptr<Generation> generation = serving.Start(Ask(n), &refusal);
      if (generation != nullptr) answers[n] = Read(*generation, n % 2 == 0 ? 1000 : 1 + n % 3);
    });
  }
  for (std::thread& reader : readers) reader.join();
  for (int n = 0; n < 32; n += 2) {
    CAPTURE(n);
    CHECK(answers[n].error.ok());
    CHECK(answers[n].tokens == AloneTokens(Ask(n), 0, kStages, 512));
  }
  WaitUntilIdle(serving);
}

/// A request whose chain hangs in the middle of it.
std::unique_ptr<Generation> AskAndHang(Serving& serving, GenerationRequest request) {
  BringUp(serving, 1, /*results_max=*/60);
  Refusal refusal;
  std::unique_ptr<Generation> generation = serving.Start(std::move(request), &refusal);
  REQUIRE(generation != nullptr);
  return generation;
}

GenerationRequest AskForMany(int number) {
  GenerationRequest request = Ask(number);
  request.tokens_max = 400;
  return request;
}

TEST_CASE("a text goes on where its lost chain left it, on the next chain", "[serving][threads]") {
  Serving serving(TinyTokenizer(), {}, nullptr);
  Serving undisturbed(TinyTokenizer(), {}, nullptr);
  BringUp(undisturbed, 1);
  Refusal refusal;
  const Answer whole = Read(*undisturbed.Start(AskForMany(1), &refusal), 1000);
  const std::unique_ptr<Generation> lost = AskAndHang(serving, AskForMany(1));
  Answer answer = Read(*lost, 20);
  serving.ChainDown(ServingState::kRecovering, {"node b"});
  while (lost->progress().state != Generation::State::kRecovering) std::this_thread::yield();
  CHECK(serving.Start(Ask(2), &refusal) == nullptr);
  CHECK(refusal.kind == Refusal::Kind::kRecovering);
  CHECK(serving.missing() == std::vector<std::string>{"node b"});
  serving.StepDone(1, 61, std::vector<SampledToken>(1));  // late, from the chain that is gone
  // As late when the next chain is up, of steps that are in flight there.
  const auto late = std::make_shared<BrokenChain>(serving, /*tag=*/1);
  serving.ChainUp(2, late, Shape(), "test");
  while (late->steps() == 0) std::this_thread::yield();

  BringUp(serving, 3);
  const Answer rest = Read(*lost, 1000);
  CHECK(rest.error.ok());
  answer.tokens.insert(answer.tokens.end(), rest.tokens.begin(), rest.tokens.end());
  CHECK(answer.tokens == AloneTokens(AskForMany(1), 0, kStages, 512));
  CHECK(answer.text + rest.text == whole.text);
  CHECK(lost->usage().completion_tokens == 400);
  CHECK(lost->usage().recoveries == 2);
  while (serving.stats().replayed_tokens == 0 || serving.stats().parked > 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  const Json cluster = serving.DescribeCluster();
  CHECK(cluster.Find("recovery")->Find("takeovers")->as_integer() == 1);
  CHECK(cluster.Find("recovery")->Find("replayed_tokens")->as_integer() > 20);
  CHECK(cluster.Find("recovery")->Find("parked")->as_integer() == 0);
  WaitUntilIdle(serving);
}

TEST_CASE("a text that no chain takes up ends with an error", "[serving][threads]") {
  ServingOptions options;
  options.scheduler.park_timeout = absl::Milliseconds(30);
  Serving serving(TinyTokenizer(), options, nullptr);
  const std::unique_ptr<Generation> lost = AskAndHang(serving, AskForMany(1));
  Read(*lost, 1);
  serving.ChainDown(ServingState::kRecovering, {});
  CHECK(Read(*lost, 1000).error ==
        absl::UnavailableError("worker_lost: A worker was lost while it answered, and the rest did "
                               "not serve within 30 ms."));
  while (!serving.idle()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

TEST_CASE("who leaves while there is no chain leaves nothing behind", "[serving][threads]") {
  Serving serving(TinyTokenizer(), {}, nullptr);
  std::unique_ptr<Generation> lost = AskAndHang(serving, AskForMany(1));
  Read(*lost, 1);
  serving.ChainDown(ServingState::kRecovering, {});
  lost.reset();
  while (!serving.idle()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  BringUp(serving, 2);
  Refusal refusal;
  CHECK(Read(*serving.Start(Ask(2), &refusal), 1000).tokens ==
        AloneTokens(Ask(2), 0, kStages, 512));
  WaitUntilIdle(serving);
}

TEST_CASE("a server that drains waits for the next chain, and its end ends the wait",
          "[serving][threads]") {
  Serving serving(TinyTokenizer(), {}, nullptr);
  const std::unique_ptr<Generation> lost = AskAndHang(serving, AskForMany(1));
  Read(*lost, 1);
  serving.ChainDown(ServingState::kRecovering, {});
  serving.Drain();
  CHECK(!serving.idle());
  switch (GENERATE(0, 1, 2)) {
    case 0:
      BringUp(serving, 2);
      CHECK(Read(*lost, 1000).error.ok());
      break;
    case 1:
      serving.AbortAll(absl::UnavailableError("draining: The server stops."));
      CHECK(Read(*lost, 1000).error.message() == "draining: The server stops.");
      break;
    default:
      serving.Stop();
      CHECK(Read(*lost, 1000).error.message() == "draining: The server stops.");
  }
}

TEST_CASE("a better plan takes the chain when nobody asks, and who asks then waits for it",
          "[serving][threads]") {
  Serving serving(TinyTokenizer(), {}, nullptr);
  BringUp(serving, 1);
  Refusal refusal;
  std::unique_ptr<Generation> running = serving.Start(Ask(1), &refusal);
  REQUIRE(running != nullptr);
  if (GENERATE(false, true)) {
    CHECK(Read(*running, 1000).tokens == AloneTokens(Ask(1), 0, kStages, 512));
  }
  running.reset();
  WaitUntilIdle(serving);
  CHECK(serving.Vacate());
  CHECK(serving.state() == ServingState::kPlanning);
  const std::unique_ptr<Generation> waiting = serving.Start(Ask(2), &refusal);
  REQUIRE(waiting != nullptr);
  CHECK(waiting->Next(absl::Milliseconds(20)).value().empty());
  CHECK_FALSE(serving.Vacate());  // somebody waits
  BringUp(serving, 2);
  CHECK(Read(*waiting, 1000).tokens == AloneTokens(Ask(2), 0, kStages, 512));
}

TEST_CASE("a stop string ends the text before it and frees the request's pages",
          "[serving][threads]") {
  Serving serving(TinyTokenizer(), {}, nullptr);
  BringUp(serving, 1);
  Refusal refusal;
  GenerationRequest request = Ask(7);
  request.tokens_max = 60;
  const std::string whole = Read(*serving.Start(request, &refusal), 1000).text;
  REQUIRE(whole.size() > 8);
  request.stops = {whole.substr(4, 3)};
  CHECK(Read(*serving.Start(request, &refusal), 1000).text ==
        whole.substr(0, whole.find(request.stops[0])));
  request.tokens_min = 60;  // stop strings count only after these tokens
  CHECK(Read(*serving.Start(request, &refusal), 1000).text == whole);
  WaitUntilIdle(serving);
}

/// Two prompts of one request that end at the same token: the first by a stop string, the second by
/// a stop id.
GenerationRequest AskForTwoEndsInOneStep() {
  const auto has = [](const std::vector<int32_t>& ids, size_t count, int32_t id) {
    return std::find(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count), id) !=
           ids.begin() + static_cast<std::ptrdiff_t>(count);
  };
  for (int number = 0; number < 200; ++number) {
    GenerationRequest request = Ask(37 * number);
    request.prompts.push_back(Ask(37 * (number + 1)).prompts[0]);
    request.tokens_max = 40;
    const std::vector<int32_t> first = AloneTokens(request, 0, kStages, 512);
    const std::vector<int32_t> second = AloneTokens(request, 1, kStages, 512);
    std::string before;
    for (size_t k = 0; k < first.size(); ++k) {
      const auto stop = std::string(TinyTokenizer().Bytes(first[k]));
      const bool plain = !stop.empty() && !TinyTokenizer().IsSpecial(first[k]) &&
                         std::all_of(stop.begin(), stop.end(), [](char c) { return c > ' '; });
      std::string other;
      for (size_t i = 0; i <= k; ++i) absl::StrAppend(&other, TinyTokenizer().Bytes(second[i]));
      before += stop;
      if (k < 2 || !plain || before.find(stop) + stop.size() != before.size() ||
          other.find(stop) != std::string::npos || has(second, k, second[k]) ||
          has(first, k + 1, second[k])) {
        continue;
      }
      request.stops = {stop};
      request.stop_ids = {second[k]};
      return request;
    }
  }
  FAIL("no such request");
  return {};
}

TEST_CASE("a stop string that ends the last choice does not swallow the end of another one",
          "[serving][threads]") {
  Serving serving(TinyTokenizer(), {}, nullptr);
  SchedulerOptions shape = Shape();
  shape.decode_groups = 1;   // both choices run in the same steps,
  shape.speculates = false;  // one token each
  serving.ChainUp(1, std::make_shared<ThreadedChain>(serving, 1), shape, "test");
  while (serving.state() != ServingState::kReady) std::this_thread::yield();
  Refusal refusal;
  const std::unique_ptr<Generation> generation = serving.Start(AskForTwoEndsInOneStep(), &refusal);
  REQUIRE(generation != nullptr);
  std::vector<int> finishes(2);
  while (!generation->done()) {
    const auto events = generation->Next(absl::Seconds(60));
    REQUIRE(events.ok());
    for (const GenerationEvent& event : *events) {
      finishes[static_cast<size_t>(event.choice)] += event.finish.has_value() ? 1 : 0;
    }
  }
  CHECK(finishes == std::vector<int>{1, 1});
  WaitUntilIdle(serving);
}

TEST_CASE("reasoning that spends its budget is closed by force", "[serving][threads]") {
  Serving serving(TinyTokenizer(), {}, nullptr);
  BringUp(serving, 1);
  Refusal refusal;
  const auto budget = GENERATE(0, 1, 5);
  CAPTURE(budget);
  for (int number = 0; number < 12; ++number) {
    GenerationRequest request = Ask(number);
    request.n = 2;
    request.tokens_max = 12;
    request.format.think_open = {"<open>", 3};
    request.format.think_close = {"<close>", 2};
    request.format.start = ReasoningStart::kInside;
    request.reasoning_budget = budget;
    request.reasoning_close = {1, 2};
    const std::unique_ptr<Generation> generation = serving.Start(request, &refusal);
    REQUIRE(generation != nullptr);
    std::vector<std::vector<int32_t>> tokens(2);
    while (!generation->done()) {
      const auto events = generation->Next(absl::Seconds(60)).value();
      for (const GenerationEvent& event : events) {
        for (const GeneratedToken& token : event.tokens) {
          tokens[static_cast<size_t>(event.choice)].push_back(token.id);
        }
      }
    }
    int64_t reasoning = 0;
    for (const std::vector<int32_t>& ids : tokens) {
      REQUIRE(ids.size() == 12);
      const auto close = std::find(ids.begin(), ids.end(), 2);
      REQUIRE(close != ids.end());  // drawn early, or forced behind id 1
      if (close - ids.begin() >= budget) {
        CHECK(close - ids.begin() == budget + 1);
        CHECK(*(close - 1) == 1);
      }
      reasoning += close - ids.begin() + 1;
      for (auto at = close + 1; at != ids.end(); ++at) {
        if (*at == 3) SUCCEED("reasoning was opened again");
      }
    }
    if (std::count(tokens[0].begin(), tokens[0].end(), 3) == 0 &&
        std::count(tokens[1].begin(), tokens[1].end(), 3) == 0) {
      CHECK(generation->usage().reasoning_tokens == reasoning);
    }
  }
  WaitUntilIdle(serving);
}

TEST_CASE("a stop string among guessed tokens ends the answer where it ends without guesses",
          "[serving][threads][speculation]") {
  SchedulerOptions plain = Shape();
  plain.speculates = false;
  Serving one(TinyTokenizer(), {}, nullptr);
  Serving other(TinyTokenizer(), {}, nullptr);
  one.ChainUp(1, std::make_shared<ThreadedChain>(one, 1), plain, "test");
  BringUp(other, 1);
  while (one.state() != ServingState::kReady) std::this_thread::yield();
  Refusal refusal;
  for (int number = 0; number < 40; number += 2) {
    GenerationRequest request = Ask(number);
    request.tokens_max = 60;
    const std::vector<int32_t> tokens = AloneTokens(request, 0, kStages, 512);
    const auto end = static_cast<size_t>(20 + number / 2);
    request.stops = {std::string(TinyTokenizer().Bytes(tokens[end - 1])) +
                     std::string(TinyTokenizer().Bytes(tokens[end]))};
    const std::unique_ptr<Generation> expected = one.Start(request, &refusal);
    const std::unique_ptr<Generation> got = other.Start(request, &refusal);
    const Answer answer = Read(*expected, 1000);
    CHECK(Read(*got, 1000).text == answer.text);
    CHECK(got->usage().completion_tokens == expected->usage().completion_tokens);
  }
  WaitUntilIdle(one);
  WaitUntilIdle(other);
  while (other.stats().accepted_tokens == 0) {  // how many, the clock decides
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

TEST_CASE("after its end the serving thread refuses and leaves nobody waiting",
          "[serving][threads]") {
  Serving serving(TinyTokenizer(), {}, nullptr);
  BringUp(serving, 1, /*results_max=*/5);  // it never ends by itself, however late the stop comes
  Refusal refusal;
  GenerationRequest endless = Ask(1);
  endless.tokens_max = 400;
  const std::unique_ptr<Generation> cut = serving.Start(endless, &refusal);
  REQUIRE(cut != nullptr);
  serving.Stop();
  CHECK(Read(*cut, 1000).error.message() == "draining: The server stops.");
  CHECK(serving.Start(Ask(2), &refusal) == nullptr);
  CHECK(refusal.kind == Refusal::Kind::kDraining);
}

TEST_CASE("a canary proves the chain while nobody asks", "[serving][threads]") {
  Serving serving(TinyTokenizer(), {}, nullptr);
  CHECK(serving.canary_age_ms() < 0);
  BringUp(serving, 1);
  while (serving.canary_age_ms() < 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK(serving.alive());
  CHECK(serving.fingerprint().size() == 3 + 16);
}

TEST_CASE("a canary that draws from NaN proves nothing", "[serving][threads]") {
  Serving serving(TinyTokenizer(), {}, nullptr);
  const auto chain = std::make_shared<BrokenChain>(serving, 1);
  serving.ChainUp(1, chain, Shape(), "test");
  while (chain->steps() < 2) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK(serving.canary_age_ms() < 0);
}

TEST_CASE("draining refuses new requests and lets the old ones end", "[serving][threads]") {
  Serving serving(TinyTokenizer(), {}, nullptr);
  BringUp(serving, 1);
  Refusal refusal;
  const std::unique_ptr<Generation> running = serving.Start(Ask(3), &refusal);
  serving.Drain();
  CHECK(serving.Start(Ask(4), &refusal) == nullptr);
  CHECK(refusal.kind == Refusal::Kind::kDraining);
  CHECK(Read(*running, 1000).tokens == AloneTokens(Ask(3), 0, kStages, 512));
}

}  // namespace
}  // namespace neurogrid
