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
        full_(view.limits.pages > 0),
        window_(view.limits.window_pages > 0),
        recurrent_(view.limits.slots > 0),
        left_(view.available),
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
    const size_t decodes = plan_.slices.size();
    BegunPrefills();
    if (plan_.preempted.empty()) Newcomers();
    if (view_.row_costs != nullptr && plan_.preempted.empty() && plan_.slices.size() == decodes) {
      AddDrafts();
    }
    return std::move(plan_);
  }

 private:
  static bool Decodes(const RunningView& sequence) {
    return sequence.known - sequence.scheduled <= 1 + sequence.replay;
  }
  bool WantsPrefill(const RunningView& sequence) const {
    return !sequence.paused && !Decodes(sequence) && sequence.in_flight < view_.prefill_depth;
  }

  /// One row for each sequence that waits for nothing but its last token, and what it runs again.
  void PlanDecodes() {
    std::vector<int> ready;
    int64_t decoding = 0;
    for (int i = 0; i < static_cast<int>(view_.running.size()); ++i) {
      const RunningView& sequence = view_.running[i];
      if (sequence.paused || !Decodes(sequence)) continue;
      ++decoding;
      const bool waits = sequence.known - sequence.scheduled == 1 + sequence.replay;
      if (waits && sequence.in_flight == 0) ready.push_back(i);
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
      const int64_t rows = 1 + view_.running[i].replay;
      if (gone_[i] || rows > rows_) continue;
      if (RoomFor(i, rows) == rows) Take(i, rows, 1);
    }
  }

  /// Guesses behind the decodes of the plan.
  void AddDrafts() {
    int rows = 0;
    std::vector<DraftOffer> offers;
    for (const Slice& slice : plan_.slices) {
      rows += slice.rows;
      offers.push_back(view_.running[slice.index].draft);
    }
    const std::vector<int> given = ShareDrafts(offers, rows, static_cast<int>(offers.size()),
                                               static_cast<int>(rows + std::min(rows_, samples_)),
                                               *view_.row_costs, view_.guess_account);
    const auto others = static_cast<int64_t>(view_.running.size());
    for (size_t i = 0; i < given.size(); ++i) {
      Slice& slice = plan_.slices[i];
      const RunningView& sequence = view_.running[slice.index];
      const int64_t end = sequence.scheduled + slice.rows;
      const int64_t held = std::max<int64_t>(sequence.pages, PagesOf(end));
      const int64_t more = std::max<int64_t>(PagesOf(end + given[i]) - held, 0);
      const bool crowded =
          (more > 0 && PagesLeft() - more < others) || (recurrent_ && left_.slots <= others);
      if (given[i] == 0 || crowded) continue;
      TakePages(more);
      if (recurrent_) --left_.slots;
      slice.rows += given[i];
      slice.drafts = given[i];
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

  /// Pages that can be given to a sequence: one of each kind for 16 tokens.
  int64_t PagesLeft() const {
    if (!window_) return left_.pages;
    return full_ ? std::min(left_.pages, left_.window_pages) : left_.window_pages;
  }

  /// Makes room for up to `rows` more rows of a running sequence; how many there is room for.
  int64_t RoomFor(int i, int64_t rows) {
    const RunningView& sequence = view_.running[i];
    const int64_t room = int64_t{sequence.pages} * kPageTokens - sequence.scheduled;
    Preempt(i, room <= 0, sequence.needs_slot);
    if (sequence.needs_slot && left_.slots == 0) return 0;
    return std::clamp<int64_t>(room + PagesLeft() * kPageTokens, 0, rows);
  }

  /// Preempts the worst sequences for sequence `i` until there is a page, and a slot.
  void Preempt(int i, bool page, bool slot) {
    while ((page && PagesLeft() == 0) || (slot && left_.slots == 0)) {
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
      left_ += view_.running[worst].comes_back;
      plan_.preempted.push_back(worst);
    }
  }

  void Take(int i, int64_t rows, int64_t samples) {
    const RunningView& sequence = view_.running[i];
    const int64_t more = std::max<int64_t>(PagesOf(sequence.scheduled + rows) - sequence.pages, 0);
    TakePages(more);
    if (sequence.needs_slot) --left_.slots;
    NG_CHECK(left_.pages >= 0 && left_.window_pages >= 0 && left_.slots >= 0);
    taken_[i] = true;
    Push({i, false, static_cast<int>(rows)}, samples);
  }

  void TakePages(int64_t pages) {
    if (full_) left_.pages -= pages;
    if (window_) left_.window_pages -= pages;
  }

  void Push(Slice slice, int64_t samples) {
    plan_.slices.push_back(slice);
    rows_ -= slice.rows;
    samples_ -= samples;
    --sequences_;
  }

  /// Rows of the next chunk of a prompt computed up to `first`, by the room that is left.
  template <typename View>
  int64_t Chunk(int64_t first, const View& sequence) const {
    if (sequences_ == 0 || samples_ == 0) return 0;
    int64_t rows = std::min(room_, rows_);
    if (others_ && !sequence.replays)
      rows = std::min(rows, std::max<int64_t>(room_max_ / 2, kPageTokens));
    if (first < sequence.scored_rows_end) rows = std::min(rows, samples_);
    return Rounded(first, sequence, rows);
  }
  template <typename View>
  static int64_t Rounded(int64_t first, const View& sequence, int64_t rows) {
    const int64_t boundary = (sequence.known - 1) / kPageTokens * kPageTokens;
    if (first + rows >= sequence.known) {
      return (sequence.cuts && first < boundary ? boundary : sequence.known) - first;
    }
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
      int64_t rows = Chunk(sequence.scheduled, sequence);
      if (rows == 0) continue;
      rows = Rounded(sequence.scheduled, sequence, RoomFor(i, rows));
      if (rows == 0) continue;
      room_ -= rows;
      Take(i, rows, Samples(sequence.scheduled, rows, sequence.known, sequence.scored_rows_end));
    }
  }

  /// Pages of a kind that running sequences will still ask for: their prompts' surely, their
  /// outputs' by the share that experience has shown to be enough.
  struct Coming {
    double pages = 0;
    double window_pages = 0;
  };
  int64_t WindowPages(int64_t tokens) const {
    return WindowPagesOf(tokens, view_.limits.window, view_.limits.rows_max);
  }
  void AddOutput(int64_t known, int64_t known_max, int64_t places, Coming& coming) const {
    const auto share = [&](int64_t pages) {
      return view_.reserve * static_cast<double>(std::min(pages, kOutputPagesMax) * places);
    };
    coming.pages += share(PagesOf(known_max) - PagesOf(known));
    coming.window_pages += share(WindowPages(known_max) - WindowPages(known));
  }
  Coming ComingPages() const {
    Coming coming;
    const auto more = [](int64_t wanted, int64_t held) {
      return static_cast<double>(std::max<int64_t>(wanted - held, 0));
    };
    for (const RunningView& sequence : view_.running) {
      coming.pages += more(PagesOf(sequence.known), sequence.pages);
      coming.window_pages +=
          more(WindowPages(sequence.known), sequence.pages - sequence.window_first);
      AddOutput(sequence.known, sequence.known_max, 1 + sequence.followers, coming);
    }
    // What the slices above took is no longer to come.
    for (const Slice& slice : plan_.slices) {
      const RunningView& sequence = view_.running[slice.index];
      const double took = more(PagesOf(sequence.scheduled + slice.rows), sequence.pages);
      coming.pages -= took;
      coming.window_pages -= std::min(took, coming.window_pages);
    }
    return coming;
  }

  /// What a newcomer takes of what is available, all of its prompt's pages at once.
  Stock CostOf(const WaitingView& sequence) const {
    const int64_t found = sequence.pages_found;
    const int64_t seen = found - FirstWindowPage(found * kPageTokens, view_.limits.window);
    Stock cost = sequence.cached;
    cost.pages += PagesOf(sequence.known) - found;
    cost.window_pages += std::min(PagesOf(sequence.known) - found + seen,
                                  WindowPagesMax(view_.limits.window, view_.limits.rows_max)) -
                         seen;
    // A found state is held from now on, or its holder needs another from now on.
    cost.slots = found > 0 ? 2 : 1;
    return cost;
  }

  bool Fits(const Stock& cost, const Stock& left) const {
    return (!full_ || cost.pages <= left.pages) &&
           (!window_ || cost.window_pages <= left.window_pages) &&
           (!recurrent_ || cost.slots <= left.slots);
  }

  void Newcomers() {
    int64_t running = 0;
    for (const RunningView& sequence : view_.running) running += 1 + sequence.followers;
    Coming coming = ComingPages();
    for (int i = 0; i < static_cast<int>(view_.waiting.size()); ++i) {
      const WaitingView& sequence = view_.waiting[i];
      const int64_t places = 1 + sequence.followers;
      const Stock cost = CostOf(sequence);
      if (!Fits(cost, left_)) return;
      if (running > 0) {
        if (running + places > view_.running_max) return;
        const auto crowded = [&](int64_t pages, double to_come, int64_t left) {
          return static_cast<double>(pages + sequence.followers) + to_come >
                 static_cast<double>(left);
        };
        if (full_ && crowded(cost.pages, coming.pages, left_.pages)) return;
        if (window_ && crowded(cost.window_pages, coming.window_pages, left_.window_pages)) return;
      }
      const int64_t first = int64_t{sequence.pages_found} * kPageTokens;
      const int64_t rows = Chunk(first, sequence);
      if (rows == 0) return;
      room_ -= rows;
      left_.pages -= cost.pages;
      left_.window_pages -= cost.window_pages;
      left_.slots -= cost.slots;
      running += places;
      AddOutput(sequence.known, sequence.known_max, places, coming);
      Push({i, true, static_cast<int>(rows)},
           Samples(first, rows, sequence.known, sequence.scored_rows_end));
    }
  }

  const StepView& view_;
  const bool full_;       // some layer sees everything,
  const bool window_;     // has a window,
  const bool recurrent_;  // or a state
  Stock left_;
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
  NG_CHECK(view.limits.rows_max >= kStepRowsMin);
  NG_CHECK(view.limits.samples_max >= kStepRowsMin);
  NG_CHECK(view.limits.sequences_max >= 1);
  return StepPlanner(view).Plan();
}

}  // namespace neurogrid
