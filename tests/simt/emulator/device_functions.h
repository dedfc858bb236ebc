// The device functions of CUDA that our kernels use. Warp functions take the full mask alone.
#pragma once

#include <bit>

inline constexpr unsigned kEmulatedFullMask = 0xffffffffu;

inline void __syncthreads() { simt::BlockBarrier(); }
inline void cudaGridDependencySynchronize() { simt::WaitForPredecessor(); }

namespace simt {

inline void RequireFullMask(unsigned mask) {
  if (mask != kEmulatedFullMask) FailThread("a warp function without the full mask");
}

template <typename T>
struct Shuffle {
  T value;
  int source;  // lane
};

/// Every lane reads the value of its source lane.
template <typename T>
T ShuffleFrom(const char* op, unsigned mask, T value, int source) {
  RequireFullMask(mask);
  const Shuffle<T> in{value, source};
  T out{};
  WarpExchange(op, &in, &out, [](const void* const* ins, void* const* outs) {
    for (int lane = 0; lane < kWarpSize; ++lane) {
      const int from = static_cast<const Shuffle<T>*>(ins[lane])->source;
      *static_cast<T*>(outs[lane]) = static_cast<const Shuffle<T>*>(ins[from])->value;
    }
  });
  return out;
}

inline int Lane() {
  return static_cast<int>(
      (thread_index.x + block_extent.x * (thread_index.y + block_extent.y * thread_index.z)) %
      kWarpSize);
}

}  // namespace simt

inline void __syncwarp(unsigned mask = kEmulatedFullMask) {
  simt::RequireFullMask(mask);
  simt::WarpExchange("__syncwarp", nullptr, nullptr, [](const void* const*, void* const*) {});
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int source) {
  return simt::ShuffleFrom("__shfl_sync", mask, value, source & 31);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits) {
  return simt::ShuffleFrom("__shfl_xor_sync", mask, value, (simt::Lane() ^ bits) & 31);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance) {
  const int from = simt::Lane() - static_cast<int>(distance);
  return simt::ShuffleFrom("__shfl_up_sync", mask, value, from < 0 ? simt::Lane() : from);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance) {
  const int from = simt::Lane() + static_cast<int>(distance);
  return simt::ShuffleFrom("__shfl_down_sync", mask, value, from > 31 ? simt::Lane() : from);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  simt::RequireFullMask(mask);
  unsigned votes = 0;
  simt::WarpExchange("__ballot_sync", &predicate, &votes,
                     [](const void* const* in, void* const* out) {
                       unsigned all = 0;
                       for (int lane = 0; lane < simt::kWarpSize; ++lane) {
                         if (*static_cast<const int*>(in[lane]) != 0) all |= 1u << lane;
                       }
                       for (int lane = 0; lane < simt::kWarpSize; ++lane) {
                         *static_cast<unsigned*>(out[lane]) = all;
                       }
                     });
  return votes;
}
inline int __any_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) != 0 ? 1 : 0;
}
inline int __all_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) == kEmulatedFullMask ? 1 : 0;
}

// One thread runs at a time, so plain reads and writes are atomic.
template <typename T>
T atomicAdd(T* address, T value) {
  const T old = *address;
  *address = static_cast<T>(old + value);
  return old;
}
template <typename T>
T atomicMax(T* address, T value) {
  const T old = *address;
  if (value > old) *address = value;
  return old;
}
template <typename T>
T atomicMin(T* address, T value) {
  const T old = *address;
  if (value < old) *address = value;
  return old;
}
template <typename T>
T atomicOr(T* address, T value) {
  const T old = *address;
  *address = static_cast<T>(old | value);
  return old;
}
template <typename T>
T atomicExch(T* address, T value) {
  const T old = *address;
  *address = value;
  return old;
}
template <typename T>
T atomicCAS(T* address, T expected, T value) {
  const T old = *address;
  if (old == expected) *address = value;
  return old;
}
inline void __threadfence() {}

template <typename T>
T __ldg(const T* address) {
  return *address;
}
template <typename T>
T __ldcs(const T* address) {
  return *address;
}
template <typename T>
T __ldcg(const T* address) {
  return *address;
}
template <typename T>
void __stcg(T* address, T value) {
  *address = value;
}

inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const uint64_t bytes = uint64_t{y} << 32 | x;
  unsigned result = 0;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned from = selector >> (4 * i) & 7u;
    result |= static_cast<unsigned>(bytes >> (8 * from) & 0xffu) << (8 * i);
  }
  return result;
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(uint64_t{a} * b >> 32);
}
// The emulated build is compiled without contraction, so these need nothing special.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __logf(float x) { return std::log(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }

template <typename T>
T min(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
T max(T a, T b) {
  return a < b ? b : a;
}
