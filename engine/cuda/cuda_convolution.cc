// How CudaOps convolves: by itself, in the product before or in the one behind.
#include <utility>
#include <vector>

#include "engine/cuda/cuda_matrix.h"
#include "engine/cuda/cuda_ops.h"
#include "kernels/matmul_convolving.h"

namespace neurogrid {

using DeviceBf16 = __nv_bfloat16;

bool CudaOps::KeepProduct(const Tensor& y, const ConstTensor& x, const Matrix& w) {
  constexpr int64_t kThirds = 3;  // B, C and U
  const std::vector<CudaMatrix::Section>& sections = CudaMatrix::SectionsOf(w);
  // Products of few rows convolve nothing for what comes next; where they norm their rows they must
  // not be kept from the norm.
  if (begun_ == nullptr || !batch_.decodes() || !batch_.convolves() || any_order_ != nullptr ||
      y.dtype != DType::kBF16 || y.shape[1] != kThirds * x.shape[1] || sections.size() != 1 ||
      kernels::FewRowsFit(sections[0].weights, static_cast<int>(x.shape[0]),
                          kernels::LimitsOfGpu())) {
    return false;
  }
  if (Ready()) awaited_product_.emplace(AwaitedProduct{y, x, &w});
  return true;
}

bool CudaOps::ConvolveInProduct(const kernels::ConvolutionOperands<DeviceBf16>& next,
                                const kernels::ConvolutionChunk* chunks) {
  if (!awaited_product_ || awaited_product_->y.data != next.bcu) return false;
  const AwaitedProduct& p = *awaited_product_;
  const kernels::Weights& w = CudaMatrix::SectionsOf(*p.w)[0].weights;
  const kernels::ConvolvingOperands operands{
      {p.y.data, /*y_is_f32=*/false, p.x.data, static_cast<int>(p.x.shape[0]),
       kernels::Epilogue::kStore},
      next,
      chunks};
  if (!kernels::MatMulConvolves(operands, w)) return false;
  Note(kernels::ConvolvingMatMul(operands, w, stream_), "MatMul and ShortConvolution");
  awaited_product_.reset();
  return true;
}

kernels::MatMulConvolution CudaOps::TakeConvolution(const Tensor& y, const ConstTensor& x,
                                                    const Matrix& w) {
  const std::vector<CudaMatrix::Section>& sections = CudaMatrix::SectionsOf(w);
  if (!awaited_convolution_ || awaited_convolution_->operands.out != x.data ||
      awaited_convolution_->shape != x.shape || awaited_convolution_->operands.bcu == y.data ||
      sections.size() != 1 || any_order_ != nullptr ||
      !kernels::FewRowsConvolve(sections[0].weights, static_cast<int>(x.shape[0]),
                                awaited_convolution_->operands.taps_count,
                                kernels::LimitsOfGpu())) {
    return {};
  }
  const AwaitedConvolution c = *std::exchange(awaited_convolution_, std::nullopt);
  return {c.operands, c.work.chunks, arrivals_.as<uint32_t>()};
}

void CudaOps::DoShortConvolution(Tensor out, ConstTensor bcu, ConstTensor taps, ConstTensor bias,
                                 const StateLayerView& state, const Batch& batch) {
  if (!Healthy()) return;
  NG_CHECK(&batch == begun_);
  const absl::StatusOr<const BatchInputs::Convolution*> made = batch_.ShortConvolution(stream_);
  health_.Update(made.status());
  if (!Healthy()) return;
  const BatchInputs::Convolution& work = **made;
  const auto operands_of = [&](auto t) {
    using T = decltype(t);
    return kernels::ConvolutionOperands<T>{out.as<T>(),
                                           bcu.as<T>(),
                                           taps.as<float>(),
                                           bias.as<float>(),
                                           static_cast<T*>(state.data),
                                           state.slot_bytes / static_cast<int64_t>(sizeof(T)),
                                           state.columns,
                                           state.rows + 1};
  };
  if (out.dtype == DType::kBF16 && batch_.decodes()) {
    const auto operands = operands_of(DeviceBf16{});
    if (ConvolveInProduct(operands, work.chunks) || !Ready()) return;
    awaited_convolution_.emplace(AwaitedConvolution{operands, work, out.shape});
    return;
  }
  if (!Ready()) return;
  const auto convolve = [&](auto t) {
    return kernels::ShortConvolution(operands_of(t), work.chunks, work.chunks_count, work.states,
                                     work.states_count, stream_);
  };
  Note(out.dtype == DType::kF32 ? convolve(float{}) : convolve(DeviceBf16{}), "ShortConvolution");
}

}  // namespace neurogrid
