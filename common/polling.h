// Waiting by asking again and again, where that costs nobody a core.
#pragma once

#include <chrono>

namespace neurogrid {

/// A thread that is woken by the system runs 10 to 50 us later; one that asks without pause does so
/// at once. So whoever waits for the next step asks, when the last wait was short, and sleeps
/// otherwise: an idle process does, and a slow chain loses nothing by it.
class Polling {
 public:
  using Clock = std::chrono::steady_clock;

  /// Longer than a step that a wake-up would be felt in.
  static constexpr std::chrono::microseconds kLongest{2000};
  /// False where the process may use so few cores, or so little of their time, that whoever asks
  /// holds up what it waits for.
  static bool CoresSuffice();

  explicit Polling(bool allowed, Clock::duration longest = kLongest)
      : allowed_(allowed), longest_(longest) {}
  void Allow(bool allowed) { allowed_ = allowed; }

  /// Returns once `ready()` is true or `block()` has returned; that one sleeps until it is worth
  /// asking again.
  template <typename Ready, typename Block>
  void Wait(Ready ready, Block block) {
    const Clock::time_point start = Clock::now();
    if (allowed_ && was_short_) {
      while (Clock::now() - start < longest_) {
        if (ready()) return;
      }
    }
    block();
    was_short_ = Clock::now() - start < longest_;
  }

 private:
  bool allowed_;
  Clock::duration longest_;
  bool was_short_ = false;
};

}  // namespace neurogrid
