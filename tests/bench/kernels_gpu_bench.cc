// Times the matmuls of one step of LFM2.5-1.2B's shape on a GPU, the chain as a graph, by rows and
// format (or of the one format named). Run by hand; needs nothing but the CUDA runtime.
#include <cstdio>
#include <string>
#include <vector>

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
  return 0;
}
