#include "engine/cuda/any_order.h"

#include <algorithm>

#include "engine/cuda/timing.h"
#include "kernels/bandwidth.h"
#include "kernels/finish_matmul.h"

namespace neurogrid {
namespace {

using kernels::Epilogue;
using kernels::MatMulOperands;
using kernels::WeightFormat;
using kernels::Weights;

/// What the library can do to the end: it adds, but knows neither our gates nor biases in f32.
bool Finishes(const MatMulOperands& operands, const Weights& w) {
  return w.bias == nullptr &&
         (operands.epilogue == Epilogue::kStore || operands.epilogue == Epilogue::kAdd);
}

/// Sums added to a bf16 y by the library were off by more than their one rounding on an H200.
bool AddsInexactly(const MatMulOperands& operands, const Weights& w) {
  return Finishes(operands, w) && operands.epilogue == Epilogue::kAdd && !operands.y_is_f32;
}

LtProduct ProductOf(const MatMulOperands& operands, const Weights& w, void* sums) {
  LtProduct p{.w = w.data,
              .inputs = w.inputs,
              .w_stride = w.stride(),
              .x = operands.x,
              .rows = operands.rows};
  if (Finishes(operands, w)) {
    p.outputs = w.outputs;
    p.y = operands.y;
    p.y_stride = operands.y_stride > 0 ? operands.y_stride : w.outputs;
    p.y_is_f32 = operands.y_is_f32;
    p.adds = operands.epilogue == Epilogue::kAdd;
  } else {
    p.outputs = p.y_stride = w.packed_outputs();
    p.y = sums;
    p.y_is_f32 = true;
  }
  return p;
}

}  // namespace

absl::StatusOr<std::unique_ptr<AnyOrder>> AnyOrder::Open(cudaStream_t stream) {
  std::unique_ptr<AnyOrder> any(new AnyOrder(stream));
  NG_ASSIGN_OR_RETURN(any->lt_, Lt::Open(stream));
  return any;
}

absl::Status AnyOrder::Choose(const Weights& w) {
  if (w.format != WeightFormat::kBf16) return absl::OkStatus();
  const int64_t row_bytes = int64_t{4} * w.packed_outputs();
  const bool needs_sums = w.gated || w.bias != nullptr;
  if (needs_sums && sums_.bytes() < rows_max_ * row_bytes) {
    NG_ASSIGN_OR_RETURN(sums_, CudaBuffer::Allocate(rows_max_ * row_bytes));
  }
  // More rows do as the most of these.
  constexpr int64_t kTrialBytesMax = int64_t{256} << 20;
  constexpr int kRowsMost = 4096;
  const auto most = static_cast<int>(
      std::min<int64_t>({rows_max_, kRowsMost, std::max<int64_t>(1, kTrialBytesMax / row_bytes)}));
  for (const bool y_is_f32 : {false, true}) {
    std::map<int, bool>& prefers = prefers_[ShapeOf(w, y_is_f32)];
    if (!prefers.empty()) continue;
    for (const int rows : {16, 64, 256, 1024, most}) {
      if (rows > most || prefers.count(rows) > 0) continue;
      NG_ASSIGN_OR_RETURN(prefers[rows], IsLibraryFaster(w, rows, y_is_f32));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> AnyOrder::IsLibraryFaster(const Weights& w, int rows, bool y_is_f32) {
  const int64_t x_elements = int64_t{rows} * w.inputs;
  NG_ASSIGN_OR_RETURN(const CudaBuffer x, CudaBuffer::Allocate(2 * x_elements));
  NG_ASSIGN_OR_RETURN(const CudaBuffer y, CudaBuffer::Allocate(int64_t{4} * rows * w.outputs));
  constexpr uint32_t kSeed = 2;
  NG_RETURN_IF_ERROR(CudaStatus(
      kernels::FillNormal(x.as<__nv_bfloat16>(), x_elements, 1.0f, kSeed, stream_), "activations"));
  const MatMulOperands operands{y.data(), y_is_f32, x.data(), rows,
                                w.gated ? Epilogue::kSiluGated : Epilogue::kStore};
  NG_ASSIGN_OR_RETURN(const double ours,
                      SecondsOf(stream_, [&] { return kernels::MatMul(operands, w, stream_); }));
  const absl::Status tuned = lt_->Tune(ProductOf(operands, w, sums_.data())).status();
  if (absl::IsUnimplemented(tuned)) return false;
  NG_RETURN_IF_ERROR(tuned);
  NG_ASSIGN_OR_RETURN(const double library,
                      SecondsOf(stream_, [&] { return Multiply(operands, w); }));
  return library < ours;
}

bool AnyOrder::Prefers(const MatMulOperands& operands, const Weights& w) const {
  if (w.format != WeightFormat::kBf16 || AddsInexactly(operands, w)) return false;
  const auto shape = prefers_.find(ShapeOf(w, operands.y_is_f32));
  if (shape == prefers_.end() || shape->second.empty()) return false;
  auto rows = shape->second.lower_bound(operands.rows);
  if (rows == shape->second.end()) --rows;
  return rows->second;
}

cudaError_t AnyOrder::Multiply(const MatMulOperands& operands, const Weights& w) {
  if (AddsInexactly(operands, w)) return cudaErrorNotSupported;
  const bool finishes = Finishes(operands, w);
  const int64_t sums_bytes = int64_t{4} * operands.rows * w.packed_outputs();
  if (!finishes && sums_.bytes() < sums_bytes) return cudaErrorNotSupported;
  const cudaError_t error = lt_->Multiply(ProductOf(operands, w, sums_.data()));
  if (error != cudaSuccess || finishes) return error;
  return kernels::FinishMatMul(operands, w, sums_.as<float>(), stream_);
}

}  // namespace neurogrid
