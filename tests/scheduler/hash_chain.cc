#include "hash_chain.h"

#include <algorithm>
#include <functional>
#include <map>
#include <set>

#include "common/rng.h"

namespace neurogrid {
namespace {

uint64_t Mix(uint64_t a, uint64_t b) { return SplitMix64(a * 0x9e3779b97f4a7c15u ^ SplitMix64(b)); }

/// The number of one token in one stage. `key_at(q)` is that of position q, q < p, and so is
/// `window_key_at`, asked for positions that p sees through the window only.
template <typename KeyAt, typename WindowKeyAt>
uint64_t KeyOf(int stage, uint64_t x, int64_t p, const HashShape& shape, const KeyAt& key_at,
               const WindowKeyAt& window_key_at, uint64_t& state) {
  uint64_t key = Mix(static_cast<uint64_t>(stage) + 1, x);
  key = Mix(key, static_cast<uint64_t>(p));
  if (shape.recurrent) key = state = Mix(state, key);
  if (p == 0) return key;
  const int64_t first = std::max<int64_t>(0, p - shape.window + 1);
  if (shape.window > 0 && first < p) {
    key = Mix(key, window_key_at(first));
    key = Mix(key, window_key_at(p - 1));
    key = Mix(key, window_key_at(first + static_cast<int64_t>(Mix(9, static_cast<uint64_t>(p)) %
                                                              static_cast<uint64_t>(p - first))));
  }
  if (!shape.full) return key;
  key = Mix(key, key_at(p - 1));
  for (uint64_t look = 0; look < 3; ++look) {
    key = Mix(key, key_at(static_cast<int64_t>(Mix(look, static_cast<uint64_t>(p)) %
                                               static_cast<uint64_t>(p))));
  }
  return key;
}

uint64_t Embed(int32_t token) { return Mix(77, static_cast<uint64_t>(token)); }

float ScoreOf(uint64_t x, int32_t target) {
  return -static_cast<float>(Mix(x, static_cast<uint64_t>(target)) % 1000);
}

/// Depends on everything a row of sampling says. Without temperature it mostly repeats itself, so
/// that guesses come true.
int32_t Draw(uint64_t x, const SamplingRow& row) {
  uint64_t state = Mix(x, row.seed);
  state = Mix(state, static_cast<uint64_t>(row.position));
  std::map<int32_t, std::pair<int32_t, bool>> counts;
  for (const auto& count : row.counts) counts[count.id] = {count.generated, count.in_window};
  for (const auto& [id, count] : counts) {
    state = Mix(state, static_cast<uint64_t>(id * 1000 + count.first * 2 + (count.second ? 1 : 0)));
  }
  const bool repeats = row.temperature == 0 && state % 8 > 0;
  for (int draws = 0;; ++draws) {
    state = SplitMix64(state);
    const auto token = static_cast<int32_t>(
        repeats && draws == 0 ? 10 + row.position % 5 : static_cast<int32_t>(state % kHashVocab));
    if (std::find(row.banned.begin(), row.banned.end(), token) == row.banned.end()) return token;
  }
}

/// The choice's last activation after `ids`, computed from nothing.
class Alone {
 public:
  Alone(int stages, const HashShape& shape)
      : shape_(shape), keys_(static_cast<size_t>(stages)), states_(keys_.size(), 0) {}
  uint64_t Next(int32_t token) {
    uint64_t x = Embed(token);
    for (size_t s = 0; s < keys_.size(); ++s) {
      const auto p = static_cast<int64_t>(keys_[s].size());
      const auto key_at = [&](int64_t q) { return keys_[s][q]; };
      x = KeyOf(static_cast<int>(s), x, p, shape_, key_at, key_at, states_[s]);
      keys_[s].push_back(x);
    }
    return x;
  }

 private:
  HashShape shape_;
  std::vector<std::vector<uint64_t>> keys_;
  std::vector<uint64_t> states_;
};

SamplingRow RowOf(const GenerationRequest& request, int choice, const std::vector<int32_t>& ids,
                  size_t prompt_tokens) {
  SamplingRow row;
  const SamplingOptions& options = request.sampling;
  row.seed = SplitMix64(options.seed + static_cast<uint64_t>(choice));
  row.position = static_cast<int32_t>(ids.size());
  row.temperature = options.temperature;
  const size_t generated = ids.size() - prompt_tokens;
  if (request.ignore_eos || generated < static_cast<size_t>(request.tokens_min)) {
    row.banned = request.end_ids;
  }
  if (generated < static_cast<size_t>(request.tokens_min)) {
    row.banned.insert(row.banned.end(), request.stop_ids.begin(), request.stop_ids.end());
  }
  const bool repetition = options.repetition_penalty != 1;
  if (!repetition && options.presence_penalty == 0 && options.frequency_penalty == 0) return row;
  std::map<int32_t, SamplingRow::Count> counts;
  for (size_t i = 0; i < ids.size(); ++i) {
    const bool in_window =
        repetition &&
        (options.repeat_last_n < 0 || ids.size() - i <= static_cast<size_t>(options.repeat_last_n));
    if (i < prompt_tokens && !in_window) continue;
    SamplingRow::Count& count = counts[ids[i]];
    count.id = ids[i];
    count.generated += i >= prompt_tokens ? 1 : 0;
    count.in_window = count.in_window || in_window;
  }
  for (const auto& [id, count] : counts) row.counts.push_back(count);
  return row;
}

/// What steps in flight do to ids of one kind.
struct Uses {
  std::set<int32_t> written;
  std::set<int32_t> read;

  bool Write(int32_t id) { return id < 0 || written.insert(id).second; }
  void Read(int32_t id) {
    if (id >= 0) read.insert(id);
  }
  bool exclusive() const {
    return std::none_of(written.begin(), written.end(),
                        [&](int32_t id) { return read.count(id) > 0; });
  }
};

}  // namespace

HashShape ShapeOf(const BatchLimits& limits) {
  return {.full = limits.pages > 0, .window = limits.window, .recurrent = limits.slots > 0};
}

std::vector<int32_t> AloneTokens(const GenerationRequest& request, int choice, int stages,
                                 int64_t context_tokens_max, HashShape shape,
                                 const std::vector<int32_t>& forced) {
  std::vector<int32_t> ids = request.prompts[static_cast<size_t>(choice / request.n)];
  const size_t prompt_tokens = ids.size();
  Alone alone(stages, shape);
  uint64_t x = 0;
  for (const int32_t id : ids) x = alone.Next(id);
  std::vector<int32_t> output;
  const auto is_in = [](const std::vector<int32_t>& list, int32_t id) {
    return std::find(list.begin(), list.end(), id) != list.end();
  };
  while (static_cast<int64_t>(output.size()) < request.tokens_max &&
         static_cast<int64_t>(ids.size()) < context_tokens_max) {
    const int32_t token = output.size() < forced.size()
                              ? forced[output.size()]
                              : Draw(x, RowOf(request, choice, ids, prompt_tokens));
    output.push_back(token);
    ids.push_back(token);
    if (is_in(request.stop_ids, token)) break;
    if (!request.ignore_eos && is_in(request.end_ids, token)) break;
    x = alone.Next(token);
  }
  return output;
}

std::vector<float> AlonePromptScores(const std::vector<int32_t>& prompt, int stages,
                                     HashShape shape) {
  Alone alone(stages, shape);
  std::vector<float> scores;
  for (size_t i = 0; i + 1 < prompt.size(); ++i) {
    scores.push_back(ScoreOf(alone.Next(prompt[i]), prompt[i + 1]));
  }
  return scores;
}

HashChain::HashChain(int stages, const BatchLimits& limits)
    : shape_(ShapeOf(limits)), stages_(static_cast<size_t>(stages)) {
  for (OneStage& stage : stages_) {
    stage.keys.assign(static_cast<size_t>(limits.pages) * kPageTokens, 0xdead);
    stage.window_keys.assign(static_cast<size_t>(limits.window_pages) * kPageTokens, 0xdead);
    stage.states.assign(static_cast<size_t>(limits.slots), 0xdead);
  }
}

void HashChain::Send(SchedulerStep step) {
  ++in_flight_;
  stages_.front().inbox.push_back({std::move(step), {}, {}});
}

bool HashChain::Turn(int stage) {
  OneStage& here = stages_[static_cast<size_t>(stage)];
  if (here.inbox.empty()) return false;
  Travelling travelling = std::move(here.inbox.front());
  here.inbox.pop_front();
  const Batch& batch = travelling.step.batch;
  if (stage == 0) {
    for (const int32_t token : batch.tokens) {
      travelling.activations.push_back(
          Embed(token >= 0 ? token : drawn_.at(static_cast<size_t>(DrawnBefore(token)))));
    }
  }
  for (int s = 0; s < batch.sequences(); ++s) {
    const auto in = [&](std::vector<uint64_t>& keys, const std::vector<int32_t>& pages,
                        int64_t p) -> uint64_t& {
      const int32_t page = pages.at(static_cast<size_t>(batch.page_offsets[s] + p / kPageTokens));
      return keys.at(static_cast<size_t>(page * int64_t{kPageTokens} + p % kPageTokens));
    };
    const auto key = [&](int64_t p) -> uint64_t& { return in(here.keys, batch.pages, p); };
    const auto window_key = [&](int64_t p) -> uint64_t& {
      return in(here.window_keys, batch.window_pages, p);
    };
    const int32_t source = batch.state_sources[s];
    uint64_t state = source < 0 ? 0 : here.states.at(static_cast<size_t>(source));
    for (int row = batch.sequence_offsets[s]; row < batch.sequence_offsets[s + 1]; ++row) {
      const int64_t p = batch.positions[row];
      uint64_t& x = travelling.activations[static_cast<size_t>(row)];
      x = KeyOf(stage, x, p, shape_, key, window_key, state);
      if (shape_.full) key(p) = x;
      if (shape_.window > 0) window_key(p) = x;
    }
    if (shape_.recurrent) here.states.at(static_cast<size_t>(batch.state_slots[s])) = state;
  }
  if (stage + 1 == stages()) DrawAll(travelling);
  (stage + 1 < stages() ? stages_[static_cast<size_t>(stage) + 1].inbox : done_)
      .push_back(std::move(travelling));
  return true;
}

void HashChain::DrawAll(Travelling& travelling) {
  const Batch& batch = travelling.step.batch;
  drawn_.clear();
  for (int i = 0; i < batch.samples(); ++i) {
    const uint64_t x = travelling.activations[static_cast<size_t>(batch.sampled_rows[i])];
    const SamplingRow& row = batch.sampling[i];
    SampledToken token;
    if (row.target >= 0) {
      token.token = row.target;
      token.logprob = ScoreOf(x, row.target);
    } else {
      token.token = Draw(x, row);
      if (row.top_logprobs >= 0) token.logprob = ScoreOf(x, token.token);
    }
    drawn_.push_back(token.token);
    travelling.sampled.push_back(std::move(token));
  }
}

bool HashChain::Receive(Result& result) {
  if (done_.empty()) return false;
  result.step = done_.front().step.id;
  result.sampled = std::move(done_.front().sampled);
  done_.pop_front();
  --in_flight_;
  return true;
}

void HashChain::TurnAll() {
  for (int stage = 0; stage < stages(); ++stage) {
    while (Turn(stage)) {
    }
  }
}

bool HashChain::IdsAreExclusive() const {
  Uses pages, window_pages, slots;
  const auto visit = [&](const std::deque<Travelling>& steps) {
    for (const Travelling& travelling : steps) {
      const Batch& batch = travelling.step.batch;
      for (int s = 0; s < batch.sequences(); ++s) {
        const int first = batch.positions[batch.sequence_offsets[s]] / kPageTokens;
        for (int i = batch.page_offsets[s]; i < batch.page_offsets[s + 1]; ++i) {
          const int32_t window_page = shape_.window > 0 ? batch.window_pages[i] : -1;
          if (i - batch.page_offsets[s] < first) {
            pages.Read(batch.pages[i]);
            window_pages.Read(window_page);
          } else if (!pages.Write(batch.pages[i]) || !window_pages.Write(window_page)) {
            return false;
          }
        }
        if (!slots.Write(batch.state_slots[s])) return false;
        if (batch.state_sources[s] != batch.state_slots[s]) slots.Read(batch.state_sources[s]);
      }
    }
    return true;
  };
  for (const OneStage& stage : stages_) {
    if (!visit(stage.inbox)) return false;
  }
  return visit(done_) && pages.exclusive() && window_pages.exclusive() && slots.exclusive();
}

}  // namespace neurogrid
