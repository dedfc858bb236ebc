#include "engine/cuda/cuda_ceilings.h"

#include "kernels/bandwidth.h"

namespace neurogrid {

absl::StatusOr<DeviceCeilings> MeasureMemory(CudaOps& ops, int multiprocessors) {
  const int64_t bytes = (int64_t{4} << 20) * std::max(multiprocessors, 1);
  NG_ASSIGN_OR_RETURN(const CudaBuffer from, CudaBuffer::Allocate(bytes));
  NG_ASSIGN_OR_RETURN(const CudaBuffer to, CudaBuffer::Allocate(bytes));
  NG_ASSIGN_OR_RETURN(const CudaBuffer sums, CudaBuffer::Allocate(4 * kernels::BandwidthBlocks()));
  constexpr uint32_t kSeed = 1;
  NG_RETURN_IF_ERROR(CudaStatus(
      kernels::FillNormal(from.as<__nv_bfloat16>(), bytes / 2, 1.0f, kSeed, ops.stream()),
      "a measurement"));
  NG_ASSIGN_OR_RETURN(const double read, SecondsOf(ops.stream(), [&] {
                        return kernels::ReadAll(sums.as<uint32_t>(), from.data(), bytes,
                                                ops.stream());
                      }));
  NG_ASSIGN_OR_RETURN(const double copy, SecondsOf(ops.stream(), [&] {
                        return kernels::CopyAll(to.data(), from.data(), bytes, ops.stream());
                      }));
  return DeviceCeilings{.read_bandwidth = static_cast<double>(bytes) / read,
                        .copy_bandwidth = 2 * static_cast<double>(bytes) / copy};
}

}  // namespace neurogrid
