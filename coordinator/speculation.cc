#include "coordinator/speculation.h"

#include <algorithm>
#include <utility>

namespace neurogrid {
namespace {

constexpr double kNew = 0.25;          // weight of a new measurement,
constexpr double kNewDoubtful = 0.05;  // of one that may be of a first step
constexpr double kFollow = 0.9;        // of a change, for the prices of other numbers of rows
constexpr double kSinks = 1.0 / 512;   // of a price above the lowest, a step
constexpr double kMsMin = 1e-6;        // a clock that stands still
constexpr double kGainMin = 0.02;      // tokens gained, of those drawn anyway,
constexpr double kGainFactor = 1.2;    // and beside the share of time that they cost
constexpr double kMatesWaitMax = 0.05;
// Of the account, in steps.
constexpr double kAdded = 0.002;   // with each step
constexpr double kBalanceMax = 1;  // what copying earned pays for no more prose than this
constexpr double kCredit = 0.5;
constexpr double kDebtMax = 4;     // steps that took longer than their price are paid back
constexpr double kUnseen = 0.001;  // the least that a number of rows never seen may cost
constexpr double kBegin = 0.1;
constexpr double kFirstSlow = 6;  // for trying each number of rows once
constexpr double kLikely = 0.5;

}  // namespace

void RowCosts::Measure(int rows, double ms, bool guesses) {
  if (rows < 1 || rows > kRowsMax) return;
  if (guesses && tried_[rows] < first_slow_) {
    ++tried_[rows];
    return;
  }
  ms = std::max(ms, kMsMin);
  double& own = ms_[rows];
  const double before = own == 0 ? ms : own;
  const bool doubtful = guesses && first_slow_ > 0 && ms > before;
  own = before + (doubtful ? kNewDoubtful : kNew) * (ms - before);
  const double drift = guesses ? 1 : 1 + kFollow * (own / before - 1);
  for (double& other : ms_) {
    if (&other != &own) other *= drift;
  }
  const double least = *std::find_if(ms_.begin(), ms_.end(), [](double seen) { return seen > 0; });
  for (double& other : ms_) {
    if (&other != &own && other > least) other -= kSinks * (other - least);
  }
}

int RowCosts::rows_seen() const {
  int rows = kRowsMax;
  while (rows > 0 && ms_[rows] == 0) --rows;
  return rows;
}

double RowCosts::ms(int rows) const {
  int below = std::min(rows, kRowsMax);
  while (below > 0 && ms_[below] == 0) --below;
  int above = rows;
  while (above <= kRowsMax && ms_[above] == 0) ++above;
  if (below == 0 && above > kRowsMax) return kMsMin;
  if (below == 0) return ms_[above];
  if (above > kRowsMax || above == below) return ms_[below];
  return ms_[below] + (ms_[above] - ms_[below]) * (rows - below) / (above - below);
}

GuessAccount::GuessAccount(int first_slow) : balance_(kBegin + kFirstSlow * first_slow) {}

void GuessAccount::Take(double wait, double gained) {
  const double most = std::max(kBalanceMax, balance_);
  balance_ = std::clamp(balance_ + kAdded + gained - wait, -kDebtMax, most);
}

bool GuessAccount::Covers(double wait, bool likely) const {
  return wait <= std::max(0.0, balance_ + (likely ? kCredit : 0));
}

std::vector<int> ShareDrafts(absl::Span<const DraftOffer> offers, int rows, int sequences,
                             int rows_max, const RowCosts& costs, const GuessAccount& account) {
  std::vector<int> given(offers.size(), 0);
  if (!costs.knows(rows)) return given;
  // A sequence's later tokens are never likelier than its earlier ones: in order of their chances,
  // any number of the first ones is a number of tokens of each.
  std::vector<std::pair<double, size_t>> tokens;
  for (size_t i = 0; i < offers.size(); ++i) {
    double chance = 1;
    for (int k = 0; k < offers[i].tokens; ++k) {
      chance *= offers[i].chance;
      tokens.emplace_back(-chance, i);
    }
  }
  std::stable_sort(tokens.begin(), tokens.end());
  const int most = std::min({static_cast<int>(tokens.size()), rows_max - rows,
                             RowCosts::kRowsMax - rows, costs.rows_seen() + 1 - rows});
  int best = 0;
  double best_rate = 1;
  double gain = 0;
  for (int m = 1; m <= most; ++m) {
    gain -= tokens[m - 1].first / sequences;
    const double wait = costs.wait(rows + m, rows);
    const double rate = (1 + gain) / (1 + wait);
    const bool pays = gain > kGainMin + kGainFactor * wait;
    if (!pays || rate <= best_rate || (sequences > 1 && wait > kMatesWaitMax)) continue;
    const double risk = costs.knows(rows + m) ? wait : std::max(wait, kUnseen);
    if (!account.Covers(risk, -tokens[m - 1].first >= kLikely)) continue;
    best = m;
    best_rate = rate;
  }
  for (int m = 0; m < best; ++m) ++given[tokens[m].second];
  return given;
}

}  // namespace neurogrid
