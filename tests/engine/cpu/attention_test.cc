#include "engine/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "catch2/catch_test_macros.hpp"
#include "catch2/generators/catch_generators.hpp"
#include "catch2/generators/catch_generators_range.hpp"
#include "tests/engine/cpu_support.h"

namespace neurogrid {
namespace {

/// One model's attention over sequences whose q, k, v rows are functions of (sequence, position).
struct World {
  int query_heads = 4;
  int kv_heads = 2;
  int head_dim = 64;
  DType dtype = DType::kBF16;
  AttentionParameters parameters;
  bool windowed = false;  // pages are named by window_pages
  int pages_total = 0;
  std::vector<uint8_t> memory;  // pages, filled with NaNs
  RopeTable rope;

  int columns() const { return (query_heads + 2 * kv_heads) * head_dim; }
  KvLayer layer() {
    const KvLayout layout = {kv_heads, head_dim, dtype};
    return {layout, memory.data(), pages_total, windowed};
  }
};

constexpr int kPositionsMax = 2048;

World MakeWorld(int query_heads, int kv_heads, int head_dim, DType dtype, int pages) {
  World world;
  world.query_heads = query_heads;
  world.kv_heads = kv_heads;
  world.head_dim = head_dim;
  world.dtype = dtype;
  world.parameters.query_heads = query_heads;
  world.parameters.scale = 1 / std::sqrt(static_cast<float>(head_dim));
  world.pages_total = pages;
  world.memory.assign(static_cast<size_t>(pages * world.layer().layout.page_bytes()), 0xff);
  world.rope = RopeTable::Make({}, head_dim, kPositionsMax).value();
  return world;
}

/// Rows [first, last) of a sequence with its pages.
struct Slice {
  int sequence;
  int first;
  int last;
  std::vector<int32_t> pages;
};

std::vector<float> RowOf(const World& world, int sequence, int position) {
  std::vector<float> row =
      RandomFloats(static_cast<uint64_t>(sequence * 100003 + position), world.columns());
  if (world.dtype == DType::kBF16) {
    for (float& value : row) value = ToFloat(ToBf16(value));
  }
  return row;
}

/// Writes the slices' keys and values and attends; the result is [rows][query_heads * head_dim]
/// bytes.
std::vector<uint8_t> Run(World& world, const CpuContext& cpu, const std::vector<Slice>& slices) {
  Batch batch;
  batch.sequence_offsets = {0};
  batch.page_offsets = {0};
  std::vector<float> wide;
  for (const Slice& slice : slices) {
    for (int position = slice.first; position < slice.last; ++position) {
      batch.tokens.push_back(0);
      batch.positions.push_back(position);
      const std::vector<float> row = RowOf(world, slice.sequence, position);
      wide.insert(wide.end(), row.begin(), row.end());
    }
    batch.pages.insert(batch.pages.end(), slice.pages.begin(), slice.pages.end());
    batch.sequence_offsets.push_back(batch.rows());
    batch.page_offsets.push_back(static_cast<int32_t>(batch.pages.size()));
  }
  if (world.windowed) {
    batch.window_pages = std::exchange(batch.pages, std::vector<int32_t>(batch.pages.size(), -1));
  }
  std::vector<bf16> narrow;
  for (const float value : wide) narrow.push_back(ToBf16(value));
  const bool is_bf16 = world.dtype == DType::kBF16;
  const Shape shape = {batch.rows(), world.columns()};
  const Tensor qkv = is_bf16 ? View(narrow, shape) : View(wide, shape);
  RopeAndWriteKv(cpu, qkv, world.query_heads, world.rope, world.layer(), batch);
  const int64_t width = int64_t{world.query_heads} * world.head_dim;
  std::vector<uint8_t> out(static_cast<size_t>(batch.rows() * width * (is_bf16 ? 2 : 4)));
  const AttentionScratch scratch =
      AttentionScratch::Allocate(cpu.pool->threads(), world.query_heads, world.head_dim,
                                 kPositionsMax)
          .value();
  Attention(cpu, {out.data(), world.dtype, {batch.rows(), width}}, qkv, world.layer(), batch,
            world.parameters, scratch);
  return out;
}

std::vector<int32_t> PagesFrom(int first, int tokens) {
  std::vector<int32_t> pages(static_cast<size_t>((tokens + kPageTokens - 1) / kPageTokens));
  std::iota(pages.begin(), pages.end(), first);
  return pages;
}

/// A head's rotated elements in f64, rounded as the op rounds them.
std::vector<double> Rotated(const World& world, const std::vector<float>& row, int head,
                            int position) {
  const int half = world.head_dim / 2;
  std::vector<double> x(static_cast<size_t>(world.head_dim));
  for (int j = 0; j < half; ++j) {
    const double a = row[static_cast<size_t>(head * world.head_dim + j)];
    const double b = row[static_cast<size_t>(head * world.head_dim + j + half)];
    const double c = world.rope.cosines(position)[j];
    const double s = world.rope.sines(position)[j];
    const float first = static_cast<float>(a * c - b * s);
    const float second = static_cast<float>(b * c + a * s);
    const bool is_bf16 = world.dtype == DType::kBF16;
    x[static_cast<size_t>(j)] = is_bf16 ? ToFloat(ToBf16(first)) : first;
    x[static_cast<size_t>(j + half)] = is_bf16 ? ToFloat(ToBf16(second)) : second;
  }
  return x;
}

/// Attention of one sequence's rows [0, tokens) in f64: [tokens][query_heads][head_dim].
std::vector<double> Expected(const World& world, int sequence, int tokens) {
  const int group = world.query_heads / world.kv_heads;
  const size_t dim = static_cast<size_t>(world.head_dim);
  std::vector<double> out;
  std::vector<std::vector<float>> rows;
  for (int t = 0; t < tokens; ++t) rows.push_back(RowOf(world, sequence, t));
  std::vector<std::vector<std::vector<double>>> keys(static_cast<size_t>(world.kv_heads));
  for (int g = 0; g < world.kv_heads; ++g) {
    for (int t = 0; t < tokens; ++t) {
      keys[static_cast<size_t>(g)].push_back(
          Rotated(world, rows[static_cast<size_t>(t)], world.query_heads + g, t));
    }
  }
  for (int i = 0; i < tokens; ++i) {
    for (int head = 0; head < world.query_heads; ++head) {
      const std::vector<double> q = Rotated(world, rows[static_cast<size_t>(i)], head, i);
      const int window = world.parameters.window;
      const int first = window > 0 ? std::max(0, i - window + 1) : 0;
      std::vector<double> weights;
      double sum = 0;
      for (int j = first; j <= i; ++j) {
        const std::vector<double>& k =
            keys[static_cast<size_t>(head / group)][static_cast<size_t>(j)];
        double score =
            std::inner_product(q.begin(), q.end(), k.begin(), 0.0) * double{world.parameters.scale};
        const double cap = world.parameters.softcap;
        if (cap > 0) score = cap * std::tanh(score / cap);
        weights.push_back(std::exp(score));
        sum += weights.back();
      }
      std::vector<double> o(dim, 0.0);
      for (int j = first; j <= i; ++j) {
        const size_t v =
            (static_cast<size_t>(world.query_heads + world.kv_heads + head / group)) * dim;
        for (size_t e = 0; e < dim; ++e) {
          o[e] += weights[static_cast<size_t>(j - first)] / sum *
                  double{rows[static_cast<size_t>(j)][v + e]};
        }
      }
      out.insert(out.end(), o.begin(), o.end());
    }
  }
  return out;
}

std::vector<float> Values(const std::vector<uint8_t>& bytes, DType dtype) {
  if (dtype == DType::kF32) {
    std::vector<float> values(bytes.size() / 4);
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
  std::vector<bf16> values(bytes.size() / 2);
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return Widen(values);
}

/// Values are below 4. bf16: a probability rounds by 2^-9 of itself and so moves the average by at
/// most 2^-8 * 4, f32 rounding by far less, and the result rounds by 2^-9 of 4. f32: scores below
/// 30 carry 70 roundings of 2^-24, so exponentials err by 30 * 70 * 2^-24 at most.
double Tolerance(DType dtype) {
  return dtype == DType::kBF16 ? 4 * 0x1p-8 + 4 * 0x1p-9 : 4 * 30 * 70 * 0x1p-24;
}

double WorstError(const std::vector<float>& found, const std::vector<double>& expected) {
  REQUIRE(found.size() == expected.size());
  double worst = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    const double error = std::fabs(double{found[i]} - expected[i]);
    worst = std::isnan(error) ? 1e9 : std::max(worst, error);
  }
  return worst;
}

TEST_CASE("attention is the softmax average of visible values", "[cpu]") {
  const auto [query_heads, kv_heads, head_dim] = GENERATE(table<int, int, int>(
      {{4, 4, 24}, {9, 3, 64}, {4, 1, 128}, {32, 1, 16}, {2, 2, 10}, {2, 1, 256}}));
  const DType dtype = GENERATE(DType::kBF16, DType::kF32);
  const int tokens = GENERATE(1, 17, 290);
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  CAPTURE(query_heads, kv_heads, head_dim, InfoOf(dtype).name, tokens, NameOf(set));
  World world = MakeWorld(query_heads, kv_heads, head_dim, dtype, 20);
  ThreadPool pool(2);
  const std::vector<uint8_t> out = Run(world, {&pool, set}, {{1, 0, tokens, PagesFrom(1, tokens)}});
  CHECK(WorstError(Values(out, dtype), Expected(world, 1, tokens)) <= Tolerance(dtype));
}

TEST_CASE("a key's weight is e to its score but for some roundings of f32", "[cpu]") {
  // Each sequence has two keys: one scores 0 and has the value 0, the other -15 to 0 and 1.
  constexpr int kSequences = 257;
  constexpr int kDim = 16;
  const KvLayout layout = {1, kDim, DType::kF32};
  std::vector<float> memory(static_cast<size_t>(kSequences * layout.page_bytes() / 4), NAN);
  KvLayer layer = {layout, reinterpret_cast<uint8_t*>(memory.data()), kSequences};
  Batch batch;
  batch.sequence_offsets = batch.page_offsets = {0};
  std::vector<float> q(kSequences * kDim, 0.0f);
  const float scale = 0.3f;
  const auto score = [](int sequence) { return -0.2f * static_cast<float>(sequence); };
  for (int s = 0; s < kSequences; ++s) {
    float* const keys = reinterpret_cast<float*>(layer.keys(s, 0));      // [dim][16 tokens]
    float* const values = reinterpret_cast<float*>(layer.values(s, 0));  // [16 tokens][dim]
    for (int i = 0; i < kDim; ++i) {
      keys[i * kPageTokens] = keys[i * kPageTokens + 1] = 0;
      values[i] = 0;
      values[kDim + i] = 1;
    }
    keys[1] = score(s);
    q[static_cast<size_t>(s * kDim)] = 1;
    batch.tokens.push_back(0);
    batch.positions.push_back(1);
    batch.pages.push_back(s);
    batch.sequence_offsets.push_back(s + 1);
    batch.page_offsets.push_back(s + 1);
  }
  ThreadPool pool(2);
  const AttentionScratch scratch = AttentionScratch::Allocate(2, 1, kDim, 16).value();
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  CAPTURE(NameOf(set));
  std::vector<float> out(q.size());
  const Shape shape = {kSequences, kDim};
  Attention({&pool, set}, View(out, shape), View(q, shape), layer, batch, {1, scale, 0, 0},
            scratch);
  for (int s = 0; s < kSequences; ++s) {
    const double exponent = double{scale} * double{score(s)};
    const double weight = std::exp(exponent);
    // The power of two errs by 2^-22, its argument by four roundings, the rest by four more.
    const double tolerance = 0x1p-22 + 4 * std::fabs(exponent) * 0x1p-24 + 4 * 0x1p-24;
    CAPTURE(s);
    CHECK(std::fabs(double{out[static_cast<size_t>(s * kDim)]} / (weight / (1 + weight)) - 1) <=
          tolerance);
  }
}

TEST_CASE("attention sees a window and caps scores", "[cpu]") {
  const int window = GENERATE(0, 1, 5, 16, 100);
  const float softcap = GENERATE(0.0f, 2.0f);
  const DType dtype = GENERATE(DType::kBF16, DType::kF32);
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  CAPTURE(window, softcap, InfoOf(dtype).name, NameOf(set));
  World world = MakeWorld(4, 2, 32, dtype, 40);
  world.parameters.window = window;
  world.parameters.softcap = softcap;
  ThreadPool pool(2);
  const int tokens = 400;
  const std::vector<uint8_t> out = Run(world, {&pool, set}, {{1, 0, tokens, PagesFrom(1, tokens)}});
  CHECK(WorstError(Values(out, dtype), Expected(world, 1, tokens)) <= Tolerance(dtype));
}

/// The bytes of rows [first, last) of a result.
std::vector<uint8_t> RowsOf(const World& world, const std::vector<uint8_t>& out, int first,
                            int last) {
  const int64_t row =
      int64_t{world.query_heads} * world.head_dim * (world.dtype == DType::kBF16 ? 2 : 4);
  return {out.begin() + first * row, out.begin() + last * row};
}

TEST_CASE("a row attends in the same bits however its sequence arrives", "[cpu]") {
  const auto [query_heads, kv_heads, head_dim] =
      GENERATE(table<int, int, int>({{4, 4, 24}, {9, 3, 64}, {8, 1, 128}}));
  const DType dtype = GENERATE(DType::kBF16, DType::kF32);
  const int window = GENERATE(0, 300);
  CAPTURE(query_heads, kv_heads, head_dim, InfoOf(dtype).name, window);
  const int tokens = 790;
  const auto make = [&] {
    World world = MakeWorld(query_heads, kv_heads, head_dim, dtype, 200);
    world.parameters.window = window;
    return world;
  };
  ThreadPool one(1);
  const CpuContext reference = {&one, InstructionSets().back()};
  World base = make();
  const std::vector<uint8_t> whole = Run(base, reference, {{1, 0, tokens, PagesFrom(1, tokens)}});

  SECTION("in chunks of any length, on any threads and instructions") {
    for (const InstructionSet set : InstructionSets()) {
      for (const int threads : {1, 3}) {
        for (const int chunk : {1, 7, 64, 259}) {
          if (chunk == 1 && threads == 1) continue;
          ThreadPool pool(threads);
          World world = make();
          std::vector<uint8_t> joined;
          for (int first = 0; first < tokens; first += chunk) {
            const int last = std::min(tokens, first + chunk);
            const std::vector<uint8_t> part =
                Run(world, {&pool, set}, {{1, first, last, PagesFrom(1, last)}});
            joined.insert(joined.end(), part.begin(), part.end());
          }
          CAPTURE(NameOf(set), threads, chunk);
          CHECK(SameBits(joined, whole));
        }
      }
    }
  }
  SECTION("on pages in any order, beside other sequences") {
    ThreadPool pool(2);
    World world = make();
    std::vector<int32_t> shuffled = PagesFrom(0, 200 * kPageTokens);
    for (size_t i = shuffled.size(); i > 1; --i)
      std::swap(shuffled[i - 1], shuffled[SplitMix64(i) % i]);
    const std::vector<int32_t> mine(shuffled.begin(), shuffled.begin() + 50);
    const std::vector<int32_t> other(shuffled.begin() + 50, shuffled.begin() + 60);
    const std::vector<int32_t> third(shuffled.begin() + 60, shuffled.begin() + 61);
    const CpuContext cpu = {&pool, InstructionSets().back()};
    const std::vector<uint8_t> first_part =
        Run(world, cpu, {{2, 0, 150, other}, {1, 0, 500, mine}});
    CHECK(SameBits(RowsOf(world, first_part, 150, 650), RowsOf(world, whole, 0, 500)));
    const std::vector<uint8_t> second_part =
        Run(world, cpu, {{3, 0, 3, third}, {1, 500, 789, mine}, {2, 150, 151, other}});
    CHECK(SameBits(RowsOf(world, second_part, 3, 292), RowsOf(world, whole, 500, 789)));
    const std::vector<uint8_t> decode = Run(world, cpu, {{1, 789, 790, mine}, {3, 3, 4, third}});
    CHECK(SameBits(RowsOf(world, decode, 0, 1), RowsOf(world, whole, 789, 790)));
  }
}

TEST_CASE("decoding rows read all heads at a time in the bits of one head at a time", "[cpu]") {
  const auto [query_heads, kv_heads, head_dim] = GENERATE(table<int, int, int>(
      {{4, 4, 24}, {9, 3, 64}, {32, 8, 64}, {8, 2, 128}, {4, 2, 256}, {24, 2, 30}}));
  const DType dtype = GENERATE(DType::kBF16, DType::kF32);
  const int window = GENERATE(0, 300);
  const float softcap = GENERATE(0.0f, 2.0f);
  CAPTURE(query_heads, kv_heads, head_dim, InfoOf(dtype).name, window, softcap);
  World world = MakeWorld(query_heads, kv_heads, head_dim, dtype, 160);
  world.parameters.window = window;
  world.parameters.softcap = softcap;
  constexpr int kTokens = 1100;
  const std::vector<int32_t> pages = PagesFrom(3, kTokens);
  ThreadPool one(1);
  const std::vector<uint8_t> whole =
      Run(world, {&one, InstructionSets().back()}, {{1, 0, kTokens, pages}});
  // Of these threads two leave enough chunks of all heads, twenty do not.
  for (const int threads : {1, 2, 20}) {
    ThreadPool pool(threads);
    for (const InstructionSet set : InstructionSets()) {
      CAPTURE(threads, NameOf(set));
      const std::vector<uint8_t> last =
          Run(world, {&pool, set}, {{1, kTokens - 1, kTokens, pages}});
      CHECK(SameBits(last, RowsOf(world, whole, kTokens - 1, kTokens)));
    }
  }
}

TEST_CASE("a page that fell out of the window may be gone, and no bit changes", "[cpu]") {
  const int window = GENERATE(1, 16, 17, 300);
  const int chunk = GENERATE(1, 5, 64, 259);
  const int threads = GENERATE(1, 3);
  const DType dtype = GENERATE(DType::kBF16, DType::kF32);
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  CAPTURE(window, chunk, threads, InfoOf(dtype).name, NameOf(set));
  const int tokens = chunk == 1 ? 330 : 790;
  ThreadPool pool(threads);
  World base = MakeWorld(4, 2, 24, dtype, 60);
  base.parameters.window = window;
  const std::vector<uint8_t> whole =
      Run(base, {&pool, set}, {{1, 0, tokens, PagesFrom(1, tokens)}});

  World world = MakeWorld(4, 2, 24, dtype, 60);
  world.parameters.window = window;
  world.windowed = true;
  std::vector<uint8_t> joined;
  for (int first = 0; first < tokens; first += chunk) {
    const int last = std::min(tokens, first + chunk);
    std::vector<int32_t> pages = PagesFrom(1, last);
    const KvLayer layer = world.layer();
    for (int64_t i = 0; i < FirstWindowPage(first, window); ++i) {
      // NaNs, as if another sequence's.
      const int64_t page = pages[static_cast<size_t>(i)];
      std::fill_n(layer.keys(page, 0), layer.stride_bytes(), uint8_t{0xff});
      std::fill_n(layer.values(page, 0), layer.stride_bytes(), uint8_t{0xff});
      pages[static_cast<size_t>(i)] = -1;
    }
    const std::vector<uint8_t> part = Run(world, {&pool, set}, {{1, first, last, pages}});
    joined.insert(joined.end(), part.begin(), part.end());
  }
  CHECK(SameBits(joined, whole));
}

}  // namespace
}  // namespace neurogrid
