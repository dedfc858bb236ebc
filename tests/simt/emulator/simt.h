// What kernel code calls while it runs on the host: the rendezvous of a warp, the barrier of a
// block, shared memory. The stand-in headers in tests/simt/include/ are written in these.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <type_traits>

namespace simt {

inline constexpr int kWarpSize = 32;

struct Index3 {
  unsigned x = 0, y = 0, z = 0;
};
// Of the thread that runs now. Set before each turn; one launch runs at a time.
inline Index3 thread_index, block_index;
struct Extent3 {
  unsigned x = 1, y = 1, z = 1;
};
inline Extent3 block_extent, grid_extent;

// Ten times the compute capability that is stood in for: below 80 without tensor cores for bf16 and
// copies behind the kernel's back.
inline int architecture = 80;
/// Of the emulated GPU. More than one, so that blocks begin elsewhere than at the first of what
/// they share; they still run one after the other.
inline int multiprocessors = 3;
/// Dynamic shared memory that a block may ask for.
inline size_t SharedBytesMax() { return (architecture < 80 ? 64 : 227) * size_t{1024}; }

/// The last lane to arrive calls it with what all lanes brought and where they want their answers.
using Combine = void (*)(const void* const in[kWarpSize], void* const out[kWarpSize]);

/// Waits until all 32 lanes of the warp are here with the same `op`, then combines. Another op, or
/// a lane that waits elsewhere or has ended, fails the launch.
void WarpExchange(const char* op, const void* in, void* out, Combine combine);

/// Waits until all threads of the block are here. A thread that waits elsewhere or has ended fails
/// the launch.
void BlockBarrier();

/// Ends this thread's launch with a failure that names kernel, block and thread.
[[noreturn]] void FailThread(const char* what);

/// cp.async: the bytes arrive when their group is waited for, zeros for a null `from`. Reading them
/// earlier reads poison, as does reading what another thread has not waited for.
void CopyAsync(void* to, const void* from, int bytes);
void CommitCopies();
void WaitForCopies(int groups);

/// That each thread of each kernel calls it is all that is asked here, where no two kernels
/// overlap.
void WaitForPredecessor();

/// The dynamic shared memory of the block that runs now: filled with 0xFF when the block starts,
/// guard zones behind it.
void* DynamicSharedMemory();
/// Static shared memory of this block under `key`, the same for all its threads.
void* StaticSharedMemory(const void* key, size_t bytes, size_t alignment);

template <typename T>
T* StaticShared() {
  static_assert(std::is_trivially_destructible_v<T>);
  static const char key = 0;
  return static_cast<T*>(StaticSharedMemory(&key, sizeof(T), alignof(T)));
}

struct LaunchShape {
  const char* kernel;
  Extent3 grid;
  Extent3 block;
  size_t shared_bytes;
};

/// Runs `body` once for each thread of each block, now. False, with the reason in `Failure()`, when
/// a thread broke a rule; the launch then stops.
bool RunKernel(const LaunchShape& shape, const std::function<void()>& body);

}  // namespace simt
