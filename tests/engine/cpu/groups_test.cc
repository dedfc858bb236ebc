// Block types held as they are: values and products against the reference dequantisation and f64.
#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <map>
#include <vector>

#include "catch2/catch_test_macros.hpp"
#include "catch2/generators/catch_generators.hpp"
#include "catch2/generators/catch_generators_range.hpp"
#include "engine/cpu/matmul.h"
#include "engine/model/read_rows.h"
#include "engine/model/stage_memory.h"
#include "tests/engine/cpu_support.h"
#include "tests/engine/golden_blocks.h"

namespace neurogrid {
namespace {

constexpr int64_t kOutputs = kGoldenBlockRows;
constexpr int64_t kInputs = kGoldenBlockInputs;

std::vector<float> RowsOf(const PackedMatrix& packed) {
  std::vector<float> rows(static_cast<size_t>(packed.outputs() * packed.inputs()));
  for (int64_t n = 0; n < packed.outputs(); ++n) {
    packed.ReadRow(n, rows.data() + n * packed.inputs());
  }
  return rows;
}

/// Half the distance between neighbouring values of an activation in a block of so many.
double HalfStep(const float* x, int64_t count) {
  float largest = 0;
  for (int64_t k = 0; k < count; ++k) largest = std::max(largest, std::fabs(x[k]));
  int exponent = -100;
  if (largest >= 0x1p-101f) {
    std::frexp(largest, &exponent);  // largest < 2^exponent
    if (std::ldexp(largest, 15 - exponent) >= 32640) ++exponent;
  }
  return std::ldexp(0.5, exponent - 15);
}

/// y = x W^T in f64, and how far the product may stray.
///
/// Activations are rounded to multiples of 2^-15 times a power of two, the least that makes them
/// integers below 32640 among their 512, at least 2^-115: each strays by half of that. From there
/// on, integers are exact; for each group of inputs, the sum of its products becomes f32 (1
/// rounding), is multiplied by the scale and added to the block's sum (1), and so is minimum times
/// the sum of the group's activations (1), over inputs / 16 groups; a block's sum is added to the
/// row's (1). A rounding costs one unit of what has been added up so far in magnitude: |scale *
/// value * x| and |minimum * x| over all inputs, whatever cancels between the two.
///
/// `magnitudes` [outputs][inputs]: |scale * value| + |minimum| of each weight.
ExpectedProduct Expect(const std::vector<float>& w, const std::vector<float>& magnitudes,
                       const std::vector<float>& x, const std::vector<float>& bias,
                       int64_t inputs) {
  const int64_t outputs = static_cast<int64_t>(w.size()) / inputs;
  const int64_t rows = static_cast<int64_t>(x.size()) / inputs;
  const double roundings =
      3 * static_cast<double>(inputs) / 16 + static_cast<double>(inputs) / 512 + 2;
  ExpectedProduct expected;
  for (int64_t r = 0; r < rows; ++r) {
    const float* const row = x.data() + r * inputs;
    for (int64_t n = 0; n < outputs; ++n) {
      double sum = bias[static_cast<size_t>(n)];
      double magnitude = std::fabs(sum);
      double stray = 0;
      double half_step = 0;
      for (int64_t k = 0; k < inputs; ++k) {
        if (k % 512 == 0) half_step = HalfStep(row + k, std::min<int64_t>(512, inputs - k));
        const double activation = row[k];
        const double weight = magnitudes[static_cast<size_t>(n * inputs + k)];
        sum += double{w[static_cast<size_t>(n * inputs + k)]} * activation;
        magnitude += weight * (std::fabs(activation) + half_step);
        stray += weight * half_step;
      }
      expected.value.push_back(sum);
      expected.bound.push_back(roundings * kF32Unit * magnitude + stray + 1e-37);
    }
  }
  return expected;
}

}  // namespace

TEST_CASE("blocks in memory have the bits of the reference's values", "[groups]") {
  const DType dtype = GENERATE(from_range(BlockTypes()));
  CAPTURE(InfoOf(dtype).name);
  ThreadPool pool(2);
  const PackedMatrix packed =
      PackedMatrix::PackStored(pool, kInputs, {TheBlocks().Entry(dtype)}).value();
  CHECK(SameBits(RowsOf(packed), TheBlocks().Values(dtype)));
  const int64_t counted = StoredMatrixBytes({{dtype, kOutputs}}, kInputs);
  CHECK(packed.bytes() <= counted);
  CHECK(packed.bytes() > counted - kMemoryGranuleBytes);
}

TEST_CASE("blocks in memory take little more than in the file", "[groups]") {
  const std::map<DType, double> bits = {
      {DType::kQ4_0, 4.5},   {DType::kQ4_1, 5},     {DType::kQ5_0, 5.5},   {DType::kQ5_1, 6},
      {DType::kQ8_0, 8.5},   {DType::kQ4_K, 4.625}, {DType::kQ5_K, 5.625}, {DType::kQ6_K, 6.5625},
      {DType::kIQ4_NL, 4.5}, {DType::kQ2_K, 5.125}, {DType::kQ3_K, 4.5625}};
  for (const auto& [dtype, expected] : bits) {
    CAPTURE(InfoOf(dtype).name);
    CHECK(8.0 * static_cast<double>(StoredPanelBytes(dtype, 1024)) / (64 * 1024) == expected);
  }
}

TEST_CASE("rows that a file interleaves are put back when blocks are packed", "[groups]") {
  ThreadPool pool(2);
  WeightStore::Entry entry = TheBlocks().Entry(DType::kQ4_K);
  entry.interleaved_heads = 4;  // of 16 rows
  const PackedMatrix packed = PackedMatrix::PackStored(pool, kInputs, {entry}).value();
  const std::vector<float> stored = TheBlocks().Values(DType::kQ4_K);
  std::vector<float> row(kInputs);
  for (int64_t head = 0; head < 4; ++head) {
    for (int64_t r = 0; r < 2; ++r) {
      for (int64_t j = 0; j < 8; ++j) {
        packed.ReadRow(16 * head + 8 * r + j, row.data());
        const auto from = stored.begin() + (16 * head + 2 * j + r) * kInputs;
        REQUIRE(SameBits(row, std::vector<float>(from, from + kInputs)));
      }
    }
  }
}

/// Like real ones: a few channels a thousand times as large, and a group of nothing.
std::vector<bf16> UnevenActivations(int64_t rows) {
  std::vector<bf16> x = RandomBf16(5, rows * kInputs);
  for (int64_t r = 0; r < rows; ++r) {
    for (const int64_t k : {7, 130, 131, 300}) {
      bf16& value = x[static_cast<size_t>(r * kInputs + k)];
      value = ToBf16(1000 * ToFloat(value));
    }
    std::fill_n(x.begin() + r * kInputs + 32, 32, bf16{});
  }
  return x;
}

TEST_CASE("a product with blocks is that of their values, within the roundings of its sums",
          "[groups]") {
  const DType dtype = GENERATE(from_range(BlockTypes()));
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  CAPTURE(InfoOf(dtype).name, NameOf(set));
  constexpr int64_t kRows = 33;
  ThreadPool pool(2);
  const WeightStore::Entry entry = TheBlocks().Entry(dtype);
  const PackedMatrix packed = PackedMatrix::PackStored(pool, kInputs, {entry}).value();
  const MatMulScratch scratch = MatMulScratch::Allocate(450, kInputs).value();
  std::vector<bf16> x = UnevenActivations(kRows);
  const std::vector<float> bias = RandomFloats(6, kOutputs);
  const ExpectedProduct expected =
      Expect(TheBlocks().Values(dtype), MagnitudesOf(entry), Widen(x), bias, kInputs);
  std::vector<float> all(static_cast<size_t>(kRows * kOutputs));
  MatMul({&pool, set}, View(all, {kRows, kOutputs}), View(x, {kRows, kInputs}), packed, bias.data(),
         scratch);
  CHECK(WorstShare(all, expected) <= 1);

  SECTION("in the same bits for any number of rows, threads and instruction set") {
    std::vector<float> reference(all.size());
    MatMul({&pool, InstructionSets().back()}, View(reference, {kRows, kOutputs}),
           View(x, {kRows, kInputs}), packed, bias.data(), scratch);
    REQUIRE(SameBits(all, reference));
    for (const int threads : {1, 2, 5}) {
      ThreadPool crowd(threads);
      for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 16, 33}) {
        CAPTURE(rows, threads);
        const int64_t first = kRows - rows;
        std::vector<bf16> some(x.begin() + first * kInputs, x.end());
        std::vector<float> y(static_cast<size_t>(rows * kOutputs));
        MatMul({&crowd, set}, View(y, {rows, kOutputs}), View(some, {rows, kInputs}), packed,
               bias.data(), scratch);
        REQUIRE(SameBits(y, std::vector<float>(all.begin() + first * kOutputs, all.end())));
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
    std::vector<float> y(static_cast<size_t>(kMany * kOutputs));
    MatMul({&pool, set}, View(y, {kMany, kOutputs}), View(many, {kMany, kInputs}), packed,
           bias.data(), scratch);
    int wrong = 0;
    for (int64_t r = 0; r < kMany; ++r) {
      wrong += std::memcmp(y.data() + r * kOutputs, all.data() + r % kRows * kOutputs,
                           kOutputs * sizeof(float)) != 0;
    }
    CHECK(wrong == 0);
  }
  SECTION("added to what was there, and rounded once") {
    std::vector<bf16> sum(all.size(), ToBf16(2.5f));
    MatMulAdd({&pool, set}, View(sum, {kRows, kOutputs}), View(x, {kRows, kInputs}), packed,
              bias.data(), scratch);
    int wrong = 0;
    for (size_t i = 0; i < sum.size(); ++i) wrong += sum[i].bits != ToBf16(all[i] + 2.5f).bits;
    CHECK(wrong == 0);
  }
}

TEST_CASE("the largest activation of a block may have all bits set, at any magnitude", "[groups]") {
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  // 255 / 128 times a power of two: one more would be two bytes too many.
  const float largest = GENERATE(0x1.fep0f, -0x1.fep0f, 0x1.fep90f, 0x1.fep-90f, 0x1.fep-110f);
  CAPTURE(NameOf(set), largest);
  ThreadPool pool(1);
  const WeightStore::Entry entry = TheBlocks().Entry(DType::kQ8_0);
  const PackedMatrix packed = PackedMatrix::PackStored(pool, kInputs, {entry}).value();
  const MatMulScratch scratch = MatMulScratch::Allocate(1, kInputs).value();
  std::vector<bf16> x = RandomBf16(11, kInputs);
  for (bf16& value : x) value = ToBf16(ToFloat(value) * std::fabs(largest) / 8);
  for (const size_t k : {0, 33, 511}) x[k] = ToBf16(largest);
  const std::vector<float> bias(kOutputs);
  std::vector<float> y(kOutputs);
  MatMul({&pool, set}, View(y, {1, kOutputs}), View(x, {1, kInputs}), packed, bias.data(), scratch);
  CHECK(WorstShare(y, Expect(TheBlocks().Values(DType::kQ8_0), MagnitudesOf(entry), Widen(x), bias,
                             kInputs)) <= 1);
}

TEST_CASE("rows may be any whole number of blocks long, and panels may end early", "[groups]") {
  const DType dtype = GENERATE(from_range(BlockTypes()));
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  const int64_t unit = GroupFormatOf(dtype).unit_inputs();
  // Shorter than a kernel's block of 512, a unit longer, several blocks, and several and a unit.
  const int64_t inputs = GENERATE_COPY(unit, 512 + unit, 1024, 1536 + unit);
  CAPTURE(InfoOf(dtype).name, NameOf(set), inputs);
  const int64_t outputs = std::min<int64_t>(kOutputs - 1, kOutputs * kInputs / inputs);
  WeightStore::Entry entry = TheBlocks().Entry(dtype);
  entry.tensor.shape = Shape({outputs, inputs});  // the same blocks, in rows of another length
  std::vector<float> values = TheBlocks().Values(dtype);
  values.resize(static_cast<size_t>(outputs * inputs));
  std::vector<float> magnitudes = MagnitudesOf(entry);
  magnitudes.resize(values.size());
  ThreadPool pool(2);
  const PackedMatrix packed = PackedMatrix::PackStored(pool, inputs, {entry}).value();
  CHECK(SameBits(RowsOf(packed), values));
  constexpr int64_t kRows = 27;
  const MatMulScratch scratch = MatMulScratch::Allocate(kRows, inputs).value();
  std::vector<bf16> x = RandomBf16(9, kRows * inputs);
  const std::vector<float> bias = RandomFloats(6, outputs);
  std::vector<float> all(static_cast<size_t>(kRows * outputs));
  MatMul({&pool, set}, View(all, {kRows, outputs}), View(x, {kRows, inputs}), packed, bias.data(),
         scratch);
  CHECK(WorstShare(all, Expect(values, magnitudes, Widen(x), bias, inputs)) <= 1);
  std::vector<bf16> one(x.end() - inputs, x.end());
  std::vector<float> y(static_cast<size_t>(outputs));
  MatMul({&pool, set}, View(y, {1, outputs}), View(one, {1, inputs}), packed, bias.data(), scratch);
  CHECK(SameBits(y, std::vector<float>(all.end() - outputs, all.end())));
}

TEST_CASE("parts of several types stand below each other, each in its own form", "[groups]") {
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  const GoldenBlocks& blocks = TheBlocks();
  ThreadPool pool(2);
  // q and k of one type share panels; v has another, and a plain part is bf16.
  const std::vector<WeightStore::Entry> parts = {
      FirstRows(blocks.Entry(DType::kQ4_K), 50), FirstRows(blocks.Entry(DType::kQ4_K), 20),
      FirstRows(blocks.Entry(DType::kQ6_K), 33), FirstRows(blocks.Entry(DType::kQ2_K), 5),
      FirstRows(blocks.Entry(DType::kBF16), 3)};
  const std::vector<StoredRows> counts = {{DType::kQ4_K, 50},
                                          {DType::kQ4_K, 20},
                                          {DType::kQ6_K, 33},
                                          {DType::kQ2_K, 5},
                                          {DType::kBF16, 3}};
  const PackedMatrix packed = PackedMatrix::PackStored(pool, kInputs, parts).value();
  CHECK(packed.outputs() == 111);
  CHECK(packed.panels() == 2 + 1 + 1 + 1);
  CHECK(packed.bytes() == StoredMatrixBytes(counts, kInputs));
  std::vector<float> values;
  for (const StoredRows& part : counts) {
    const std::vector<float> all = blocks.Values(part.dtype);
    values.insert(values.end(), all.begin(), all.begin() + part.rows * kInputs);
  }
  CHECK(SameBits(RowsOf(packed), values));

  // Each output is that of its part alone.
  constexpr int64_t kRows = 7;
  const MatMulScratch scratch = MatMulScratch::Allocate(kRows, kInputs).value();
  std::vector<bf16> x = RandomBf16(8, kRows * kInputs);
  const std::vector<float> bias = RandomFloats(6, packed.outputs());
  std::vector<float> y(static_cast<size_t>(kRows * packed.outputs()));
  MatMul({&pool, set}, View(y, {kRows, packed.outputs()}), View(x, {kRows, kInputs}), packed,
         bias.data(), scratch);
  int64_t first = 0;
  for (const WeightStore::Entry& part : parts) {
    const int64_t outputs = part.tensor.shape[0];
    std::vector<float> alone(static_cast<size_t>(kRows * outputs));
    MatMul({&pool, set}, View(alone, {kRows, outputs}), View(x, {kRows, kInputs}),
           PackedMatrix::PackStored(pool, kInputs, {part}).value(), bias.data() + first, scratch);
    for (int64_t r = 0; r < kRows; ++r) {
      CHECK(std::memcmp(alone.data() + r * outputs, y.data() + r * packed.outputs() + first,
                        static_cast<size_t>(outputs) * sizeof(float)) == 0);
    }
    first += outputs;
  }
}

TEST_CASE("gate and up projections in blocks meet in one panel", "[groups]") {
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  const auto [gate_type, up_type] = GENERATE(table<DType, DType>({{DType::kQ4_1, DType::kQ4_1},
                                                                  {DType::kQ6_K, DType::kQ6_K},
                                                                  {DType::kQ4_K, DType::kQ6_K},
                                                                  {DType::kIQ4_NL, DType::kQ2_K},
                                                                  {DType::kQ8_0, DType::kBF16}}));
  CAPTURE(InfoOf(gate_type).name, InfoOf(up_type).name, NameOf(set));
  constexpr int64_t kRows = 9;
  constexpr int64_t kFfn = 45;
  ThreadPool pool(2);
  const CpuContext cpu = {&pool, set};
  const WeightStore::Entry gate = FirstRows(TheBlocks().Entry(gate_type), kFfn);
  const WeightStore::Entry up = FirstRows(TheBlocks().Entry(up_type), kFfn);
  const PackedMatrix both = PackedMatrix::PackGatedStored(pool, kInputs, gate, up).value();
  CHECK(both.bytes() <= StoredGatedBytes(kFfn, kInputs, gate_type, up_type));
  CHECK(both.bytes() > StoredGatedBytes(kFfn, kInputs, gate_type, up_type) - kMemoryGranuleBytes);
  const MatMulScratch scratch = MatMulScratch::Allocate(kRows, kInputs).value();
  std::vector<bf16> x;
  for (const float value : RandomFloats(3, kRows * kInputs)) x.push_back(ToBf16(value / 16));
  const std::vector<float> bias = RandomFloats(4, 2 * kFfn);
  std::vector<float> g(kRows * kFfn), u(g), y(g);
  const auto product = [&](const WeightStore::Entry& entry, const float* b,
                           std::vector<float>& out) {
    // Beside a plain type, blocks are held in bf16 too.
    const PackedMatrix packed =
        up_type == DType::kBF16
            ? PackedMatrix::Pack(pool, PackedMatrix::Format::kBf16, kFfn, kInputs,
                                 [&entry](int64_t first, int64_t count, float* rows) {
                                   ReadRows(entry, first, count, rows);
                                   return absl::OkStatus();
                                 })
                  .value()
            : PackedMatrix::PackStored(pool, kInputs, {entry}).value();
    MatMul(cpu, View(out, {kRows, kFfn}), View(x, {kRows, kInputs}), packed, b, scratch);
    const std::vector<float> magnitudes =
        IsBlockType(entry.tensor.dtype) ? MagnitudesOf(entry) : RowsOf(packed);
    return Expect(RowsOf(packed), magnitudes, Widen(x), std::vector<float>(b, b + kFfn), kInputs);
  };
  const ExpectedProduct gates = product(gate, bias.data(), g);
  const ExpectedProduct ups = product(up, bias.data() + kFfn, u);
  MatMulGated(cpu, View(y, {kRows, kFfn}), View(x, {kRows, kInputs}), both, bias.data(),
              Activation::kSilu, scratch);
  const bool own_form = gate_type == up_type || up_type == DType::kBF16;
  double worst = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    const double silu = double{g[i]} / (1 + std::exp(-double{g[i]}));
    const double expected = silu * double{u[i]};
    // exp is good to 2 ulps (4 units); sum, quotient and product round once each.
    double allowed = 7 * kF32Unit * std::fabs(expected) + 1e-30;
    // Another form sums in groups of 16: both stray by their bounds. SiLU's slope is below 1.1.
    if (!own_form) {
      allowed += 2 * 1.1 * gates.bound[i] * (std::fabs(double{u[i]}) + ups.bound[i]) +
                 2 * ups.bound[i] * std::fabs(silu);
    }
    worst = std::max(worst, std::fabs(double{y[i]} - expected) / allowed);
  }
  CHECK(worst <= 1);
}

/// A tensor of kGoldenBlockRows rows whose blocks are all this one.
struct SameBlocks {
  SameBlocks(DType dtype, const std::vector<uint8_t>& block) {
    const int64_t blocks = kOutputs * kInputs / InfoOf(dtype).block_elements;
    for (int64_t i = 0; i < blocks; ++i) bytes.insert(bytes.end(), block.begin(), block.end());
    entry = TheBlocks().Entry(dtype);
    entry.tensor.data = bytes.data();
  }

  std::vector<uint8_t> bytes;
  WeightStore::Entry entry;
};

/// Every code and factor at its end of the range; scales are 1, minimums too.
std::vector<uint8_t> ExtremeBlock(DType dtype, bool upper) {
  std::vector<uint8_t> block(static_cast<size_t>(InfoOf(dtype).block_bytes), upper ? 0xff : 0);
  const auto put = [&](size_t at, std::initializer_list<uint8_t> bytes) {
    std::copy(bytes.begin(), bytes.end(), block.begin() + static_cast<int64_t>(at));
  };
  switch (dtype) {
    case DType::kQ8_0:
      std::fill(block.begin(), block.end(), upper ? 0x7f : 0x80);
      put(0, {0x00, 0x3c});
      break;
    case DType::kQ6_K:
      std::fill(block.begin() + 192, block.end(), 0x80);  // factors of -128
      put(208, {0x00, 0x3c});
      break;
    case DType::kIQ4_NL:
      put(0, {0x00, 0x3c});
      break;
    default:  // Q4_K, Q5_K, Q5_1: a minimum behind the scale
      put(0, {0x00, 0x3c, 0x00, 0x3c});
  }
  return block;
}

TEST_CASE("sums of the largest codes and activations are exact", "[groups]") {
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  const DType dtype = GENERATE(DType::kQ8_0, DType::kQ6_K, DType::kIQ4_NL, DType::kQ4_K,
                               DType::kQ5_K, DType::kQ5_1);
  const bool upper = GENERATE(false, true);
  // The last number below and the first number at which the next power of two is taken.
  const float largest = GENERATE(0x1.fcp0f, -0x1.fcp0f, 0x1.fep0f);
  constexpr int64_t kRows = 17;  // codes in registers, and codes as bytes
  CAPTURE(NameOf(set), InfoOf(dtype).name, upper, largest);
  ThreadPool pool(1);
  const SameBlocks blocks(dtype, ExtremeBlock(dtype, upper));
  const PackedMatrix packed = PackedMatrix::PackStored(pool, kInputs, {blocks.entry}).value();
  const MatMulScratch scratch = MatMulScratch::Allocate(kRows, kInputs).value();
  for (const int64_t rows : {int64_t{1}, kRows}) {
    std::vector<bf16> x(static_cast<size_t>(rows * kInputs), ToBf16(largest));
    const std::vector<float> bias(kOutputs);
    std::vector<float> y(static_cast<size_t>(rows * kOutputs));
    MatMul({&pool, set}, View(y, {rows, kOutputs}), View(x, {rows, kInputs}), packed, bias.data(),
           scratch);
    CHECK(WorstShare(
              y, Expect(RowsOf(packed), MagnitudesOf(blocks.entry), Widen(x), bias, kInputs)) <= 1);
  }
}

TEST_CASE("what is not finite leaves no number in its row, wherever it stands", "[groups]") {
  const DType dtype = GENERATE(from_range(BlockTypes()));
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  constexpr int64_t kTwice = 2 * kInputs;
  const size_t at = GENERATE(size_t{0}, size_t{511}, size_t{512}, size_t{1023});
  const uint16_t bits = GENERATE(uint16_t{0x7f80}, uint16_t{0xff80}, uint16_t{0x7f81},
                                 uint16_t{0xffff});  // infinities; NaNs of either sign
  CAPTURE(InfoOf(dtype).name, NameOf(set), at, bits);
  ThreadPool pool(1);
  WeightStore::Entry entry = TheBlocks().Entry(dtype);
  entry.tensor.shape = Shape({kOutputs / 2, kTwice});
  const PackedMatrix packed = PackedMatrix::PackStored(pool, kTwice, {entry}).value();
  const MatMulScratch scratch = MatMulScratch::Allocate(1, kTwice).value();
  std::vector<bf16> x(kTwice);  // zeros but for it
  x[at].bits = bits;
  std::vector<float> y(kOutputs / 2);
  MatMul({&pool, set}, View(y, {1, kOutputs / 2}), View(x, {1, kTwice}), packed, nullptr, scratch);
  CHECK(std::all_of(y.begin(), y.end(), [](float value) { return std::isnan(value); }));
}

TEST_CASE("rows of zeros and of denormals give zeros", "[groups]") {
  const DType dtype = GENERATE(from_range(BlockTypes()));
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  const uint16_t bits = GENERATE(uint16_t{0}, uint16_t{0x8000}, uint16_t{0x007f});
  CAPTURE(InfoOf(dtype).name, NameOf(set), bits);
  ThreadPool pool(1);
  const PackedMatrix packed =
      PackedMatrix::PackStored(pool, kInputs, {TheBlocks().Entry(dtype)}).value();
  const MatMulScratch scratch = MatMulScratch::Allocate(1, kInputs).value();
  std::vector<bf16> x(kInputs, bf16{bits});
  std::vector<float> y(kOutputs, 1.0f);
  MatMul({&pool, set}, View(y, {1, kOutputs}), View(x, {1, kInputs}), packed, nullptr, scratch);
  CHECK(std::all_of(y.begin(), y.end(), [](float value) { return value == 0; }));
}

TEST_CASE("a NaN in a row of activations leaves the other rows alone", "[groups]") {
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  ThreadPool pool(1);
  const PackedMatrix packed =
      PackedMatrix::PackStored(pool, kInputs, {TheBlocks().Entry(DType::kQ4_1)}).value();
  const MatMulScratch scratch = MatMulScratch::Allocate(3, kInputs).value();
  std::vector<bf16> x = RandomBf16(5, 3 * kInputs);
  std::vector<float> clean(3 * kOutputs), y(clean);
  MatMul({&pool, set}, View(clean, {3, kOutputs}), View(x, {3, kInputs}), packed, nullptr, scratch);
  x[kInputs + 99] = ToBf16(NAN);
  MatMul({&pool, set}, View(y, {3, kOutputs}), View(x, {3, kInputs}), packed, nullptr, scratch);
  for (size_t n = 0; n < kOutputs; ++n) {
    CHECK(std::isnan(y[kOutputs + n]));
    CHECK(y[n] == clean[n]);
    CHECK(y[2 * kOutputs + n] == clean[2 * kOutputs + n]);
  }
}

}  // namespace neurogrid
