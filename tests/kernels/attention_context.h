// Sequences in scattered pages for tests of attention, and what attention over them is in f64.
#pragma once

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <type_traits>
#include <vector>

#include "kernels/attention.h"
#include "kernels/kv_pages.h"
#include "tests/kernels/device.h"

namespace neurogrid::kernels {

struct Heads {
  int query_heads;
  int kv_heads;
  int dim;
  float softcap = 0;
  int window = 0;
};

inline size_t Size(int64_t a, int64_t b) { return static_cast<size_t>(a * b); }

/// Sequences of given lengths in pages that lie scattered, with keys, values and queries for every
/// position. Whatever no token may see is NaN.
template <typename T>
class Context {
 public:
  Context(const Heads& heads, const std::vector<int>& lengths) : h_(heads), lengths_(lengths) {
    int pages = 0;
    for (const int length : lengths) {
      first_page_.push_back(pages);
      pages += (length + kPageTokens - 1) / kPageTokens;
    }
    for (int i = pages; i > 0; --i) ids_.push_back(i);  // backwards; page 0 belongs to nobody
    const float nan = std::numeric_limits<float>::quiet_NaN();
    memory_.assign(Size(pages + 1, page_elements()), nan);
    for (size_t s = 0; s < lengths.size(); ++s) {
      for (const bool values : {false, true}) {
        tokens_[values].push_back(
            Widen(RandomOf<T>(10 * s + values, Size(lengths[s], kv_width()))));
      }
      queries_.push_back(Widen(RandomOf<T>(77 + s, Size(lengths[s], width()), 2)));
      FillPages(s);
    }
    if constexpr (sizeof(T) == 2) {
      pages_.emplace(ToBf16(memory_));
    } else {
      pages_.emplace(memory_);
    }
    table_.emplace(ids_);
  }

  /// Rows [first, first + rows) of sequence `sequence`.
  struct Part {
    size_t sequence;
    int first;
    int rows;
  };

  using Way = cudaError_t(const AttentionOperands<T>&, const AttentionWorkView&, cudaStream_t);
  struct How {
    int64_t states_max = 1000;
    Way* way = Attention;
    int spare = 0;  // places of each array that a recorded launch has beyond what there is
    bool whole_heads = false;
  };

  std::vector<float> Run(const std::vector<Part>& batch) const { return Run(batch, How()); }
  std::vector<float> Run(const std::vector<Part>& batch, const How& how) const {
    AttentionWork work;
    std::vector<float> qkv;
    int rows = 0;
    for (const Part& part : batch) {
      const auto begin = queries_[part.sequence].begin() + part.first * width();
      for (int i = 0; i < part.rows; ++i) {
        qkv.insert(qkv.end(), begin + i * width(), begin + (i + 1) * width());
        qkv.insert(qkv.end(), static_cast<size_t>(2 * kv_width()), 0.0f);
      }
      AddSequence({rows, part.rows, part.first, first_page_[part.sequence]},
                  h_.query_heads / h_.kv_heads, h_.window, how.states_max, work);
      rows += part.rows;
    }
    if (how.spare == 0) return Launch(work, qkv, rows, how);
    // What a count of too much would run: its row must stay as it was.
    const std::vector<float> row(static_cast<size_t>(width() + 2 * kv_width()), 1.0f);
    qkv.insert(qkv.end(), row.begin(), row.end());
    return Launch(work, qkv, rows, how);
  }

  /// Row `position` of a sequence in f64, with a bound of what bf16 probabilities and f32 sums may
  /// move it by.
  void Check(const std::vector<float>& row, size_t sequence, int position) const {
    for (int head = 0; head < h_.query_heads; ++head) CheckHead(row, sequence, position, head);
  }

  int width() const { return h_.query_heads * h_.dim; }

 private:
  int kv_width() const { return h_.kv_heads * h_.dim; }
  int64_t page_elements() const { return int64_t{2} * kPageTokens * kv_width(); }

  void FillPages(size_t s) {
    for (int t = 0; t < lengths_[s]; ++t) {
      const int64_t page = ids_[static_cast<size_t>(first_page_[s] + t / kPageTokens)];
      for (int head = 0; head < h_.kv_heads; ++head) {
        for (const bool values : {false, true}) {
          const int64_t tile = (2 * head + (values ? 1 : 0)) * kPageTokens * h_.dim;
          const int64_t to = page * page_elements() + tile + t % kPageTokens * h_.dim;
          const auto from = tokens_[values][s].begin() + t * kv_width() + head * h_.dim;
          std::copy(from, from + h_.dim, memory_.begin() + to);
        }
      }
    }
  }

  std::vector<float> Launch(const AttentionWork& work, const std::vector<float>& qkv, int rows,
                            const How& how) const {
    const auto upload = [](const auto& values) {
      auto copy = values;
      copy.resize(std::max<size_t>(copy.size(), 1));
      return std::make_unique<Device<typename std::decay_t<decltype(values)>::value_type>>(copy);
    };
    const AttentionCounts counts{
        static_cast<int>(work.few_tiles.size()), static_cast<int>(work.items.size()),
        static_cast<int>(work.merges.size()), static_cast<int>(work.more_tiles.size())};
    AttentionWork spare = work;
    for (int i = 0; i < how.spare; ++i) {
      const AttentionTile tile{rows, 1, 0, 0, 0, 0, 1, counts.items};
      spare.items.push_back({counts.few_tiles});
      spare.few_tiles.push_back(tile);
      spare.more_tiles.push_back(tile);
      spare.merges.push_back({rows, 0, 1, 0});
    }
    const auto few = upload(spare.few_tiles);
    const auto items = upload(spare.items);
    const auto merges = upload(spare.merges);
    const auto more = upload(spare.more_tiles);
    const Device<AttentionCounts> live(std::vector<AttentionCounts>{counts});
    const AttentionWorkView view{few->data(),
                                 items->data(),
                                 merges->data(),
                                 more->data(),
                                 counts.few_tiles + how.spare,
                                 counts.items + how.spare,
                                 counts.merges + how.spare,
                                 counts.more_tiles + how.spare,
                                 how.spare > 0 ? live.data() : nullptr,
                                 how.whole_heads};
    const auto narrowed = [](const std::vector<float>& wide) {
      if constexpr (sizeof(T) == 2) {
        return ToBf16(wide);
      } else {
        return wide;
      }
    };
    const float nan = std::numeric_limits<float>::quiet_NaN();
    Device<T> out(narrowed(std::vector<float>(Size(rows + (how.spare > 0 ? 1 : 0), width()), nan)));
    Device<float> states(static_cast<size_t>(StateFloats(work.states, h_.query_heads, h_.dim)) + 1);
    const Device<T> queries(narrowed(qkv));
    const AttentionOperands<T> operands{out.data(),
                                        queries.data(),
                                        width() + 2 * kv_width(),
                                        {pages_->data(), page_elements(), h_.kv_heads, h_.dim},
                                        table_->data(),
                                        states.data(),
                                        h_.query_heads,
                                        scale(),
                                        h_.softcap,
                                        h_.window};
    REQUIRE(how.way(operands, view, nullptr) == cudaSuccess);
    std::vector<float> result = Widen(out.Read());
    for (size_t i = Size(rows, width()); i < result.size(); ++i) {
      if (std::isnan(result[i])) continue;
      FAIL_CHECK("a row was attended that is not there");
      break;
    }
    result.resize(Size(rows, width()));
    return result;
  }

  float scale() const { return 1.0f / std::sqrt(static_cast<float>(h_.dim)); }

  void CheckHead(const std::vector<float>& row, size_t s, int position, int head) const {
    const int kv_head = head / (h_.query_heads / h_.kv_heads);
    const int first = h_.window > 0 ? std::max(0, position - h_.window + 1) : 0;
    const auto query = queries_[s].begin() + position * width() + head * h_.dim;
    std::vector<double> scores;
    double magnitude = 0;
    for (int t = first; t <= position; ++t) {
      const auto key = tokens_[0][s].begin() + t * kv_width() + kv_head * h_.dim;
      double score = 0;
      double size = 0;
      for (int c = 0; c < h_.dim; ++c) {
        score += double{query[c]} * double{key[c]};
        size += std::abs(double{query[c]} * double{key[c]});
      }
      score *= double{scale()};
      magnitude = std::max(magnitude, size * double{scale()});
      if (h_.softcap > 0) score = double{h_.softcap} * std::tanh(score / double{h_.softcap});
      scores.push_back(score);
    }
    const double maximum = *std::max_element(scores.begin(), scores.end());
    double total = 0;
    for (double& score : scores) total += score = std::exp(score - maximum);
    for (int c = 0; c < h_.dim; ++c) {
      double value = 0;
      double size = 0;
      for (size_t i = 0; i < scores.size(); ++i) {
        const auto t = first + static_cast<int>(i);
        const double v =
            double{tokens_[1][s][static_cast<size_t>(t * kv_width() + kv_head * h_.dim + c)]};
        value += scores[i] * v / total;
        size += scores[i] * std::abs(v) / total;
      }
      // A score is off by dim / 16 truncated steps (f32: dim roundings) and a few roundings more;
      // its exponential by as much relative to itself, in numerator and denominator. bf16 rounds
      // each probability by 2^-8 of it at most; sums of f32 lose 2^-23 a term or step.
      const double score_error =
          ((sizeof(T) == 2 ? h_.dim / 16.0 : h_.dim) + 8) * 0x1p-23 * (magnitude + 1);
      const double terms = sizeof(T) == 2 ? 64 : static_cast<double>(scores.size()) + 64;
      const double bound =
          size * (2 * score_error + (sizeof(T) == 2 ? 0x1p-8 : 0) + terms * 0x1p-23) +
          HalfUlp<T>(value * 1.01);
      const double error = std::abs(double{row[static_cast<size_t>(head * h_.dim + c)]} - value);
      if (!(error <= bound)) {
        CAPTURE(position, head, c, value, error, bound);
        FAIL_CHECK("an output is too far from f64");
        return;
      }
    }
  }

  Heads h_;
  std::vector<int> lengths_;
  std::vector<int> first_page_;
  std::vector<int32_t> ids_;
  std::vector<float> memory_;
  std::vector<std::vector<float>> tokens_[2];
  std::vector<std::vector<float>> queries_;
  std::optional<Device<T>> pages_;
  std::optional<Device<int32_t>> table_;
};

template <typename T>
std::vector<float> RowsOf(const Context<T>& context, const std::vector<float>& out, int first,
                          int rows) {
  const auto begin = out.begin() + first * context.width();
  return {begin, begin + rows * context.width()};
}

}  // namespace neurogrid::kernels
