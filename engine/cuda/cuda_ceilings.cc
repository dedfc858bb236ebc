#include "engine/cuda/cuda_ceilings.h"

#include <algorithm>

#include "engine/cuda/timing.h"
#include "kernels/bandwidth.h"

namespace neurogrid {
namespace {

constexpr int64_t kElementBytes = 2;  // bf16

/// Memory full of random numbers.
absl::StatusOr<CudaBuffer> RandomValues(int64_t count, float deviation, cudaStream_t stream) {
  NG_ASSIGN_OR_RETURN(CudaBuffer buffer, CudaBuffer::Allocate(kElementBytes * count));
  constexpr uint32_t kSeed = 1;
  NG_RETURN_IF_ERROR(
      CudaStatus(kernels::FillNormal(buffer.as<__nv_bfloat16>(), count, deviation, kSeed, stream),
                 "a measurement"));
  return buffer;
}

LtProduct ProductOf(const MatMulShape& shape, const void* w, const void* x, void* y) {
  return {.w = w,
          .outputs = shape.outputs,
          .inputs = shape.inputs,
          .w_stride = shape.inputs,
          .x = x,
          .rows = shape.rows,
          .y = y,
          .y_stride = shape.outputs};
}

absl::Status TuneOnce(Lt& lt, const LtProduct& product) {
  return lt.SecondsOf(product) > 0 ? absl::OkStatus() : lt.Tune(product).status();
}

}  // namespace

absl::StatusOr<DeviceCeilings> MeasureMemory(cudaStream_t stream, int multiprocessors) {
  const int64_t bytes = (int64_t{4} << 20) * std::max(multiprocessors, 1);
  NG_ASSIGN_OR_RETURN(const CudaBuffer from, RandomValues(bytes / kElementBytes, 1, stream));
  NG_ASSIGN_OR_RETURN(const CudaBuffer to, CudaBuffer::Allocate(bytes));
  NG_ASSIGN_OR_RETURN(const CudaBuffer sums, CudaBuffer::Allocate(4 * kernels::BandwidthBlocks()));
  NG_ASSIGN_OR_RETURN(const double read, LeastSecondsOf(stream, [&] {
                        return kernels::ReadAll(sums.as<uint32_t>(), from.data(), bytes, stream);
                      }));
  NG_ASSIGN_OR_RETURN(const double copy, LeastSecondsOf(stream, [&] {
                        return kernels::CopyAll(to.data(), from.data(), bytes, stream);
                      }));
  return DeviceCeilings{.read_bandwidth = static_cast<double>(bytes) / read,
                        .copy_bandwidth = 2 * static_cast<double>(bytes) / copy};
}

absl::StatusOr<double> MeasureLtRate(Lt& lt, cudaStream_t stream, int multiprocessors) {
  const int64_t n = int64_t{64} * std::max(multiprocessors, 1);
  NG_ASSIGN_OR_RETURN(const CudaBuffer w, RandomValues(n * n, 0.02f, stream));
  NG_ASSIGN_OR_RETURN(const CudaBuffer x, RandomValues(n * n, 1, stream));
  NG_ASSIGN_OR_RETURN(const CudaBuffer y, CudaBuffer::Allocate(kElementBytes * n * n));
  const LtProduct product = ProductOf({n, n, n}, w.data(), x.data(), y.data());
  NG_RETURN_IF_ERROR(TuneOnce(lt, product));
  NG_ASSIGN_OR_RETURN(const double seconds,
                      SecondsOf(stream, [&] { return lt.Multiply(product); }));
  return 2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n) / seconds;
}

absl::StatusOr<double> MeasureLtChain(Lt& lt, cudaStream_t stream,
                                      absl::Span<const MatMulShape> shapes) {
  constexpr int64_t kWeightBytesMax = int64_t{4} << 30;
  int64_t weights = 0, largest = 0, inputs = 0, outputs = 0;
  for (const MatMulShape& shape : shapes) {
    weights += shape.outputs * shape.inputs;
    largest = std::max(largest, shape.outputs * shape.inputs);
    inputs = std::max(inputs, shape.rows * shape.inputs);
    outputs = std::max(outputs, shape.rows * shape.outputs);
  }
  const int64_t room = std::max(largest, std::min(weights, kWeightBytesMax / kElementBytes));
  NG_ASSIGN_OR_RETURN(const CudaBuffer w, RandomValues(room, 0.02f, stream));
  NG_ASSIGN_OR_RETURN(const CudaBuffer x, RandomValues(inputs, 1, stream));
  NG_ASSIGN_OR_RETURN(const CudaBuffer y, CudaBuffer::Allocate(kElementBytes * outputs));
  std::vector<LtProduct> products;
  int64_t place = 0;
  for (const MatMulShape& shape : shapes) {
    const int64_t elements = shape.outputs * shape.inputs;
    if (place + elements > room) place = 0;
    products.push_back(ProductOf(shape, w.as<__nv_bfloat16>() + place, x.data(), y.data()));
    place += elements;
    NG_RETURN_IF_ERROR(TuneOnce(lt, products.back()));
  }
  return SecondsOf(stream, [&] {
    for (const LtProduct& product : products) {
      const cudaError_t error = lt.Multiply(product);
      if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
  });
}

}  // namespace neurogrid
