// The library's header comes with no driver, so what we call of it is declared here, as its
// documentation has it. Its functions return 0 when they know the answer.
#include "engine/cuda/nvml.h"

#include <dlfcn.h>

#include "absl/strings/str_cat.h"

namespace neurogrid {
namespace {

using Handle = void*;
struct Utilization {
  unsigned gpu = 0;  // percent of the last sample period, up to a second
  unsigned memory = 0;
};
struct Memory {
  unsigned long long total = 0;
  unsigned long long free = 0;
  unsigned long long used = 0;
};
constexpr int kCoreSensor{0};
constexpr int kMultiprocessorClock{1};
constexpr int kUncorrected{1};
constexpr int kSinceDriverStart{0};
constexpr unsigned kTextBytes{96};
// Of the reasons why clocks are below what was asked for, those that cost speed under load.
constexpr unsigned long long kPowerCap{0x4};
constexpr unsigned long long kHardwareSlowdown{0x8};
constexpr unsigned long long kSoftwareThermal{0x20};
constexpr unsigned long long kHardwareThermal{0x40};
constexpr unsigned long long kPowerBrake{0x80};

struct Functions {
  int (*init)() = nullptr;
  int (*handle_of)(const char* pci_bus_id, Handle* handle) = nullptr;
  int (*uuid)(Handle, char* text, unsigned bytes) = nullptr;
  int (*driver_version)(char* text, unsigned bytes) = nullptr;
  int (*temperature)(Handle, int sensor, unsigned* celsius) = nullptr;
  int (*power)(Handle, unsigned* milliwatts) = nullptr;
  int (*power_limit)(Handle, unsigned* milliwatts) = nullptr;
  int (*clock)(Handle, int which, unsigned* mhz) = nullptr;
  int (*clock_max)(Handle, int which, unsigned* mhz) = nullptr;
  int (*utilization)(Handle, Utilization* utilization) = nullptr;
  int (*memory)(Handle, Memory* memory) = nullptr;
  int (*throttle_reasons)(Handle, unsigned long long* reasons) = nullptr;
  int (*ecc_errors)(Handle, int kind, int counter, unsigned long long* count) = nullptr;
};

/// What is missing in an old library stays null and is an answer it does not know.
template <typename Function>
void Load(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
}

/// Whether `function` is there and knows the answer.
template <typename Function, typename... Arguments>
bool Knows(Function function, Arguments... arguments) {
  return function != nullptr && function(arguments...) == 0;
}

class OpenNvml : public Nvml {
 public:
  OpenNvml(const Functions& f, Handle handle) : f_(f), handle_(handle) {}

  void Describe(DeviceReport& report) const override {
    char text[kTextBytes] = {};
    unsigned value = 0;
    if (Knows(f_.uuid, handle_, text, kTextBytes)) report.uuid = text;
    if (Knows(f_.driver_version, text, kTextBytes)) report.driver = text;
    if (Knows(f_.power_limit, handle_, &value)) report.power_limit_w = value / 1e3;
    if (Knows(f_.clock_max, handle_, kMultiprocessorClock, &value)) {
      report.clock_max_mhz = static_cast<int>(value);
    }
  }

  DeviceGauges Gauges() const override {
    DeviceGauges gauges;
    unsigned value = 0;
    Utilization utilization;
    Memory memory;
    unsigned long long count = 0;
    if (Knows(f_.temperature, handle_, kCoreSensor, &value)) {
      gauges.temperature_c = static_cast<int>(value);
    }
    if (Knows(f_.power, handle_, &value)) gauges.power_w = value / 1e3;
    if (Knows(f_.clock, handle_, kMultiprocessorClock, &value)) {
      gauges.clock_mhz = static_cast<int>(value);
    }
    if (Knows(f_.utilization, handle_, &utilization)) gauges.utilization = utilization.gpu / 100.0;
    if (Knows(f_.memory, handle_, &memory)) {
      gauges.memory_used_bytes = static_cast<int64_t>(memory.used);
    }
    if (Knows(f_.throttle_reasons, handle_, &count)) gauges.throttle = ThrottleOf(count);
    if (Knows(f_.ecc_errors, handle_, kUncorrected, kSinceDriverStart, &count)) {
      gauges.ecc_errors = static_cast<int64_t>(count);
    }
    return gauges;
  }

 private:
  static Throttle ThrottleOf(unsigned long long reasons) {
    if ((reasons & (kSoftwareThermal | kHardwareThermal)) != 0) return Throttle::kHeat;
    if ((reasons & (kHardwareSlowdown | kPowerBrake)) != 0) return Throttle::kHardware;
    return (reasons & kPowerCap) != 0 ? Throttle::kPower : Throttle::kNone;
  }

  Functions f_;
  Handle handle_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Nvml>> Nvml::Open(const std::string& pci_bus_id,
                                                 const std::string& library) {
  // It stays until the process ends.
  void* opened = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (opened == nullptr) return absl::UnimplementedError(absl::StrCat("no NVML: ", dlerror()));
  Functions f;
  Load(opened, "nvmlInit_v2", f.init);
  Load(opened, "nvmlDeviceGetHandleByPciBusId_v2", f.handle_of);
  Load(opened, "nvmlDeviceGetUUID", f.uuid);
  Load(opened, "nvmlSystemGetDriverVersion", f.driver_version);
  Load(opened, "nvmlDeviceGetTemperature", f.temperature);
  Load(opened, "nvmlDeviceGetPowerUsage", f.power);
  Load(opened, "nvmlDeviceGetEnforcedPowerLimit", f.power_limit);
  Load(opened, "nvmlDeviceGetClockInfo", f.clock);
  Load(opened, "nvmlDeviceGetMaxClockInfo", f.clock_max);
  Load(opened, "nvmlDeviceGetUtilizationRates", f.utilization);
  Load(opened, "nvmlDeviceGetMemoryInfo", f.memory);
  Load(opened, "nvmlDeviceGetCurrentClocksThrottleReasons", f.throttle_reasons);
  Load(opened, "nvmlDeviceGetTotalEccErrors", f.ecc_errors);
  if (!Knows(f.init)) return absl::UnimplementedError(absl::StrCat(library, " does not start"));
  Handle handle = nullptr;
  if (!Knows(f.handle_of, pci_bus_id.c_str(), &handle)) {
    return absl::UnimplementedError(absl::StrCat(library, " knows no GPU at ", pci_bus_id));
  }
  return std::make_unique<OpenNvml>(f, handle);
}

}  // namespace neurogrid
