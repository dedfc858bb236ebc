// Products whose inputs are rounded to 8 bits, by plain float32 arithmetic.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "engine/ops.h"
#include "tests/engine/spread.h"

namespace neurogrid {

/// Float32 ops that round the inputs of products, group by group, to whole multiples of max|x| /
/// 127, perhaps spread as int8-a8 spreads them and taken back afterwards.
class InputRoundingOps : public Ops {
 public:
  /// Inputs of one group for a matrix; 0: they stay as they are.
  using GroupOf = std::function<int64_t(const Matrix& w)>;

  /// `ops` outlives these.
  InputRoundingOps(Ops& ops, GroupOf group_of, bool spreads)
      : ops_(ops), group_of_(std::move(group_of)), spreads_(spreads) {}

  absl::string_view kernel_set() const override { return ops_.kernel_set(); }
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(int64_t bytes) override {
    return ops_.Allocate(bytes);
  }
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Upload(absl::Span<const float> values) override {
    return ops_.Upload(values);
  }
  absl::Status Reserve(const OpsLimits& limits) override { return ops_.Reserve(limits); }

 private:
  absl::StatusOr<std::unique_ptr<Matrix>> DoPack(const MatrixSpec& spec, RowSource rows) override {
    return ops_.Pack(spec, rows);
  }
  absl::StatusOr<std::unique_ptr<Matrix>> DoPackGated(const MatrixSpec& spec, RowSource gate,
                                                      RowSource up) override {
    return ops_.PackGated(spec, gate, up);
  }
  absl::StatusOr<std::unique_ptr<Matrix>> DoPackStored(
      const MatrixSpec& spec, absl::Span<const WeightStore::Entry> parts) override {
    return ops_.PackStored(spec, parts);
  }
  absl::StatusOr<std::unique_ptr<Matrix>> DoPackGatedStored(const MatrixSpec& spec,
                                                            const WeightStore::Entry& gate,
                                                            const WeightStore::Entry& up) override {
    return ops_.PackGatedStored(spec, gate, up);
  }
  absl::StatusOr<std::unique_ptr<Rotation>> DoMakeRotation(const RopeParameters& parameters,
                                                           int head_dim,
                                                           int positions_max) override {
    return ops_.MakeRotation(parameters, head_dim, positions_max);
  }
  void DoBeginBatch(const Batch& batch) override { ops_.BeginBatch(batch); }
  ConstTensor DoCopyToHost(ConstTensor x) override { return ops_.CopyToHost(x); }
  void DoCopyFromHost(Tensor y, ConstTensor x) override { ops_.CopyFromHost(y, x); }
  void DoEmbed(Tensor y, const Matrix& table, absl::Span<const int32_t> tokens,
               float scale) override {
    ops_.Embed(y, table, tokens, scale);
  }
  void DoRmsNorm(Tensor y, ConstTensor x, const Norm& norm) override { ops_.RmsNorm(y, x, norm); }
  void DoRmsNormRows(Tensor y, ConstTensor x, absl::Span<const int32_t> rows,
                     const Norm& norm) override {
    ops_.RmsNormRows(y, x, rows, norm);
  }
  void DoRmsNormAdd(Tensor y, Tensor x, const Norm& norm, Tensor z, const Norm& next) override {
    ops_.RmsNormAdd(y, x, norm, z, next);
  }
  void DoMatMul(Tensor y, ConstTensor x, const Matrix& w) override {
    ops_.MatMul(y, InputOf(x, w), w);
  }
  void DoMatMulAdd(Tensor y, ConstTensor x, const Matrix& w) override {
    ops_.MatMulAdd(y, InputOf(x, w), w, {}, {});
  }
  void DoMatMulGated(Tensor y, ConstTensor x, const Matrix& gate_up,
                     Activation activation) override {
    ops_.MatMulGated(y, InputOf(x, gate_up), gate_up, activation);
  }
  void DoRopeAndWriteKv(Tensor qkv, int query_heads, const HeadNorms& norms,
                        const Rotation& rotation, const KvLayerView& kv,
                        const Batch& batch) override {
    ops_.RopeAndWriteKv(qkv, query_heads, norms, rotation, kv, batch);
  }
  void DoAttention(Tensor out, ConstTensor qkv, const KvLayerView& kv, const Batch& batch,
                   const AttentionSpec& spec) override {
    ops_.Attention(out, qkv, kv, batch, spec);
  }
  void DoShortConvolution(Tensor out, ConstTensor bcu, ConstTensor taps, ConstTensor bias,
                          const StateLayerView& state, const Batch& batch) override {
    ops_.ShortConvolution(out, bcu, taps, bias, state, batch);
  }
  void DoSoftcap(Tensor y, float cap) override { ops_.Softcap(y, cap); }
  void DoDraw(Tensor logits, absl::Span<const SamplingRow> sampling, int vocab_size) override {
    ops_.Draw(logits, sampling, vocab_size);
  }
  std::vector<SampledToken> DoDrawn() override { return ops_.Drawn(); }

  ConstTensor InputOf(ConstTensor x, const Matrix& w) {
    const int64_t group = group_of_(w);
    if (group == 0) return x;
    rounded_.assign(x.as<float>(), x.as<float>() + x.shape.elements());
    const int64_t inputs = w.inputs();
    for (int64_t row = 0; row < x.shape[0]; ++row) {
      float* const values = rounded_.data() + row * inputs;
      if (spreads_) SpreadByDefinition(values, inputs);
      for (int64_t first = 0; first < inputs; first += group) {
        Round(values + first, std::min(group, inputs - first));
      }
      if (spreads_) SpreadByDefinition(values, inputs);
    }
    return {rounded_.data(), DType::kF32, x.shape};
  }
  static void Round(float* x, int64_t count) {
    float largest = 0;
    for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(x[i]));
    if (largest == 0) return;
    const float scale = largest / 127;
    for (int64_t i = 0; i < count; ++i) x[i] = std::nearbyint(x[i] / scale) * scale;
  }

  Ops& ops_;
  GroupOf group_of_;
  bool spreads_;
  std::vector<float> rounded_;
};

}  // namespace neurogrid
