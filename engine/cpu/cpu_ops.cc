// Hands each op to its kernel, with the pool and the scratch that it needs.
#include "engine/cpu/cpu_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "engine/cpu/cpu_matrix.h"
#include "engine/cpu/elementwise.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/kv_pages.h"
#include "engine/cpu/short_convolution.h"
#include "engine/rope.h"

namespace neurogrid {
namespace {

constexpr int64_t kRowsPerChunk = 16;

class HostBuffer : public DeviceBuffer {
 public:
  HostBuffer(Buffer buffer, int64_t bytes) : buffer_(std::move(buffer)), bytes_(bytes) {}
  void* data() const override { return buffer_.data(); }
  int64_t bytes() const override { return bytes_; }

 private:
  Buffer buffer_;
  int64_t bytes_;
};

class CpuRotation : public Rotation {
 public:
  explicit CpuRotation(RopeTable table)
      : Rotation(table.head_dim(), table.positions_max()), table_(std::move(table)) {}
  const RopeTable& table() const { return table_; }

 private:
  RopeTable table_;
};

KvLayer LayerOf(const KvLayerView& kv) {
  return {.layout = {.kv_heads = kv.kv_heads, .head_dim = kv.head_dim, .dtype = kv.dtype},
          .data = static_cast<uint8_t*>(kv.data),
          .pages = kv.pages,
          .windowed = kv.windowed};
}

/// As many values as the norm has weights, from `from` on, to `to` on.
void NormValues(const CpuContext& cpu, Tensor y, int64_t to, ConstTensor x, int64_t from,
                const Norm& norm) {
  RmsNormValues(cpu, y, to, x, from, norm.weight.as<float>(), norm.weight.shape[0], norm.epsilon,
                norm.rounds_before_weight);
}

void AddRow(Tensor y, ConstTensor x, int64_t row) {
  const int64_t columns = y.shape[1];
  for (int64_t i = row * columns; i < (row + 1) * columns; ++i) {
    if (y.dtype == DType::kBF16) {
      bf16& sum = y.as<bf16>()[i];
      sum = ToBf16(ToFloat(sum) + ToFloat(x.as<bf16>()[i]));
    } else {
      y.as<float>()[i] += x.as<float>()[i];
    }
  }
}

/// Calls each(row, worker) for every row, some rows to a chunk.
template <typename Each>
void ForRows(const CpuContext& cpu, int64_t rows, Each each) {
  cpu.pool->ParallelFor((rows + kRowsPerChunk - 1) / kRowsPerChunk, [&](int64_t chunk, int worker) {
    const int64_t end = std::min(rows, (chunk + 1) * kRowsPerChunk);
    for (int64_t row = chunk * kRowsPerChunk; row < end; ++row) each(row, worker);
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceBuffer>> CpuOps::Allocate(int64_t bytes) {
  NG_ASSIGN_OR_RETURN(Buffer buffer, arena_.Allocate(static_cast<size_t>(bytes)));
  return std::make_unique<HostBuffer>(std::move(buffer), bytes);
}

absl::StatusOr<std::unique_ptr<DeviceBuffer>> CpuOps::Upload(absl::Span<const float> values) {
  const auto bytes = static_cast<int64_t>(values.size() * sizeof(float));
  NG_ASSIGN_OR_RETURN(std::unique_ptr<DeviceBuffer> buffer, Allocate(bytes));
  std::memcpy(buffer->data(), values.data(), static_cast<size_t>(bytes));
  return buffer;
}

absl::Status CpuOps::Reserve(const OpsLimits& limits) {
  OpsLimits larger = reserved_;
  larger.rows_max = std::max(larger.rows_max, limits.rows_max);
  larger.inputs_max = std::max(larger.inputs_max, limits.inputs_max);
  larger.query_heads = std::max(larger.query_heads, limits.query_heads);
  larger.head_dim = std::max(larger.head_dim, limits.head_dim);
  larger.positions_max = std::max(larger.positions_max, limits.positions_max);
  larger.vocab_size = std::max(larger.vocab_size, limits.vocab_size);
  if (larger == reserved_) return absl::OkStatus();

  const int threads = cpu_.pool->threads();
  NG_ASSIGN_OR_RETURN(matmul_scratch_, MatMulScratch::Allocate(larger.rows_max, larger.inputs_max));
  NG_ASSIGN_OR_RETURN(attention_scratch_,
                      AttentionScratch::Allocate(threads, larger.query_heads, larger.head_dim,
                                                 larger.positions_max));
  row_scratch_.resize(static_cast<size_t>(threads * larger.inputs_max));
  samplers_.clear();
  for (int thread = 0; thread < threads; ++thread) samplers_.emplace_back(larger.vocab_size);
  reserved_ = larger;
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Matrix>> CpuOps::DoPack(const MatrixSpec& spec, RowSource rows) {
  return CpuMatrix::Pack({*cpu_.pool, &arena_}, spec, rows);
}

absl::StatusOr<std::unique_ptr<Matrix>> CpuOps::DoPackGated(const MatrixSpec& spec, RowSource gate,
                                                            RowSource up) {
  return CpuMatrix::PackGated({*cpu_.pool, &arena_}, spec, gate, up);
}

absl::StatusOr<std::unique_ptr<Matrix>> CpuOps::DoPackStored(
    const MatrixSpec& spec, absl::Span<const WeightStore::Entry> parts) {
  return CpuMatrix::PackStored({*cpu_.pool, &arena_}, spec, parts);
}

absl::StatusOr<std::unique_ptr<Matrix>> CpuOps::DoPackGatedStored(const MatrixSpec& spec,
                                                                  const WeightStore::Entry& gate,
                                                                  const WeightStore::Entry& up) {
  return CpuMatrix::PackGatedStored({*cpu_.pool, &arena_}, spec, gate, up);
}

absl::StatusOr<std::unique_ptr<Rotation>> CpuOps::DoMakeRotation(const RopeParameters& parameters,
                                                                 int head_dim, int positions_max) {
  NG_ASSIGN_OR_RETURN(RopeTable table, RopeTable::Make(parameters, head_dim, positions_max));
  return std::make_unique<CpuRotation>(std::move(table));
}

void CpuOps::DoCopyFromHost(Tensor y, ConstTensor x) {
  std::memcpy(y.data, x.data, static_cast<size_t>(x.bytes()));
}

void CpuOps::DoEmbed(Tensor y, const Matrix& table, absl::Span<const int32_t> tokens, float scale) {
  const PackedMatrix& packed = CpuMatrix::Of(table).packed();
  const int64_t columns = y.shape[1];
  NG_CHECK(columns <= reserved_.inputs_max);
  ForRows(cpu_, y.shape[0], [&](int64_t row, int worker) {
    float* values = row_scratch_.data() + worker * reserved_.inputs_max;
    const int32_t token = tokens[static_cast<size_t>(row)];
    packed.ReadRow(token >= 0 ? token : last_drawn_[static_cast<size_t>(DrawnBefore(token))],
                   values);
    for (int64_t c = 0; c < columns; ++c) {
      const float value = values[c] * scale;
      if (y.dtype == DType::kBF16) {
        y.as<bf16>()[row * columns + c] = ToBf16(value);
      } else {
        y.as<float>()[row * columns + c] = value;
      }
    }
  });
}

void CpuOps::DoRmsNorm(Tensor y, ConstTensor x, const Norm& norm) {
  neurogrid::RmsNorm(cpu_, y, x, norm.weight.as<float>(), norm.epsilon, norm.rounds_before_weight);
}

void CpuOps::DoRmsNormRows(Tensor y, ConstTensor x, absl::Span<const int32_t> rows,
                           const Norm& norm) {
  const int64_t columns = x.shape[1];
  ForRows(cpu_, y.shape[0], [&](int64_t row, int) {
    NormValues(cpu_, y, row * columns, x, rows[static_cast<size_t>(row)] * columns, norm);
  });
}

void CpuOps::DoRmsNormAdd(Tensor y, Tensor x, const Norm& norm, Tensor z, const Norm& next) {
  const int64_t columns = x.shape[1];
  ForRows(cpu_, y.shape[0], [&](int64_t row, int) {
    const int64_t first = row * columns;
    NormValues(cpu_, x, first, x, first, norm);
    AddRow(y, x, row);
    if (next) NormValues(cpu_, z, first, y, first, next);
  });
}

void CpuOps::DoMatMul(Tensor y, ConstTensor x, const Matrix& w) {
  const CpuMatrix& matrix = CpuMatrix::Of(w);
  neurogrid::MatMul(cpu_, y, x, matrix.packed(), matrix.bias(), matmul_scratch_);
}

void CpuOps::DoMatMulAdd(Tensor y, ConstTensor x, const Matrix& w) {
  const CpuMatrix& matrix = CpuMatrix::Of(w);
  neurogrid::MatMulAdd(cpu_, y, x, matrix.packed(), matrix.bias(), matmul_scratch_);
}

void CpuOps::DoMatMulGated(Tensor y, ConstTensor x, const Matrix& gate_up, Activation activation) {
  const CpuMatrix& matrix = CpuMatrix::Of(gate_up);
  neurogrid::MatMulGated(cpu_, y, x, matrix.packed(), matrix.bias(), activation, matmul_scratch_);
}

void CpuOps::DoRopeAndWriteKv(Tensor qkv, int query_heads, const HeadNorms& norms,
                              const Rotation& rotation, const KvLayerView& kv, const Batch& batch) {
  if (norms.query || norms.key) {
    ForRows(cpu_, qkv.shape[0], [&](int64_t row, int) {
      for (int head = 0; head < query_heads + kv.kv_heads; ++head) {
        const Norm& norm = head < query_heads ? norms.query : norms.key;
        const int64_t first = row * qkv.shape[1] + int64_t{head} * kv.head_dim;
        if (norm) NormValues(cpu_, qkv, first, qkv, first, norm);
      }
    });
  }
  neurogrid::RopeAndWriteKv(cpu_, qkv, query_heads,
                            static_cast<const CpuRotation&>(rotation).table(), LayerOf(kv), batch);
}

void CpuOps::DoAttention(Tensor out, ConstTensor qkv, const KvLayerView& kv, const Batch& batch,
                         const AttentionSpec& spec) {
  const AttentionParameters parameters{.query_heads = spec.query_heads,
                                       .scale = spec.scale,
                                       .softcap = spec.softcap,
                                       .window = spec.window};
  neurogrid::Attention(cpu_, out, qkv, LayerOf(kv), batch, parameters, attention_scratch_);
}

void CpuOps::DoShortConvolution(Tensor out, ConstTensor bcu, ConstTensor taps, ConstTensor bias,
                                const StateLayerView& state, const Batch& batch) {
  neurogrid::ShortConvolution(cpu_, out, bcu, taps.as<float>(), bias.as<float>(), state, batch);
}

void CpuOps::DoSoftcap(Tensor y, float cap) {
  const Kernels& kernels = KernelsFor(cpu_.instructions);
  ForRows(cpu_, y.shape[0], [&](int64_t row, int) {
    kernels.softcap(y.as<float>() + row * y.shape[1], y.shape[1], cap);
  });
}

void CpuOps::DoDraw(Tensor logits, absl::Span<const SamplingRow> sampling, int vocab_size) {
  NG_CHECK(vocab_size <= reserved_.vocab_size);
  if (drawn_.size() == kDrawsKept) drawn_.pop_front();
  std::vector<SampledToken>& drawn = drawn_.emplace_back(sampling.size());
  const int64_t stride = logits.shape[1];
  cpu_.pool->ParallelFor(static_cast<int64_t>(sampling.size()), [&](int64_t row, int worker) {
    const absl::Span<float> values(logits.as<float>() + row * stride,
                                   static_cast<size_t>(vocab_size));
    const auto i = static_cast<size_t>(row);
    drawn[i] = samplers_[static_cast<size_t>(worker)].Sample(values, sampling[i]);
  });
  last_drawn_.clear();
  for (const SampledToken& token : drawn) last_drawn_.push_back(token.token);
}

std::vector<SampledToken> CpuOps::DoDrawn() {
  if (drawn_.empty()) return {};
  std::vector<SampledToken> oldest = std::move(drawn_.front());
  drawn_.pop_front();
  return oldest;
}

}  // namespace neurogrid
