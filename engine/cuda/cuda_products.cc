// How CudaOps multiplies: with what was kept back for a product, and kept back itself where the
// next one may follow it in one kernel.
#include <atomic>
#include <utility>

#include "engine/cuda/cuda_matrix.h"
#include "engine/cuda/cuda_ops.h"
#include "engine/cuda/kernel_operands.h"
#include "kernels/matmul.h"
#include "kernels/matmul_sequence_sm90.h"

namespace neurogrid {
namespace {

constexpr int kDevicesMax = 64;
std::atomic<const CudaOps*> sequences_of[kDevicesMax];  // by ordinal

}  // namespace

bool CudaOps::MayQueueSequences() {
  if (ordinal_ >= kDevicesMax) return false;
  const CudaOps* nobody = nullptr;
  return sequences_of[ordinal_].compare_exchange_strong(nobody, this) || nobody == this;
}

void CudaOps::LeaveSequences() {
  const CudaOps* self = this;
  if (ordinal_ < kDevicesMax) sequences_of[ordinal_].compare_exchange_strong(self, nullptr);
}

void CudaOps::QueueSequence() {
  const int count = std::exchange(sequence_.count, 0);
  if (count == 0 || !Healthy()) return;
  if (count == 1) {
    const kernels::SequenceProduct& only = sequence_.at[0];
    return Note(kernels::MatMul(only.operands, only.weights, stream_), "MatMul");
  }
  sequence_.count = count;
  Note(kernels::MatMulSequence(sequence_, {sequence_scratch_.data(), sequence_scratch_.bytes()},
                               stream_),
       "a sequence of MatMul");
  sequence_.count = 0;
}

bool CudaOps::Joins(const kernels::SequenceProduct& product) {
  const kernels::SequenceScratch scratch{sequence_scratch_.data(), sequence_scratch_.bytes()};
  if (!kernels::SequenceTakes(sequence_, product, scratch)) {
    QueueSequence();
    if (!kernels::SequenceTakes(sequence_, product, scratch)) return false;
  }
  sequence_.at[sequence_.count++] = product;
  return true;
}

kernels::MatMulNorm CudaOps::TakeNorm(const Tensor& y, ConstTensor& x, const Matrix& w) {
  if (!awaited_norm_ || awaited_norm_->y.data != x.data || awaited_norm_->y.shape != x.shape ||
      awaited_norm_->x.data == y.data || CudaMatrix::SectionsOf(w).size() != 1 ||
      any_order_ != nullptr) {
    return {};
  }
  const AwaitedNorm n = *std::exchange(awaited_norm_, std::nullopt);
  x = ConstTensor(n.x.data, x.dtype, x.shape);
  return {ParametersOf(n.norm), n.sources, n.y.data};
}

kernels::MatMulConvolution CudaOps::TakeConvolution(const Tensor& y, const ConstTensor& x,
                                                    const Matrix& w) {
  const std::vector<CudaMatrix::Section>& sections = CudaMatrix::SectionsOf(w);
  if (!awaited_convolution_ || awaited_convolution_->operands.out != x.data ||
      awaited_convolution_->shape != x.shape || awaited_convolution_->operands.bcu == y.data ||
      sections.size() != 1 || any_order_ != nullptr ||
      !kernels::FewRowsConvolve(sections[0].weights, RowsOf(x),
                                awaited_convolution_->operands.taps_count,
                                kernels::LimitsOfGpu())) {
    return {};
  }
  const AwaitedConvolution c = *std::exchange(awaited_convolution_, std::nullopt);
  return {c.operands, c.work.chunks, arrivals_.as<uint32_t>()};
}

bool CudaOps::Multiply(const char* op, Tensor y, ConstTensor x, const Matrix& w,
                       kernels::Epilogue epilogue, const kernels::MatMulNextNorm& next) {
  const kernels::MatMulNorm norm = TakeNorm(y, x, w);
  const kernels::MatMulConvolution convolution = TakeConvolution(y, x, w);
  if (!ReadyToWait()) return false;
  const std::vector<CudaMatrix::Section>& sections = CudaMatrix::SectionsOf(w);
  const bool alone = sections.size() == 1 && any_order_ == nullptr;
  const bool may_norm = next.parameters.weight != nullptr && alone;
  bool norms = false;
  for (const CudaMatrix::Section& section : sections) {
    kernels::MatMulOperands operands{
        static_cast<uint8_t*>(y.data) + BytesOf(y.dtype, section.first_output),
        y.dtype == DType::kF32,
        x.data,
        RowsOf(x),
        epilogue,
        ColumnsOf(y),
        norm,
        slices_.as<float>(),
        slices_.bytes() / static_cast<int64_t>(sizeof(float)),
        convolution,
        may_norm ? next : kernels::MatMulNextNorm{}};
    norms = may_norm && kernels::MatMulNormsNext(operands, section.weights);
    if (!norms) operands.next = {};
    if (alone && Joins({operands, section.weights})) return false;
    if (!Ready()) return false;
    cudaError_t error = cudaErrorNotSupported;
    if (any_order_ != nullptr && any_order_->Prefers(operands, section.weights)) {
      error = any_order_->Multiply(operands, section.weights);
    }
    if (error == cudaErrorNotSupported) {
      error = kernels::MatMul(operands, section.weights, stream_);
    }
    Note(error, op);
  }
  return norms;
}

void CudaOps::DoMatMul(Tensor y, ConstTensor x, const Matrix& w) {
  Multiply("MatMul", y, x, w, kernels::Epilogue::kStore);
}

void CudaOps::DoMatMulAdd(Tensor y, ConstTensor x, const Matrix& w) {
  Multiply("MatMulAdd", y, x, w, kernels::Epilogue::kAdd);
}

void CudaOps::DoMatMulAddNorm(Tensor y, ConstTensor x, const Matrix& w, Tensor z,
                              const Norm& next) {
  const kernels::MatMulNextNorm behind{ParametersOf(next), z.data};
  if (!Multiply("MatMulAdd", y, x, w, kernels::Epilogue::kAdd, behind)) DoRmsNorm(z, y, next);
}

void CudaOps::DoMatMulGated(Tensor y, ConstTensor x, const Matrix& gate_up, Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      Multiply("MatMulGated", y, x, gate_up, kernels::Epilogue::kSiluGated);
      return;
    case Activation::kGeluTanh:
      Multiply("MatMulGated", y, x, gate_up, kernels::Epilogue::kGeluGated);
      return;
  }
}

}  // namespace neurogrid
