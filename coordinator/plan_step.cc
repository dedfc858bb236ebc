// The rules of a step, one function each.
#include "coordinator/plan_step.h"

#include <algorithm>
#include <cmath>

#include "common/check.h"

namespace neurogrid {
namespace {

constexpr int64_t kOutputPagesMax = 64;  // of one sequence's future that admission looks at

class StepPlanner {
 public:
  explicit StepPlanner(const StepView& view)
      : view_(view),
        pages_(view.pages_available),
        rows_(view.limits.rows_max),
        samples_(view.limits.samples_max),
        sequences_(view.limits.sequences_max),
        taken_(view.running.size(), false),
        gone_(view.running.size(), false) {}

  StepPlan Plan() {
    PlanDecodes();
    room_ = std::min<int64_t>(
        rows_, std::max<int64_t>(kPageTokens,
                                 view_.tokens_max - static_cast<int64_t>(plan_.slices.size())));
    room_max_ = room_;
    BegunPrefills();
    if (plan_.preempted.empty()) Newcomers();
    return std::move(plan_);
  }

 private:
  static bool Decodes(const RunningView& sequence) {
    return sequence.known - sequence.scheduled <= 1;
  }
  bool WantsPrefill(const RunningView& sequence) const {
    return !sequence.paused && !Decodes(sequence) && sequence.in_flight < view_.prefill_depth;
  }

  /// One row for each sequence that waits for nothing but its last token.
  void PlanDecodes() {
    std::vector<int> ready;
    int64_t decoding = 0;
    for (int i = 0; i < static_cast<int>(view_.running.size()); ++i) {
      const RunningView& sequence = view_.running[i];
      if (sequence.paused || !Decodes(sequence)) continue;
      ++decoding;
      if (sequence.known - sequence.scheduled == 1 && sequence.in_flight == 0) ready.push_back(i);
    }
    std::sort(ready.begin(), ready.end(), [&](int a, int b) {
      const RunningView& x = view_.running[a];
      const RunningView& y = view_.running[b];
      return x.ready != y.ready ? x.ready < y.ready : a < b;
    });
    const int64_t share = (decoding + view_.decode_groups - 1) / view_.decode_groups;
    const int64_t decodes_max = std::min(share, DecodesMax());
    for (const int i : ready) {
      if (static_cast<int64_t>(plan_.slices.size()) >= decodes_max) break;
      if (gone_[i]) continue;
      if (PagesFor(i, 1) > 0) Take(i, 1, 1);
    }
  }

  /// Room for decodes: whole, less one chunk's when something waits to be prefilled.
  int64_t DecodesMax() const {
    const bool prefill =
        !view_.waiting.empty() || std::any_of(view_.running.begin(), view_.running.end(),
                                              [&](const auto& s) { return WantsPrefill(s); });
    const auto less = [&](int64_t limit, int64_t reserved) {
      return prefill ? std::max(limit / 2, limit - reserved) : limit;
    };
    return std::min({less(rows_, kPageTokens), less(samples_, kPageTokens),
                     std::max<int64_t>(1, less(sequences_, 1))});
  }

  /// Makes room for up to `rows` more rows of a running sequence; how many there is room for.
  int64_t PagesFor(int i, int64_t rows) {
    const RunningView& sequence = view_.running[i];
    const int64_t room = int64_t{sequence.pages} * kPageTokens - sequence.scheduled;
    if (room + pages_ * kPageTokens <= 0) Preempt(i);
    return std::clamp<int64_t>(room + pages_ * kPageTokens, 0, rows);
  }

  /// Preempts the worst sequences for sequence `i` until there is a page.
  void Preempt(int i) {
    while (pages_ == 0) {
      int worst = -1;
      for (int j = static_cast<int>(view_.running.size()); j-- > 0;) {
        const RunningView& other = view_.running[j];
        if (j == i || gone_[j] || taken_[j] || other.in_flight > 0) continue;
        if (other.paused) {
          worst = j;
          break;
        }
        if (worst < 0 && j > i) worst = j;
      }
      if (worst < 0) return;
      gone_[worst] = true;
      pages_ += view_.running[worst].pages_private;
      plan_.preempted.push_back(worst);
    }
  }

  void Take(int i, int64_t rows, int64_t samples) {
    const RunningView& sequence = view_.running[i];
    const int64_t more = PagesOf(sequence.scheduled + rows) - sequence.pages;
    pages_ -= std::max<int64_t>(more, 0);
    NG_CHECK(pages_ >= 0);
    taken_[i] = true;
    Push({i, false, static_cast<int>(rows)}, samples);
  }

  void Push(Slice slice, int64_t samples) {
    plan_.slices.push_back(slice);
    rows_ -= slice.rows;
    samples_ -= samples;
    --sequences_;
  }

  /// Rows of the next chunk of a prompt computed up to `first`, by the room that is left.
  int64_t Chunk(int64_t first, int64_t known, int64_t scored_rows_end, bool others) const {
    if (sequences_ == 0 || samples_ == 0) return 0;
    int64_t rows = std::min(room_, rows_);
    if (others) rows = std::min(rows, std::max<int64_t>(room_max_ / 2, kPageTokens));
    if (first < scored_rows_end) rows = std::min(rows, samples_);
    return Rounded(first, known, rows);
  }
  static int64_t Rounded(int64_t first, int64_t known, int64_t rows) {
    if (first + rows >= known) return known - first;
    return std::max<int64_t>(0, (first + rows) / kPageTokens * kPageTokens - first);
  }
  static int64_t Samples(int64_t first, int64_t rows, int64_t known, int64_t scored_rows_end) {
    const int64_t scored = std::clamp<int64_t>(scored_rows_end - first, 0, rows);
    return scored + (first + rows == known && first + scored < known ? 1 : 0);
  }

  void BegunPrefills() {
    int64_t wanting = static_cast<int64_t>(view_.waiting.size());
    for (const RunningView& sequence : view_.running) wanting += WantsPrefill(sequence) ? 1 : 0;
    others_ = wanting > 1;
    for (int i = 0; i < static_cast<int>(view_.running.size()); ++i) {
      const RunningView& sequence = view_.running[i];
      if (gone_[i] || !WantsPrefill(sequence)) continue;
      int64_t rows = Chunk(sequence.scheduled, sequence.known, sequence.scored_rows_end, others_);
      if (rows == 0) continue;
      rows = Rounded(sequence.scheduled, sequence.known, PagesFor(i, rows));
      if (rows == 0) continue;
      room_ -= rows;
      Take(i, rows, Samples(sequence.scheduled, rows, sequence.known, sequence.scored_rows_end));
    }
  }

  /// Pages that the running sequences will still ask for: their prompts' surely, their outputs' by
  /// the share that experience has shown to be enough.
  double ComingPages() const {
    double coming = 0;
    for (const RunningView& sequence : view_.running) {
      const int64_t known = PagesOf(sequence.known);
      const int64_t output =
          std::min(PagesOf(sequence.known_max) - known, kOutputPagesMax) * (1 + sequence.followers);
      coming += static_cast<double>(std::max<int64_t>(known - sequence.pages, 0)) +
                view_.reserve * static_cast<double>(output);
    }
    return coming;
  }

  void Newcomers() {
    int64_t running = 0;
    for (const RunningView& sequence : view_.running) running += 1 + sequence.followers;
    double coming = ComingPages();
    // What the slices above took out of pages_ is no longer to come.
    for (const Slice& slice : plan_.slices) {
      const RunningView& sequence = view_.running[slice.index];
      const int64_t took = PagesOf(sequence.scheduled + slice.rows) - sequence.pages;
      coming -= static_cast<double>(std::max<int64_t>(took, 0));
    }
    for (int i = 0; i < static_cast<int>(view_.waiting.size()); ++i) {
      const WaitingView& sequence = view_.waiting[i];
      const int64_t places = 1 + sequence.followers;
      const int64_t pages = PagesOf(sequence.known) - sequence.pages_found + sequence.pages_cached;
      if (pages > pages_) return;
      if (running > 0) {
        if (running + places > view_.running_max) return;
        if (static_cast<double>(pages + sequence.followers) + coming > static_cast<double>(pages_))
          return;
      }
      const int64_t first = int64_t{sequence.pages_found} * kPageTokens;
      const int64_t rows = Chunk(first, sequence.known, sequence.scored_rows_end, others_);
      if (rows == 0) return;
      room_ -= rows;
      pages_ -= pages;
      running += places;
      const int64_t output =
          std::min(PagesOf(sequence.known_max) - PagesOf(sequence.known), kOutputPagesMax);
      coming += view_.reserve * static_cast<double>(output * places);
      Push({i, true, static_cast<int>(rows)},
           Samples(first, rows, sequence.known, sequence.scored_rows_end));
    }
  }

  const StepView& view_;
  int64_t pages_;      // left
  int64_t rows_;       // left of the stage's limit
  int64_t samples_;    // left
  int64_t sequences_;  // left
  int64_t room_ = 0;   // left for prefill
  int64_t room_max_ = 0;
  bool others_ = false;      // more than one prompt wants rows
  std::vector<bool> taken_;  // [running] in the plan
  std::vector<bool> gone_;   // [running] preempted
  StepPlan plan_;
};

}  // namespace

StepPlan PlanStep(const StepView& view) {
  NG_CHECK(view.limits.rows_max >= 2 * kPageTokens);
  NG_CHECK(view.limits.samples_max >= 2 * kPageTokens);
  NG_CHECK(view.limits.sequences_max >= 1);
  return StepPlanner(view).Plan();
}

}  // namespace neurogrid
