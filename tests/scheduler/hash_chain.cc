#include "hash_chain.h"

#include <algorithm>
#include <functional>
#include <map>
#include <set>

#include "common/rng.h"

namespace neurogrid {
namespace {

uint64_t Mix(uint64_t a, uint64_t b) { return SplitMix64(a * 0x9e3779b97f4a7c15u ^ SplitMix64(b)); }

/// The number of one token in one stage. `key_at(q)` is that of position q, q < p.
template <typename KeyAt>
uint64_t KeyOf(int stage, uint64_t x, int64_t p, const KeyAt& key_at) {
  uint64_t key = Mix(static_cast<uint64_t>(stage) + 1, x);
  key = Mix(key, static_cast<uint64_t>(p));
  if (p == 0) return key;
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

/// Depends on everything a row of sampling says.
int32_t Draw(uint64_t x, const SamplingRow& row) {
  uint64_t state = Mix(x, row.seed);
  state = Mix(state, static_cast<uint64_t>(row.position));
  std::map<int32_t, std::pair<int32_t, bool>> counts;
  for (const auto& count : row.counts) counts[count.id] = {count.generated, count.in_window};
  for (const auto& [id, count] : counts) {
    state = Mix(state, static_cast<uint64_t>(id * 1000 + count.first * 2 + (count.second ? 1 : 0)));
  }
  for (int draws = 0;; ++draws) {
    state = SplitMix64(state);
    const auto token = static_cast<int32_t>(state % kHashVocab);
    if (std::find(row.banned.begin(), row.banned.end(), token) == row.banned.end()) return token;
  }
}

/// The choice's last activation after `ids`, computed from nothing.
class Alone {
 public:
  explicit Alone(int stages) : keys_(static_cast<size_t>(stages)) {}
  uint64_t Next(int32_t token) {
    uint64_t x = Embed(token);
    for (size_t s = 0; s < keys_.size(); ++s) {
      const auto p = static_cast<int64_t>(keys_[s].size());
      x = KeyOf(static_cast<int>(s), x, p, [&](int64_t q) { return keys_[s][q]; });
      keys_[s].push_back(x);
    }
    return x;
  }

 private:
  std::vector<std::vector<uint64_t>> keys_;
};

SamplingRow RowOf(const GenerationRequest& request, int choice, const std::vector<int32_t>& ids,
                  size_t prompt_tokens) {
  SamplingRow row;
  const SamplingOptions& options = request.sampling;
  row.seed = SplitMix64(options.seed + static_cast<uint64_t>(choice));
  row.position = static_cast<int32_t>(ids.size());
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

}  // namespace

std::vector<int32_t> AloneTokens(const GenerationRequest& request, int choice, int stages,
                                 int64_t context_tokens_max) {
  std::vector<int32_t> ids = request.prompts[static_cast<size_t>(choice / request.n)];
  const size_t prompt_tokens = ids.size();
  Alone alone(stages);
  uint64_t x = 0;
  for (const int32_t id : ids) x = alone.Next(id);
  std::vector<int32_t> output;
  const auto is_in = [](const std::vector<int32_t>& list, int32_t id) {
    return std::find(list.begin(), list.end(), id) != list.end();
  };
  while (static_cast<int64_t>(output.size()) < request.tokens_max &&
         static_cast<int64_t>(ids.size()) < context_tokens_max) {
    const int32_t token = Draw(x, RowOf(request, choice, ids, prompt_tokens));
    output.push_back(token);
    ids.push_back(token);
    if (is_in(request.stop_ids, token)) break;
    if (!request.ignore_eos && is_in(request.end_ids, token)) break;
    x = alone.Next(token);
  }
  return output;
}

std::vector<float> AlonePromptScores(const std::vector<int32_t>& prompt, int stages) {
  Alone alone(stages);
  std::vector<float> scores;
  for (size_t i = 0; i + 1 < prompt.size(); ++i) {
    scores.push_back(ScoreOf(alone.Next(prompt[i]), prompt[i + 1]));
  }
  return scores;
}

HashChain::HashChain(int stages, int pages) : stages_(static_cast<size_t>(stages)) {
  for (OneStage& stage : stages_) {
    stage.keys.assign(static_cast<size_t>(pages) * kPageTokens, 0xdead);
  }
}

void HashChain::Send(SchedulerStep step) {
  Travelling travelling{std::move(step), {}};
  for (const int32_t token : travelling.step.batch.tokens) {
    travelling.activations.push_back(Embed(token));
  }
  ++in_flight_;
  stages_.front().inbox.push_back(std::move(travelling));
}

bool HashChain::Turn(int stage) {
  OneStage& here = stages_[static_cast<size_t>(stage)];
  if (here.inbox.empty()) return false;
  Travelling travelling = std::move(here.inbox.front());
  here.inbox.pop_front();
  const Batch& batch = travelling.step.batch;
  for (int s = 0; s < batch.sequences(); ++s) {
    const auto slot = [&](int64_t p) -> uint64_t& {
      const int32_t page =
          batch.pages.at(static_cast<size_t>(batch.page_offsets[s] + p / kPageTokens));
      return here.keys.at(static_cast<size_t>(page * int64_t{kPageTokens} + p % kPageTokens));
    };
    for (int row = batch.sequence_offsets[s]; row < batch.sequence_offsets[s + 1]; ++row) {
      const int64_t p = batch.positions[row];
      uint64_t& x = travelling.activations[static_cast<size_t>(row)];
      x = KeyOf(stage, x, p, slot);
      slot(p) = x;
    }
  }
  (stage + 1 < stages() ? stages_[static_cast<size_t>(stage) + 1].inbox : done_)
      .push_back(std::move(travelling));
  return true;
}

bool HashChain::Receive(Result& result) {
  if (done_.empty()) return false;
  const Travelling travelling = std::move(done_.front());
  done_.pop_front();
  --in_flight_;
  result.step = travelling.step.id;
  result.sampled.clear();
  const Batch& batch = travelling.step.batch;
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
    result.sampled.push_back(std::move(token));
  }
  return true;
}

void HashChain::TurnAll() {
  for (int stage = 0; stage < stages(); ++stage) {
    while (Turn(stage)) {
    }
  }
}

bool HashChain::PagesAreExclusive() const {
  std::set<int32_t> written;
  std::set<int32_t> read;
  const auto visit = [&](const std::deque<Travelling>& steps) {
    for (const Travelling& travelling : steps) {
      const Batch& batch = travelling.step.batch;
      for (int s = 0; s < batch.sequences(); ++s) {
        const int first = batch.positions[batch.sequence_offsets[s]] / kPageTokens;
        for (int i = batch.page_offsets[s]; i < batch.page_offsets[s + 1]; ++i) {
          const bool writes = i - batch.page_offsets[s] >= first;
          if (!writes) {
            read.insert(batch.pages[i]);
          } else if (!written.insert(batch.pages[i]).second) {
            return false;
          }
        }
      }
    }
    return true;
  };
  for (const OneStage& stage : stages_) {
    if (!visit(stage.inbox)) return false;
  }
  if (!visit(done_)) return false;
  return std::none_of(written.begin(), written.end(),
                      [&](int32_t page) { return read.count(page) > 0; });
}

}  // namespace neurogrid
