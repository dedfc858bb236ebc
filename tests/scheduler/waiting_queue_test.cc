#include "coordinator/waiting_queue.h"

#include <catch2/catch_test_macros.hpp>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/rng.h"

namespace neurogrid {
namespace {

struct Line {
  explicit Line(int tenant_running_max = 1000) : queue(tenant_running_max) {}

  Sequence* Push(const std::string& tenant, int tokens) {
    auto request = std::make_unique<Request>();
    request->id = requests.size() + 1;
    request->asked.tenant = tenant;
    request->choices.push_back(std::make_unique<Sequence>(
        request.get(), 0, std::vector<int32_t>(static_cast<size_t>(tokens)), SamplingOptions()));
    requests.push_back(std::move(request));
    Sequence* const sequence = requests.back()->choices[0].get();
    queue.Push(sequence);
    return sequence;
  }
  int64_t Hits(const Sequence& sequence) const {
    const auto found = hits.find(&sequence);
    return found == hits.end() ? 0 : found->second;
  }
  Sequence* Take() {
    return queue.Take([&](const Sequence& sequence) { return Hits(sequence); });
  }
  std::vector<Sequence*> Order(int count, int64_t tokens) const {
    return queue.Order(count, tokens, [&](const Sequence& sequence) { return Hits(sequence); });
  }

  std::vector<std::unique_ptr<Request>> requests;
  std::map<const Sequence*, int64_t> hits;
  WaitingQueue queue;
};

TEST_CASE("one tenant's requests start in the order of their arrival", "[queue]") {
  Line line;
  for (int i = 0; i < 5; ++i) line.Push("", 100);
  for (int i = 0; i < 5; ++i) CHECK(line.Take()->request->id == static_cast<RequestId>(i + 1));
  CHECK(line.Take() == nullptr);
  CHECK(line.queue.size() == 0);
}

TEST_CASE("two tenants get equal tokens, however many requests one of them piles up", "[queue]") {
  Line line;
  for (int i = 0; i < 400; ++i) line.Push("many", 50);
  for (int i = 0; i < 40; ++i) line.Push("large", 1000);
  std::map<std::string, int64_t> served;
  for (int i = 0; i < 200; ++i) {
    const Sequence* const next = line.Take();
    served[next->request->asked.tenant] += next->known();
    const int64_t apart = served["many"] - served["large"];
    CHECK(std::abs(apart) <= 1000 + 512);
  }
}

TEST_CASE("a newcomer does not wait behind another tenant's pile", "[queue]") {
  Line line;
  for (int i = 0; i < 300; ++i) line.Push("pile", 500);
  for (int i = 0; i < 20; ++i) line.Take();
  const Sequence* const newcomer = line.Push("new", 500);
  int before = 0;
  while (line.Take() != newcomer) ++before;
  CHECK(before <= 2);
}

TEST_CASE("what a tenant got while nobody else waited is soon forgotten", "[queue]") {
  Line line;
  line.Push("a", 10);
  line.Take();
  line.queue.Charge("a", 1'000'000);
  const Sequence* const old = line.Push("a", 10);
  for (int i = 0; i < 400; ++i) line.Push("b", 100);
  int before = 0;
  while (line.Take() != old) ++before;
  CHECK(before <= (8192 + 2 * 512) / 100);
}

TEST_CASE("a tenant with all its places taken is passed over", "[queue]") {
  Line line(/*tenant_running_max=*/2);
  for (int i = 0; i < 3; ++i) line.Push("a", 10);
  Sequence* const other = line.Push("b", 10);
  CHECK(line.Take()->request->asked.tenant == "a");
  CHECK(line.Take()->request->asked.tenant == "a");
  CHECK(line.Take() == other);
  CHECK(line.Take() == nullptr);
  line.queue.AddRunning("a", -1);
  CHECK(line.Take() != nullptr);
}

TEST_CASE("a request whose prompt is cached goes first, but passes another at most three times",
          "[queue]") {
  Line line;
  const Sequence* const first = line.Push("", 100);
  for (int i = 0; i < 7; ++i) line.hits[line.Push("", 100)] = 64;
  const Sequence* const ninth = line.Push("", 100);
  line.hits[ninth] = 96;
  CHECK(line.Take()->request->id == 2);  // the ninth is too far back to be looked at
  CHECK(line.Take() == ninth);
  CHECK(line.Take()->request->id == 3);
  CHECK(line.Take() == first);
  CHECK(line.Take()->request->id == 4);
}

TEST_CASE("paused requests are passed over without counting", "[queue]") {
  Line line;
  Sequence* const paused = line.Push("", 10);
  paused->request->paused = true;
  for (int i = 0; i < 9; ++i) line.Push("", 10);
  for (int i = 0; i < 9; ++i) CHECK(line.Take() != paused);
  CHECK(line.Take() == nullptr);
  paused->request->paused = false;
  CHECK(line.Take() == paused);
}

TEST_CASE("the order that is shown is the order that is taken", "[queue]") {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    CAPTURE(seed);
    Line line(/*tenant_running_max=*/5);
    for (uint64_t i = 0; i < 30; ++i) {
      const uint64_t dice = SplitMix64(seed * 100 + i);
      Sequence* const next = line.Push(std::string(1, static_cast<char>('a' + dice % 4)),
                                       1 + static_cast<int>(dice / 7 % 900));
      if (dice % 3 == 0) line.hits[next] = static_cast<int64_t>(next->known() / 2);
    }
    const std::vector<Sequence*> order = line.Order(12, 100'000);
    CHECK(order == line.Order(12, 100'000));
    for (const Sequence* const next : order) CHECK(line.Take() == next);
  }
}

TEST_CASE("no more is shown than fills a step", "[queue]") {
  Line line;
  for (int i = 0; i < 10; ++i) line.Push("", 100);
  CHECK(line.Order(16, 250).size() == 3);
}

}  // namespace
}  // namespace neurogrid
