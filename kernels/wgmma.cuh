// PTX of sm_90a: barriers that count bytes, the copies that complete them, products of warpgroups.
// Nothing of it can be emulated; files that include it end in _sm90.cu.
//
// Operands in shared memory lie in rows of 128 bytes, the 16-byte pieces of a row permuted by its
// number modulo 8: what the copies write and what Swizzled (matmul.cuh) says.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/mma.cuh"

namespace neurogrid::kernels {

inline constexpr int kSwizzleBytes = 1024;  // eight rows of 128 bytes
inline constexpr int kBarrierBytes = 8;

/// The first place in shared memory where such rows may begin.
__device__ __forceinline__ uint8_t* SwizzleAligned(uint8_t* shared) {
  const uint32_t beyond = SharedAddress(shared) % kSwizzleBytes;
  return shared + (beyond == 0 ? 0 : kSwizzleBytes - beyond);
}

__device__ __forceinline__ void InitBarrier(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
/// After all InitBarrier, before the block's barrier: copies see them too.
__device__ __forceinline__ void PublishBarriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
/// Arrives, and lets the phase end only after so many bytes.
__device__ __forceinline__ void ArriveExpecting(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void Arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
/// Until the phase of that parity has ended.
__device__ __forceinline__ void WaitBarrier(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "WAIT_%=:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1, 0x989680;\n"
      "@p bra DONE_%=;\n"
      "bra WAIT_%=;\n"
      "DONE_%=:\n"
      "}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
/// Barrier `name` (1 to 15) of kThreads threads of the block.
template <int kThreads>
__device__ __forceinline__ void SyncThreads(int name) {
  asm volatile("bar.sync %0, %1;" ::"r"(name), "n"(kThreads) : "memory");
}

/// A warpgroup gives up registers, or takes some that others gave up, so that each thread has so
/// many.
template <int kRegisters>
__device__ __forceinline__ void GiveRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void TakeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

/// How long a copy's lines stay in the L2 cache.
inline constexpr uint64_t kEvictFirst = 0x12F0000000000000u;
inline constexpr uint64_t kEvictNormal = 0x1000000000000000u;

/// A box of the matrix from (column, row) on; what lies outside of the matrix becomes zeros. One
/// thread calls it.
__device__ __forceinline__ void CopyBox(uint32_t shared, const CUtensorMap& map, int column,
                                        int row, uint32_t barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared),
      "l"(&map), "r"(column), "r"(row), "r"(barrier), "l"(policy)
      : "memory");
}

/// A box to the matrix, a group of stores of this thread's own; what lies outside of the matrix is
/// left out. What threads wrote to the box needs FenceForProducts and a barrier.
__device__ __forceinline__ void StoreBox(const CUtensorMap& map, int column, int row,
                                         uint32_t shared) {
  asm volatile(
      "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(&map),
      "r"(column), "r"(row), "r"(shared)
      : "memory");
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
/// Until this thread's stores have read their boxes.
__device__ __forceinline__ void WaitForBoxesRead() {
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}
/// Until they have written the matrix.
__device__ __forceinline__ void WaitForBoxesStored() {
  asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

/// LdMatrixTransposed, and its reverse: row i of matrix m at the address of lane 8 m + i.
__device__ __forceinline__ void LdMatrixTransposed(uint32_t (&r)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}
__device__ __forceinline__ void StMatrixTransposed(uint32_t row, const uint32_t (&r)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row),
               "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
               : "memory");
}

/// Rows from a 1,024-byte boundary on, of any number; 32 bytes further (the next step of 16) adds
/// kStepDescriptor.
__device__ __forceinline__ uint64_t RowsDescriptor(uint32_t shared) {
  constexpr uint64_t kEightRows = 1024 >> 4;
  return ((shared & 0x3ffffu) >> 4) | uint64_t{1} << 16 | kEightRows << 32 | uint64_t{1} << 62;
}
inline constexpr uint64_t kStepDescriptor = 32 >> 4;
/// Rows of 64 columns each, as above, and kBytes behind them those of the next 64: b of
/// WgmmaTransposed.
template <uint64_t kBytes>
__device__ __forceinline__ uint64_t WideRowsDescriptor(uint32_t shared) {
  return RowsDescriptor(shared) + (((kBytes >> 4) - 1) << 16);
}

/// Before products: what threads wrote to accumulators and operands in registers is there.
__device__ __forceinline__ void BeginProducts() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void CommitProducts() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// Until at most kGroups groups of products are under way.
template <int kGroups>
__device__ __forceinline__ void WaitForProducts() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kGroups) : "memory");
}
/// After the wait, before the first use: reads that move above the wait would make the compiler
/// wait after every single product.
template <int kCount>
__device__ __forceinline__ void Pin(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
/// The same for operands: before the products, so that nothing is moved in between.
template <int kCount>
__device__ __forceinline__ void Pin(uint32_t (&a)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(a[i])::"memory");
}

/// What this thread, not a copy by map, wrote to shared memory is there for products and copies.
__device__ __forceinline__ void FenceForProducts() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// d = a b, or d += a b where `adds`: 64 rows of a by kN rows of b over one step of 16. A warp has
/// 16 rows of a; of them and of each 8 rows of b a lane holds what Mma's c holds.
template <int kN>
struct Wgmma;

#define NG_TEN(t) \
  "%" #t "0,%" #t "1,%" #t "2,%" #t "3,%" #t "4,%" #t "5,%" #t "6,%" #t "7,%" #t "8,%" #t "9,"
#define NG_D8(i)                                                                              \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define NG_D32(i) NG_D8(i), NG_D8(i + 8), NG_D8(i + 16), NG_D8(i + 24)
#define NG_WGMMA(n, names, r0, r1, r2, r3, r4, r5, ...)                                     \
  template <>                                                                               \
  struct Wgmma<n> {                                                                         \
    static __device__ __forceinline__ void Run(float (&d)[n / 2], uint64_t a, uint64_t b,   \
                                               bool adds) {                                 \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #r2                                 \
                   ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" names \
                   "}, %" #r0 ", %" #r1 ", p, 1, 1, 0, 0;\n}\n"                             \
                   : __VA_ARGS__                                                            \
                   : "l"(a), "l"(b), "r"(int{adds}));                                       \
    }                                                                                       \
    static __device__ __forceinline__ void Run(float (&d)[n / 2], const uint32_t (&a)[4],   \
                                               uint64_t b, bool adds) {                     \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #r5                                 \
                   ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" names \
                   "}, {%" #r0 ",%" #r1 ",%" #r2 ",%" #r3 "}, %" #r4 ", p, 1, 1, 0;\n}\n"   \
                   : __VA_ARGS__                                                            \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int{adds}));   \
    }                                                                                       \
  };
NG_WGMMA(16, "%0,%1,%2,%3,%4,%5,%6,%7", 8, 9, 10, 11, 12, 13, NG_D8(0))
NG_WGMMA(32, NG_TEN() "%10,%11,%12,%13,%14,%15", 16, 17, 18, 19, 20, 21, NG_D8(0), NG_D8(8))
NG_WGMMA(64, NG_TEN() NG_TEN(1) NG_TEN(2) "%30,%31", 32, 33, 34, 35, 36, 37, NG_D32(0))
NG_WGMMA(128, NG_TEN() NG_TEN(1) NG_TEN(2) NG_TEN(3) NG_TEN(4) NG_TEN(5) "%60,%61,%62,%63", 64, 65,
         66, 67, 68, 69, NG_D32(0), NG_D32(32))
NG_WGMMA(256,
         NG_TEN() NG_TEN(1) NG_TEN(2) NG_TEN(3) NG_TEN(4) NG_TEN(5) NG_TEN(6) NG_TEN(7) NG_TEN(8)
             NG_TEN(9) NG_TEN(10) NG_TEN(11) "%120,%121,%122,%123,%124,%125,%126,%127",
         128, 129, 130, 131, 132, 133, NG_D32(0), NG_D32(32), NG_D32(64), NG_D32(96))
#undef NG_WGMMA

/// The same with a from registers and 64 columns of b, whose rows go along d's: 16 rows of b, 2
/// KiB, a step.
__device__ __forceinline__ void WgmmaTransposed(float (&d)[32], const uint32_t (&a)[4], uint64_t b,
                                                bool adds) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" NG_TEN() NG_TEN(1)
          NG_TEN(2) "%30,%31}, {%32,%33,%34,%35}, %36, p, 1, 1, 1;\n}\n"
      : NG_D32(0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int{adds}));
}
/// The same with a from shared memory and 128 columns of b (WideRowsDescriptor).
__device__ __forceinline__ void WgmmaTransposed(float (&d)[64], uint64_t a, uint64_t b, bool adds) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" NG_TEN() NG_TEN(1) NG_TEN(2)
          NG_TEN(3) NG_TEN(4) NG_TEN(5) "%60,%61,%62,%63}, %64, %65, p, 1, 1, 0, 1;\n}\n"
      : NG_D32(0), NG_D32(32)
      : "l"(a), "l"(b), "r"(int{adds}));
}
#undef NG_D32
#undef NG_D8
#undef NG_TEN

}  // namespace neurogrid::kernels
