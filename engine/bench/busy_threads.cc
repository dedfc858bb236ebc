#include "engine/bench/busy_threads.h"

namespace neurogrid {

BusyThreads::BusyThreads(int count) {
  for (int i = 0; i < count; ++i) {
    threads_.emplace_back([this] {
      while (!stopping_.load(std::memory_order_relaxed)) {
      }
    });
  }
}

BusyThreads::~BusyThreads() {
  stopping_.store(true, std::memory_order_relaxed);
  for (std::thread& thread : threads_) thread.join();
}

}  // namespace neurogrid
