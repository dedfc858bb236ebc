// Times attention on a GPU: decoding and prompts of several models' shapes, each as a graph of a
// few layers with keys and values of their own, so that the L2 cache keeps none for the next. Run
// by hand, with a part of the names to be run; needs nothing but the CUDA runtime.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "kernels/bandwidth.h"
#include "tests/bench/gpu_timing.h"

namespace neurogrid::kernels {
namespace {

struct Shape {
  const char* name;
  int query_heads;
  int kv_heads;
  int dim;
  float softcap = 0;
  int window = 0;
};
struct Case {
  const Shape& shape;
  int sequences;
  int context;
  int rows;  // of each sequence, the last of it
  int layers = 4;
};

constexpr Shape kLfm{"lfm2.5-1.2b", 32, 8, 64};
constexpr Shape kLlama{"llama-3.1-8b", 32, 8, 128};
constexpr Shape kMistral{"mistral-7b", 32, 8, 128, 0, 4096};
constexpr Shape kGemma2{"gemma-2-2b", 8, 4, 256, 50};
constexpr Shape kGemma2Window{"gemma-2-2b window", 8, 4, 256, 50, 4096};
constexpr Shape kGemma3{"gemma-3-4b", 8, 4, 256};
constexpr Shape kGemma3Window{"gemma-3-4b window", 8, 4, 256, 0, 1024};

constexpr Case kCases[] = {
    {kLfm, 1, 1, 1},          {kLfm, 1, 512, 1},        {kLfm, 1, 4096, 1},
    {kLfm, 1, 32768, 1},      {kLfm, 8, 1024, 1},       {kLfm, 64, 1024, 1},
    {kLfm, 256, 1024, 1},     {kLlama, 1, 512, 1},      {kLlama, 1, 4096, 1},
    {kLlama, 1, 32768, 1},    {kLlama, 8, 1024, 1},     {kLlama, 64, 1024, 1},
    {kGemma2, 1, 4096, 1},    {kGemma2, 64, 1024, 1},   {kGemma2Window, 1, 8000, 1},
    {kGemma3, 1, 4096, 1},    {kGemma3, 64, 1024, 1},   {kGemma3Window, 1, 32768, 1},
    {kLfm, 1, 512, 512},      {kLfm, 1, 2048, 2048},    {kLfm, 1, 8192, 8192},
    {kLlama, 1, 2048, 2048},  {kLlama, 1, 8192, 8192},  {kMistral, 1, 16384, 8192},
    {kGemma2, 1, 2048, 2048}, {kGemma2, 1, 8192, 8192}, {kGemma2Window, 1, 8192, 8192},
    {kGemma3, 1, 2048, 2048}, {kGemma3, 1, 8192, 8192}, {kGemma3Window, 1, 8192, 8192},
};

/// What one case attends: its plan, and memory for each layer.
class Attended {
 public:
  explicit Attended(const Case& c) : case_(c) {
    const Shape& shape = c.shape;
    const int pages_each = (c.context + kPageTokens - 1) / kPageTokens;
    const int pages_count = c.sequences * pages_each;
    std::vector<int32_t> pages;
    for (int i = 0; i < pages_count; ++i) pages.push_back(pages_count - 1 - i);
    AttentionWork work;
    for (int s = 0; s < c.sequences; ++s) {
      AddSequence({s * c.rows, c.rows, c.context - c.rows, s * pages_each},
                  shape.query_heads / shape.kv_heads, shape.window, int64_t{1} << 20, work);
    }
    view_ = {Upload(work.few_tiles),
             Upload(work.items),
             Upload(work.merges),
             Upload(work.more_tiles),
             static_cast<int>(work.few_tiles.size()),
             static_cast<int>(work.items.size()),
             static_cast<int>(work.merges.size()),
             static_cast<int>(work.more_tiles.size())};
    pages_ = Upload(pages);
    const int width = (shape.query_heads + 2 * shape.kv_heads) * shape.dim;
    page_elements_ = int64_t{2} * kPageTokens * shape.kv_heads * shape.dim;
    const int64_t rows = int64_t{c.sequences} * c.rows;
    qkv_ = std::make_unique<Memory>(2 * rows * width);
    out_ = std::make_unique<Memory>(2 * rows * shape.query_heads * shape.dim);
    states_ =
        std::make_unique<Memory>(4 * StateFloats(work.states, shape.query_heads, shape.dim) + 4);
    for (int layer = 0; layer < c.layers; ++layer) {
      kv_.push_back(std::make_unique<Memory>(2 * page_elements_ * pages_count));
    }
  }

  /// Microseconds of a layer.
  double Time(cudaStream_t stream) const {
    const double us = GraphUs(stream, [&] {
      for (const auto& kv : kv_) Require(Attention(OperandsOf(*kv), view_, stream), "attention");
    });
    return us / case_.layers;
  }

  /// Keys and values that some row sees.
  double visible_bytes() const {
    const int window = case_.shape.window;
    const int tokens =
        window > 0 ? std::min(case_.context, case_.rows - 1 + window) : case_.context;
    return 4.0 * case_.sequences * tokens * case_.shape.kv_heads * case_.shape.dim;
  }
  double operations() const {
    double pairs = 0;
    for (int i = case_.context - case_.rows; i < case_.context; ++i) {
      pairs += case_.shape.window > 0 ? std::min(i + 1, case_.shape.window) : i + 1;
    }
    return 4 * pairs * case_.sequences * case_.shape.query_heads * case_.shape.dim;
  }

 private:
  AttentionOperands<__nv_bfloat16> OperandsOf(const Memory& kv) const {
    const Shape& shape = case_.shape;
    return {out_->as<__nv_bfloat16>(),
            qkv_->as<__nv_bfloat16>(),
            (shape.query_heads + 2 * shape.kv_heads) * shape.dim,
            {kv.as<__nv_bfloat16>(), page_elements_, shape.kv_heads, shape.dim},
            pages_,
            states_->as<float>(),
            shape.query_heads,
            0.125f,
            shape.softcap,
            shape.window};
  }

  const Case& case_;
  AttentionWorkView view_;
  const int32_t* pages_;
  int64_t page_elements_;
  std::unique_ptr<Memory> qkv_, out_, states_;
  std::vector<std::unique_ptr<Memory>> kv_;
};

double ReadGbs(cudaStream_t stream) {
  constexpr int64_t kBytes = int64_t{1} << 30;
  const Memory data(kBytes);
  const Memory sums(int64_t{4} * BandwidthBlocks());
  const double us = GraphUs(stream, [&] {
    Require(ReadAll(sums.as<uint32_t>(), data.as<void>(), kBytes, stream), "a read");
  });
  return static_cast<double>(kBytes) / us * 1e-3;
}

}  // namespace
}  // namespace neurogrid::kernels

int main(int argc, char** argv) {
  using namespace neurogrid::kernels;
  const std::string only = argc > 1 ? argv[1] : "";
  cudaStream_t stream;
  Require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  const double read = ReadGbs(stream);
  std::printf("read %.0f GB/s\n", read);
  for (const Case& c : kCases) {
    char name[96];
    std::snprintf(name, sizeof(name), "%s sequences %d context %d rows %d", c.shape.name,
                  c.sequences, c.context, c.rows);
    if (std::string(name).find(only) == std::string::npos) continue;
    const Attended attended(c);
    const double us = attended.Time(stream);
    const double gbs = attended.visible_bytes() / us * 1e-3;
    std::printf("%-58s %8.1f us  %5.0f GB/s %3.0f %%  %6.1f TFLOP/s\n", name, us, gbs,
                100 * gbs / read, attended.operations() / us * 1e-6);
  }
  return 0;
}
