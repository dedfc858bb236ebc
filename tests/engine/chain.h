// A chain of stages in one process, run on batches that tests put together.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/model/checkpoint.h"
#include "engine/ops.h"
#include "engine/transformer.h"

namespace neurogrid {
inline namespace engine_tests {  // coordinator/serving.h has a Chain as well

/// Part of a sequence: ids at positions from `first` on, in these pages; recurrent state is read
/// from `source` (-1: zeros) and written to `slot` (-1: nowhere).
struct SequencePart {
  std::vector<int32_t> ids;
  int first = 0;
  std::vector<int32_t> pages;
  int source = -1;
  int slot = -1;
};

/// The slices as one batch without samples; for a model with a window, with window pages: other
/// numbers than the pages', -1 where they fell out of the window.
Batch BatchOf(const std::vector<SequencePart>& slices, int window = 0);

/// Limits with room for the tests' batches; `window` is the model's widest.
BatchLimits TestLimits(int vocab_size, int window = 0);

/// The transformers of consecutive layer ranges, each handing its activations to the next.
class Chain {
 public:
  /// `cuts`: first layers of the stages after the first; empty: one stage.
  Chain(const Checkpoint& model, Ops& ops, Precision precision, const std::vector<int>& cuts = {})
      : Chain(model.config(), model.weights(), ops, precision, cuts) {}
  Chain(const ModelConfig& config, const WeightStore& weights, Ops& ops, Precision precision,
        const std::vector<int>& cuts = {});

  /// Logits of every row, [rows * vocab].
  std::vector<float> Logits(Batch batch);
  /// After Logits: the residual stream that stage `i` put out, widened, [rows * hidden].
  const std::vector<float>& hidden(size_t stage) const { return hidden_[stage]; }

  int vocab() const { return vocab_; }

 private:
  Ops& ops_;
  std::vector<std::unique_ptr<Transformer>> stages_;
  std::vector<std::vector<float>> hidden_;
  BatchLimits limits_;
  int vocab_ = 0;
};

/// Logits of all positions of `ids`, prefilled in chunks of `chunk` tokens (0: all at once), one
/// sequence alone in pages 0, 1, ... and slot 0.
std::vector<float> LogitsOf(Chain& chain, const std::vector<int32_t>& ids, int chunk = 0);

/// Tokens that follow a prompt, each the most likely one, the lowest id on ties.
struct Continuation {
  std::vector<int32_t> tokens;
  std::vector<float> margins;  // the best logit minus the second best, at each token
};

/// `count` tokens after each prompt. Prompts are prefilled alone and decoded together.
std::vector<Continuation> ContinueAll(Chain& chain,
                                      const std::vector<std::vector<int32_t>>& prompts, int count);
/// Their tokens alone.
std::vector<std::vector<int32_t>> GreedyOfAll(Chain& chain,
                                              const std::vector<std::vector<int32_t>>& prompts,
                                              int count);
/// The same for one prompt.
std::vector<int32_t> Greedy(Chain& chain, const std::vector<int32_t>& prompt, int count);

/// Tensors of a safetensors file with reference answers, widened to f32.
class Reference {
 public:
  explicit Reference(const std::string& path);
  bool Has(const std::string& name) const { return tensors_.contains(name); }
  const std::vector<float>& operator[](const std::string& name) const;
  std::vector<int32_t> Ids(const std::string& name) const;

 private:
  absl::flat_hash_map<std::string, std::vector<float>> tensors_;
};

struct Error {
  double max = 0;
  double mean = 0;
};
Error ErrorOf(const std::vector<float>& found, const std::vector<float>& expected);

}  // namespace engine_tests
}  // namespace neurogrid
