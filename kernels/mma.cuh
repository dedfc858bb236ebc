// The tensor core and the copies that feed it: all PTX of the kernels, and what it means on a host.
//
// Fragments of m16n8k16 (PTX ISA): lane = 4 g + q holds of A rows g and g + 8, columns 2q, 2q + 1
// and 2q + 8, 2q + 9; of B those rows of column g; of C rows g and g + 8 of columns 2q, 2q + 1.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

#include "kernels/vec.cuh"

namespace neurogrid::kernels {

/// Mma where no tensor core takes bf16 (before sm_80): for each element one chain of multiply-adds
/// in f32, operands fetched from the lanes that hold them. Bits of its own. A function and a loop,
/// as kernels hold dozens of these.
static __device__ __noinline__ float4 MultiplyAdds(float4 c, uint4 a, uint2 b) {
  constexpr unsigned kAllLanes = 0xffffffffu;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = lane / 4 * 4;         // its first holder
  const int column = lane % 4 * 2 * 4;  // of the left one; the right one's is 4 behind
#pragma unroll 1
  for (int holder = 0; holder < 4; ++holder) {  // of inputs 2 holder + {0, 1, 8, 9}
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t upper = __shfl_sync(kAllLanes, half == 0 ? a.x : a.z, row + holder);
      const uint32_t lower = __shfl_sync(kAllLanes, half == 0 ? a.y : a.w, row + holder);
      const uint32_t both = half == 0 ? b.x : b.y;
      const uint32_t left = __shfl_sync(kAllLanes, both, column + holder);
      const uint32_t right = __shfl_sync(kAllLanes, both, column + 4 + holder);
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
        const auto value = [odd](uint32_t pair) {
          return __uint_as_float(odd == 0 ? pair << 16 : pair & 0xffff0000u);
        };
        c.x = fmaf(value(upper), value(left), c.x);
        c.y = fmaf(value(upper), value(right), c.y);
        c.z = fmaf(value(lower), value(left), c.z);
        c.w = fmaf(value(lower), value(right), c.w);
      }
    }
  }
  return c;
}
__device__ __forceinline__ void MmaByMultiplyAdds(float (&c)[4], const uint32_t (&a)[4],
                                                  uint32_t b0, uint32_t b1) {
  const float4 sums = MultiplyAdds(make_float4(c[0], c[1], c[2], c[3]),
                                   make_uint4(a[0], a[1], a[2], a[3]), make_uint2(b0, b1));
  c[0] = sums.x;
  c[1] = sums.y;
  c[2] = sums.z;
  c[3] = sums.w;
}

/// FmaPairs where there is no arithmetic of bf16 (before sm_80).
__device__ __forceinline__ uint32_t FmaPairsByMultiplyAdds(uint32_t pair, uint32_t factor,
                                                           uint32_t addend) {
  constexpr uint32_t kHigh = 0xffff0000u;
  const float low = fmaf(__uint_as_float(pair << 16), __uint_as_float(factor << 16),
                         __uint_as_float(addend << 16));
  const float high = fmaf(__uint_as_float(pair & kHigh), __uint_as_float(factor & kHigh),
                          __uint_as_float(addend & kHigh));
  return __float_as_uint(low) >> 16 | (__float_as_uint(high) & kHigh);
}
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
/// FmaPairs where there is.
__device__ __forceinline__ uint32_t FmaPairsOfBf16(uint32_t pair, uint32_t factor,
                                                   uint32_t addend) {
  __nv_bfloat162 a;
  __nv_bfloat162 b;
  __nv_bfloat162 c;
  memcpy(&a, &pair, sizeof(a));
  memcpy(&b, &factor, sizeof(b));
  memcpy(&c, &addend, sizeof(c));
  a = __hfma2(a, b, c);
  memcpy(&pair, &a, sizeof(pair));
  return pair;
}
#endif

#if defined(NG_SIMT)

namespace emulated {

inline float Low(uint32_t pair) { return __uint_as_float(pair << 16); }
inline float High(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

struct MmaOperands {
  const float* c;
  const uint32_t* a;
  const uint32_t* b;
};

/// c += a b. Products of bf16 are exact and double holds their sum: rounded once, to f32.
inline void MmaOfWarp(const void* const* in, void* const* out) {
  float a[16][16];
  float b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto* operands = static_cast<const MmaOperands*>(in[lane]);
    const int g = lane / 4;
    const int q = 2 * (lane % 4);
    for (int i = 0; i < 4; ++i) {
      const int row = g + 8 * (i % 2);
      const int column = q + 8 * (i / 2);
      a[row][column] = Low(operands->a[i]);
      a[row][column + 1] = High(operands->a[i]);
    }
    for (int i = 0; i < 2; ++i) {
      b[q + 8 * i][g] = Low(operands->b[i]);
      b[q + 8 * i + 1][g] = High(operands->b[i]);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    const auto* operands = static_cast<const MmaOperands*>(in[lane]);
    auto* c = static_cast<float*>(out[lane]);
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + 8 * (i / 2);
      const int column = 2 * (lane % 4) + i % 2;
      double sum = operands->c[i];
      for (int k = 0; k < 16; ++k) sum += static_cast<double>(a[row][k]) * b[k][column];
      c[i] = static_cast<float>(sum);
    }
  }
}

/// Read when its lane comes, so that rows of lanes that have not come are not relied upon.
struct Row {
  uint16_t at[8];
};
inline Row RowAt(const void* row) {
  Row copy;
  std::memcpy(&copy, row, sizeof(copy));
  return copy;
}

/// Matrix m is eight rows of 16 bytes at the addresses of lanes 8 m .. 8 m + 7; lane 4 g + q gets
/// elements 2q and 2q + 1 of row g, or transposed of column g.
template <bool kTransposed>
void LdMatrixOfWarp(const void* const* in, void* const* out) {
  const auto at = [&](int lane, int i) { return static_cast<const Row*>(in[lane])->at[i]; };
  for (int lane = 0; lane < 32; ++lane) {
    auto* r = static_cast<uint32_t*>(out[lane]);
    const int g = lane / 4;
    const int q = 2 * (lane % 4);
    for (int m = 0; m < 4; ++m) {
      const uint16_t low = kTransposed ? at(8 * m + q, g) : at(8 * m + g, q);
      const uint16_t high = kTransposed ? at(8 * m + q + 1, g) : at(8 * m + g, q + 1);
      r[m] = static_cast<uint32_t>(low) | static_cast<uint32_t>(high) << 16;
    }
  }
}

}  // namespace emulated

/// c += a b over one step of 16.
inline void Mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if (simt::architecture < 80) return MmaByMultiplyAdds(c, a, b0, b1);
  const uint32_t b[2] = {b0, b1};
  const emulated::MmaOperands operands{c, a, b};
  float sums[4];
  simt::WarpExchange("mma.m16n8k16", &operands, sums, emulated::MmaOfWarp);
  for (int i = 0; i < 4; ++i) c[i] = sums[i];
}

inline void RequireAligned(const void* p) {
  if (reinterpret_cast<uintptr_t>(p) % 16 != 0)
    simt::FailThread("an address is not 16-byte aligned");
}

inline void LdMatrix(uint32_t (&r)[4], const void* row) {
  RequireAligned(row);
  const emulated::Row bytes = emulated::RowAt(row);
  simt::WarpExchange("ldmatrix", &bytes, r, emulated::LdMatrixOfWarp<false>);
}
inline void LdMatrixTransposed(uint32_t (&r)[4], const void* row) {
  RequireAligned(row);
  const emulated::Row bytes = emulated::RowAt(row);
  simt::WarpExchange("ldmatrix.trans", &bytes, r, emulated::LdMatrixOfWarp<true>);
}

inline void CopyAsync16(void* shared, const void* global, bool live) {
  RequireAligned(shared);
  if (live) RequireAligned(global);
  if (simt::architecture >= 80) return simt::CopyAsync(shared, live ? global : nullptr, 16);
  if (live) {
    std::memcpy(shared, global, 16);
  } else {
    std::memset(shared, 0, 16);
  }
}
inline void CommitCopies() { simt::CommitCopies(); }
template <int kGroups>
inline void WaitForCopies() {
  simt::WaitForCopies(kGroups);
}

/// pair * factor + addend of two bf16, a result that bf16 holds.
inline uint32_t FmaPairs(uint32_t pair, uint32_t factor, uint32_t addend) {
  return simt::architecture < 80 ? FmaPairsByMultiplyAdds(pair, factor, addend)
                                 : FmaPairsOfBf16(pair, factor, addend);
}

inline float Exp2(float x) { return std::exp2(x); }
inline float Reciprocal(float x) { return 1.0f / x; }
inline uint32_t AndOr(uint32_t r, uint32_t mask, uint32_t bits) { return (r & mask) | bits; }
inline uint32_t AndXor(uint32_t r, uint32_t mask, uint32_t bits) { return (r & mask) ^ bits; }

#else

__device__ __forceinline__ uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

/// c += a b over one step of 16.
__device__ __forceinline__ void Mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                    uint32_t b1) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  MmaByMultiplyAdds(c, a, b0, b1);
#else
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

/// Four 8 x 8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8.
__device__ __forceinline__ void LdMatrix(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(row))
               : "memory");
}
__device__ __forceinline__ void LdMatrixTransposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(row))
               : "memory");
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800

/// pair * factor + addend of two bf16, a result that bf16 holds.
__device__ __forceinline__ uint32_t FmaPairs(uint32_t pair, uint32_t factor, uint32_t addend) {
  return FmaPairsByMultiplyAdds(pair, factor, addend);
}

// Copies that are there at once.
__device__ __forceinline__ void CopyAsync16(void* shared, const void* global, bool live) {
  *static_cast<uint4*>(shared) = live ? *static_cast<const uint4*>(global) : make_uint4(0, 0, 0, 0);
}
__device__ __forceinline__ void CommitCopies() {}
template <int kGroups>
__device__ __forceinline__ void WaitForCopies() {}

#else

/// pair * factor + addend of two bf16, a result that bf16 holds.
__device__ __forceinline__ uint32_t FmaPairs(uint32_t pair, uint32_t factor, uint32_t addend) {
  return FmaPairsOfBf16(pair, factor, addend);
}

/// 16 bytes to shared memory, zeros unless `live`; there after the wait for their group.
__device__ __forceinline__ void CopyAsync16(void* shared, const void* global, bool live) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(SharedAddress(shared)),
               "l"(global), "r"(live ? 16 : 0)
               : "memory");
}
/// Ends this thread's group of copies.
__device__ __forceinline__ void CommitCopies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
/// Until at most kGroups of this thread's groups are under way. Other threads see the data after a
/// barrier.
template <int kGroups>
__device__ __forceinline__ void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

#endif

__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
/// To one unit in the last place; 0 for what lies above 2^126.
__device__ __forceinline__ float Reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
/// (r & mask) | bits, and ^ bits, in one instruction; the compiler makes two of it.
__device__ __forceinline__ uint32_t AndOr(uint32_t r, uint32_t mask, uint32_t bits) {
  uint32_t result;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(result) : "r"(r), "r"(mask), "r"(bits));
  return result;
}
__device__ __forceinline__ uint32_t AndXor(uint32_t r, uint32_t mask, uint32_t bits) {
  uint32_t result;
  asm("lop3.b32 %0, %1, %2, %3, 0x6A;" : "=r"(result) : "r"(r), "r"(mask), "r"(bits));
  return result;
}

#endif

}  // namespace neurogrid::kernels
