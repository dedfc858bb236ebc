// A management library with one GPU, that knows most answers: tests open it in place of NVIDIA's.
#include <cstring>

namespace {

int gpu{7};  // its address is the handle

int Knows(const void* handle) { return handle == &gpu ? 0 : 2; }

}  // namespace

extern "C" {

int nvmlInit_v2() { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char* bus_id, void** handle) {
  if (std::strcmp(bus_id, "0000:41:00.0") != 0) return 6;
  *handle = &gpu;
  return 0;
}
int nvmlDeviceGetUUID(void* handle, char* text, unsigned bytes) {
  if (bytes >= 9) std::strcpy(text, "GPU-fake");
  return Knows(handle);
}
int nvmlSystemGetDriverVersion(char* text, unsigned bytes) {
  if (bytes >= 8) std::strcpy(text, "580.1.2");
  return 0;
}
int nvmlDeviceGetTemperature(void* handle, int sensor, unsigned* celsius) {
  *celsius = 41;
  return sensor == 0 ? Knows(handle) : 2;
}
int nvmlDeviceGetPowerUsage(void* handle, unsigned* milliwatts) {
  *milliwatts = 136'159;
  return Knows(handle);
}
int nvmlDeviceGetEnforcedPowerLimit(void* handle, unsigned* milliwatts) {
  *milliwatts = 700'000;
  return Knows(handle);
}
int nvmlDeviceGetClockInfo(void* handle, int which, unsigned* mhz) {
  *mhz = which == 1 ? 1755 : 0;
  return Knows(handle);
}
int nvmlDeviceGetMaxClockInfo(void* handle, int which, unsigned* mhz) {
  *mhz = which == 1 ? 1980 : 0;
  return Knows(handle);
}
int nvmlDeviceGetUtilizationRates(void* handle, unsigned* rates) {
  rates[0] = 75;  // of the time a kernel ran
  rates[1] = 20;  // of the time memory was in use
  return Knows(handle);
}
int nvmlDeviceGetMemoryInfo(void* handle, unsigned long long* bytes) {
  bytes[0] = 150'754'820'096;  // total
  bytes[1] = 149'557'477'376;  // free
  bytes[2] = 1'197'342'720;    // used
  return Knows(handle);
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void* handle, unsigned long long* reasons) {
  *reasons = 0x4 | 0x1;  // the power cap, and idle
  return Knows(handle);
}
// As on a GPU without ECC.
int nvmlDeviceGetTotalEccErrors(void*, int, int, unsigned long long*) { return 3; }

}  // extern "C"
