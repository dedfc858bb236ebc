// Deficit round robin, and the reordering for cache hits.
#include "coordinator/waiting_queue.h"

#include <algorithm>

#include "common/check.h"

namespace neurogrid {
namespace {

constexpr int64_t kQuantum = 512;     // tokens of credit a round
constexpr int64_t kDebtMax = 8192;    // tokens: what a tenant got while nobody waited is forgotten
constexpr size_t kReorderWithin = 8;  // requests of one tenant
constexpr int kSkipsMax = 3;

}  // namespace

void WaitingQueue::Push(Sequence* sequence) {
  Of(sequence->request->asked.tenant).line.push_back({sequence, 0});
  ++size_;
}

void WaitingQueue::Replace(Sequence* sequence, Sequence* by) {
  for (Waiter& waiter : Of(sequence->request->asked.tenant).line) {
    if (waiter.sequence == sequence) {
      waiter.sequence = by;
      return;
    }
  }
  NG_CHECK(false);
}

void WaitingQueue::Remove(Sequence* sequence) {
  auto& line = Of(sequence->request->asked.tenant).line;
  const auto at = std::find_if(line.begin(), line.end(),
                               [&](const Waiter& w) { return w.sequence == sequence; });
  NG_CHECK(at != line.end());
  line.erase(at);
  --size_;
  DropIdle();
}

std::vector<Sequence*> WaitingQueue::Order(int count_max, int64_t tokens_enough, Hits hits) const {
  std::vector<Sequence*> order;
  if (size_ == 0) return order;
  Turns turns = turns_;
  while (static_cast<int>(order.size()) < count_max && tokens_enough > 0) {
    Sequence* const next = TakeFrom(turns, hits);
    if (next == nullptr) break;
    tokens_enough -= next->known() - hits(*next);
    order.push_back(next);
  }
  return order;
}

Sequence* WaitingQueue::Take(Hits hits) {
  Sequence* const taken = TakeFrom(turns_, hits);
  if (taken != nullptr) --size_;
  return taken;
}

Sequence* WaitingQueue::TakeFrom(Turns& turns, Hits hits) const {
  Tenant* const tenant = Choose(turns);
  if (tenant == nullptr) return nullptr;
  auto& line = tenant->line;
  size_t best = line.size();
  int64_t best_hits = -1;
  for (size_t i = 0; i < std::min(line.size(), kReorderWithin); ++i) {
    if (line[i].sequence->request->paused) continue;
    const int64_t found = hits(*line[i].sequence);
    if (found > best_hits) {
      best = i;
      best_hits = found;
    }
    if (line[i].skips >= kSkipsMax) break;  // nobody passes it again
  }
  if (best == line.size()) {  // the first ones are paused: whoever is not
    const auto free = std::find_if(line.begin(), line.end(),
                                   [](const Waiter& w) { return !w.sequence->request->paused; });
    best = static_cast<size_t>(free - line.begin());
    best_hits = hits(*line[best].sequence);
  }
  Sequence* const taken = line[best].sequence;
  ++tenant->running;
  for (size_t i = 0; i < best; ++i) line[i].skips += line[i].sequence->request->paused ? 0 : 1;
  line.erase(line.begin() + static_cast<std::ptrdiff_t>(best));
  tenant->credit = std::max(tenant->credit - (taken->known() - best_hits), -kDebtMax);
  return taken;
}

WaitingQueue::Tenant* WaitingQueue::Choose(Turns& turns) const {
  int64_t most = 0;
  bool any = false;
  for (const Tenant& tenant : turns.tenants) {
    if (!MayStart(tenant)) continue;
    most = any ? std::max(most, tenant.credit) : tenant.credit;
    any = true;
  }
  if (!any) return nullptr;
  if (most <= 0) {
    const int64_t rounds = -most / kQuantum + 1;
    for (Tenant& tenant : turns.tenants) {
      if (MayStart(tenant)) tenant.credit += rounds * kQuantum;
    }
  }
  // The one whose turn it is goes on until its credit is used up.
  for (size_t i = 0; i < turns.tenants.size(); ++i) {
    const size_t at = (turns.next + i) % turns.tenants.size();
    if (!MayStart(turns.tenants[at]) || turns.tenants[at].credit <= 0) continue;
    turns.next = at;
    return &turns.tenants[at];
  }
  return nullptr;
}

bool WaitingQueue::MayStart(const Tenant& tenant) const {
  if (!tenant.name.empty() && tenant.running >= tenant_running_max_) return false;
  return std::any_of(tenant.line.begin(), tenant.line.end(),
                     [](const Waiter& w) { return !w.sequence->request->paused; });
}

void WaitingQueue::Charge(absl::string_view tenant, int64_t tokens) {
  Tenant& charged = Of(tenant);
  charged.credit = std::max(charged.credit - tokens, -kDebtMax);
}

void WaitingQueue::AddRunning(absl::string_view tenant, int sequences) {
  Of(tenant).running += sequences;
  NG_CHECK(Of(tenant).running >= 0);
  DropIdle();
}

int WaitingQueue::size(absl::string_view tenant) const {
  const Tenant* const found = Find(tenant);
  return found == nullptr ? 0 : static_cast<int>(found->line.size());
}

int WaitingQueue::ahead_of(const Sequence& sequence) const {
  int ahead = 0;
  for (const Tenant& tenant : turns_.tenants) {
    for (const Waiter& waiter : tenant.line) {
      ahead += waiter.sequence->request->id < sequence.request->id ? 1 : 0;
    }
  }
  return ahead;
}

WaitingQueue::Tenant& WaitingQueue::Of(absl::string_view tenant) {
  for (Tenant& known : turns_.tenants) {
    if (known.name == tenant) return known;
  }
  turns_.tenants.push_back({std::string(tenant), 0, 0, {}});
  return turns_.tenants.back();
}

const WaitingQueue::Tenant* WaitingQueue::Find(absl::string_view tenant) const {
  for (const Tenant& known : turns_.tenants) {
    if (known.name == tenant) return &known;
  }
  return nullptr;
}

void WaitingQueue::DropIdle() {
  for (size_t i = turns_.tenants.size(); i-- > 0;) {
    if (turns_.tenants[i].running > 0 || !turns_.tenants[i].line.empty()) continue;
    turns_.tenants.erase(turns_.tenants.begin() + static_cast<std::ptrdiff_t>(i));
    if (turns_.next > i) --turns_.next;
  }
}

}  // namespace neurogrid
