// Threads that keep processors busy, as another program would beside a bench.
#pragma once

#include <atomic>
#include <thread>
#include <vector>

namespace neurogrid {

/// `count` threads that never rest while this lives. They touch no memory, so what they cost is
/// the processors' time.
class BusyThreads {
 public:
  explicit BusyThreads(int count);
  ~BusyThreads();
  BusyThreads(const BusyThreads&) = delete;
  BusyThreads& operator=(const BusyThreads&) = delete;

 private:
  std::atomic<bool> stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace neurogrid
