// Ops on a CUDA device: each hands its operands to a kernel of its name.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/polling.h"
#include "engine/cuda/any_order.h"
#include "engine/cuda/batch_inputs.h"
#include "engine/cuda/cuda_memory.h"
#include "engine/cuda/make_cuda_device.h"
#include "engine/cuda/step_graphs.h"
#include "engine/cuda/weight_upload.h"
#include "engine/ops.h"
#include "kernels/matmul.h"

namespace neurogrid {

struct CudaOptions {
  bool graphs = true;                            // steps that decode are repeated as graphs
  std::optional<HostShare> host = std::nullopt;  // then memory is managed
};

/// One stream; every step is queued on it, and only CopyToHost and Drawn wait. Steps allocate
/// nothing once they have seen their largest batch. After an error they do nothing.
class CudaOps : public Ops {
 public:
  /// On device `ordinal`, which must be there.
  static absl::StatusOr<std::unique_ptr<CudaOps>> Open(int ordinal, const CudaOptions& options);
  ~CudaOps() override;

  absl::string_view kernel_set() const override { return kernel_set_; }
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(int64_t bytes) override;
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Upload(absl::Span<const float> values) override;
  absl::Status Reserve(const OpsLimits& limits) override;
  std::unique_ptr<StepMemory> MakeStepMemory(const BatchLimits& limits) override;
  absl::Status Health() const override { return health_; }
  HostWork Work() const override;
  bool DrawnIsThere() override;

  /// Device::AllowAnyOrder.
  absl::Status AllowAnyOrder();

  cudaStream_t stream() const { return stream_; }

 private:
  CudaOps() = default;

  absl::StatusOr<std::unique_ptr<Matrix>> DoPack(const MatrixSpec& spec, RowSource rows) override;
  absl::StatusOr<std::unique_ptr<Matrix>> DoPackGated(const MatrixSpec& spec, RowSource gate,
                                                      RowSource up) override;
  absl::StatusOr<std::unique_ptr<Matrix>> DoPackStored(
      const MatrixSpec& spec, absl::Span<const WeightStore::Entry> parts) override;
  absl::StatusOr<std::unique_ptr<Matrix>> DoPackGatedStored(const MatrixSpec& spec,
                                                            const WeightStore::Entry& gate,
                                                            const WeightStore::Entry& up) override;
  absl::StatusOr<std::unique_ptr<Rotation>> DoMakeRotation(const RopeParameters& parameters,
                                                           int head_dim,
                                                           int positions_max) override;
  void DoRunSteps(StepMemory* memory, const Batch& batch, Steps steps) override;
  void DoBeginBatch(const Batch& batch) override;
  ConstTensor DoCopyToHost(ConstTensor x) override;
  void DoCopyFromHost(Tensor y, ConstTensor x) override;
  void DoEmbed(Tensor y, const Matrix& table, absl::Span<const int32_t> tokens,
               float scale) override;
  void DoRmsNorm(Tensor y, ConstTensor x, const Norm& norm) override;
  void DoRmsNormRows(Tensor y, ConstTensor x, absl::Span<const int32_t> rows,
                     const Norm& norm) override;
  void DoRmsNormAdd(Tensor y, Tensor x, const Norm& norm, Tensor z, const Norm& next) override;
  void DoMatMul(Tensor y, ConstTensor x, const Matrix& w) override;
  void DoMatMulAdd(Tensor y, ConstTensor x, const Matrix& w) override;
  void DoMatMulAddNorm(Tensor y, ConstTensor x, const Matrix& w, Tensor z,
                       const Norm& next) override;
  void DoMatMulGated(Tensor y, ConstTensor x, const Matrix& gate_up,
                     Activation activation) override;
  void DoRopeAndWriteKv(Tensor qkv, int query_heads, const HeadNorms& norms,
                        const Rotation& rotation, const KvLayerView& kv,
                        const Batch& batch) override;
  void DoAttention(Tensor out, ConstTensor qkv, const KvLayerView& kv, const Batch& batch,
                   const AttentionSpec& spec) override;
  void DoShortConvolution(Tensor out, ConstTensor bcu, ConstTensor taps, ConstTensor bias,
                          const StateLayerView& state, const Batch& batch) override;
  void DoSoftcap(Tensor y, float cap) override;
  void DoDraw(Tensor logits, absl::Span<const SamplingRow> sampling, int vocab_size) override;
  std::vector<SampledToken> DoDrawn() override;

  /// Keeps the first error; false once there is one.
  bool Healthy() const { return health_.ok(); }
  void Note(cudaError_t error, absl::string_view op);
  absl::Status Select() const;
  /// What brings weights here, until the stage is whole.
  WeightUpload& Uploads();
  absl::StatusOr<std::unique_ptr<Matrix>> Chosen(absl::StatusOr<std::unique_ptr<Matrix>> matrix);
  /// Before an op is queued: queues what was kept back for one behind it and is not taken by it.
  /// False after an error.
  bool Ready();
  /// Waits for everything queued.
  void Wait(absl::string_view op);
  /// What the product of x by w takes of what is awaited; x then becomes what that is made of.
  kernels::MatMulNorm TakeNorm(const Tensor& y, ConstTensor& x, const Matrix& w);
  kernels::MatMulConvolution TakeConvolution(const Tensor& y, const ConstTensor& x,
                                             const Matrix& w);
  /// Keeps a product back, with everything before it queued, if a convolution may be next.
  bool KeepProduct(const Tensor& y, const ConstTensor& x, const Matrix& w);
  /// True if it has queued the product that was kept back with `next` in it.
  bool ConvolveInProduct(const kernels::ConvolutionOperands<__nv_bfloat16>& next,
                         const kernels::ConvolutionChunk* chunks);
  struct AwaitedRotation;
  void QueueRotation(const AwaitedRotation& rotation);
  void NormRows(const char* op, Tensor y, ConstTensor x, const int32_t* sources, const Norm& norm);
  /// True if it has queued `next` too.
  bool Multiply(const char* op, Tensor y, ConstTensor x, const Matrix& w,
                kernels::Epilogue epilogue, const kernels::MatMulNextNorm& next = {});
  bool BeginInputs(const Batch& batch);
  /// Queues the inputs of the batch in batch_, whose steps are given `named`.
  bool SendInputs(const Batch& named, bool recorded = false);
  void RunGraph(StepGraphs& graphs, const Batch& batch, Steps steps);
  /// Steps as they come, of a batch whose inputs are sent for a graph.
  void RunOnce(const Batch& batch, Steps steps);
  void Capture(StepGraphs& graphs, StepGraphs::Entry& entry, const Batch& batch, Steps steps);
  /// Behind a draw: its results are to be asked for.
  void Await(int samples, int parity);
  absl::Status GrowSampler(int64_t rows, int64_t edits, int vocab_size);
  /// On the device, for an op that is not about the batch that has begun. Allocates.
  const void* Aside(const void* bytes, int64_t count);

  int ordinal_ = 0;
  std::string kernel_set_;
  cudaStream_t stream_ = nullptr;
  absl::Status health_;
  double waited_s_ = 0;
  int64_t repeated_ = 0;
  OpsLimits reserved_;
  std::unique_ptr<AnyOrder> any_order_;  // null: one order
  bool graphs_ = true;
  CudaHeap heap_;
  std::unique_ptr<WeightUpload> uploads_;  // null when nothing is being loaded
  BatchInputs batch_;
  const Batch* begun_ = nullptr;
  /// A norm that is not queued yet: the product behind it may do it as well (kernels/matmul.h).
  struct AwaitedNorm {
    const char* op;
    Tensor y;
    ConstTensor x;
    const int32_t* sources;
    Norm norm;
  };
  std::optional<AwaitedNorm> awaited_norm_;
  /// A product whose result the op behind it may convolve, in one kernel with it.
  struct AwaitedProduct {
    Tensor y;
    ConstTensor x;
    const Matrix* w;
  };
  std::optional<AwaitedProduct> awaited_product_;
  /// A convolution of rows that are each a sequence's only one, for the product behind it.
  struct AwaitedConvolution {
    kernels::ConvolutionOperands<__nv_bfloat16> operands;
    BatchInputs::Convolution work;
    Shape shape;
  };
  std::optional<AwaitedConvolution> awaited_convolution_;
  /// Rotations that attention may do as well, of rows that are each a sequence's only one.
  struct AwaitedRotation {
    Tensor qkv;
    int query_heads;
    kernels::HeadNorms norms;
    const float* table;
    KvLayerView kv;
  };
  std::optional<AwaitedRotation> awaited_rotation_;
  CudaBuffer arrivals_;            // zeros between kernels
  std::vector<CudaBuffer> aside_;  // of this batch
  Staging activations_;            // of CopyFromHost
  CudaBuffer attention_states_;
  CudaBuffer slices_;              // of products that several blocks split
  PinnedBuffer host_activations_;  // of CopyToHost
  CudaBuffer raw_logits_;          // of the sampler's edits
  CudaBuffer sampler_scratch_;
  PinnedBuffer host_results_;  // of two draws (ResultPlace), written by the sampler's last kernel
  CudaBuffer drawn_;           // tokens of the last one
  /// Of a longer step a wake-up is no part that is felt.
  static constexpr std::chrono::milliseconds kStepPolled{20};
  struct AwaitedDraw {
    int samples;
    int parity;
  };
  std::vector<AwaitedDraw> awaited_draws_;  // at most kDrawsKept, the oldest first
  cudaEvent_t drew_[kDrawsKept] = {};       // by parity; waiting for them sleeps
  Polling drawing_{Polling::CoresSuffice(), kStepPolled};
  int parity_ = 0;         // of the last draw
  int batch_parity_ = 0;   // of the batch that has begun
  bool in_steps_ = false;  // DoRunSteps has its say about draws
  bool draws_ = false;     // the steps queued last do
};

}  // namespace neurogrid
