// The sampler against its contract written in f64 with sorted lists.
#include "kernels/sampler.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <limits>
#include <numeric>
#include <optional>

#include "common/rng.h"
#include "tests/kernels/device.h"
#include "tests/kernels/seeds.h"

namespace neurogrid::kernels {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

SamplerRow Plain(float temperature = 1) {
  SamplerRow row{};
  row.seed = 42;
  row.temperature = temperature;
  row.top_p = 1;
  row.repetition_penalty = 1;
  row.top_logprobs = -1;
  row.target = -1;
  return row;
}

struct Request {
  SamplerRow row = Plain();
  std::vector<LogitEdit> edits = {};
};

std::vector<SamplerResult> SampleAll(const std::vector<std::vector<float>>& logits,
                                     std::vector<Request> requests) {
  const size_t vocab = logits[0].size();
  const size_t stride = vocab + 3;  // padding that must not be drawn
  std::vector<float> all;
  std::vector<SamplerRow> rows;
  std::vector<LogitEdit> edits;
  SamplerNeeds needs{};
  for (size_t i = 0; i < requests.size(); ++i) {
    all.insert(all.end(), logits[i].begin(), logits[i].end());
    all.insert(all.end(), 3, 1e30f);
    requests[i].row.first_edit = static_cast<int32_t>(edits.size());
    requests[i].row.edits = static_cast<int32_t>(requests[i].edits.size());
    std::vector<LogitEdit> own = requests[i].edits;
    std::stable_sort(own.begin(), own.end(),
                     [](const LogitEdit& a, const LogitEdit& b) { return a.id < b.id; });
    edits.insert(edits.end(), own.begin(), own.end());
    rows.push_back(requests[i].row);
    rows.back().result = static_cast<int32_t>(requests.size() - 1 - i);
    needs.draws |= requests[i].row.draws();
    needs.limited |= requests[i].row.limited();
  }
  edits.resize(edits.size() + 1);
  Device<float> device_logits(all);
  const Device<SamplerRow> device_rows(rows);
  const Device<LogitEdit> device_edits(edits);
  Device<float> raw(edits.size());
  Device<SamplerResult> results(rows.size());
  Device<int32_t> drawn(rows.size());
  const auto count = static_cast<int>(rows.size());
  Device<uint8_t> scratch(static_cast<size_t>(SamplerScratchBytes(count, static_cast<int>(vocab))));
  const SamplerOperands operands{device_logits.data(),
                                 static_cast<int64_t>(stride),
                                 static_cast<int>(vocab),
                                 device_rows.data(),
                                 device_edits.data(),
                                 raw.data(),
                                 scratch.data(),
                                 results.data(),
                                 drawn.data()};
  REQUIRE(Sample(operands, count, needs, nullptr) == cudaSuccess);
  std::vector<SamplerResult> ordered = results.Read();
  std::reverse(ordered.begin(), ordered.end());  // each lies where its row said
  const std::vector<int32_t> tokens = drawn.Read();
  for (size_t i = 0; i < ordered.size(); ++i) CHECK(ordered[i].token == tokens[i]);
  return ordered;
}

SamplerResult SampleOne(const std::vector<float>& logits, const Request& request) {
  return SampleAll({logits}, {request})[0];
}

/// Steps 2 to 5 in f64 over sorted lists; nothing when two choices are too close to call.
std::optional<int> Expected(std::vector<float> logits, const Request& request) {
  const SamplerRow& p = request.row;
  for (const LogitEdit& edit : request.edits) {
    float& x = logits[static_cast<size_t>(edit.id)];
    if (edit.kind == LogitEdit::kBan) x = -kInfinity;
    if (edit.kind == LogitEdit::kBias) x += edit.bias;
    if (edit.kind != LogitEdit::kCount) continue;
    if (edit.in_window != 0) x = x > 0 ? x / p.repetition_penalty : x * p.repetition_penalty;
    if (edit.generated > 0) {
      x -= p.frequency_penalty * static_cast<float>(edit.generated) + p.presence_penalty;
    }
  }
  const float maximum = *std::max_element(logits.begin(), logits.end());
  if (p.temperature < 1e-5f) {
    return static_cast<int>(std::find(logits.begin(), logits.end(), maximum) - logits.begin());
  }
  std::vector<std::pair<double, int>> kept;  // x, id
  for (size_t i = 0; i < logits.size(); ++i) {
    const float x = (logits[i] - maximum) / p.temperature;
    if (x > -kInfinity && (p.min_p <= 0 || x >= std::log(p.min_p))) {
      kept.emplace_back(double{x}, static_cast<int>(i));
    }
  }
  std::sort(kept.begin(), kept.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  });
  if (p.top_k > 0) kept.resize(std::min(kept.size(), static_cast<size_t>(p.top_k)));
  if (p.top_p < 1) {
    double total = 0;
    for (const auto& [x, id] : kept) total += std::exp(x);
    double sum = 0;
    size_t count = 0;
    while (count < kept.size() && (count == 0 || sum < double{p.top_p} * total)) {
      sum += std::exp(kept[count++].first);
      // f32 exponentials may cut elsewhere when the sum lies this close.
      if (std::abs(sum - double{p.top_p} * total) < 1e-6 * total) return std::nullopt;
    }
    kept.resize(count);
  }
  std::vector<std::pair<double, int>> scores;
  for (const auto& [x, id] : kept) {
    const auto words =
        Philox(p.seed, {static_cast<uint32_t>(p.position), static_cast<uint32_t>(id / 4), 0, 0});
    const double u = (static_cast<double>(words[static_cast<size_t>(id % 4)]) + 0.5) * 0x1p-32;
    scores.emplace_back(x - std::log(-std::log(u)), -id);
  }
  return -std::max_element(scores.begin(), scores.end())->second;
}

/// How many of the requests, all on the same logits, draw another id than the contract says; none
/// is too close to call.
int WrongDraws(const std::vector<float>& logits, const std::vector<Request>& requests) {
  const std::vector<SamplerResult> results =
      SampleAll(std::vector<std::vector<float>>(requests.size(), logits), requests);
  int wrong = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const std::optional<int> expected = Expected(logits, requests[i]);
    REQUIRE(expected.has_value());
    wrong += results[i].token != *expected;
  }
  return wrong;
}

/// Logits with ties and a few large ones.
std::vector<float> Logits(uint64_t seed, size_t vocab) {
  std::vector<float> logits = RandomFloats(seed, vocab, 3);
  for (size_t i = 0; i < vocab; i += 7) logits[i] = std::round(logits[i]);
  return logits;
}

}  // namespace

TEST_CASE("the sampler draws what its contract says", "[kernels]") {
  const Seeded seeded;
  const size_t vocab = GENERATE(5, 1500, 4099);
  std::vector<Request> requests;
  std::vector<std::vector<float>> logits;
  for (uint64_t i = 0; i < 24; ++i) {
    SamplerRow row = Plain();
    row.seed = i * 0x9e3779b97f4a7c15u;
    row.position = static_cast<int32_t>(100 * i);
    if (i % 5 == 1) row.temperature = 0;
    if (i % 5 == 2) row.temperature = 0.3f;
    if (i % 5 == 3) row.temperature = 2.5f;
    if (i % 2 == 1) row.top_k = static_cast<int32_t>(1 + i * i);
    if (i % 3 == 1) row.top_p = 0.1f + 0.035f * static_cast<float>(i);
    if (i % 4 == 2) row.min_p = 0.02f * static_cast<float>(i);
    row.repetition_penalty = 1.3f;
    row.presence_penalty = 0.4f;
    row.frequency_penalty = 0.2f;
    std::vector<LogitEdit> edits = {{0, LogitEdit::kBan, 0, 0, 0},
                                    {3, LogitEdit::kCount, 2, 1, 0},
                                    {4, LogitEdit::kCount, 0, 1, 0},
                                    {3, LogitEdit::kBias, 0, 0, 1.5f},
                                    {2, LogitEdit::kBias, 0, 0, -3.0f}};
    if (i % 6 == 0) edits.clear();
    requests.push_back({row, edits});
    logits.push_back(Logits(i, vocab));
  }
  const std::vector<SamplerResult> results = SampleAll(logits, requests);
  int compared = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    CAPTURE(i, vocab);
    const std::optional<int> expected = Expected(logits[i], requests[i]);
    if (!expected) continue;
    ++compared;
    CHECK(results[i].token == *expected);
    CHECK(results[i].failed == 0);
    if (i % 6 > 1) continue;  // The same alone as among its mates.
    CHECK(SampleOne(logits[i], requests[i]).token == results[i].token);
  }
  CHECK(compared > 20);
}

TEST_CASE("rows without a peak are cut exactly, however many ids stand at the cut", "[kernels]") {
  const Seeded seeded;
  // All equal: one bin, cut by id alone, with a list up to 4096 and beyond. Nearly equal: bins with
  // thousands of ids. Wide: a long list behind top_k, and top_p of it.
  const size_t vocab = GENERATE(4000, 20001);
  const float deviation = GENERATE(0.0f, 0.01f, 2.0f);
  CAPTURE(vocab, deviation);
  std::vector<Request> requests;
  std::vector<std::vector<float>> logits;
  for (uint64_t i = 0; i < 9; ++i) {
    SamplerRow row = Plain(0.7f);
    row.seed = 100 + i;
    if (i % 3 != 1) row.top_k = static_cast<int32_t>(i < 3 ? 50 : i < 6 ? 3000 : 9000);
    if (i % 3 != 2) row.top_p = i < 3 ? 0.02f : i < 6 ? 0.5f : 0.93f;
    requests.push_back({row, {}});
    logits.push_back(RandomFloats(i, vocab, deviation));
  }
  const std::vector<SamplerResult> results = SampleAll(logits, requests);
  int compared = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    CAPTURE(i);
    const std::optional<int> expected = Expected(logits[i], requests[i]);
    if (!expected) continue;
    ++compared;
    CHECK(results[i].token == *expected);
  }
  CHECK(compared >= 3);
}

TEST_CASE("what stays is exact: few ids stay, so that each is drawn often", "[kernels]") {
  const Seeded seeded;
  // One id above all others, which lie in one bin: in it few stay, by value or by id.
  const size_t vocab = GENERATE(300, 5000);
  const float spread = GENERATE(0.0f, 0.001f);
  CAPTURE(vocab, spread);
  std::vector<float> logits = RandomFloats(3, vocab, spread);
  for (float& x : logits) x -= 0.5f;
  logits[70] = 0;
  double total = 0;
  for (const float x : logits) total += std::exp(double{x});
  std::vector<Request> requests;
  for (int i = 0; i < 120; ++i) {
    requests.emplace_back();
    SamplerRow& row = requests.back().row;
    row.position = i;
    if (i % 3 != 1) row.top_k = i % 3 == 0 ? 3 : 6;                           // three stay
    if (i % 3 == 1) row.top_p = static_cast<float>((1 + 2.5 * 0.6) / total);  // four stay
    if (i % 3 == 2) row.top_p = 0.6f;  // of 1 + 5 * 0.6: four stay
  }
  CHECK(WrongDraws(logits, requests) == 0);
}

TEST_CASE("top_p of what top_k leaves may end between two ids that one thread weighs",
          "[kernels]") {
  const Seeded seeded;
  // Two likely ids before a long list of unlikely ones, of which one draw in twenty would take one.
  std::vector<float> logits = RandomFloats(3, 1500, 0.001f);
  for (float& x : logits) x -= 9.5f;
  logits[70] = 0;
  logits[71] = std::log(0.3f);
  constexpr int kKept = 700;
  const double total = 1.3 + kKept * std::exp(-9.5);
  std::vector<Request> requests;
  for (int i = 0; i < 100; ++i) {
    requests.emplace_back();
    SamplerRow& row = requests.back().row;
    row.position = i;
    row.top_k = kKept;
    row.top_p = static_cast<float>(1.15 / total);  // the first of the two is not enough
  }
  CHECK(WrongDraws(logits, requests) == 0);
}

TEST_CASE("edits of one id apply one after the other", "[kernels]") {
  const Seeded seeded;
  const size_t vocab = 5000;
  const std::vector<float> logits = RandomFloats(1, vocab);
  Request request{Plain(0), {}};
  request.row.repetition_penalty = 1.25f;
  request.row.top_logprobs = 0;
  // 300 ids in two slices, each with the same bias five times; one of them gets ten more edits.
  for (int i = 0; i < 5; ++i) {
    for (int32_t id = 1900; id < 2200; ++id) {
      request.edits.push_back({id, LogitEdit::kBias, 0, 0, 1.0f});
    }
  }
  const int32_t winner = GENERATE(1905, 2047, 2048, 2150);  // also where two slices meet
  for (int i = 0; i < 5; ++i) {
    request.edits.push_back({winner, LogitEdit::kBias, 0, 0, 3.0f});
    request.edits.push_back({winner, LogitEdit::kCount, 0, 1, 0});
  }
  for (int i = 0; i < 2; ++i) request.edits.push_back({winner + 1, LogitEdit::kBan, 0, 0, 0});
  const SamplerResult result = SampleOne(logits, request);
  CHECK(result.token == *Expected(logits, request));
  CHECK(result.token == winner);
  double total = 0;
  for (const float x : logits) total += std::exp(double{x});
  const double expected = double{logits[static_cast<size_t>(winner)]} - std::log(total);
  CHECK(std::abs(double{result.logprob} - expected) <= 0x1p-21 + HalfUlp<float>(20));
}

TEST_CASE("draws follow the probabilities", "[kernels]") {
  const Seeded seeded;
  // p = 1/2, 1/4, 1/8, 1/8 in 100 draws: within four standard deviations.
  const std::vector<float> logits = {std::log(4.0f), std::log(2.0f), 0, 0};
  std::vector<Request> requests;
  for (int i = 0; i < 100; ++i) {
    requests.emplace_back();
    requests.back().row.position = i;
  }
  int counts[4] = {};
  for (const SamplerResult& r : SampleAll(std::vector<std::vector<float>>(100, logits), requests)) {
    ++counts[r.token];
  }
  CHECK(std::abs(counts[0] - 50) <= 20);
  CHECK(std::abs(counts[1] - 25) <= 17);
  CHECK(std::abs(counts[2] - 12.5) <= 13.2);
  CHECK(std::abs(counts[3] - 12.5) <= 13.2);
}

TEST_CASE("logprobs are those of the raw logits", "[kernels]") {
  const Seeded seeded;
  // The largest in any slice of the row, or all of them in its last.
  const bool in_last = GENERATE(false, true);
  std::vector<float> logits = Logits(1, 5000);
  for (size_t i = 4500; i < logits.size() && in_last; ++i) logits[i] += 10;
  double total = 0;
  for (const float x : logits) total += std::exp(double{x});
  std::vector<int> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  const auto logprob = [&](int id) {
    return double{logits[static_cast<size_t>(id)]} - std::log(total);
  };
  Request request{Plain(0), {}};
  request.row.top_logprobs = GENERATE(0, 5, 20);
  // Two edits of the id that is drawn, or one: its logprob is that of before.
  request.row.repetition_penalty = 1.5f;
  request.edits = {{order[0], LogitEdit::kBan, 0, 0, 0}, {order[2], LogitEdit::kBias, 0, 0, 50}};
  if (!in_last) request.edits.push_back({order[2], LogitEdit::kCount, 1, 1, 0});
  request.row.target = GENERATE(-1, 17);
  const SamplerResult result = SampleOne(logits, request);
  const int token = request.row.target >= 0 ? 17 : order[2];
  CHECK(result.token == token);
  // Exponentials of f32 are off by 2^-22, the result is rounded to f32.
  CHECK(std::abs(double{result.logprob} - logprob(token)) <= 0x1p-21 + HalfUlp<float>(20));
  REQUIRE(result.top_count == request.row.top_logprobs);
  for (int i = 0; i < result.top_count; ++i) {
    CHECK(result.top_ids[i] == order[static_cast<size_t>(i)]);
    CHECK(std::abs(double{result.top_logprobs[i]} - logprob(order[static_cast<size_t>(i)])) <=
          0x1p-21 + HalfUlp<float>(20));
  }
}

TEST_CASE("rows that cannot be drawn from fail alone", "[kernels]") {
  const Seeded seeded;
  const std::vector<float> good = {1, 2, 3, 0};
  Request all_banned;
  for (int32_t id = 0; id < 4; ++id) all_banned.edits.push_back({id, LogitEdit::kBan, 0, 0, 0});
  const std::vector<SamplerResult> results =
      SampleAll({{1, kNan, 3, 0}, good, {1, 2, kInfinity, 0}, good, {-kInfinity, 5, -kInfinity, 0}},
                {{Plain(0)}, {Plain(0)}, {}, all_banned, {}});
  CHECK(results[0].failed == 1);
  CHECK(results[1].failed == 0);
  CHECK(results[1].token == 2);
  CHECK(results[2].failed == 1);
  CHECK(results[3].failed == 1);
  CHECK(results[4].failed == 0);
}

}  // namespace neurogrid::kernels
