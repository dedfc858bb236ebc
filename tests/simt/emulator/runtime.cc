// The stand-in for the CUDA runtime. Every call takes the one lock; work runs when it is waited
// for.
#include <cuda_runtime.h>

#include <atomic>
#include <cstdlib>
#include <deque>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "tests/simt/emulator/control.h"
#include "tests/simt/emulator/poison.h"

namespace simt {

using Work = std::function<void()>;

struct Graph {
  std::vector<Work> work;
};
struct Stream {
  std::deque<Work> queue;
  bool capturing = false;
  std::vector<Work> captured;
};
struct Event {
  Stream* stream = nullptr;  // where it was recorded and has not happened yet
};

namespace {

constexpr size_t kGuardBytes = 1024;
constexpr unsigned char kPoison = 0xFF;
constexpr size_t kUsualMemoryBytes = size_t{8} << 30;

struct Allocation {
  unsigned char* base;  // of the guard before it
  size_t bytes;
  size_t device_bytes;  // that it takes of the device's memory
};

std::recursive_mutex mutex;
std::map<unsigned char*, Allocation> allocations;  // by first byte
size_t memory_bytes = kUsualMemoryBytes;
size_t allocated_bytes = 0;
bool managed_memory = true;
std::vector<Stream*> streams;
std::atomic<uint64_t> allocations_made = 0;
std::string kernel_to_fail;
int runs_before_failure = 0;

/// What is left of the device's memory.
size_t FreeBytes() { return memory_bytes - std::min(memory_bytes, allocated_bytes); }

/// Memory between guard zones, 0xFF everywhere; null without any.
unsigned char* AllocateGuarded(size_t bytes) {
  constexpr size_t kAlignment = 256;
  const size_t whole = bytes + 2 * kGuardBytes;
  auto* base = static_cast<unsigned char*>(
      std::aligned_alloc(kAlignment, (whole + kAlignment - 1) / kAlignment * kAlignment));
  if (base == nullptr) return nullptr;
  unsigned char* start = base + kGuardBytes;
  GuardZone::Fill(base, kGuardBytes);
  std::memset(start, kPoison, bytes);
  GuardZone::Fill(start + bytes, kGuardBytes);
  Poison(base, kGuardBytes);
  Poison(start + bytes, kGuardBytes);
  allocations[start] = {base, bytes, 0};
  return start;
}

Stream& DefaultStream() {
  static Stream stream;
  return stream;
}
Stream& Of(cudaStream_t stream) { return stream == nullptr ? DefaultStream() : *stream; }

/// Whether [p, p + bytes) lies within one device allocation.
bool OnDevice(const void* p, size_t bytes) {
  auto* first = const_cast<unsigned char*>(static_cast<const unsigned char*>(p));
  auto next = allocations.upper_bound(first);
  if (next == allocations.begin()) return false;
  const auto& [start, allocation] = *--next;
  return first + bytes <= start + allocation.bytes;
}

void Enqueue(Stream& stream, Work work) {
  if (stream.capturing) {
    stream.captured.push_back(std::move(work));
  } else {
    stream.queue.push_back(std::move(work));
  }
}

/// False when there is none.
bool RunOldest(Stream& stream) {
  if (stream.queue.empty()) return false;
  const Work work = std::move(stream.queue.front());
  stream.queue.pop_front();
  work();
  return true;
}

void Drain(Stream& stream) {
  while (RunOldest(stream)) {
  }
}

cudaError_t Status() { return Failure().empty() ? cudaSuccess : cudaErrorLaunchFailure; }

void CopyNow(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  if (bytes == 0 || !Failure().empty()) return;
  if (from_device && !OnDevice(from, bytes)) {
    return SetFailure("a copy of " + std::to_string(bytes) +
                      " bytes reads beyond a device allocation");
  }
  if (to_device && !OnDevice(to, bytes)) {
    return SetFailure("a copy of " + std::to_string(bytes) +
                      " bytes writes beyond a device allocation");
  }
  std::memmove(to, from, bytes);
}

}  // namespace

bool CheckGuards(const std::string& after) {
  const std::lock_guard lock(mutex);
  for (const auto& [start, allocation] : allocations) {
    const Unpoisoned before(allocation.base, kGuardBytes);
    const Unpoisoned behind(start + allocation.bytes, kGuardBytes);
    const bool wrote_before = !GuardZone::IsIntact(allocation.base, kGuardBytes);
    if (!wrote_before && GuardZone::IsIntact(start + allocation.bytes, kGuardBytes)) continue;
    SetFailure(after + ": something wrote " + (wrote_before ? "before" : "behind") +
               " an allocation of " + std::to_string(allocation.bytes) + " bytes");
    // Whole again, so that the next kernel is not blamed.
    GuardZone::Fill(allocation.base, kGuardBytes);
    GuardZone::Fill(start + allocation.bytes, kGuardBytes);
    return false;
  }
  return true;
}

cudaError_t EnqueueKernel(const LaunchShape& shape, cudaStream_t stream,
                          std::function<void()> body) {
  const std::lock_guard lock(mutex);
  if (!Failure().empty()) return cudaErrorLaunchFailure;
  Enqueue(Of(stream), [shape, body = std::move(body)] {
    if (kernel_to_fail != shape.kernel || runs_before_failure-- > 0)
      return static_cast<void>(RunKernel(shape, body));
    SetFailure(std::exchange(kernel_to_fail, "") + ": an illegal memory access was encountered");
  });
  return cudaSuccess;
}

void FailKernel(const std::string& name, int after) {
  kernel_to_fail = name;
  runs_before_failure = after;
}
uint64_t Allocations() { return allocations_made; }
void SetMemory(size_t bytes) { memory_bytes = bytes == 0 ? kUsualMemoryBytes : bytes; }
void SetManagedMemory(bool there_is) { managed_memory = there_is; }

}  // namespace simt

using simt::mutex;
using simt::Of;
using simt::Status;

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorInsufficientDriver:
      return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorNoKernelImageForDevice:
      return "no kernel image is available for execution on the device";
    case cudaErrorNotReady:
      return "device not ready";
    case cudaErrorLaunchFailure:
      return simt::Failure().c_str();
    case cudaErrorNotSupported:
      return "operation not supported";
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorUnknown:
      break;
  }
  return "unknown error";
}
cudaError_t cudaGetLastError() { return Status(); }
cudaError_t cudaPeekAtLastError() { return Status(); }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaSetDeviceFlags(unsigned) { return cudaSuccess; }
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return cudaErrorInvalidDevice;
  *properties = {};
  std::strcpy(properties->name, "emulated");
  properties->totalGlobalMem = simt::memory_bytes;
  properties->major = simt::architecture / 10;
  properties->minor = simt::architecture % 10;
  properties->multiProcessorCount = simt::multiprocessors;
  properties->sharedMemPerBlockOptin = std::min(simt::SharedBytesMax(), size_t{163} * 1024);
  return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* text, int bytes, int device) {
  constexpr char kNowhere[] = "ffff:ff:ff.0";
  if (device != 0 || bytes < static_cast<int>(sizeof(kNowhere))) return cudaErrorInvalidValue;
  std::strcpy(text, kNowhere);
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp properties;
  if (cudaGetDeviceProperties(&properties, device) != cudaSuccess) return cudaErrorInvalidDevice;
  switch (attribute) {
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(properties.sharedMemPerBlockOptin);
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = properties.multiProcessorCount;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = properties.major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = properties.minor;
      break;
    case cudaDevAttrConcurrentManagedAccess:
      *value = simt::managed_memory ? 1 : 0;
      break;
  }
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const std::lock_guard lock(mutex);
  *total = simt::memory_bytes;
  *free = simt::FreeBytes();
  return Status();
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 12000;  // the oldest that we build with
  return Status();
}
cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }
cudaError_t cudaDeviceSynchronize() {
  const std::lock_guard lock(mutex);
  simt::Drain(simt::DefaultStream());
  for (simt::Stream* stream : simt::streams) simt::Drain(*stream);
  return Status();
}

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  const std::lock_guard lock(mutex);
  if (Status() != cudaSuccess) return Status();
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  ++simt::allocations_made;
  if (bytes > simt::FreeBytes()) return cudaErrorMemoryAllocation;
  unsigned char* start = simt::AllocateGuarded(bytes);
  if (start == nullptr) return cudaErrorMemoryAllocation;
  simt::allocations[start].device_bytes = bytes;
  simt::allocated_bytes += bytes;
  *pointer = start;
  return cudaSuccess;
}
cudaError_t cudaMallocManaged(void** pointer, size_t bytes) {
  const std::lock_guard lock(mutex);
  if (Status() != cudaSuccess) return Status();
  if (!simt::managed_memory) return cudaErrorNotSupported;
  ++simt::allocations_made;
  *pointer = simt::AllocateGuarded(bytes);
  return *pointer == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
cudaError_t cudaMemAdvise(const void* pointer, size_t bytes, cudaMemoryAdvise, int) {
  const std::lock_guard lock(mutex);
  return simt::OnDevice(pointer, bytes) ? Status() : cudaErrorInvalidValue;
}
cudaError_t cudaMemPrefetchAsync(const void* pointer, size_t bytes, int device, cudaStream_t) {
  const std::lock_guard lock(mutex);
  if (!simt::OnDevice(pointer, bytes)) return cudaErrorInvalidValue;
  auto* start = const_cast<unsigned char*>(static_cast<const unsigned char*>(pointer));
  simt::Allocation& allocation = std::prev(simt::allocations.upper_bound(start))->second;
  simt::allocated_bytes -= allocation.device_bytes;
  allocation.device_bytes = device == cudaCpuDeviceId ? 0 : std::min(bytes, simt::FreeBytes());
  simt::allocated_bytes += allocation.device_bytes;
  return Status();
}
cudaError_t cudaFree(void* pointer) {
  const std::lock_guard lock(mutex);
  if (pointer == nullptr) return Status();
  cudaDeviceSynchronize();
  const auto found = simt::allocations.find(static_cast<unsigned char*>(pointer));
  if (found == simt::allocations.end()) return cudaErrorInvalidValue;
  simt::CheckGuards("cudaFree");
  const simt::Allocation allocation = found->second;
  simt::Unpoison(allocation.base, allocation.bytes + 2 * simt::kGuardBytes);
  simt::allocated_bytes -= allocation.device_bytes;
  simt::allocations.erase(found);
  std::free(allocation.base);
  return Status();
}
cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  ++simt::allocations_made;
  *pointer = std::malloc(bytes);
  if (*pointer == nullptr) return cudaErrorMemoryAllocation;
  std::memset(*pointer, simt::kPoison, bytes);
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* pointer) {
  std::free(pointer);
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  const std::lock_guard lock(mutex);
  cudaDeviceSynchronize();
  simt::CopyNow(to, from, bytes, kind);
  return Status();
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  simt::Enqueue(Of(stream), [=] { simt::CopyNow(to, from, bytes, kind); });
  return Status();
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  simt::Enqueue(Of(stream), [=] {
    if (bytes == 0) return;
    if (!simt::OnDevice(to, bytes)) {
      return simt::SetFailure("cudaMemsetAsync writes beyond a device allocation");
    }
    std::memset(to, value, bytes);
  });
  return Status();
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const std::lock_guard lock(mutex);
  *stream = new simt::Stream;
  simt::streams.push_back(*stream);
  return Status();
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  simt::Drain(*stream);
  std::erase(simt::streams, stream);
  delete stream;
  return Status();
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  if (Of(stream).capturing) return cudaErrorInvalidValue;
  simt::Drain(Of(stream));
  return Status();
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const std::lock_guard lock(mutex);
  simt::Enqueue(Of(stream), [event] {
    if (event->stream != nullptr) simt::Drain(*event->stream);
  });
  return Status();
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const std::lock_guard lock(mutex);
  if (stream == nullptr || stream->capturing) return cudaErrorInvalidValue;
  stream->capturing = true;
  return Status();
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const std::lock_guard lock(mutex);
  if (stream == nullptr || !stream->capturing) return cudaErrorInvalidValue;
  stream->capturing = false;
  *graph = new simt::Graph{std::exchange(stream->captured, {})};
  return Status();
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new simt::Event;
  return Status();
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return Status();
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  event->stream = &Of(stream);
  simt::Enqueue(Of(stream), [event] { event->stream = nullptr; });
  return Status();
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  const std::lock_guard lock(mutex);
  if (Status() != cudaSuccess) return Status();
  if (event->stream == nullptr) return cudaSuccess;
  simt::RunOldest(*event->stream);  // whoever asks again and again gets there
  return cudaErrorNotReady;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const std::lock_guard lock(mutex);
  // Work behind the event may stay queued; work of other streams always does.
  while (event->stream != nullptr && simt::RunOldest(*event->stream)) {
  }
  return Status();
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* runnable, cudaGraph_t graph, unsigned long long) {
  *runnable = new simt::Graph(*graph);
  return Status();
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t runnable, cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  for (const simt::Work& work : runnable->work) simt::Enqueue(Of(stream), work);
  return Status();
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t runnable) {
  delete runnable;
  return Status();
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return Status();
}
