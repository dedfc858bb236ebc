#include "engine/cuda/cuda_ops.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/cuda/cuda_matrix.h"
#include "engine/cuda/device_errors.h"
#include "engine/rope.h"
#include "kernels/device_limits.h"
#include "kernels/embedding.h"
#include "kernels/kv_pages.h"
#include "kernels/launch.h"
#include "kernels/matmul.h"
#include "kernels/rms_norm.h"
#include "kernels/softcap.h"

namespace neurogrid {
namespace {

using DeviceBf16 = __nv_bfloat16;

constexpr int64_t kAttentionStatesBytesMax = int64_t{64} << 20;
constexpr int64_t kTablePagesMax = int64_t{1} << 20;  // where memory for the inputs begins
constexpr int64_t kEditsAtFirst = 4096;

class CudaRotation : public Rotation {
 public:
  CudaRotation(int head_dim, int positions_max, CudaBuffer table)
      : Rotation(head_dim, positions_max), table_(std::move(table)) {}
  const float* table() const { return table_.as<float>(); }

 private:
  CudaBuffer table_;  // [positions][2][head_dim / 2]
};

/// Calls run with the device's type for the tensor's dtype.
template <typename Run>
cudaError_t ForDType(DType dtype, Run run) {
  return dtype == DType::kF32 ? run(float{}) : run(DeviceBf16{});
}

template <typename T>
kernels::KvPages<T> PagesOf(const KvLayerView& kv) {
  return {static_cast<T*>(kv.data), kv.page_bytes / static_cast<int64_t>(sizeof(T)), kv.kv_heads,
          kv.head_dim};
}

kernels::NormParameters ParametersOf(const Norm& norm) {
  return {norm.weight.as<float>(), norm.epsilon, norm.rounds_before_weight};
}

int RowsOf(ConstTensor x) { return static_cast<int>(x.shape[0]); }
int ColumnsOf(ConstTensor x) { return static_cast<int>(x.shape[1]); }

absl::Status CheckFormat(MatrixFormat format) {
  if (format == MatrixFormat::kInt8A8) {
    return absl::UnimplementedError(
        "a GPU has no kernels for int8-a8, which rounds activations to 8 bits: use int8 there");
  }
  if (format == MatrixFormat::kStoredA8) {
    return absl::UnimplementedError(
        "a GPU has no kernels for blocks-a8, which rounds activations to 8 bits: use auto there");
  }
  return absl::OkStatus();
}

absl::Status CheckHeads(const OpsLimits& limits) {
  if (limits.head_dim > kernels::kHeadDimMax || limits.head_dim % 8 != 0) {
    return absl::InvalidArgumentError(absl::StrCat("head_dim is ", limits.head_dim,
                                                   ": CUDA kernels take multiples of 8 up to ",
                                                   kernels::kHeadDimMax));
  }
  if (int64_t{limits.query_heads} > int64_t{kernels::kGroupMax} * limits.kv_heads) {
    return absl::InvalidArgumentError(
        absl::StrCat("there are ", limits.query_heads, " query heads and ", limits.kv_heads,
                     " of keys and values: CUDA kernels take up to ", kernels::kGroupMax,
                     " query heads for each of those"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaOps>> CudaOps::Open(int ordinal, const CudaOptions& options) {
  std::unique_ptr<CudaOps> ops(new CudaOps());
  ops->ordinal_ = ordinal;
  ops->graphs_ = options.graphs;
  NG_RETURN_IF_ERROR(ops->Select());
  if (!Polling::CoresSuffice()) {
    NG_RETURN_IF_ERROR(CudaStatus(cudaSetDeviceFlags(cudaDeviceScheduleBlockingSync),
                                  absl::StrCat("device ", ordinal)));
  }
  cudaDeviceProp properties;
  NG_RETURN_IF_ERROR(
      CudaStatus(cudaGetDeviceProperties(&properties, ordinal), "properties of the device"));
  int architecture = 0;
  const cudaError_t error = kernels::AskCodeArchitecture(&architecture);
  if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidDeviceFunction) {
    cudaGetLastError();  // asked and answered: not sticky
    return NoCodeStatus(ordinal, properties);
  }
  NG_RETURN_IF_ERROR(CudaStatus(error, "what the kernels were compiled for"));
  // Tensor cores of one name round alike; others are not known to. Multiply-adds round otherwise.
  ops->kernel_set_ = absl::StrCat("cuda/", architecture < 80 ? "fma/" : "mma/", properties.name);
  NG_RETURN_IF_ERROR(
      CudaStatus(cudaStreamCreateWithFlags(&ops->stream_, cudaStreamNonBlocking), "a stream"));
  for (cudaEvent_t& event : ops->drew_) {
    NG_RETURN_IF_ERROR(
        CudaStatus(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync),
                   "an event"));
  }
  if (options.host.has_value()) {
    NG_ASSIGN_OR_RETURN(ops->heap_, CudaHeap::Managed(ordinal));
  }
  return ops;
}

CudaOps::~CudaOps() {
  uploads_.reset();
  for (const cudaEvent_t event : drew_) {
    if (event != nullptr) cudaEventDestroy(event);
  }
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

absl::Status CudaOps::Select() const {
  return CudaStatus(cudaSetDevice(ordinal_), absl::StrCat("device ", ordinal_));
}

WeightUpload& CudaOps::Uploads() {
  if (uploads_ == nullptr) uploads_ = std::make_unique<WeightUpload>(heap_, stream_);
  return *uploads_;
}

void CudaOps::Note(cudaError_t error, absl::string_view op) {
  if (error != cudaSuccess) health_.Update(CudaStatus(error, op));
}

void CudaOps::Wait(absl::string_view op) {
  const auto start = std::chrono::steady_clock::now();
  Note(cudaStreamSynchronize(stream_), op);
  waited_s_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

HostWork CudaOps::Work() const {
  return {
      .launches = kernels::LaunchesQueued().load(), .waited_s = waited_s_, .repeated = repeated_};
}

absl::StatusOr<std::unique_ptr<DeviceBuffer>> CudaOps::Allocate(int64_t bytes) {
  NG_RETURN_IF_ERROR(Select());
  NG_ASSIGN_OR_RETURN(CudaBuffer buffer, heap_.Allocate(bytes));
  NG_RETURN_IF_ERROR(
      CudaStatus(cudaMemsetAsync(buffer.data(), 0, static_cast<size_t>(bytes), stream_), "zeros"));
  NG_RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(stream_), "zeros"));
  return std::make_unique<CudaBuffer>(std::move(buffer));
}

absl::StatusOr<std::unique_ptr<DeviceBuffer>> CudaOps::Upload(absl::Span<const float> values) {
  NG_RETURN_IF_ERROR(Select());
  const auto bytes = static_cast<int64_t>(values.size() * sizeof(float));
  NG_ASSIGN_OR_RETURN(CudaBuffer buffer, CudaBuffer::Allocate(bytes));
  NG_RETURN_IF_ERROR(Uploads().Send(buffer, values));
  return std::make_unique<CudaBuffer>(std::move(buffer));
}

absl::Status CudaOps::Reserve(const OpsLimits& limits) {
  NG_RETURN_IF_ERROR(CheckHeads(limits));
  NG_RETURN_IF_ERROR(Select());
  OpsLimits& r = reserved_;
  r.rows_max = std::max(r.rows_max, limits.rows_max);
  r.sequences_max = std::max(r.sequences_max, limits.sequences_max);
  r.samples_max = std::max(r.samples_max, limits.samples_max);
  r.inputs_max = std::max(r.inputs_max, limits.inputs_max);
  r.query_heads = std::max(r.query_heads, limits.query_heads);
  r.head_dim = std::max(r.head_dim, limits.head_dim);
  r.positions_max = std::max(r.positions_max, limits.positions_max);
  r.vocab_size = std::max(r.vocab_size, limits.vocab_size);
  if (any_order_ != nullptr) any_order_->Reserve(r.rows_max);
  const int64_t pages = int64_t{r.sequences_max} * (r.positions_max / kPageTokens + 1);
  NG_RETURN_IF_ERROR(batch_.Reserve(r.rows_max, std::min(pages, kTablePagesMax), kEditsAtFirst));
  NG_RETURN_IF_ERROR(GrowSampler(r.samples_max, kEditsAtFirst, r.vocab_size));
  NG_RETURN_IF_ERROR(activations_.Reserve(limits.activation_bytes));
  if (host_activations_.bytes() < limits.activation_bytes) {
    NG_ASSIGN_OR_RETURN(host_activations_, PinnedBuffer::Allocate(limits.activation_bytes));
  }
  const int64_t slice_bytes =
      kernels::SliceFloatsMax(r.rows_max) * static_cast<int64_t>(sizeof(float));
  if (slices_.bytes() < slice_bytes) {
    NG_ASSIGN_OR_RETURN(slices_, CudaBuffer::Allocate(slice_bytes));
    batch_.Invalidate();
  }
  if (arrivals_.bytes() == 0) {
    constexpr int64_t kBytes = kernels::kArrivals * sizeof(uint32_t);
    NG_ASSIGN_OR_RETURN(arrivals_, CudaBuffer::Allocate(kBytes));
    NG_RETURN_IF_ERROR(CudaStatus(cudaMemsetAsync(arrivals_.data(), 0, kBytes, stream_), "zeros"));
  }
  const int64_t splits = r.positions_max / kernels::kSplitTokens + 1;
  const int64_t wanted =
      4 * kernels::StateFloats(int64_t{r.rows_max} * splits, r.query_heads, r.head_dim);
  const int64_t bytes = std::min(wanted, kAttentionStatesBytesMax);
  if (attention_states_.bytes() < bytes) {
    NG_ASSIGN_OR_RETURN(attention_states_, CudaBuffer::Allocate(bytes));
    batch_.Invalidate();
  }
  return absl::OkStatus();
}

absl::Status CudaOps::AllowAnyOrder() {
  NG_RETURN_IF_ERROR(Select());
  NG_ASSIGN_OR_RETURN(any_order_, AnyOrder::Open(stream_));
  any_order_->Reserve(reserved_.rows_max);
  absl::StrAppend(&kernel_set_, "/any order");
  return absl::OkStatus();
}

/// The matrix, once it is known which way its products are faster.
absl::StatusOr<std::unique_ptr<Matrix>> CudaOps::Chosen(
    absl::StatusOr<std::unique_ptr<Matrix>> matrix) {
  if (any_order_ == nullptr || !matrix.ok()) return matrix;
  for (const CudaMatrix::Section& section : CudaMatrix::SectionsOf(**matrix)) {
    NG_RETURN_IF_ERROR(any_order_->Choose(section.weights));
  }
  return matrix;
}

absl::StatusOr<std::unique_ptr<Matrix>> CudaOps::DoPack(const MatrixSpec& spec, RowSource rows) {
  NG_RETURN_IF_ERROR(CheckFormat(spec.format));
  NG_RETURN_IF_ERROR(Select());
  return Chosen(CudaMatrix::Pack(spec, rows, nullptr, Uploads()));
}

absl::StatusOr<std::unique_ptr<Matrix>> CudaOps::DoPackGated(const MatrixSpec& spec, RowSource gate,
                                                             RowSource up) {
  NG_RETURN_IF_ERROR(CheckFormat(spec.format));
  NG_RETURN_IF_ERROR(Select());
  return Chosen(CudaMatrix::Pack(spec, gate, &up, Uploads()));
}

absl::StatusOr<std::unique_ptr<Matrix>> CudaOps::DoPackStored(
    const MatrixSpec& spec, absl::Span<const WeightStore::Entry> parts) {
  NG_RETURN_IF_ERROR(CheckFormat(spec.format));
  NG_RETURN_IF_ERROR(Select());
  return Chosen(CudaMatrix::PackStored(spec, parts, Uploads()));
}

absl::StatusOr<std::unique_ptr<Matrix>> CudaOps::DoPackGatedStored(const MatrixSpec& spec,
                                                                   const WeightStore::Entry& gate,
                                                                   const WeightStore::Entry& up) {
  NG_RETURN_IF_ERROR(CheckFormat(spec.format));
  NG_RETURN_IF_ERROR(Select());
  return Chosen(CudaMatrix::PackGatedStored(spec, gate, up, Uploads()));
}

absl::StatusOr<std::unique_ptr<Rotation>> CudaOps::DoMakeRotation(const RopeParameters& parameters,
                                                                  int head_dim, int positions_max) {
  NG_RETURN_IF_ERROR(Select());
  NG_ASSIGN_OR_RETURN(const RopeTable table, RopeTable::Make(parameters, head_dim, positions_max));
  NG_ASSIGN_OR_RETURN(CudaBuffer device, CudaBuffer::Allocate(table.bytes()));
  // On our stream: the default one is not waited for by it, and memory of the host that is not
  // pinned may still be on its way when a copy returns.
  NG_RETURN_IF_ERROR(CudaStatus(
      cudaMemcpyAsync(device.data(), table.cosines(0), static_cast<size_t>(table.bytes()),
                      cudaMemcpyHostToDevice, stream_),
      "rotations"));
  NG_RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(stream_), "rotations"));
  return std::make_unique<CudaRotation>(head_dim, positions_max, std::move(device));
}

void CudaOps::DoBeginBatch(const Batch& batch) {
  if (BeginInputs(batch)) SendInputs(batch);
}

bool CudaOps::BeginInputs(const Batch& batch) {
  if (!Ready()) return false;
  health_.Update(Select());
  if (!aside_.empty()) Wait("the batch before");
  aside_.clear();
  batch_parity_ = parity_ ^= 1;
  if (Healthy()) batch_.Begin(batch, attention_states_.bytes(), batch_parity_);
  return Healthy();
}

bool CudaOps::SendInputs(const Batch& named, bool recorded) {
  begun_ = &named;
  const SamplerRows& drawn = batch_.sampler();
  health_.Update(GrowSampler(batch_.samples(), static_cast<int64_t>(drawn.edits.size()),
                             reserved_.vocab_size));
  if (Healthy()) health_.Update(batch_.Send(stream_, recorded));
  return Healthy();
}

ConstTensor CudaOps::DoCopyToHost(ConstTensor x) {
  const int64_t bytes = x.bytes();
  if (host_activations_.bytes() < bytes) {
    absl::StatusOr<PinnedBuffer> larger = PinnedBuffer::Allocate(bytes);
    NG_CHECK(larger.ok());  // there is nothing to return without it
    host_activations_ = *std::move(larger);
  }
  if (Ready()) {
    Note(cudaMemcpyAsync(host_activations_.as<void>(), x.data, static_cast<size_t>(bytes),
                         cudaMemcpyDeviceToHost, stream_),
         "a copy of activations");
    Wait("a step up to the copy of its activations");
  }
  return ConstTensor(host_activations_.as<void>(), x.dtype, x.shape);
}

void CudaOps::DoCopyFromHost(Tensor y, ConstTensor x) {
  if (!Ready()) return;
  health_.Update(Select());
  const absl::StatusOr<uint8_t*> staged = activations_.Next(x.bytes());
  health_.Update(staged.status());
  if (!Healthy()) return;
  std::memcpy(*staged, x.data, static_cast<size_t>(x.bytes()));
  health_.Update(activations_.Send(y.data, x.bytes(), stream_));
}

const void* CudaOps::Aside(const void* bytes, int64_t count) {
  absl::StatusOr<CudaBuffer> buffer = CudaBuffer::Allocate(count);
  health_.Update(buffer.status());
  if (!Healthy()) return nullptr;
  Note(cudaMemcpyAsync(buffer->data(), bytes, static_cast<size_t>(count), cudaMemcpyHostToDevice,
                       stream_),
       "operands");
  Wait("operands");
  return aside_.emplace_back(*std::move(buffer)).data();
}

void CudaOps::DoEmbed(Tensor y, const Matrix& table, absl::Span<const int32_t> tokens,
                      float scale) {
  if (!Ready()) return;
  const int32_t* ids =
      begun_ != nullptr && tokens.data() == begun_->tokens.data()
          ? batch_.tokens()
          : static_cast<const int32_t*>(
                Aside(tokens.data(), static_cast<int64_t>(tokens.size() * sizeof(int32_t))));
  if (!Healthy()) return;
  const std::vector<CudaMatrix::Section>& sections = CudaMatrix::SectionsOf(table);
  NG_CHECK(sections.size() == 1);
  const kernels::Weights& w = sections[0].weights;
  Note(ForDType(y.dtype,
                [&](auto t) {
                  return kernels::Embed(y.as<decltype(t)>(), w, ids, drawn_.as<int32_t>(),
                                        static_cast<int>(tokens.size()), scale, stream_);
                }),
       "Embed");
}

void CudaOps::DoRmsNorm(Tensor y, ConstTensor x, const Norm& norm) {
  NormRows("RmsNorm", y, x, nullptr, norm);
}

void CudaOps::DoRmsNormRows(Tensor y, ConstTensor x, absl::Span<const int32_t> rows,
                            const Norm& norm) {
  if (!Healthy()) return;
  const int32_t* sources =
      begun_ != nullptr && rows.data() == begun_->sampled_rows.data()
          ? batch_.sampled_rows()
          : static_cast<const int32_t*>(
                Aside(rows.data(), static_cast<int64_t>(rows.size() * sizeof(int32_t))));
  NormRows("RmsNormRows", y, x, sources, norm);
}

void CudaOps::NormRows(const char* op, Tensor y, ConstTensor x, const int32_t* sources,
                       const Norm& norm) {
  if (!Ready()) return;
  awaited_norm_.emplace(AwaitedNorm{op, y, x, sources, norm});
  if (y.data == x.data) Ready();  // no product may read what is being overwritten
}

bool CudaOps::Ready() {
  const std::optional<AwaitedProduct> p = std::exchange(awaited_product_, std::nullopt);
  if (p) Multiply("MatMul", p->y, p->x, *p->w, kernels::Epilogue::kStore);
  const std::optional<AwaitedConvolution> c = std::exchange(awaited_convolution_, std::nullopt);
  if (c && Healthy()) {
    Note(kernels::ShortConvolution(c->operands, c->work.chunks, c->work.chunks_count,
                                   c->work.states, c->work.states_count, stream_),
         "ShortConvolution");
  }
  const std::optional<AwaitedRotation> r = std::exchange(awaited_rotation_, std::nullopt);
  if (r && Healthy()) QueueRotation(*r);
  const std::optional<AwaitedNorm> n = std::exchange(awaited_norm_, std::nullopt);
  if (!n || !Healthy()) return Healthy();
  Note(ForDType(n->x.dtype,
                [&](auto t) {
                  using T = decltype(t);
                  return kernels::RmsNorm(n->y.as<T>(), n->x.as<T>(), n->sources, RowsOf(n->y),
                                          ColumnsOf(n->y), ParametersOf(n->norm), stream_);
                }),
       n->op);
  return Healthy();
}

void CudaOps::DoRmsNormAdd(Tensor y, Tensor x, const Norm& norm, Tensor z, const Norm& next) {
  if (!Ready()) return;
  Note(ForDType(x.dtype,
                [&](auto t) {
                  using T = decltype(t);
                  return kernels::RmsNormAdd(y.as<T>(), x.as<T>(), ParametersOf(norm),
                                             next ? z.as<T>() : nullptr, ParametersOf(next),
                                             RowsOf(y), ColumnsOf(y), stream_);
                }),
       "RmsNormAdd");
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

bool CudaOps::Multiply(const char* op, Tensor y, ConstTensor x, const Matrix& w,
                       kernels::Epilogue epilogue, const kernels::MatMulNextNorm& next) {
  const kernels::MatMulNorm norm = TakeNorm(y, x, w);
  const kernels::MatMulConvolution convolution = TakeConvolution(y, x, w);
  if (!Ready()) return false;
  const std::vector<CudaMatrix::Section>& sections = CudaMatrix::SectionsOf(w);
  const bool may_norm =
      next.parameters.weight != nullptr && sections.size() == 1 && any_order_ == nullptr;
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
  if (KeepProduct(y, x, w)) return;
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

void CudaOps::DoRopeAndWriteKv(Tensor qkv, int query_heads, const HeadNorms& norms,
                               const Rotation& rotation, const KvLayerView& kv,
                               const Batch& batch) {
  if (!Ready()) return;
  NG_CHECK(&batch == begun_);
  const float* table = static_cast<const CudaRotation&>(rotation).table();
  const Norm& either = norms.query ? norms.query : norms.key;
  const kernels::HeadNorms parameters{norms.query.weight.as<float>(), norms.key.weight.as<float>(),
                                      either.epsilon, either.rounds_before_weight};
  awaited_rotation_.emplace(AwaitedRotation{qkv, query_heads, parameters, table, kv});
  if (qkv.dtype != DType::kBF16 || !batch_.decodes()) Ready();
}

void CudaOps::QueueRotation(const AwaitedRotation& r) {
  Note(ForDType(r.qkv.dtype,
                [&](auto t) {
                  using T = decltype(t);
                  return kernels::RopeAndWriteKv(r.qkv.as<T>(), RowsOf(r.qkv), r.query_heads,
                                                 r.norms, r.table, batch_.positions(),
                                                 batch_.table(r.kv.windowed).slots,
                                                 PagesOf<T>(r.kv), stream_);
                }),
       "RopeAndWriteKv");
}

void CudaOps::DoAttention(Tensor out, ConstTensor qkv, const KvLayerView& kv, const Batch& batch,
                          const AttentionSpec& spec) {
  if (!Healthy()) return;
  NG_CHECK(&batch == begun_);
  const int64_t state_bytes = 4 * kernels::StateFloats(1, spec.query_heads, kv.head_dim);
  const absl::StatusOr<const kernels::AttentionWorkView*> work = batch_.Attention(
      spec.query_heads / kv.kv_heads, kv.kv_heads, spec.window, state_bytes, stream_);
  health_.Update(work.status());
  if (!Healthy()) return;
  const auto operands_of = [&](auto t) {
    using T = decltype(t);
    return kernels::AttentionOperands<T>{out.as<T>(),
                                         qkv.as<T>(),
                                         ColumnsOf(qkv),
                                         PagesOf<T>(kv),
                                         batch_.table(kv.windowed).pages,
                                         attention_states_.as<float>(),
                                         spec.query_heads,
                                         spec.scale,
                                         spec.softcap,
                                         spec.window};
  };
  if (awaited_rotation_ && awaited_rotation_->qkv.data == qkv.data &&
      awaited_rotation_->kv.data == kv.data && batch_.decodes()) {
    kernels::AttentionOperands<DeviceBf16> operands = operands_of(DeviceBf16{});
    if (kernels::AttentionRotates(operands, **work)) {
      const AwaitedRotation r = *std::exchange(awaited_rotation_, std::nullopt);
      operands.rotation = {r.table, r.norms};
      return Note(kernels::Attention(operands, **work, stream_), "Attention");
    }
  }
  if (!Ready()) return;
  Note(ForDType(qkv.dtype,
                [&](auto t) { return kernels::Attention(operands_of(t), **work, stream_); }),
       "Attention");
}

void CudaOps::DoSoftcap(Tensor y, float cap) {
  if (Ready()) Note(kernels::Softcap(y.as<float>(), y.shape.elements(), cap, stream_), "Softcap");
}

}  // namespace neurogrid
