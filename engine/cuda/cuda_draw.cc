// How CudaOps draws: results of the last two draws wait for whoever asks, tokens also stay on the
// device for the step behind.
#include <chrono>

#include "engine/cuda/cuda_ops.h"
#include "engine/cuda/sampler_rows.h"

namespace neurogrid {

absl::Status CudaOps::GrowSampler(int64_t rows, int64_t edits, int vocab_size) {
  const auto edit_bytes = edits * static_cast<int64_t>(sizeof(float));
  const auto result_bytes =
      ResultPlace(static_cast<int>(rows), 0) * static_cast<int64_t>(sizeof(kernels::SamplerResult));
  if (raw_logits_.bytes() < edit_bytes) {
    NG_ASSIGN_OR_RETURN(raw_logits_, CudaBuffer::Allocate(2 * edit_bytes));
    batch_.Invalidate();
  }
  const int64_t scratch = kernels::SamplerScratchBytes(static_cast<int>(rows), vocab_size);
  if (sampler_scratch_.bytes() < scratch) {
    NG_ASSIGN_OR_RETURN(sampler_scratch_, CudaBuffer::Allocate(scratch));
    batch_.Invalidate();
  }
  if (host_results_.bytes() < result_bytes) {
    NG_ASSIGN_OR_RETURN(host_results_, PinnedBuffer::Allocate(result_bytes));
    NG_ASSIGN_OR_RETURN(drawn_, CudaBuffer::Allocate(rows * static_cast<int64_t>(sizeof(int32_t))));
    awaited_draws_.clear();
    batch_.Invalidate();
  }
  return absl::OkStatus();
}

void CudaOps::DoDraw(Tensor logits, absl::Span<const SamplingRow> sampling, int vocab_size) {
  if (!Ready()) return;
  const auto rows = static_cast<int>(sampling.size());
  int parity = batch_parity_;
  const kernels::SamplerRow* row_inputs = batch_.sampler_rows();
  const kernels::LogitEdit* edits = batch_.edits();
  kernels::SamplerNeeds needs = batch_.sampler().needs;
  if (begun_ == nullptr || sampling.data() != begun_->sampling.data()) {
    SamplerRows request;
    parity = parity_ ^= 1;
    FillSamplerRows(sampling, parity, request);
    const auto edits_count = static_cast<int64_t>(request.edits.size());
    health_.Update(GrowSampler(rows, edits_count, vocab_size));
    needs = request.needs;
    row_inputs = static_cast<const kernels::SamplerRow*>(
        Aside(request.rows.data(), rows * static_cast<int64_t>(sizeof(kernels::SamplerRow))));
    edits = static_cast<const kernels::LogitEdit*>(Aside(
        request.edits.data(), edits_count * static_cast<int64_t>(sizeof(kernels::LogitEdit))));
    if (!Healthy()) return;
  }
  const kernels::SamplerOperands operands{logits.as<float>(),
                                          logits.shape[1],
                                          vocab_size,
                                          row_inputs,
                                          edits,
                                          raw_logits_.as<float>(),
                                          sampler_scratch_.data(),
                                          host_results_.as<kernels::SamplerResult>(),
                                          drawn_.as<int32_t>()};
  Note(kernels::Sample(operands, rows, needs, stream_), "Draw");
  draws_ = true;
  if (!in_steps_) Await(rows, parity);
}

void CudaOps::Await(int samples, int parity) {
  if (!Healthy()) return;
  if (awaited_draws_.size() == kDrawsKept) awaited_draws_.erase(awaited_draws_.begin());
  awaited_draws_.push_back({samples, parity});
  Note(cudaEventRecord(drew_[parity], stream_), "an event");
}

bool CudaOps::DrawnIsThere() {
  return !Healthy() || awaited_draws_.empty() ||
         cudaEventQuery(drew_[awaited_draws_.front().parity]) != cudaErrorNotReady;
}

std::vector<SampledToken> CudaOps::DoDrawn() {
  std::vector<SampledToken> tokens;
  if (!Healthy() || awaited_draws_.empty()) return tokens;
  const AwaitedDraw draw = awaited_draws_.front();
  awaited_draws_.erase(awaited_draws_.begin());
  const auto start = std::chrono::steady_clock::now();
  const cudaEvent_t drew = drew_[draw.parity];
  drawing_.Wait([drew] { return cudaEventQuery(drew) != cudaErrorNotReady; },
                [drew] { cudaEventSynchronize(drew); });
  Note(cudaEventSynchronize(drew), "a step up to its samples");
  waited_s_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  for (int i = 0; Healthy() && i < draw.samples; ++i) {
    tokens.push_back(
        TokenOf(host_results_.as<kernels::SamplerResult>()[ResultPlace(i, draw.parity)]));
  }
  return tokens;
}

}  // namespace neurogrid
