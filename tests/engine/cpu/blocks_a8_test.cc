// Blocks beside activations of 8 bits, against f64.
#include <algorithm>
#include <cmath>
#include <vector>

#include "catch2/catch_test_macros.hpp"
#include "catch2/generators/catch_generators.hpp"
#include "catch2/generators/catch_generators_range.hpp"
#include "engine/cpu/matmul.h"
#include "engine/model/read_rows.h"
#include "tests/engine/cpu_support.h"
#include "tests/engine/golden_blocks.h"

namespace neurogrid {
namespace {

constexpr int64_t kOutputs = kGoldenBlockRows;
constexpr int64_t kInputs = kGoldenBlockInputs;

PackedMatrix PackOf(ThreadPool& pool, int64_t inputs,
                    const std::vector<WeightStore::Entry>& parts) {
  return PackedMatrix::PackStored(pool, inputs, parts, BlockInputs::k8Bits).value();
}

/// A stored tensor [outputs, inputs] by its numbers.
struct Weights {
  explicit Weights(const WeightStore::Entry& entry)
      : inputs(entry.tensor.shape[1]),
        unit_inputs(GroupFormatOf(entry.tensor.dtype).unit_inputs()) {
    const DType dtype = entry.tensor.dtype;
    const DTypeInfo& info = InfoOf(dtype);
    const GroupFormat& format = GroupFormatOf(dtype);
    const auto* block = static_cast<const uint8_t*>(entry.tensor.data);
    for (int64_t i = 0; i < entry.tensor.shape.elements(); i += info.block_elements) {
      BlockNumbers numbers;
      DecodeBlock(dtype, block, numbers);
      block += info.block_bytes;
      for (int k = 0; k < info.block_elements; ++k) {
        const int group = k / format.group_inputs;
        const double scale{numbers.ScaleOf(format, group)};
        const double minimum = format.has_minimum ? double{numbers.MinimumOf(format, group)} : 0;
        const int value = format.ValueOf(numbers.codes[static_cast<size_t>(k)]);
        values.push_back(scale * value + minimum);
        summands.push_back(std::fabs(scale) * (std::abs(value) + 2 * format.offset()) +
                           std::fabs(minimum));
      }
    }
  }

  int64_t inputs;
  int64_t unit_inputs;
  std::vector<double> values;    // [outputs][inputs]
  std::vector<double> summands;  // magnitudes of what the kernel adds up: codes count from zero
};

/// y = x W^T + bias in f64, and how far the product may stray.
///
/// An activation is rounded to a multiple of max|x| / 127 of its unit: it strays by half of that,
/// by 127 * 2 units of f32 of that (the quotient by which it is multiplied, and the product) and by
/// a unit of its own (the scale). Then integers are exact; a group costs 4 roundings at most, over
/// inputs / 16 groups, and the bias and the end 2. One is a unit of what was added up so far.
ExpectedProduct Expect(const Weights& w, const std::vector<float>& x,
                       const std::vector<float>& bias) {
  const int64_t outputs = static_cast<int64_t>(w.values.size()) / w.inputs;
  const int64_t rows = static_cast<int64_t>(x.size()) / w.inputs;
  const double roundings = 4 * static_cast<double>(w.inputs) / 16 + 2;
  ExpectedProduct expected;
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<double> strays;
    for (int64_t k = 0; k < w.inputs; ++k) {
      const int64_t first = k / w.unit_inputs * w.unit_inputs;
      double largest = 0;
      for (int64_t i = first; i < std::min(w.inputs, first + w.unit_inputs); ++i) {
        largest = std::max(largest, std::fabs(double{x[static_cast<size_t>(r * w.inputs + i)]}));
      }
      strays.push_back(largest / 127 * (0.5 + 127 * 2 * kF32Unit) + kF32Unit * largest);
    }
    for (int64_t n = 0; n < outputs; ++n) {
      double sum{bias[static_cast<size_t>(n)]};
      double magnitude = std::fabs(sum);
      double stray = 0;
      for (int64_t k = 0; k < w.inputs; ++k) {
        const double activation{x[static_cast<size_t>(r * w.inputs + k)]};
        const auto at = static_cast<size_t>(n * w.inputs + k);
        const double step = strays[static_cast<size_t>(k)];
        sum += w.values[at] * activation;
        magnitude += w.summands[at] * (std::fabs(activation) + step);
        stray += std::fabs(w.values[at]) * step;
      }
      expected.value.push_back(sum);
      expected.bound.push_back(roundings * kF32Unit * magnitude + stray + 1e-37);
    }
  }
  return expected;
}

std::vector<float> Product(const CpuContext& cpu, const PackedMatrix& w, std::vector<bf16> x,
                           const std::vector<float>& bias) {
  const int64_t rows = static_cast<int64_t>(x.size()) / w.inputs();
  const MatMulScratch scratch = MatMulScratch::Allocate(rows, w.inputs()).value();
  std::vector<float> y(static_cast<size_t>(rows * w.outputs()));
  MatMul(cpu, View(y, {rows, w.outputs()}), View(x, {rows, w.inputs()}), w,
         bias.empty() ? nullptr : bias.data(), scratch);
  return y;
}

/// Row `row` of x [rows][inputs], and those after it.
std::vector<bf16> From(const std::vector<bf16>& x, int64_t row, int64_t inputs) {
  return {x.begin() + row * inputs, x.end()};
}

/// A few channels are a hundred times as large, and a unit is nothing.
std::vector<bf16> UnevenActivations(int64_t rows, int64_t inputs) {
  std::vector<bf16> x = RandomBf16(5, rows * inputs);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t k = 7; k < inputs; k += 130) {
      bf16& value = x[static_cast<size_t>(r * inputs + k)];
      value = ToBf16(100 * ToFloat(value));
    }
    if (inputs > 64) std::fill_n(x.begin() + r * inputs + 32, 32, bf16{});
  }
  return x;
}

/// Blocks whose codes and factors are all ones or all zeros, beside scales and minimums of 1.
std::vector<uint8_t> ExtremeBlock(DType dtype, bool upper) {
  constexpr uint8_t kOne[2] = {0x00, 0x3c};
  const auto size = static_cast<size_t>(InfoOf(dtype).block_bytes);
  std::vector<uint8_t> block(size, upper ? 0xff : 0);
  const auto one_at = [&](size_t at) {
    std::copy_n(kOne, 2, block.begin() + static_cast<int64_t>(at));
  };
  switch (dtype) {
    case DType::kQ2_K:
      one_at(80);
      one_at(82);
      break;
    case DType::kQ3_K:
      one_at(108);
      break;
    case DType::kQ6_K:
      std::fill(block.begin() + 192, block.end(), upper ? 0x7f : 0x80);  // factors
      one_at(208);
      break;
    case DType::kQ8_0:
      std::fill(block.begin(), block.end(), upper ? 0x7f : 0x80);
      one_at(0);
      break;
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
      one_at(0);
      one_at(2);
      break;
    default:
      one_at(0);
  }
  return block;
}

}  // namespace

TEST_CASE("a product with blocks beside 8 bits strays by the rounding of its activations",
          "[blocks-a8]") {
  const DType dtype = GENERATE(from_range(BlockTypes()));
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  CAPTURE(InfoOf(dtype).name, NameOf(set));
  constexpr int64_t kRows = 33;
  ThreadPool pool(2);
  const WeightStore::Entry entry = TheBlocks().Entry(dtype);
  const PackedMatrix packed = PackOf(pool, kInputs, {entry});
  const std::vector<bf16> x = UnevenActivations(kRows, kInputs);
  const std::vector<float> bias = RandomFloats(6, kOutputs);
  const std::vector<float> all = Product({&pool, set}, packed, x, bias);
  CHECK(WorstShare(all, Expect(Weights(entry), Widen(x), bias)) <= 1);

  SECTION("in the same bits for any number of rows, threads and instruction set") {
    REQUIRE(SameBits(all, Product({&pool, InstructionSets().back()}, packed, x, bias)));
    for (const int threads : {1, 2, 5}) {
      ThreadPool crowd(threads);
      for (int64_t rows = 1; rows <= 16; ++rows) {
        CAPTURE(rows, threads);
        const std::vector<float> y =
            Product({&crowd, set}, packed, From(x, kRows - rows, kInputs), bias);
        REQUIRE(SameBits(y, std::vector<float>(all.end() - rows * kOutputs, all.end())));
      }
    }
  }
  SECTION("also in batches beyond one block of rows") {
    constexpr int64_t kMany = 450;
    std::vector<bf16> many;
    for (int64_t r = 0; r < kMany; ++r) {
      const auto from = x.begin() + r % kRows * kInputs;
      many.insert(many.end(), from, from + kInputs);
    }
    const std::vector<float> y = Product({&pool, set}, packed, many, bias);
    int wrong = 0;
    for (int64_t r = 0; r < kMany; ++r) {
      wrong += std::memcmp(y.data() + r * kOutputs, all.data() + r % kRows * kOutputs,
                           kOutputs * sizeof(float)) != 0;
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("rows beside 8 bits may be any whole number of blocks long", "[blocks-a8]") {
  const DType dtype = GENERATE(from_range(BlockTypes()));
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  const int64_t unit = GroupFormatOf(dtype).unit_inputs();
  // Around the 256 inputs that a kernel takes at a time, and the 512 of a block in memory.
  const int64_t inputs = GENERATE_COPY(unit, 256 + unit, 512 + unit, 1024, 1536 + unit);
  CAPTURE(InfoOf(dtype).name, NameOf(set), inputs);
  WeightStore::Entry entry = TheBlocks().Entry(dtype);
  // The same blocks, in rows of another length.
  entry.tensor.shape =
      Shape({std::min<int64_t>(kOutputs - 1, kOutputs * kInputs / inputs), inputs});
  ThreadPool pool(2);
  const PackedMatrix packed = PackOf(pool, inputs, {entry});
  const std::vector<bf16> x = UnevenActivations(9, inputs);
  const std::vector<float> bias = RandomFloats(6, packed.outputs());
  const std::vector<float> all = Product({&pool, set}, packed, x, bias);
  CHECK(WorstShare(all, Expect(Weights(entry), Widen(x), bias)) <= 1);
  CHECK(SameBits(Product({&pool, set}, packed, From(x, 8, inputs), bias),
                 std::vector<float>(all.end() - packed.outputs(), all.end())));
}

TEST_CASE("sums of the largest codes beside the largest 8-bit activations are exact",
          "[blocks-a8]") {
  const DType dtype = GENERATE(from_range(BlockTypes()));
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  const bool upper = GENERATE(false, true);
  const float activation = GENERATE(1.0f, -1.0f);
  const int64_t rows = GENERATE(int64_t{1}, int64_t{17});  // codes in registers, codes as bytes
  CAPTURE(NameOf(set), InfoOf(dtype).name, upper, activation, rows);
  const std::vector<uint8_t> block = ExtremeBlock(dtype, upper);
  std::vector<uint8_t> bytes;
  for (int64_t i = 0; i < kOutputs * kInputs / InfoOf(dtype).block_elements; ++i) {
    bytes.insert(bytes.end(), block.begin(), block.end());
  }
  WeightStore::Entry entry = TheBlocks().Entry(dtype);
  entry.tensor.data = bytes.data();
  const Weights weights(entry);
  ThreadPool pool(1);
  const std::vector<bf16> x(static_cast<size_t>(rows * kInputs), ToBf16(activation));
  const std::vector<float> y = Product({&pool, set}, PackOf(pool, kInputs, {entry}), x, {});
  // Every activation is 127 times its scale, which one rounding makes: nothing else is lost but
  // the roundings of sums.
  const double sum = kInputs * weights.values[0] * double{activation};
  const double roundings = 4 * static_cast<double>(kInputs) / 16 + 2 + 1;
  const double bound = roundings * kF32Unit * kInputs * weights.summands[0];
  for (const float value : y) REQUIRE(std::fabs(double{value} - sum) <= bound);
}

TEST_CASE("parts of several types each find activations in their own units", "[blocks-a8]") {
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  const GoldenBlocks& blocks = TheBlocks();
  ThreadPool pool(2);
  const std::vector<WeightStore::Entry> parts = {
      FirstRows(blocks.Entry(DType::kQ4_K), 50), FirstRows(blocks.Entry(DType::kQ4_0), 20),
      FirstRows(blocks.Entry(DType::kQ6_K), 33), FirstRows(blocks.Entry(DType::kQ8_0), 5),
      FirstRows(blocks.Entry(DType::kBF16), 3)};
  const PackedMatrix packed = PackOf(pool, kInputs, parts);
  constexpr int64_t kRows = 7;
  const std::vector<bf16> x = UnevenActivations(kRows, kInputs);
  const std::vector<float> y = Product({&pool, set}, packed, x, {});
  int64_t first = 0;
  for (const WeightStore::Entry& part : parts) {
    const int64_t outputs = part.tensor.shape[0];
    const std::vector<float> alone = Product({&pool, set}, PackOf(pool, kInputs, {part}), x, {});
    for (int64_t r = 0; r < kRows; ++r) {
      CHECK(std::memcmp(alone.data() + r * outputs, y.data() + r * packed.outputs() + first,
                        static_cast<size_t>(outputs) * sizeof(float)) == 0);
    }
    first += outputs;
  }
}

TEST_CASE("gate and up of two block types meet beside 8 bits", "[blocks-a8]") {
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  const auto [gate_type, up_type] = GENERATE(table<DType, DType>({{DType::kQ5_K, DType::kQ5_K},
                                                                  {DType::kQ4_K, DType::kQ6_K},
                                                                  {DType::kIQ4_NL, DType::kQ2_K}}));
  CAPTURE(InfoOf(gate_type).name, InfoOf(up_type).name, NameOf(set));
  constexpr int64_t kRows = 9;
  constexpr int64_t kFfn = 45;
  ThreadPool pool(2);
  const WeightStore::Entry gate = FirstRows(TheBlocks().Entry(gate_type), kFfn);
  const WeightStore::Entry up = FirstRows(TheBlocks().Entry(up_type), kFfn);
  const PackedMatrix both =
      PackedMatrix::PackGatedStored(pool, kInputs, gate, up, BlockInputs::k8Bits).value();
  std::vector<bf16> x;
  for (const float value : RandomFloats(3, kRows * kInputs)) x.push_back(ToBf16(value / 16));
  // Both in one form have units of 32, whose activations stray by less than those of 256.
  const std::vector<float> none(kFfn);
  const ExpectedProduct gates = Expect(Weights(gate), Widen(x), none);
  const ExpectedProduct ups = Expect(Weights(up), Widen(x), none);
  std::vector<float> y(kRows * kFfn);
  const MatMulScratch scratch = MatMulScratch::Allocate(kRows, kInputs).value();
  MatMulGated({&pool, set}, View(y, {kRows, kFfn}), View(x, {kRows, kInputs}), both, nullptr,
              Activation::kSilu, scratch);
  double worst = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    const double g = gates.value[i], u = ups.value[i];
    const double silu = g / (1 + std::exp(-g));
    // exp is good to 2 ulps (4 units); sum, quotient and product round once. SiLU's slope is below
    // 1.1.
    const double allowed = 7 * kF32Unit * std::fabs(silu * u) + std::fabs(silu) * ups.bound[i] +
                           1.1 * gates.bound[i] * (std::fabs(u) + ups.bound[i]) + 1e-30;
    worst = std::max(worst, std::fabs(double{y[i]} - silu * u) / allowed);
  }
  CHECK(worst <= 1);
}

TEST_CASE("beside 8 bits what is not finite leaves no number, zeros leave zeros", "[blocks-a8]") {
  const DType dtype = GENERATE(from_range(BlockTypes()));
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  CAPTURE(InfoOf(dtype).name, NameOf(set));
  ThreadPool pool(1);
  const PackedMatrix packed = PackOf(pool, kInputs, {TheBlocks().Entry(dtype)});
  for (const int bits : {0x7f80, 0xff80, 0x7f81, 0xffff}) {  // infinities; NaNs
    for (const size_t at : {0, 255, 256, 511}) {
      std::vector<bf16> x(2 * kInputs);  // zeros but for it; the second row has none
      x[at].bits = static_cast<uint16_t>(bits);
      const std::vector<float> y = Product({&pool, set}, packed, x, {});
      const auto middle = y.begin() + kOutputs;
      CHECK(std::all_of(y.begin(), middle, [](float value) { return std::isnan(value); }));
      CHECK(std::all_of(middle, y.end(), [](float value) { return value == 0; }));
    }
  }
  for (const int bits : {0x8000, 0x007f}) {  // a zero and a denormal
    const std::vector<float> y = Product(
        {&pool, set}, packed, std::vector<bf16>(kInputs, bf16{static_cast<uint16_t>(bits)}), {});
    CHECK(std::all_of(y.begin(), y.end(), [](float value) { return value == 0; }));
  }
}

}  // namespace neurogrid
