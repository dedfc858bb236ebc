// The GPU of faulty_worker, our worker on a GPU that breaks when it is told to: at SIGUSR1 a kernel
// reads where no memory is, in the device's context, beside whatever runs there.
#include <pthread.h>

#include <csignal>
#include <thread>

#include "common/log.h"
#include "engine/cuda/cuda_device.h"
#include "engine/cuda/make_cuda_device.h"
#include "kernels/bandwidth.h"

namespace neurogrid {
namespace {

sigset_t FaultSignal() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGUSR1);
  return signals;
}

/// Before main, so that no thread takes the signal but the one that waits for it.
const int signal_blocked = [] {
  const sigset_t signals = FaultSignal();
  return pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}();

void BreakWhenTold(int ordinal, CudaBuffer sums) {
  const sigset_t signals = FaultSignal();
  int signal = 0;
  if (sigwait(&signals, &signal) != 0 || cudaSetDevice(ordinal) != cudaSuccess) return;
  constexpr uintptr_t kNowhere = 4096;
  constexpr int64_t kBytes = 1 << 20;
  cudaStream_t stream = nullptr;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  const cudaError_t queued = kernels::ReadAll(
      sums.as<uint32_t>(), reinterpret_cast<const void*>(kNowhere), kBytes, stream);
  LogInfo("a kernel that reads nowhere is queued: ", cudaGetErrorString(queued));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice(int ordinal,
                                                       const std::optional<HostShare>& host) {
  NG_ASSIGN_OR_RETURN(std::unique_ptr<Device> device, CudaDevice::Open(ordinal, {.host = host}));
  const auto sums_bytes = static_cast<int64_t>(sizeof(uint32_t)) * kernels::BandwidthBlocks();
  NG_ASSIGN_OR_RETURN(CudaBuffer sums, CudaBuffer::Allocate(sums_bytes));
  std::thread(BreakWhenTold, ordinal, std::move(sums)).detach();
  return device;
}

}  // namespace neurogrid
