// The contracts of ops.h, checked once for every backend.
#include "engine/ops.h"

namespace neurogrid {
namespace {

bool IsActivation(ConstTensor x) {
  return x.shape.rank() == 2 && (x.dtype == DType::kF32 || x.dtype == DType::kBF16);
}

/// MatMul's y, x and w; `inputs` and `outputs` as the matrix says.
void CheckMatMul(ConstTensor y, ConstTensor x, const Matrix& w) {
  NG_CHECK(IsActivation(y) && IsActivation(x));
  NG_CHECK(x.shape[1] == w.inputs());
  NG_CHECK(y.shape == Shape({x.shape[0], w.outputs()}));
  NG_CHECK((w.format() == MatrixFormat::kF32) == (x.dtype == DType::kF32));
  NG_CHECK(y.dtype == DType::kF32 || y.dtype == x.dtype);
}

void CheckKv(ConstTensor qkv, int query_heads, const KvLayerView& kv, const Batch& batch) {
  NG_CHECK(IsActivation(qkv) && qkv.dtype == kv.dtype);
  NG_CHECK(kv.kv_heads > 0 && query_heads % kv.kv_heads == 0);
  NG_CHECK(qkv.shape == Shape({batch.rows(), (query_heads + 2 * kv.kv_heads) * kv.head_dim}));
  NG_CHECK(kv.table(batch).size() == static_cast<size_t>(batch.page_offsets.back()));
}

void CheckNorm(const Norm& norm, int64_t columns) {
  NG_CHECK(norm.weight.dtype == DType::kF32 && norm.weight.shape == Shape({columns}));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Matrix>> Ops::Pack(const MatrixSpec& spec, RowSource rows) {
  NG_CHECK(spec.outputs > 0 && spec.inputs > 0);
  NG_CHECK(spec.bias.empty() || spec.bias.size() == static_cast<size_t>(spec.outputs));
  return DoPack(spec, rows);
}

absl::StatusOr<std::unique_ptr<Matrix>> Ops::PackGated(const MatrixSpec& spec, RowSource gate,
                                                       RowSource up) {
  NG_CHECK(spec.outputs > 0 && spec.inputs > 0);
  NG_CHECK(spec.bias.empty() || spec.bias.size() == 2 * static_cast<size_t>(spec.outputs));
  return DoPackGated(spec, gate, up);
}

absl::StatusOr<std::unique_ptr<Matrix>> Ops::PackStored(
    const MatrixSpec& spec, absl::Span<const WeightStore::Entry> parts) {
  NG_CHECK(IsStored(spec.format) && spec.outputs > 0 && spec.inputs > 0);
  NG_CHECK(spec.bias.empty() || spec.bias.size() == static_cast<size_t>(spec.outputs));
  int64_t outputs = 0;
  for (const WeightStore::Entry& part : parts) {
    NG_CHECK(part.tensor.shape.rank() == 2 && part.tensor.shape[1] == spec.inputs);
    outputs += part.tensor.shape[0];
  }
  NG_CHECK(outputs == spec.outputs);
  return DoPackStored(spec, parts);
}

absl::StatusOr<std::unique_ptr<Matrix>> Ops::PackGatedStored(const MatrixSpec& spec,
                                                             const WeightStore::Entry& gate,
                                                             const WeightStore::Entry& up) {
  NG_CHECK(IsStored(spec.format) && spec.outputs > 0 && spec.inputs > 0);
  NG_CHECK(spec.bias.empty() || spec.bias.size() == 2 * static_cast<size_t>(spec.outputs));
  NG_CHECK(gate.tensor.shape == Shape({spec.outputs, spec.inputs}));
  NG_CHECK(up.tensor.shape == gate.tensor.shape);
  return DoPackGatedStored(spec, gate, up);
}

absl::StatusOr<std::unique_ptr<Rotation>> Ops::MakeRotation(const RopeParameters& parameters,
                                                            int head_dim, int positions_max) {
  NG_CHECK(head_dim > 0 && head_dim % 2 == 0 && positions_max > 0);
  return DoMakeRotation(parameters, head_dim, positions_max);
}

void Ops::RunSteps(StepMemory* memory, const Batch& batch, Steps steps) {
  NG_CHECK(batch.positions.size() == batch.tokens.size());
  DoRunSteps(memory, batch, steps);
}

void Ops::DoRunSteps(StepMemory*, const Batch& batch, Steps steps) {
  DoBeginBatch(batch);
  steps(batch);
}

void Ops::BeginBatch(const Batch& batch) {
  NG_CHECK(batch.positions.size() == batch.tokens.size());
  DoBeginBatch(batch);
}

ConstTensor Ops::CopyToHost(ConstTensor x) {
  NG_CHECK(IsActivation(x));
  return x.shape.elements() == 0 ? x : DoCopyToHost(x);
}

void Ops::CopyFromHost(Tensor y, ConstTensor x) {
  NG_CHECK(IsActivation(x) && y.dtype == x.dtype && y.shape == x.shape);
  if (x.shape.elements() == 0) return;
  DoCopyFromHost(y, x);
}

void Ops::Embed(Tensor y, const Matrix& table, absl::Span<const int32_t> tokens, float scale) {
  NG_CHECK(IsActivation(y) && !table.gated());
  NG_CHECK(y.shape == Shape({static_cast<int64_t>(tokens.size()), table.inputs()}));
  if (tokens.empty()) return;
  DoEmbed(y, table, tokens, scale);
}

void Ops::RmsNorm(Tensor y, ConstTensor x, const Norm& norm) {
  NG_CHECK(IsActivation(x) && y.dtype == x.dtype && y.shape == x.shape);
  CheckNorm(norm, x.shape[1]);
  if (x.shape.elements() == 0) return;
  DoRmsNorm(y, x, norm);
}

void Ops::RmsNormRows(Tensor y, ConstTensor x, absl::Span<const int32_t> rows, const Norm& norm) {
  NG_CHECK(IsActivation(x) && y.dtype == x.dtype);
  NG_CHECK(y.shape == Shape({static_cast<int64_t>(rows.size()), x.shape[1]}));
  CheckNorm(norm, x.shape[1]);
  for (const int32_t row : rows) NG_CHECK(row >= 0 && row < x.shape[0]);
  if (rows.empty()) return;
  DoRmsNormRows(y, x, rows, norm);
}

void Ops::RmsNormAdd(Tensor y, Tensor x, const Norm& norm, Tensor z, const Norm& next) {
  NG_CHECK(IsActivation(x) && y.dtype == x.dtype && y.shape == x.shape);
  CheckNorm(norm, x.shape[1]);
  if (next) {
    NG_CHECK(z.dtype == y.dtype && z.shape == y.shape);
    CheckNorm(next, x.shape[1]);
  }
  if (x.shape.elements() == 0) return;
  DoRmsNormAdd(y, x, norm, z, next);
}

void Ops::MatMul(Tensor y, ConstTensor x, const Matrix& w) {
  CheckMatMul(y, x, w);
  NG_CHECK(!w.gated());
  if (y.shape.elements() == 0) return;
  DoMatMul(y, x, w);
}

void Ops::MatMulAdd(Tensor y, ConstTensor x, const Matrix& w, Tensor z, const Norm& next) {
  CheckMatMul(y, x, w);
  NG_CHECK(!w.gated());
  if (next) {
    NG_CHECK(IsActivation(y) && z.dtype == y.dtype && z.shape == y.shape);
    CheckNorm(next, y.shape[1]);
  }
  if (y.shape.elements() == 0) return;
  if (next) {
    DoMatMulAddNorm(y, x, w, z, next);
  } else {
    DoMatMulAdd(y, x, w);
  }
}

void Ops::DoMatMulAddNorm(Tensor y, ConstTensor x, const Matrix& w, Tensor z, const Norm& next) {
  DoMatMulAdd(y, x, w);
  DoRmsNorm(z, y, next);
}

void Ops::MatMulGated(Tensor y, ConstTensor x, const Matrix& gate_up, Activation activation) {
  CheckMatMul(y, x, gate_up);
  NG_CHECK(gate_up.gated());
  if (y.shape.elements() == 0) return;
  DoMatMulGated(y, x, gate_up, activation);
}

void Ops::RopeAndWriteKv(Tensor qkv, int query_heads, const HeadNorms& norms,
                         const Rotation& rotation, const KvLayerView& kv, const Batch& batch) {
  CheckKv(qkv, query_heads, kv, batch);
  if (norms.query) CheckNorm(norms.query, kv.head_dim);
  if (norms.key) CheckNorm(norms.key, kv.head_dim);
  NG_CHECK(rotation.head_dim() == kv.head_dim);
  if (batch.rows() == 0) return;
  DoRopeAndWriteKv(qkv, query_heads, norms, rotation, kv, batch);
}

void Ops::Attention(Tensor out, ConstTensor qkv, const KvLayerView& kv, const Batch& batch,
                    const AttentionSpec& spec) {
  CheckKv(qkv, spec.query_heads, kv, batch);
  NG_CHECK(out.dtype == qkv.dtype);
  NG_CHECK(out.shape == Shape({batch.rows(), spec.query_heads * kv.head_dim}));
  if (batch.rows() == 0) return;
  DoAttention(out, qkv, kv, batch, spec);
}

void Ops::ShortConvolution(Tensor out, ConstTensor bcu, ConstTensor taps, ConstTensor bias,
                           const StateLayerView& state, const Batch& batch) {
  const int64_t columns = state.columns;
  NG_CHECK(IsActivation(out) && out.dtype == state.dtype && bcu.dtype == state.dtype);
  NG_CHECK(out.shape == Shape({batch.rows(), columns}));
  NG_CHECK(bcu.shape == Shape({batch.rows(), 3 * columns}));
  NG_CHECK(state.rows >= 0 && state.rows < kConvolutionTapsMax);
  NG_CHECK(taps.dtype == DType::kF32 && taps.shape == Shape({state.rows + 1, columns}));
  NG_CHECK(bias.data == nullptr || bias.dtype == DType::kF32);
  NG_CHECK(bias.data == nullptr || bias.shape == Shape({columns}));
  const auto sequences = static_cast<size_t>(batch.sequences());
  NG_CHECK(batch.state_slots.size() == sequences && batch.state_sources.size() == sequences);
  for (size_t s = 0; s < sequences; ++s) {
    NG_CHECK(batch.state_slots[s] >= -1 && batch.state_slots[s] < state.slots);
    NG_CHECK(batch.state_sources[s] >= -1 && batch.state_sources[s] < state.slots);
  }
  if (out.shape.elements() == 0) return;
  DoShortConvolution(out, bcu, taps, bias, state, batch);
}

void Ops::Softcap(Tensor y, float cap) {
  NG_CHECK(y.dtype == DType::kF32 && y.shape.rank() == 2 && cap > 0);
  if (y.shape.elements() == 0) return;
  DoSoftcap(y, cap);
}

void Ops::Draw(Tensor logits, absl::Span<const SamplingRow> sampling, int vocab_size) {
  NG_CHECK(logits.dtype == DType::kF32 && logits.shape.rank() == 2);
  NG_CHECK(logits.shape[0] == static_cast<int64_t>(sampling.size()));
  NG_CHECK(vocab_size > 0 && vocab_size <= logits.shape[1]);
  if (sampling.empty()) return;
  DoDraw(logits, sampling, vocab_size);
}

std::vector<SampledToken> Ops::Sample(Tensor logits, absl::Span<const SamplingRow> sampling,
                                      int vocab_size) {
  Draw(logits, sampling, vocab_size);
  return sampling.empty() ? std::vector<SampledToken>() : Drawn();
}

}  // namespace neurogrid
