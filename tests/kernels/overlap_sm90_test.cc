// On sm_90 a kernel starts before its predecessor has ended: the small ones wait for what that one
// writes, at its very end. order_sm90_test.cc has products and attention.
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <functional>

#include "kernels/device_limits.h"
#include "kernels/finish_matmul.h"
#include "kernels/kv_pages.h"
#include "kernels/matmul.h"
#include "kernels/matmul_convolving.h"
#include "kernels/pinned_copy.h"
#include "kernels/sampler.h"
#include "kernels/short_convolution.h"
#include "kernels/softcap.h"
#include "kernels/sum_slices.h"
#include "tests/kernels/adverse.h"
#include "tests/kernels/packed.h"

namespace neurogrid::kernels {
namespace {

constexpr int kColumns = 1032;

size_t Size(int64_t a, int64_t b) { return static_cast<size_t>(a * b); }

/// The first `count` elements of memory that a kernel changes in place.
template <typename T>
std::vector<T> ReadInPlace(const T* data, size_t count) {
  std::vector<T> values(count);
  REQUIRE(cudaMemcpy(values.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost) ==
          cudaSuccess);
  return values;
}

/// What several kernels wrote, as bytes.
template <typename... Parts>
std::vector<uint8_t> Bytes(const Parts&... parts) {
  std::vector<uint8_t> bytes;
  const auto add = [&](const auto& part) {
    const auto* from = reinterpret_cast<const uint8_t*>(part.data());
    bytes.insert(bytes.end(), from, from + part.size() * sizeof(part[0]));
  };
  (add(parts), ...);
  return bytes;
}

template <typename T>
void CheckNorms(int rows) {
  const LateWriter<T> late(Size(rows, kColumns));
  const Device<T> early(RandomOf<T>(2, Size(rows, kColumns)));
  const Device<float> weight(RandomFloats(3, kColumns));
  const NormParameters norm{weight.data(), 1e-5f, false};
  CheckWaits(late, [&](const std::function<void()>& before) {
    const Device<T> y(Size(rows, kColumns));
    before();
    REQUIRE(RmsNorm(y.data(), late.data(), nullptr, rows, kColumns, norm, nullptr) == cudaSuccess);
    return y.Read();
  });
  const auto add = [&](bool late_y, const std::function<void()>& before) {
    const Device<T> y(RandomOf<T>(4, Size(rows, kColumns)));
    const Device<T> z(Size(rows, kColumns));
    before();
    T* sum = late_y ? late.data() : y.data();
    REQUIRE(RmsNormAdd(sum, late_y ? early.data() : late.data(), norm, z.data(), norm, rows,
                       kColumns, nullptr) == cudaSuccess);
    return z.Read();
  };
  CheckWaits(late, [&](const std::function<void()>& before) { return add(false, before); });
  CheckWaits(late, [&](const std::function<void()>& before) { return add(true, before); });
}

/// bcu late, or the states that the rows before have left.
template <typename T>
void CheckConvolution(int rows) {
  constexpr int kTaps = 3;
  const LateWriter<T> late(Size(std::max(rows, 1), 3 * kColumns));
  const Device<T> bcu(RandomOf<T>(2, Size(rows, 3 * kColumns)));
  const Device<float> taps(RandomFloats(3, Size(kTaps, kColumns)));
  std::vector<ConvolutionChunk> chunks;
  std::vector<ConvolutionChunk> states;
  AddSequence(ConvolutionSequence{0, rows, 0, 1}, chunks, states);
  const auto chunks_count = static_cast<int>(chunks.size());
  const auto states_count = static_cast<int>(states.size());
  states.resize(states.size() + 1);
  const Device<ConvolutionChunk> device_chunks(chunks);
  const Device<ConvolutionChunk> device_states(states);
  const auto run = [&](const T* from, T* source, const std::function<void()>& before) {
    const Device<T> out(Size(rows, kColumns));
    const Device<T> state(RandomOf<T>(5, Size(2 * (kTaps - 1), kColumns)));
    before();
    REQUIRE(ShortConvolution<T>(
                {out.data(), from, taps.data(), nullptr, source == nullptr ? state.data() : source,
                 int64_t{kTaps - 1} * kColumns, kColumns, kTaps},
                device_chunks.data(), chunks_count, device_states.data(), states_count,
                nullptr) == cudaSuccess);
    return Bytes(out.Read(), state.Read());
  };
  CheckWaits(
      late, [&](const std::function<void()>& before) { return run(late.data(), nullptr, before); });
  const LateWriter<T> slots(Size(2 * (kTaps - 1), kColumns));
  CheckWaits(slots, [&](const std::function<void()>& before) {
    return run(bcu.data(), slots.data(), before);
  });
}

template <typename T>
void CheckRope(int rows) {
  constexpr int kDim = 64;
  constexpr int kHeads = 6;
  constexpr int kKvHeads = 2;
  const int width = (kHeads + 2 * kKvHeads) * kDim;
  const LateWriter<T> late(Size(rows, width));
  const Device<float> table(RandomFloats(3, Size(rows, kDim)));
  std::vector<int32_t> positions;
  std::vector<int64_t> slots;
  for (int row = 0; row < rows; ++row) {
    positions.push_back(row);
    slots.push_back(rows - 1 - row);
  }
  const Device<int32_t> device_positions(positions);
  const Device<int64_t> device_slots(slots);
  const int64_t page = int64_t{2} * kPageTokens * kKvHeads * kDim;
  CheckWaits(late, [&](const std::function<void()>& before) {
    const Device<T> pages(RandomOf<T>(6, Size(rows / kPageTokens + 1, page)));
    before();
    REQUIRE(RopeAndWriteKv(late.data(), rows, kHeads, HeadNorms{}, table.data(),
                           device_positions.data(), device_slots.data(),
                           KvPages<T>{pages.data(), page, kKvHeads, kDim}, nullptr) == cudaSuccess);
    return Bytes(pages.Read(), ReadInPlace(late.data(), Size(rows, width)));
  });
}

}  // namespace

TEMPLATE_TEST_CASE("norms, convolutions and rotations wait for their predecessor",
                   "[kernels][sm90][order]", float, Bf16) {
  if (!RunsSm90()) SKIP("needs a GPU of compute capability 9.0");
  const int rows = GENERATE(1, 40);
  CAPTURE(rows);
  CheckNorms<TestType>(rows);
  CheckConvolution<TestType>(rows);
  CheckRope<TestType>(rows);
}

TEST_CASE("a product that norms or convolves waits for its predecessor", "[kernels][sm90][order]") {
  if (!RunsSm90()) SKIP("needs a GPU of compute capability 9.0");
  const WeightFormat format = GENERATE(WeightFormat::kBf16, WeightFormat::kInt8);
  const int outputs = GENERATE(200, 4200);
  const int rows = GENERATE(1, 2);
  CAPTURE(static_cast<int>(format), outputs, rows);
  const PackedWeights weights(format, outputs, kColumns, RandomFloats(1, Size(outputs, kColumns)));
  const Device<float> weight(RandomFloats(3, kColumns));
  const LateWriter<Bf16> x(Size(rows, kColumns));
  CheckWaits(x, [&](const std::function<void()>& before) {
    const Device<float> y(Size(rows, outputs));
    const Device<Bf16> normed(Size(rows, kColumns));
    before();
    MatMulOperands operands{y.data(), true, x.data(), rows, Epilogue::kStore};
    operands.norm = {{weight.data(), 1e-5f, false}, nullptr, normed.data()};
    REQUIRE(MatMul(operands, weights.view(), nullptr) == cudaSuccess);
    return Bytes(y.Read(), normed.Read());
  });
  constexpr int kTaps = 3;
  if (!FewRowsConvolve(weights.view(), rows, kTaps, LimitsOfGpu())) return;
  const LateWriter<Bf16> bcu(Size(rows, 3 * kColumns));
  const Device<float> taps(RandomFloats(3, Size(kTaps, kColumns)));
  const Device<ConvolutionChunk> chunks(
      std::vector<ConvolutionChunk>{{0, 0, 1, 1, 0, 0}, {1, 0, 1, 1, 1, 1}});
  CheckWaits(bcu, [&](const std::function<void()>& before) {
    const Device<float> y(Size(rows, outputs));
    const Device<Bf16> convolved(Size(rows, kColumns));
    const Device<Bf16> state(RandomOf<Bf16>(5, Size(2 * (kTaps - 1), kColumns)));
    const Device<uint32_t> arrivals{std::vector<uint32_t>(kArrivals)};
    before();
    MatMulOperands operands{y.data(), true, nullptr, rows, Epilogue::kStore};
    operands.convolution = {{convolved.data(), bcu.data(), taps.data(), nullptr, state.data(),
                             int64_t{kTaps - 1} * kColumns, kColumns, kTaps},
                            chunks.data(),
                            arrivals.data()};
    REQUIRE(MatMul(operands, weights.view(), nullptr) == cudaSuccess);
    return Bytes(y.Read(), convolved.Read(), state.Read());
  });
}

TEST_CASE("a product that a convolution follows waits for its predecessor",
          "[kernels][sm90][order]") {
  if (!RunsSm90()) SKIP("needs a GPU of compute capability 9.0");
  const WeightFormat format = GENERATE(WeightFormat::kBf16, WeightFormat::kInt8);
  const int rows = GENERATE(20, 64);
  CAPTURE(static_cast<int>(format), rows);
  constexpr int kTaps = 3;
  constexpr int kConvolved = 1376;
  const PackedWeights weights(format, 3 * kConvolved, kColumns,
                              RandomFloats(1, Size(3 * kConvolved, kColumns)));
  const Device<float> taps(RandomFloats(3, Size(kTaps, kConvolved)));
  std::vector<ConvolutionChunk> chunks;
  for (int row = 0; row < rows; ++row) chunks.push_back({row, 0, 1, 1, row, row});
  const Device<ConvolutionChunk> device_chunks(chunks);
  const LateWriter<Bf16> x(Size(rows, kColumns));
  CheckWaits(x, [&](const std::function<void()>& before) {
    const Device<Bf16> y(Size(rows, 3 * kConvolved));
    const Device<Bf16> convolved(Size(rows, kConvolved));
    const Device<Bf16> state(RandomOf<Bf16>(5, Size(rows * (kTaps - 1), kConvolved)));
    before();
    REQUIRE(ConvolvingMatMul({{y.data(), false, x.data(), rows, Epilogue::kStore},
                              {convolved.data(), y.data(), taps.data(), nullptr, state.data(),
                               int64_t{kTaps - 1} * kConvolved, kConvolved, kTaps},
                              device_chunks.data()},
                             weights.view(), nullptr) == cudaSuccess);
    return Bytes(y.Read(), convolved.Read(), state.Read());
  });
}

TEST_CASE("what a copy of pinned memory brings is there for kernels behind it",
          "[kernels][sm90][order]") {
  if (!RunsSm90()) SKIP("needs a GPU of compute capability 9.0");
  constexpr int kRows = 2;
  constexpr int kSourceRows = 64;
  constexpr int kRounds = 20;
  const Device<float> weight(RandomFloats(3, kColumns));
  const Device<Bf16> x(RandomOf<Bf16>(4, Size(kSourceRows, kColumns)));
  const LateWriter<Bf16> late(kColumns);
  // Sources of rows, at the very end of the longest copy: a norm reads them first of all.
  constexpr size_t kCount = kPinnedCopyBytesMax / sizeof(int32_t);
  const Pinned<int32_t> pinned{std::vector<int32_t>(kCount)};
  const Device<int32_t> inputs{std::vector<int32_t>(kCount)};
  const int32_t* sources = inputs.data() + kCount - kRows;
  const auto run = [&](int round, bool waits) {
    const Device<Bf16> y(Size(kRows, kColumns));
    for (int row = 0; row < kRows; ++row) {
      pinned.data()[kCount - kRows + row] = (round * kRows + row) % kSourceRows;
    }
    late.Queue();  // so that the norm is queued before the copy begins
    REQUIRE(CopyPinned(inputs.data(), pinned.data(), kPinnedCopyBytesMax, nullptr) == cudaSuccess);
    if (waits) REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
    REQUIRE(RmsNorm(y.data(), x.data(), sources, kRows, kColumns, {weight.data(), 1e-5f, false},
                    nullptr) == cudaSuccess);
    return y.Read();
  };
  for (int round = 0; round < kRounds; ++round) {
    const std::vector<Bf16> early = run(round, false);
    run(round + 1, true);
    CHECK(SameBits(early, run(round, true)));
  }
}

TEST_CASE("a copy of pinned memory waits for what reads its target", "[kernels][sm90][order]") {
  if (!RunsSm90()) SKIP("needs a GPU of compute capability 9.0");
  constexpr int kMany = 1 << 20;
  const std::vector<Bf16> old = RepeatedOf<Bf16>(4, kMany);
  const Pinned<Bf16> pinned(RandomOf<Bf16>(5, kPinnedCopyBytesMax / sizeof(Bf16)));
  const Pinned<Bf16> x(kMany);
  Bf16* end = x.data() + kMany - pinned.count();
  const Device<float> weight(RepeatedOf<float>(3, kMany));
  // A norm by one block, twice over the bus: hundreds of microseconds up to the row's end.
  const auto run = [&](bool copies) {
    std::copy(old.begin(), old.end(), x.data());
    const Device<Bf16> y(kMany);
    REQUIRE(RmsNorm(y.data(), x.data(), nullptr, 1, kMany, {weight.data(), 1e-5f, false},
                    nullptr) == cudaSuccess);
    if (copies) {
      REQUIRE(CopyPinned(end, pinned.data(), kPinnedCopyBytesMax, nullptr) == cudaSuccess);
    }
    return y.Read();
  };
  CHECK(SameBits(run(true), run(false)));
}

TEST_CASE("sums, caps and draws wait for their predecessor", "[kernels][sm90][order]") {
  if (!RunsSm90()) SKIP("needs a GPU of compute capability 9.0");
  const int rows = GENERATE(1, 20);
  constexpr int kOutputs = 512;
  CAPTURE(rows);
  const PackedWeights weights(WeightFormat::kBf16, kOutputs, 64, RandomFloats(1, kOutputs * 64));
  const LateWriter<float> slices(Size(8 * rows, kOutputs));
  const auto product = [&](bool sliced, const std::function<void()>& before) {
    const Device<float> y(Size(rows, kOutputs));
    MatMulOperands operands{y.data(), true, nullptr, rows, Epilogue::kStore};
    operands.slices = slices.data();
    operands.slices_floats = int64_t{8} * rows * kOutputs;
    before();
    REQUIRE((sliced
                 ? SumSlices(operands, weights.view(), nullptr)
                 : FinishMatMul(operands, weights.view(), slices.data(), nullptr)) == cudaSuccess);
    return y.Read();
  };
  CheckWaits(slices, [&](const std::function<void()>& before) { return product(true, before); });
  CheckWaits(slices, [&](const std::function<void()>& before) { return product(false, before); });
  CheckWaits(slices, [&](const std::function<void()>& before) {
    before();
    REQUIRE(Softcap(slices.data(), int64_t{rows} * kOutputs, 2.0f, nullptr) == cudaSuccess);
    return ReadInPlace(slices.data(), Size(rows, kOutputs));
  });
}

TEST_CASE("the sampler waits for logits that come late", "[kernels][sm90][order]") {
  if (!RunsSm90()) SKIP("needs a GPU of compute capability 9.0");
  constexpr int kVocab = 5000;
  constexpr int kRows = 3;
  SamplerRow row{};
  row.seed = 42;
  row.temperature = 1;
  row.top_p = 1;
  row.repetition_penalty = 1;
  row.top_logprobs = 3;
  row.target = -1;
  SamplerRow greedy = row;
  greedy.temperature = 0;
  greedy.result = 1;
  SamplerRow cut = row;
  cut.top_p = 0.7f;
  cut.top_k = 40;
  cut.result = 2;
  const Device<SamplerRow> rows(std::vector<SamplerRow>{row, greedy, cut});
  const LateWriter<float> logits(Size(kRows, kVocab));
  const Device<LogitEdit> edits(1);
  const Device<float> raw(1);
  const Device<uint8_t> scratch(static_cast<size_t>(SamplerScratchBytes(kRows, kVocab)));
  CheckWaits(logits, [&](const std::function<void()>& before) {
    const Device<SamplerResult> results{std::vector<SamplerResult>(kRows)};
    const Device<int32_t> drawn(kRows);
    before();
    REQUIRE(Sample({logits.data(), kVocab, kVocab, rows.data(), edits.data(), raw.data(),
                    scratch.data(), results.data(), drawn.data()},
                   kRows, {true, true}, nullptr) == cudaSuccess);
    return Bytes(results.Read(), drawn.Read());
  });
}

}  // namespace neurogrid::kernels
