// Times the ops between the matmuls of LFM2.5-1.2B's shape, and the sampler, on a GPU: 100 launches
// of one op in a row as a graph, so what one more launch costs a step. Run by hand.
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "kernels/embedding.h"
#include "kernels/kv_pages.h"
#include "kernels/rms_norm.h"
#include "kernels/sampler.h"
#include "kernels/short_convolution.h"
#include "tests/bench/gpu_timing.h"

namespace neurogrid::kernels {
namespace {

using Bf16 = __nv_bfloat16;

constexpr int kHidden = 2048;
constexpr int kQueryHeads = 32;
constexpr int kKvHeads = 8;
constexpr int kDim = 64;
constexpr int kLaunches = 100;

void TimeOp(cudaStream_t stream, const char* name, int rows,
            const std::function<cudaError_t()>& launch) {
  const double us = GraphUs(stream, [&] {
    for (int i = 0; i < kLaunches; ++i) Require(launch(), name);
  });
  std::printf("%-44s rows %4d  %7.2f us\n", name, rows, us / kLaunches);
}

std::vector<float> Ones(size_t count) { return std::vector<float>(count, 1.0f); }

void TimeSmallOps(cudaStream_t stream, int rows) {
  constexpr int kWidth = (kQueryHeads + 2 * kKvHeads) * kDim;
  const Memory hidden(int64_t{2} * rows * kHidden);
  const Memory qkv(int64_t{2} * rows * kWidth);
  const Memory bcu(int64_t{6} * rows * kHidden);
  const Memory out(int64_t{2} * rows * kHidden);
  const NormParameters norm{Upload(Ones(kHidden)), 1e-5f, true};
  TimeOp(stream, "RmsNorm", rows, [&] {
    return RmsNorm(hidden.as<Bf16>(), hidden.as<Bf16>(), nullptr, rows, kHidden, norm, stream);
  });
  TimeOp(stream, "RmsNormAdd and the next norm", rows, [&] {
    return RmsNormAdd(hidden.as<Bf16>(), out.as<Bf16>(), norm, out.as<Bf16>(), norm, rows, kHidden,
                      stream);
  });
  std::vector<int32_t> numbers;
  std::vector<int64_t> slots;
  std::vector<ConvolutionChunk> chunks, states;
  for (int row = 0; row < rows; ++row) {
    numbers.push_back(row);
    slots.push_back(int64_t{kPageTokens} * row);
    AddSequence({row, 1, row, row}, chunks, states);
  }
  const int32_t* positions = Upload(numbers);
  const int64_t page = int64_t{2} * kPageTokens * kKvHeads * kDim;
  const Memory pages(2 * page * rows);
  const KvPages<Bf16> kv{pages.as<Bf16>(), page, kKvHeads, kDim};
  const float* rotation = Upload(Ones(static_cast<size_t>(rows) * kDim));
  const int64_t* slots_on_device = Upload(slots);
  const HeadNorms head_norms{norm.weight, norm.weight, 1e-5f, true};
  TimeOp(stream, "head norms, rope, KV write", rows, [&] {
    return RopeAndWriteKv(qkv.as<Bf16>(), rows, kQueryHeads, head_norms, rotation, positions,
                          slots_on_device, kv, stream);
  });
  const Memory state(int64_t{4} * kHidden * rows);
  const ConvolutionOperands<Bf16> operands{out.as<Bf16>(),
                                           bcu.as<Bf16>(),
                                           Upload(Ones(3 * kHidden)),
                                           nullptr,
                                           state.as<Bf16>(),
                                           2 * kHidden,
                                           kHidden,
                                           3};
  const ConvolutionChunk* work = Upload(chunks);
  TimeOp(stream, "ShortConvolution", rows,
         [&] { return ShortConvolution(operands, work, rows, nullptr, 0, stream); });
  std::vector<ConvolutionChunk> long_chunks;
  AddSequence({0, rows, 0, 0}, long_chunks, states);
  const ConvolutionChunk* long_work = Upload(long_chunks);
  const ConvolutionChunk* long_states = Upload(states);
  TimeOp(stream, "ShortConvolution of one sequence", rows, [&] {
    return ShortConvolution(operands, long_work, static_cast<int>(long_chunks.size()), long_states,
                            static_cast<int>(states.size()), stream);
  });
  TimeOp(stream, "RmsNorm of rows asked for", rows, [&] {
    return RmsNorm(out.as<Bf16>(), hidden.as<Bf16>(), positions, rows, kHidden, norm, stream);
  });
  const Memory table(int64_t{2} * kHidden * rows);
  Weights w;
  w.data = table.as<void>();
  w.outputs = rows;
  w.inputs = kHidden;
  TimeOp(stream, "Embed", rows,
         [&] { return Embed(hidden.as<Bf16>(), w, positions, nullptr, rows, 1.0f, stream); });
}

SamplerRow Row(float temperature, int top_k, float top_p) {
  SamplerRow row{};
  row.seed = 42;
  row.position = 7;
  row.temperature = temperature;
  row.top_k = top_k;
  row.top_p = top_p;
  row.repetition_penalty = 1;
  row.top_logprobs = -1;
  row.target = -1;
  return row;
}

/// Roughly normal, the same for every row and run.
std::vector<float> Logits(int rows, int vocab, float deviation) {
  std::vector<float> logits(static_cast<size_t>(rows) * static_cast<size_t>(vocab));
  uint64_t state = 1;
  for (float& x : logits) {
    float sum = -2;
    for (int i = 0; i < 4; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      sum += static_cast<float>(state >> 40) * 0x1p-24f;
    }
    x = sum * 1.73f * deviation;
  }
  return logits;
}

void TimeSampler(cudaStream_t stream, const char* name, int rows, int vocab, float deviation,
                 const SamplerRow& row) {
  const std::vector<SamplerRow> all(static_cast<size_t>(rows), row);
  std::vector<LogitEdit> edits(1);
  const float* logits = Upload(Logits(rows, vocab, deviation));
  const Memory results(static_cast<int64_t>(sizeof(SamplerResult)) * rows);
  const Memory drawn(static_cast<int64_t>(sizeof(int32_t)) * rows);
  const Memory raw(4);
  const Memory scratch(SamplerScratchBytes(rows, vocab));
  const SamplerOperands operands{const_cast<float*>(logits),
                                 vocab,
                                 vocab,
                                 Upload(all),
                                 Upload(edits),
                                 raw.as<float>(),
                                 scratch.as<void>(),
                                 results.as<SamplerResult>(),
                                 drawn.as<int32_t>()};
  const SamplerNeeds needs{row.draws(), row.limited()};
  const std::string what = std::string("Sample ") + name + ", vocab " + std::to_string(vocab);
  TimeOp(stream, what.c_str(), rows, [&] { return Sample(operands, rows, needs, stream); });
}

void TimeSamplers(cudaStream_t stream, int rows, int vocab) {
  TimeSampler(stream, "greedy", rows, vocab, 2.5f, Row(0, 0, 1));
  TimeSampler(stream, "all ids", rows, vocab, 2.5f, Row(0.8f, 0, 1));
  TimeSampler(stream, "top_k 50", rows, vocab, 2.5f, Row(0.8f, 50, 1));
  TimeSampler(stream, "top_p 0.9", rows, vocab, 2.5f, Row(0.8f, 0, 0.9f));
  TimeSampler(stream, "top_p 0.9, flat", rows, vocab, 0.3f, Row(0.8f, 0, 0.9f));
  TimeSampler(stream, "top_k 50, top_p 0.9", rows, vocab, 2.5f, Row(0.8f, 50, 0.9f));
  SamplerRow reports = Row(0, 0, 1);
  reports.top_logprobs = 5;
  TimeSampler(stream, "greedy, 5 logprobs", rows, vocab, 2.5f, reports);
}

}  // namespace
}  // namespace neurogrid::kernels

int main() {
  using namespace neurogrid::kernels;
  cudaStream_t stream;
  Require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  for (const int rows : {1, 8, 64, 512, 2048}) TimeSmallOps(stream, rows);
  for (const int rows : {1, 8, 64}) TimeSamplers(stream, rows, 65536);
  TimeSamplers(stream, 1, 262144);
  return 0;
}
