// The operations a transformer is made of, each with one contract for every backend.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/status.h"
#include "common/tensor.h"
#include "engine/batch.h"
#include "engine/model/model_config.h"
#include "engine/model/row_source.h"
#include "engine/model/weight_store.h"

namespace neurogrid {

/// Memory of the device, zeroed when given.
class DeviceBuffer {
 public:
  virtual ~DeviceBuffer() = default;
  virtual void* data() const = 0;
  virtual int64_t bytes() const = 0;
};

/// kStored: block types as a file has them, repacked without loss; its other types in bf16.
/// kInt8A8 and kStoredA8: kInt8 and kStored whose products round activations to 8 bits.
enum class MatrixFormat { kF32, kBf16, kInt8, kInt8A8, kStored, kStoredA8 };

inline bool IsStored(MatrixFormat format) {
  return format == MatrixFormat::kStored || format == MatrixFormat::kStoredA8;
}

struct MatrixSpec {
  MatrixFormat format = MatrixFormat::kBf16;
  int64_t outputs = 0;
  int64_t inputs = 0;
  std::vector<float> bias = {};  // [outputs], or empty: none
};

/// A weight [outputs, inputs] in the layout its backend multiplies best with, with its bias if it
/// has one. Only the Ops that made it can read it.
class Matrix {
 public:
  virtual ~Matrix() = default;
  int64_t outputs() const { return outputs_; }
  int64_t inputs() const { return inputs_; }
  bool gated() const { return gated_; }  // made by PackGated
  MatrixFormat format() const { return format_; }
  virtual int64_t bytes() const = 0;

 protected:
  Matrix(const MatrixSpec& spec, bool gated)
      : outputs_(spec.outputs), inputs_(spec.inputs), gated_(gated), format_(spec.format) {}

 private:
  int64_t outputs_;
  int64_t inputs_;
  bool gated_;
  MatrixFormat format_;
};

/// Cosines and sines of a frequency table (models.md 2.4), for positions below a bound.
class Rotation {
 public:
  virtual ~Rotation() = default;
  int head_dim() const { return head_dim_; }
  int positions_max() const { return positions_max_; }

 protected:
  Rotation(int head_dim, int positions_max) : head_dim_(head_dim), positions_max_(positions_max) {}

 private:
  int head_dim_;
  int positions_max_;
};

/// One layer's keys and values: `pages` of them take pages * page_bytes at data, laid out as its
/// backend likes.
/// Which table names a sequence's pages depends on whether the layer has a window.
struct KvLayerView {
  int kv_heads = 0;
  int head_dim = 0;
  DType dtype = DType::kBF16;
  int pages = 0;
  int64_t page_bytes = 0;
  void* data = nullptr;
  bool windowed = false;

  const std::vector<int32_t>& table(const Batch& batch) const {
    return windowed ? batch.window_pages : batch.pages;
  }
};

/// Most taps of a short convolution.
inline constexpr int kConvolutionTapsMax = 16;

/// One short convolution's recurrent state: slot i is [rows, columns] at data + i * slot_bytes.
struct StateLayerView {
  int rows = 0;  // taps but one
  int columns = 0;
  DType dtype = DType::kBF16;
  int slots = 0;
  int64_t slot_bytes = 0;
  void* data = nullptr;
};

/// How the heads of one layer attend.
struct AttentionSpec {
  int query_heads =
      0;  // a multiple of the kv heads; head h reads kv head h * kv_heads / query_heads
  float scale = 0;
  float softcap = 0;  // c > 0: scores become c * tanh(score / c)
  int window = 0;     // keys visible to a query, itself included; 0: all before it
};

/// norm(x)[r, c] = weight[c] * x[r, c] / sqrt(mean over c of x[r, c]^2 + epsilon)
/// Zhang and Sennrich 2019, Root Mean Square Layer Normalization, eq. 4.
struct Norm {
  ConstTensor weight;  // [columns] f32, an offset of (1 + w) norms already added; no data: no norm
  float epsilon = 0;
  bool rounds_before_weight = false;  // the quotient is rounded to the dtype first (models.md 1.4)

  explicit operator bool() const { return weight.data != nullptr; }
};

/// Norms over head_dim columns of each head.
struct HeadNorms {
  Norm query;
  Norm key;
};

/// The largest operands that a stage will ever pass: what a backend's own scratch is sized for.
struct OpsLimits {
  int rows_max = 0;
  int sequences_max = 0;
  int samples_max = 0;
  int64_t inputs_max = 0;  // of any matrix
  int query_heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int positions_max = 0;
  int vocab_size = 0;
  int64_t activation_bytes = 0;  // of a step's, where they come from the host or go there

  bool operator==(const OpsLimits&) const = default;
};

/// What the host has done for a device since it was opened; bench takes differences.
struct HostWork {
  int64_t launches = 0;  // kernels queued
  double waited_s = 0;   // with nothing to do but wait for the device
  int64_t repeated = 0;  // steps that were one launch, of all their kernels
};

/// What a device has kept of one stage's steps, to repeat it. The stage's, and gone before it.
class StepMemory {
 public:
  virtual ~StepMemory() = default;
};

/// Draws whose results are kept until they are asked for.
inline constexpr size_t kDrawsKept = 2;

/// Activations are f32 or bf16, never mixed within a step. Sums are in f32 whatever the dtype, and
/// row r of every result depends on row r of its operands alone (attention: and on the keys and
/// values of its sequence), in the same bits for any number of rows.
///
/// One thread at a time: an Ops may own threads and scratch.
class Ops {
 public:
  using RowSource = neurogrid::RowSource;

  virtual ~Ops() = default;

  /// The kernels behind the ops: equal names give equal bits.
  virtual absl::string_view kernel_set() const = 0;

  // Preparation: may allocate and fail.

  /// ResourceExhausted without memory.
  virtual absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(int64_t bytes) = 0;
  virtual absl::StatusOr<std::unique_ptr<DeviceBuffer>> Upload(absl::Span<const float> values) = 0;

  /// ResourceExhausted without memory, Unimplemented where the device lacks the format, or the
  /// first error of `rows`. kInt8 and kInt8A8: one scale for each output, max|w| / 127.
  absl::StatusOr<std::unique_ptr<Matrix>> Pack(const MatrixSpec& spec, RowSource rows);
  /// A gate and an up projection in one, for MatMulGated. spec.outputs counts each one's;
  /// spec.bias [2 * outputs] holds the gate's, then the up's.
  absl::StatusOr<std::unique_ptr<Matrix>> PackGated(const MatrixSpec& spec, RowSource gate,
                                                    RowSource up);
  /// The rows of `parts` one below the other, for the formats kStored and kStoredA8. Each is
  /// [outputs, inputs].
  absl::StatusOr<std::unique_ptr<Matrix>> PackStored(const MatrixSpec& spec,
                                                     absl::Span<const WeightStore::Entry> parts);
  /// PackGated for the formats kStored and kStoredA8. Where one of the two is of a block type and
  /// the other is not, both are held in bf16.
  absl::StatusOr<std::unique_ptr<Matrix>> PackGatedStored(const MatrixSpec& spec,
                                                          const WeightStore::Entry& gate,
                                                          const WeightStore::Entry& up);
  /// InvalidArgument when the parameters make no frequencies.
  absl::StatusOr<std::unique_ptr<Rotation>> MakeRotation(const RopeParameters& parameters,
                                                         int head_dim, int positions_max);
  /// Grows the backend's own scratch, so that the steps below allocate nothing within `limits`.
  /// InvalidArgument for heads that no kernel takes, ResourceExhausted without memory.
  virtual absl::Status Reserve(const OpsLimits& limits) = 0;

  /// For the steps of a stage of these limits; null on a device that keeps nothing.
  virtual std::unique_ptr<StepMemory> MakeStepMemory(const BatchLimits&) { return nullptr; }

  // Steps of a forward pass. The first says what the others are about; where one fails, the rest do
  // nothing, and Health says why.

  /// Begins the batch and has `steps` queue what is to be done with it: calls of the functions from
  /// Embed to Draw. A device may hand it a larger batch, whose further rows have no effect on pages
  /// and slots and whose results are to be ignored, or repeat what it queued for another batch of
  /// the same shape instead of calling it: so all that differs between the calls of one memory, and
  /// is not a copy to or from the host, has to be in the batch.
  using Steps = absl::FunctionRef<void(const Batch& batch)>;
  void RunSteps(StepMemory* memory, const Batch& batch, Steps steps);

  /// Before the steps of a batch, which all name this one until the next call.
  void BeginBatch(const Batch& batch);

  /// OK, or the first error of the device since it was opened: nothing it holds is to be trusted.
  virtual absl::Status Health() const { return absl::OkStatus(); }

  /// Zeros on a device that the calling thread works for itself.
  virtual HostWork Work() const { return {}; }

  /// x in memory of the host, valid until the next call.   x  [rows, columns]
  ConstTensor CopyToHost(ConstTensor x);

  /// y = x, from memory of the host: activations of the stage before. Also before the batch begins.
  ///   y, x  [rows, columns]  the same dtype
  void CopyFromHost(Tensor y, ConstTensor x);

  /// y[r] = scale * table[tokens[r]]
  ///   y       [rows, inputs of table]  f32 or bf16
  ///   tokens  [rows]                   ids below the outputs of table, or DrawnBefore(i): what
  ///                                    sample i of the last Draw before drew, collected or not
  void Embed(Tensor y, const Matrix& table, absl::Span<const int32_t> tokens, float scale);

  /// y = norm(x)
  ///   y, x  [rows, columns]  the same dtype; y may be x
  void RmsNorm(Tensor y, ConstTensor x, const Norm& norm);

  /// y[i] = norm(x[rows[i]])
  ///   y  [count, columns], x  [any, columns]  the same dtype
  void RmsNormRows(Tensor y, ConstTensor x, absl::Span<const int32_t> rows, const Norm& norm);

  /// y += norm(x), the norm rounded to the dtype before the sum is; then z = next(y) if there is a
  /// next norm. x is unspecified afterwards.
  ///   y, x, z  [rows, columns]  the same dtype
  void RmsNormAdd(Tensor y, Tensor x, const Norm& norm, Tensor z, const Norm& next);

  /// y[r, n] = sum over k of x[r, k] * w[n, k] + bias[n]
  ///   y  [rows, outputs]  f32, or the dtype of x; rounded once
  ///   x  [rows, inputs]   f32 for f32 weights, else bf16
  void MatMul(Tensor y, ConstTensor x, const Matrix& w);

  /// y += x W^T + bias, rounded once; then z = next(y) if there is a next norm. Shapes as MatMul.
  ///   z  as y
  void MatMulAdd(Tensor y, ConstTensor x, const Matrix& w, Tensor z, const Norm& next);

  /// y[r, n] = act(gate[n] . x[r]) * (up[n] . x[r]), rounded once, for a gated matrix; biases are
  /// added before `activation` and before the product. Shapes as MatMul.
  ///   SiLU(x)       x / (1 + exp(-x))
  ///   GELU-tanh(x)  x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))
  void MatMulGated(Tensor y, ConstTensor x, const Matrix& gate_up, Activation activation);

  /// Norms the queries and the keys of each row over their heads and rounds them to the dtype,
  /// where there are such norms. Then rotates the queries in place, and writes the rotated keys and
  /// the values to the page of its position. The keys inside qkv are unspecified afterwards.
  ///   qkv  [rows, (query_heads + 2 * kv_heads) * head_dim]  q, k, v in this order; the cache's
  ///   dtype
  /// Su et al. 2021, RoFormer; pairs are j and j + head_dim / 2.
  void RopeAndWriteKv(Tensor qkv, int query_heads, const HeadNorms& norms, const Rotation& rotation,
                      const KvLayerView& kv, const Batch& batch);

  /// out[r, h] = sum over visible j of softmax_j(scale * <q[r, h], k[j]>) v[j]
  ///   out  [rows, query_heads * head_dim]
  ///   qkv  as RopeAndWriteKv left it
  void Attention(Tensor out, ConstTensor qkv, const KvLayerView& kv, const Batch& batch,
                 const AttentionSpec& spec);

  /// out[t, c] = C[t, c] * z[t, c]
  /// z[t, c]   = bias[c] + sum over j < K of taps[j, c] * g[t - (K - 1) + j, c]
  /// g[t, c]   = B[t, c] * U[t, c] of the sequence; before its first row the K - 1 rows of its
  ///             source slot, oldest first, zeros for the source -1
  ///   out   [rows, columns]      the dtype of the state
  ///   bcu   [rows, 3 * columns]  B, C, U in this order; the dtype of the state
  ///   taps  [K, columns]         f32, K - 1 = state.rows; the last one meets the current token
  ///   bias  [columns]            f32, or without data: none
  /// g, z and out are rounded to the dtype, sums are f32 (models.md 2.3). Afterwards the slot of
  /// each sequence, unless -1, holds the last K - 1 rows of its source and its g together. A slot
  /// that is written is read by its own sequence at most.
  void ShortConvolution(Tensor out, ConstTensor bcu, ConstTensor taps, ConstTensor bias,
                        const StateLayerView& state, const Batch& batch);

  /// y = cap * tanh(y / cap), for a cap above 0.   y  [rows, columns]  f32
  void Softcap(Tensor y, float cap);

  /// Draws one token from each row: the contract of Sampler (engine/sampler.h).
  ///   logits  [samples, at least vocab_size]  f32; overwritten. Columns from vocab_size on are
  ///   padding.
  void Draw(Tensor logits, absl::Span<const SamplingRow> sampling, int vocab_size);
  /// What the oldest Draw that was not asked for yet drew for the samples of its batch, once it is
  /// there; nothing after an error. Of the last two draws alone: older ones are forgotten.
  std::vector<SampledToken> Drawn() { return DoDrawn(); }
  /// Whether Drawn has nothing to wait for.
  virtual bool DrawnIsThere() { return true; }
  std::vector<SampledToken> Sample(Tensor logits, absl::Span<const SamplingRow> sampling,
                                   int vocab_size);

 private:
  virtual absl::StatusOr<std::unique_ptr<Matrix>> DoPack(const MatrixSpec& spec,
                                                         RowSource rows) = 0;
  virtual absl::StatusOr<std::unique_ptr<Matrix>> DoPackGated(const MatrixSpec& spec,
                                                              RowSource gate, RowSource up) = 0;
  virtual absl::StatusOr<std::unique_ptr<Matrix>> DoPackStored(
      const MatrixSpec& spec, absl::Span<const WeightStore::Entry> parts) = 0;
  virtual absl::StatusOr<std::unique_ptr<Matrix>> DoPackGatedStored(
      const MatrixSpec& spec, const WeightStore::Entry& gate, const WeightStore::Entry& up) = 0;
  virtual absl::StatusOr<std::unique_ptr<Rotation>> DoMakeRotation(const RopeParameters& parameters,
                                                                   int head_dim,
                                                                   int positions_max) = 0;
  virtual void DoRunSteps(StepMemory* memory, const Batch& batch, Steps steps);
  virtual void DoBeginBatch(const Batch& batch) = 0;
  virtual ConstTensor DoCopyToHost(ConstTensor x) = 0;
  virtual void DoCopyFromHost(Tensor y, ConstTensor x) = 0;
  virtual void DoEmbed(Tensor y, const Matrix& table, absl::Span<const int32_t> tokens,
                       float scale) = 0;
  virtual void DoRmsNorm(Tensor y, ConstTensor x, const Norm& norm) = 0;
  virtual void DoRmsNormRows(Tensor y, ConstTensor x, absl::Span<const int32_t> rows,
                             const Norm& norm) = 0;
  virtual void DoRmsNormAdd(Tensor y, Tensor x, const Norm& norm, Tensor z, const Norm& next) = 0;
  virtual void DoMatMul(Tensor y, ConstTensor x, const Matrix& w) = 0;
  virtual void DoMatMulAdd(Tensor y, ConstTensor x, const Matrix& w) = 0;
  /// Both one after the other, unless a backend knows better.
  virtual void DoMatMulAddNorm(Tensor y, ConstTensor x, const Matrix& w, Tensor z,
                               const Norm& next);
  virtual void DoMatMulGated(Tensor y, ConstTensor x, const Matrix& gate_up,
                             Activation activation) = 0;
  virtual void DoRopeAndWriteKv(Tensor qkv, int query_heads, const HeadNorms& norms,
                                const Rotation& rotation, const KvLayerView& kv,
                                const Batch& batch) = 0;
  virtual void DoAttention(Tensor out, ConstTensor qkv, const KvLayerView& kv, const Batch& batch,
                           const AttentionSpec& spec) = 0;
  virtual void DoShortConvolution(Tensor out, ConstTensor bcu, ConstTensor taps, ConstTensor bias,
                                  const StateLayerView& state, const Batch& batch) = 0;
  virtual void DoSoftcap(Tensor y, float cap) = 0;
  virtual void DoDraw(Tensor logits, absl::Span<const SamplingRow> sampling, int vocab_size) = 0;
  virtual std::vector<SampledToken> DoDrawn() = 0;
};

}  // namespace neurogrid
