// Ops on the processor: the reference, and a product path of its own.
#pragma once

#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "common/buffer.h"
#include "engine/cpu/attention.h"
#include "engine/cpu/cpu_context.h"
#include "engine/cpu/matmul.h"
#include "engine/ops.h"
#include "engine/sampler.h"

namespace neurogrid {

class CpuOps : public Ops {
 public:
  /// `pool` outlives the ops.
  CpuOps(ThreadPool& pool, InstructionSet instructions) : cpu_{&pool, instructions} {}

  const CpuContext& context() const { return cpu_; }
  /// As BufferArena's: for weights, caches and activations to come.
  void KeepMemory(Buffer zeros) { arena_.Keep(std::move(zeros)); }
  int64_t kept_bytes() const { return static_cast<int64_t>(arena_.kept_bytes()); }

  /// All instruction sets give the same bits, so the instruction set is not part of the name.
  absl::string_view kernel_set() const override { return "cpu-1"; }
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(int64_t bytes) override;
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Upload(absl::Span<const float> values) override;
  absl::Status Reserve(const OpsLimits& limits) override;

 private:
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
  void DoBeginBatch(const Batch&) override {}
  ConstTensor DoCopyToHost(ConstTensor x) override { return x; }
  void DoCopyFromHost(Tensor y, ConstTensor x) override;
  void DoEmbed(Tensor y, const Matrix& table, absl::Span<const int32_t> tokens,
               float scale) override;
  void DoRmsNorm(Tensor y, ConstTensor x, const Norm& norm) override;
  void DoRmsNormRows(Tensor y, ConstTensor x, absl::Span<const int32_t> rows,
                     const Norm& norm) override;
  void DoRmsNormAdd(Tensor y, Tensor x, const Norm& norm, Tensor z, const Norm& next) override;
  void DoMatMul(Tensor y, ConstTensor x, const Matrix& w) override;
  void DoMatMulAdd(Tensor y, ConstTensor x, const Matrix& w) override;
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

  CpuContext cpu_;
  BufferArena arena_;  // weights, caches and activations
  OpsLimits reserved_;
  MatMulScratch matmul_scratch_;
  AttentionScratch attention_scratch_;
  std::vector<float> row_scratch_;               // [threads][inputs_max]
  std::vector<Sampler> samplers_;                // [threads]
  std::deque<std::vector<SampledToken>> drawn_;  // and not asked for
  std::vector<int32_t> last_drawn_;
};

}  // namespace neurogrid
