// Times the kernels of one step of LFM2.5-1.2B's shape on a GPU, each chain as a graph: matmuls by
// rows and format (or of the one format named), decode attention by context. Run by hand; needs
// nothing but the CUDA runtime.
#include <cstdio>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "kernels/matmul.h"
#include "tests/bench/gpu_timing.h"

namespace neurogrid::kernels {
namespace {

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

struct Format {
  const char* name;
  WeightFormat format;
  BlockType block_type = BlockType::kWide;
};

constexpr Format kFormats[] = {
    {"bf16", WeightFormat::kBf16},
    {"int8", WeightFormat::kInt8},
    {"Q4_0", WeightFormat::kBlocks, BlockType::kQ4_0},
    {"Q4_1", WeightFormat::kBlocks, BlockType::kQ4_1},
    {"Q5_1", WeightFormat::kBlocks, BlockType::kQ5_1},
    {"Q8_0", WeightFormat::kBlocks, BlockType::kQ8_0},
    {"Q2_K", WeightFormat::kBlocks, BlockType::kQ2_K},
    {"Q4_K", WeightFormat::kBlocks, BlockType::kQ4_K},
    {"Q6_K", WeightFormat::kBlocks, BlockType::kQ6_K},
    {"IQ4_NL", WeightFormat::kBlocks, BlockType::kIQ4_NL},
};

void TimeMatMuls(cudaStream_t stream, const Format& format) {
  std::vector<Weights> weights;
  int64_t bytes = 0;
  int64_t products = 0;
  for (const Layer& layer : Chain()) {
    Weights w;
    w.format = format.format;
    w.block_type = format.block_type;
    w.outputs = layer.outputs;
    w.inputs = layer.inputs;
    w.gated = layer.gated;
    weights.push_back(w);
    bytes += w.bytes();
    products += int64_t{w.packed_outputs()} * w.inputs;
  }
  const Memory memory(bytes);
  const Memory scales(65536 * 4);
  int64_t at = 0;
  for (Weights& w : weights) {
    w.data = memory.as<uint8_t>() + at;
    if (w.format == WeightFormat::kInt8) w.scales = scales.as<float>();
    at += w.bytes();
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
    std::printf("matmuls %-6s rows %5d  %9.1f us  %7.0f GB/s  %6.1f TFLOP/s\n", format.name, rows,
                us, static_cast<double>(bytes) / us * 1e-3,
                2.0 * static_cast<double>(products) * rows / us * 1e-6);
  }
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
                               static_cast<int>(work.few_tiles.size()),
                               static_cast<int>(work.items.size()),
                               static_cast<int>(work.merges.size()),
                               static_cast<int>(work.more_tiles.size())};
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

int main(int argc, char** argv) {
  using namespace neurogrid::kernels;
  const std::string only = argc > 1 ? argv[1] : "";  // a format
  cudaStream_t stream;
  Require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  for (const Format& format : kFormats) {
    if (only.empty() || only == format.name) TimeMatMuls(stream, format);
  }
  if (!only.empty()) return 0;
  for (const int context : {512, 4096, 32768}) TimeAttention(stream, 1, context, 1);
  for (const int sequences : {64, 256}) TimeAttention(stream, sequences, 1024, 1);
  for (const int context : {512, 2048, 8192}) TimeAttention(stream, 1, context, context);
  return 0;
}
