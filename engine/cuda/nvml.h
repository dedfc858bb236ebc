// NVIDIA's management library, found when it is first asked for: a machine without it runs
// everything and knows less of its GPU.
#pragma once

#include <memory>
#include <string>

#include "common/status.h"
#include "engine/device.h"

namespace neurogrid {

/// One GPU as the library sees it. Any thread.
class Nvml {
 public:
  virtual ~Nvml() = default;
  /// The GPU at `pci_bus_id` ("0000:00:06.0"). Unimplemented, saying why, without library or GPU.
  static absl::StatusOr<std::unique_ptr<Nvml>> Open(const std::string& pci_bus_id,
                                                    const std::string& library = kLibrary);

  /// Uuid, driver, power limit and highest clock; the rest stays as it is.
  virtual void Describe(DeviceReport& report) const = 0;
  /// What the library does not know stays absent.
  virtual DeviceGauges Gauges() const = 0;

  static constexpr char kLibrary[] = "libnvidia-ml.so.1";
};

}  // namespace neurogrid
