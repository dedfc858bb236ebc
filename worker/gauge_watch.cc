#include "worker/gauge_watch.h"

#include <chrono>
#include <utility>

namespace neurogrid {

GaugeWatch::GaugeWatch(std::function<DeviceGauges()> ask)
    : ask_(std::move(ask)), thread_([this] { Loop(); }) {}

GaugeWatch::~GaugeWatch() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

DeviceGauges GaugeWatch::Last() const {
  const std::lock_guard lock(mutex_);
  return last_;
}

void GaugeWatch::Loop() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    lock.unlock();
    DeviceGauges now = ask_();
    lock.lock();
    last_ = std::move(now);
    changed_.wait_for(lock, std::chrono::seconds(1), [this] { return stopping_; });
  }
}

}  // namespace neurogrid
