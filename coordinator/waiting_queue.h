// The order in which waiting requests start: fair between tenants, first come within one.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "coordinator/sequence.h"

namespace neurogrid {

/// Deficit round robin over tenants (Shreedhar and Varghese 1995), paid in tokens: a tenant is
/// charged for the prompt tokens it makes us compute and for each token it is given, and starts
/// requests while it is in credit. Nobody idles: when no waiting tenant is in credit, all of them
/// get the same amount. Within a tenant the first comes first, but of the first 8 the one with the
/// most tokens in the prefix cache may go before, past any other at most 3 times.
class WaitingQueue {
 public:
  explicit WaitingQueue(int tenant_running_max) : tenant_running_max_(tenant_running_max) {}

  void Push(Sequence* sequence);
  /// `by` takes the place of `sequence`.
  void Replace(Sequence* sequence, Sequence* by);
  void Remove(Sequence* sequence);

  /// Prompt tokens of a waiting sequence that stand in the prefix cache.
  using Hits = absl::FunctionRef<int64_t(const Sequence&)>;
  /// The next to start, in order: at most `count_max`, and no more than make up `tokens_enough`
  /// prompt tokens to compute. Changes nothing.
  std::vector<Sequence*> Order(int count_max, int64_t tokens_enough, Hits hits) const;
  /// Takes out the first of Order, charges its tenant and counts it as running.
  Sequence* Take(Hits hits);

  /// Tokens given to a tenant.
  void Charge(absl::string_view tenant, int64_t tokens);
  /// Sequences of a tenant that began to run without the queue or, negative, stopped.
  void AddRunning(absl::string_view tenant, int sequences);

  int size() const { return size_; }
  int size(absl::string_view tenant) const;
  int ahead_of(const Sequence& sequence) const;  // that arrived earlier

 private:
  struct Waiter {
    Sequence* sequence = nullptr;
    int skips = 0;
  };
  struct Tenant {
    std::string name;
    int64_t credit = 0;
    int running = 0;
    std::deque<Waiter> line;
  };
  struct Turns {
    std::vector<Tenant> tenants;
    size_t next = 0;
  };

  Sequence* TakeFrom(Turns& turns, Hits hits) const;
  Tenant* Choose(Turns& turns) const;
  bool MayStart(const Tenant& tenant) const;
  Tenant& Of(absl::string_view tenant);
  const Tenant* Find(absl::string_view tenant) const;
  void DropIdle();

  int tenant_running_max_ = 0;
  Turns turns_;
  int size_ = 0;
};

}  // namespace neurogrid
