// Asks a device how it is, once a second: heartbeats carry the last answer and never wait for one.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "engine/device.h"

namespace neurogrid {

class GaugeWatch {
 public:
  explicit GaugeWatch(std::function<DeviceGauges()> ask);
  ~GaugeWatch();
  GaugeWatch(const GaugeWatch&) = delete;
  GaugeWatch& operator=(const GaugeWatch&) = delete;

  DeviceGauges Last() const;

 private:
  void Loop();

  std::function<DeviceGauges()> ask_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  DeviceGauges last_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace neurogrid
