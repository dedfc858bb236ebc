#include "tests/engine/chain.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/check.h"
#include "engine/batch_check.h"
#include "engine/model/read_rows.h"
#include "engine/model/safetensors.h"
#include "engine/model/stage_memory.h"

namespace neurogrid {
namespace {

std::vector<float> Widened(ConstTensor x) {
  std::vector<float> values(static_cast<size_t>(x.shape.elements()));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = x.dtype == DType::kBF16 ? ToFloat(x.as<bf16>()[i]) : x.as<float>()[i];
  }
  return values;
}

constexpr int kPages = 160;

void AddWindowPages(Batch& batch, int window) {
  if (window == 0 || !batch.window_pages.empty()) return;
  for (size_t s = 0; s + 1 < batch.page_offsets.size(); ++s) {
    const int position = batch.positions[static_cast<size_t>(batch.sequence_offsets[s])];
    for (int32_t i = batch.page_offsets[s]; i < batch.page_offsets[s + 1]; ++i) {
      const bool seen = i - batch.page_offsets[s] >= FirstWindowPage(position, window);
      batch.window_pages.push_back(seen ? kPages - 1 - batch.pages[static_cast<size_t>(i)] : -1);
    }
  }
}

}  // namespace

inline namespace engine_tests {

Batch BatchOf(const std::vector<SequencePart>& slices, int window) {
  Batch batch;
  batch.sequence_offsets = {0};
  batch.page_offsets = {0};
  for (const SequencePart& slice : slices) {
    for (size_t i = 0; i < slice.ids.size(); ++i) {
      batch.tokens.push_back(slice.ids[i]);
      batch.positions.push_back(slice.first + static_cast<int32_t>(i));
    }
    batch.pages.insert(batch.pages.end(), slice.pages.begin(), slice.pages.end());
    batch.sequence_offsets.push_back(batch.rows());
    batch.page_offsets.push_back(static_cast<int32_t>(batch.pages.size()));
    batch.state_slots.push_back(slice.slot);
    batch.state_sources.push_back(slice.source);
  }
  AddWindowPages(batch, window);
  return batch;
}

BatchLimits TestLimits(int vocab_size, int window) {
  return {.rows_max = 512,
          .sequences_max = 32,
          .samples_max = 512,
          .pages = kPages,
          .window_pages = window > 0 ? kPages : 0,
          .window = window,
          .slots = 32,
          .positions_max = 1024,
          .vocab_size = vocab_size};
}

Chain::Chain(const ModelConfig& config, const WeightStore& weights, Ops& ops, Precision precision,
             const std::vector<int>& cuts)
    : ops_(ops),
      limits_(TestLimits(config.vocab_size, WidestWindow(config))),
      vocab_(config.vocab_size) {
  std::vector<int> bounds = cuts;
  bounds.insert(bounds.begin(), 0);
  bounds.push_back(config.layers_count());
  for (size_t i = 0; i + 1 < bounds.size(); ++i) {
    const StageOptions options{
        .layers = {bounds[i], bounds[i + 1]}, .precision = precision, .limits = limits_};
    auto stage = Transformer::Load(config, weights, ops, options, nullptr);
    NG_CHECK(stage.ok());
    stages_.push_back(*std::move(stage));
  }
}

std::vector<float> Chain::Logits(Batch batch) {
  AddWindowPages(batch, limits_.window);
  NG_CHECK(CheckBatch(batch, limits_).ok());
  ConstTensor activations;
  hidden_.clear();
  for (const std::unique_ptr<Transformer>& stage : stages_) {
    activations = ops_.CopyToHost(stage->Forward(batch, activations));
    NG_CHECK(ops_.Health().ok());
    hidden_.push_back(Widened(activations));
  }
  std::vector<int32_t> rows(static_cast<size_t>(batch.rows()));
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int32_t>(i);
  return Widened(ops_.CopyToHost(stages_.back()->Logits(rows)));
}

std::vector<float> LogitsOf(Chain& chain, const std::vector<int32_t>& ids, int chunk) {
  const int total = static_cast<int>(ids.size());
  if (chunk == 0) chunk = total;
  std::vector<float> logits;
  for (int first = 0; first < total; first += chunk) {
    const int end = std::min(total, first + chunk);
    SequencePart slice{.ids = {ids.begin() + first, ids.begin() + end},
                       .first = first,
                       .pages = {},
                       .source = first == 0 ? -1 : 0,
                       .slot = 0};
    for (int page = 0; page * kPageTokens < end; ++page) slice.pages.push_back(page);
    const std::vector<float> part = chain.Logits(BatchOf({slice}));
    logits.insert(logits.end(), part.begin(), part.end());
  }
  return logits;
}

std::vector<Continuation> ContinueAll(Chain& chain,
                                      const std::vector<std::vector<int32_t>>& prompts, int count) {
  std::vector<Continuation> continued(prompts.size());
  if (count == 0) return continued;
  std::vector<SequencePart> next(prompts.size());
  int32_t page = 0;
  const auto take = [&](size_t i, const float* logits) {
    const float* best = std::max_element(logits, logits + chain.vocab());
    float second = -INFINITY;
    for (const float* logit = logits; logit != logits + chain.vocab(); ++logit) {
      if (logit != best) second = std::max(second, *logit);
    }
    continued[i].tokens.push_back(static_cast<int32_t>(best - logits));
    continued[i].margins.push_back(*best - second);
    next[i].first += static_cast<int>(next[i].ids.size());
    next[i].ids = {continued[i].tokens.back()};
    next[i].source = next[i].slot;
  };
  constexpr std::ptrdiff_t kChunk =
      128;  // logits of more rows of a large vocabulary take much memory
  for (size_t i = 0; i < prompts.size(); ++i) {
    next[i].slot = static_cast<int>(i);
    const auto end = static_cast<int>(prompts[i].size()) + count;
    for (int at = 0; at < end; at += kPageTokens) next[i].pages.push_back(page++);
    std::vector<float> logits;
    for (auto at = prompts[i].begin(); at != prompts[i].end();) {
      const auto chunk_end = at + std::min(kChunk, prompts[i].end() - at);
      next[i].first += static_cast<int>(next[i].ids.size());
      next[i].ids.assign(at, chunk_end);
      logits = chain.Logits(BatchOf({next[i]}));
      next[i].source = next[i].slot;
      at = chunk_end;
    }
    take(i, logits.data() + logits.size() - chain.vocab());
  }
  for (int step = 1; step < count; ++step) {
    const std::vector<float> logits = chain.Logits(BatchOf(next));
    for (size_t i = 0; i < prompts.size(); ++i) {
      take(i, logits.data() + i * static_cast<size_t>(chain.vocab()));
    }
  }
  return continued;
}

std::vector<std::vector<int32_t>> GreedyOfAll(Chain& chain,
                                              const std::vector<std::vector<int32_t>>& prompts,
                                              int count) {
  std::vector<std::vector<int32_t>> tokens;
  for (Continuation& continued : ContinueAll(chain, prompts, count)) {
    tokens.push_back(std::move(continued.tokens));
  }
  return tokens;
}

std::vector<int32_t> Greedy(Chain& chain, const std::vector<int32_t>& prompt, int count) {
  return GreedyOfAll(chain, {prompt}, count)[0];
}

Reference::Reference(const std::string& path) {
  absl::StatusOr<SafetensorsFile> file = OpenSafetensors(path);
  NG_CHECK(file.ok());
  for (const SafetensorsFile::NamedTensor& named : file->tensors) {
    std::vector<float>& values = tensors_[named.name];
    values.resize(static_cast<size_t>(named.tensor.shape.elements()));
    const WeightStore::Entry entry{.tensor = named.tensor, .file = path};
    ReadRows(entry, 0, MatrixOf(named.tensor.shape).rows, values.data());
  }
}

const std::vector<float>& Reference::operator[](const std::string& name) const {
  const auto found = tensors_.find(name);
  NG_CHECK(found != tensors_.end());
  return found->second;
}

std::vector<int32_t> Reference::Ids(const std::string& name) const {
  std::vector<int32_t> ids;
  for (const float id : (*this)[name]) ids.push_back(static_cast<int32_t>(id));
  return ids;
}

Error ErrorOf(const std::vector<float>& found, const std::vector<float>& expected) {
  NG_CHECK(found.size() == expected.size());
  Error error;
  for (size_t i = 0; i < found.size(); ++i) {
    const double difference = std::abs(double{found[i]} - double{expected[i]});
    error.max = difference <= error.max ? error.max : difference;  // a NaN stays
    error.mean += difference / static_cast<double>(found.size());
  }
  return error;
}

}  // namespace engine_tests
}  // namespace neurogrid
