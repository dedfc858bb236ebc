// Times the kernels of one step of LFM2.5-1.2B's shape on a GPU, each chain as a graph: matmuls by
// rows and format, decode attention by context. Run by hand; needs nothing but the CUDA runtime.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "kernels/matmul.h"

namespace neurogrid::kernels {
namespace {

void Require(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

/// Device memory with a pattern of finite, small, unequal numbers in every format.
class Memory {
 public:
  explicit Memory(int64_t bytes) {
    Require(cudaMalloc(&data_, static_cast<size_t>(bytes)), "memory");
    constexpr int64_t kPiece = int64_t{1} << 22;
    std::vector<uint8_t> piece(static_cast<size_t>(kPiece));
    uint32_t state = 1;
    for (size_t i = 0; i < piece.size(); i += 2) {
      state = state * 1664525u + 1013904223u;
      piece[i] = static_cast<uint8_t>(state >> 24);
      piece[i + 1] = static_cast<uint8_t>(0x3c + (state >> 16 & 0x80));  // bf16 near +-0.01
    }
    for (int64_t at = 0; at < bytes; at += kPiece) {
      Require(cudaMemcpy(static_cast<uint8_t*>(data_) + at, piece.data(),
                         static_cast<size_t>(std::min(kPiece, bytes - at)), cudaMemcpyHostToDevice),
              "pattern");
    }
  }
  ~Memory() { cudaFree(data_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
};

/// Median microseconds of a replay of what `body` queues.
double GraphUs(cudaStream_t stream, const std::function<void()>& body) {
  constexpr int kWarm = 5;
  constexpr int kRuns = 21;
  cudaGraph_t graph;
  cudaGraphExec_t runnable;
  Require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  body();
  Require(cudaStreamEndCapture(stream, &graph), "capture");
  Require(cudaGraphInstantiate(&runnable, graph, 0), "graph");
  cudaEvent_t start, end;
  Require(cudaEventCreate(&start), "event");
  Require(cudaEventCreate(&end), "event");
  std::vector<double> times;
  for (int i = 0; i < kWarm + kRuns; ++i) {
    Require(cudaEventRecord(start, stream), "event");
    Require(cudaGraphLaunch(runnable, stream), "graph");
    Require(cudaEventRecord(end, stream), "event");
    Require(cudaEventSynchronize(end), "a step");
    float ms = 0;
    Require(cudaEventElapsedTime(&ms, start, end), "event");
    if (i >= kWarm) times.push_back(double{ms} * 1e3);
  }
  cudaGraphExecDestroy(runnable);
  cudaGraphDestroy(graph);
  std::nth_element(times.begin(), times.begin() + kRuns / 2, times.end());
  return times[kRuns / 2];
}

struct Layer {
  int outputs;
  int inputs;
  bool gated;
};

/// Every matmul of a token, in order.
std::vector<Layer> Chain() {
  std::vector<Layer> chain;
  for (int layer = 0; layer < 16; ++layer) {
    const bool attends = layer == 2 || layer == 5 || (layer >= 8 && layer % 2 == 0);
    chain.push_back({attends ? 3072 : 6144, 2048, false});
    chain.push_back({2048, 2048, false});
    chain.push_back({8192, 2048, true});
    chain.push_back({2048, 8192, false});
  }
  chain.push_back({65536, 2048, false});
  return chain;
}

void TimeMatMuls(cudaStream_t stream, WeightFormat format) {
  std::vector<Weights> weights;
  int64_t bytes = 0;
  int64_t products = 0;
  for (const Layer& layer : Chain()) {
    Weights w;
    w.format = format;
    w.outputs = layer.outputs;
    w.inputs = layer.inputs;
    w.gated = layer.gated;
    weights.push_back(w);
    bytes += int64_t{w.packed_outputs()} * w.stride() * Weights::ElementBytes(format);
    products += int64_t{w.packed_outputs()} * w.inputs;
  }
  const Memory memory(bytes);
  const Memory scales(65536 * 4);
  int64_t at = 0;
  for (Weights& w : weights) {
    w.data = memory.as<uint8_t>() + at;
    if (format == WeightFormat::kInt8) w.scales = scales.as<float>();
    at += int64_t{w.packed_outputs()} * w.stride() * Weights::ElementBytes(format);
  }
  const Memory x(int64_t{2048} * 8192 * 2);
  const Memory y(int64_t{2048} * 65536 * 2);
  for (const int rows : {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 2048}) {
    const double us = GraphUs(stream, [&] {
      for (const Weights& w : weights) {
        const MatMulOperands operands{y.as<void>(), false, x.as<void>(), rows,
                                      w.gated ? Epilogue::kSiluGated : Epilogue::kStore};
        Require(MatMul(operands, w, stream), "MatMul");
      }
    });
    std::printf("matmuls %s rows %5d  %9.1f us  %7.0f GB/s  %6.1f TFLOP/s\n",
                format == WeightFormat::kInt8 ? "int8" : "bf16", rows, us,
                static_cast<double>(bytes) / us * 1e-3,
                2.0 * static_cast<double>(products) * rows / us * 1e-6);
  }
}

template <typename T>
const T* Upload(const std::vector<T>& values) {
  T* data = nullptr;
  const size_t bytes = std::max<size_t>(values.size(), 1) * sizeof(T);
  Require(cudaMalloc(&data, bytes), "memory");
  Require(cudaMemcpy(data, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice),
          "inputs");
  return data;  // until the program ends
}

void TimeAttention(cudaStream_t stream, int sequences, int context, int rows) {
  constexpr int kQueryHeads = 32;
  constexpr int kKvHeads = 8;
  constexpr int kDim = 64;
  const int pages_each = (context + kPageTokens - 1) / kPageTokens;
  const int64_t page_elements = int64_t{2} * kPageTokens * kKvHeads * kDim;
  std::vector<int32_t> pages;
  for (int i = 0; i < sequences * pages_each; ++i) pages.push_back(sequences * pages_each - 1 - i);
  AttentionWork work;
  for (int s = 0; s < sequences; ++s) {
    AddSequence({s * rows, rows, context - rows, s * pages_each}, kQueryHeads / kKvHeads, 0,
                int64_t{1} << 20, work);
  }
  const AttentionWorkView view{Upload(work.few_tiles),
                               Upload(work.items),
                               Upload(work.merges),
                               Upload(work.more_tiles),
                               nullptr,
                               static_cast<int>(work.items.size()),
                               static_cast<int>(work.merges.size()),
                               static_cast<int>(work.more_tiles.size()),
                               0};
  const int width = (kQueryHeads + 2 * kKvHeads) * kDim;
  const Memory kv(page_elements * 2 * sequences * pages_each);
  const Memory qkv(int64_t{2} * sequences * rows * width);
  const Memory out(int64_t{2} * sequences * rows * kQueryHeads * kDim);
  const Memory states(4 * StateFloats(work.states, kQueryHeads, kDim) + 4);
  const AttentionOperands<__nv_bfloat16> operands{
      out.as<__nv_bfloat16>(),
      qkv.as<__nv_bfloat16>(),
      width,
      {kv.as<__nv_bfloat16>(), page_elements, kKvHeads, kDim},
      Upload(pages),
      states.as<float>(),
      kQueryHeads,
      0.125f,
      0,
      0};
  const double us =
      GraphUs(stream, [&] { Require(Attention(operands, view, stream), "attention"); });
  const double bytes = 2.0 * static_cast<double>(page_elements) * sequences * pages_each;
  const double pairs = rows * (context - 0.5 * rows) * sequences;  // visible (query, key)
  std::printf("attention sequences %4d context %6d rows %5d  %9.1f us  %7.0f GB/s  %6.1f TFLOP/s\n",
              sequences, context, rows, us, bytes / us * 1e-3,
              4 * pairs * kQueryHeads * kDim / us * 1e-6);
}

}  // namespace
}  // namespace neurogrid::kernels

int main() {
  using namespace neurogrid::kernels;
  cudaStream_t stream;
  Require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  TimeMatMuls(stream, WeightFormat::kBf16);
  TimeMatMuls(stream, WeightFormat::kInt8);
  for (const int context : {512, 4096, 32768}) TimeAttention(stream, 1, context, 1);
  for (const int sequences : {64, 256}) TimeAttention(stream, sequences, 1024, 1);
  for (const int context : {512, 2048, 8192}) TimeAttention(stream, 1, context, context);
  return 0;
}
