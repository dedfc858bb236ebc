#include "engine/cpu/matmul.h"

#include <bit>
#include <cmath>
#include <numbers>
#include <vector>

#include "catch2/catch_test_macros.hpp"
#include "catch2/generators/catch_generators.hpp"
#include "catch2/generators/catch_generators_range.hpp"
#include "engine/cpu/kernels.h"
#include "tests/engine/cpu_support.h"
#include "tests/engine/spread.h"

namespace neurogrid {
namespace {

using Format = PackedMatrix::Format;

constexpr double kBf16Unit = 0x1p-8;  // the same: 8 significant bits

/// Gives rows of a plain matrix [outputs, inputs].
struct Rows {
  const std::vector<float>& values;
  int64_t inputs;
  absl::Status operator()(int64_t first, int64_t count, float* out) const {
    std::copy_n(values.data() + first * inputs, count * inputs, out);
    return absl::OkStatus();
  }
};

PackedMatrix PackRows(ThreadPool& pool, Format format, const std::vector<float>& w,
                      int64_t inputs) {
  const int64_t outputs = static_cast<int64_t>(w.size()) / inputs;
  return PackedMatrix::Pack(pool, format, outputs, inputs, Rows{w, inputs}).value();
}

/// One product with its operands and, in f64, its value and the most that f32 chains may stray from
/// it.
struct Case {
  Format format;
  int64_t rows, outputs, inputs;
  std::vector<float> w;    // as the packed matrix holds it
  std::vector<bf16> x16;   // unless the format is kF32
  std::vector<float> x32;  // widened x16
  std::vector<float> bias;
  std::vector<double> value;  // [rows][outputs], with bias
  std::vector<double> bound;
};

Case MakeCase(Format format, int64_t rows, int64_t outputs, int64_t inputs) {
  Case c = {format, rows, outputs, inputs, {}, {}, {}, {}, {}, {}};
  c.x16 = RandomBf16(1, rows * inputs);
  c.x32 = format == Format::kF32 ? RandomFloats(1, rows * inputs) : Widen(c.x16);
  c.w = format == Format::kF32 ? RandomFloats(2, outputs * inputs)
                               : Widen(RandomBf16(2, outputs * inputs));
  c.bias = RandomFloats(3, outputs);
  return c;
}

/// Row `index` of values[][inputs] as the products of a format see it.
std::vector<double> RowOf(Format format, const std::vector<float>& values, int64_t index,
                          int64_t inputs) {
  const auto first = values.begin() + index * inputs;
  std::vector<double> row(first, first + inputs);
  if (format == Format::kInt8A8) SpreadByDefinition(row.data(), inputs);
  return row;
}

/// Every rounding of a chain of `inputs` products costs at most one unit of the sum of magnitudes.
/// int16 activations add half a step, max|x| / 32767, for each weight; int8 ones max|x| / 127 of
/// their group. A value that is spread errs by 8 units of its group's norm, which is less than
/// 0.001 of a step of 1 / 127.
void FillExpected(Case& c, const PackedMatrix& packed) {
  std::vector<float> held(static_cast<size_t>(c.outputs * c.inputs));
  for (int64_t n = 0; n < c.outputs; ++n) packed.ReadRow(n, held.data() + n * c.inputs);
  std::vector<std::vector<double>> weights;
  for (int64_t n = 0; n < c.outputs; ++n) weights.push_back(RowOf(c.format, held, n, c.inputs));
  const bool is_a8 = c.format == Format::kInt8A8;
  for (int64_t r = 0; r < c.rows; ++r) {
    const int64_t group = is_a8 ? 128 : c.inputs;
    const std::vector<double> x = RowOf(c.format, c.x32, r, c.inputs);
    std::vector<double> steps(static_cast<size_t>((c.inputs + group - 1) / group));
    for (int64_t k = 0; k < c.inputs; ++k) {
      double& step = steps[static_cast<size_t>(k / group)];
      step = std::max(step, std::fabs(x[static_cast<size_t>(k)]) / (is_a8 ? 127 : 32767));
    }
    for (int64_t n = 0; n < c.outputs; ++n) {
      const std::vector<double>& w = weights[static_cast<size_t>(n)];
      double largest = 0;
      for (const double weight : w) largest = std::max(largest, std::fabs(weight));
      double sum = c.bias[static_cast<size_t>(n)];
      double magnitude = std::fabs(sum);
      double rounded = 0;
      for (int64_t k = 0; k < c.inputs; ++k) {
        const auto i = static_cast<size_t>(k);
        sum += w[i] * x[i];
        magnitude += std::fabs(w[i] * x[i]);
        rounded += std::fabs(w[i]) * steps[static_cast<size_t>(k / group)] * 0.51;
        if (is_a8) rounded += std::fabs(x[i]) * largest / 127 * 0.001;
      }
      double bound = static_cast<double>(c.inputs + 4) * kF32Unit * magnitude;
      if (PackedMatrix::IsInt(c.format)) bound += rounded;
      c.value.push_back(sum);
      c.bound.push_back(bound);
    }
  }
}

ConstTensor Activations(Case& c) {
  const Shape shape = {c.rows, c.inputs};
  return c.format == Format::kF32 ? View(c.x32, shape) : View(c.x16, shape);
}

void CheckWithin(const std::vector<float>& y, const Case& c, double extra_unit) {
  double worst = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    const double allowed = c.bound[i] + extra_unit * (std::fabs(c.value[i]) + c.bound[i]);
    worst = std::max(worst, std::fabs(double{y[i]} - c.value[i]) / allowed);
  }
  CHECK(worst <= 1);
}

TEST_CASE("a packed matrix holds what it was given", "[cpu]") {
  const auto [outputs, inputs] =
      GENERATE(table<int64_t, int64_t>({{64, 64}, {1, 1}, {70, 33}, {200, 128}}));
  CAPTURE(outputs, inputs);
  ThreadPool pool(2);
  const std::vector<float> w = Widen(RandomBf16(7, outputs * inputs));
  std::vector<float> row(static_cast<size_t>(inputs));
  for (const Format format : {Format::kF32, Format::kBf16, Format::kInt8, Format::kInt8A8}) {
    const PackedMatrix packed = PackRows(pool, format, w, inputs);
    CHECK(packed.bytes() == PackedMatrix::BytesFor(format, outputs, inputs, false));
    int wrong = 0;
    for (int64_t n = 0; n < outputs; ++n) {
      packed.ReadRow(n, row.data());
      const std::vector<double> found = RowOf(format, row, 0, inputs);
      const std::vector<double> given = RowOf(format, w, n, inputs);
      double largest = 0;
      for (const double value : given) largest = std::max(largest, std::fabs(value));
      // Integers: half a step of max|w| / 127, and what spreading and its own rounding cost.
      const double allowed = PackedMatrix::IsInt(format) ? largest / 127 * 0.502 : 0;
      for (size_t k = 0; k < given.size(); ++k) {
        wrong += std::fabs(found[k] - given[k]) > allowed;
      }
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("weights in bf16 are the nearest there are, and a NaN stays one", "[cpu]") {
  const int64_t inputs = GENERATE(8, 33, 70);
  CAPTURE(inputs);
  ThreadPool pool(2);
  constexpr int64_t kOutputs = 67;
  std::vector<float> w = RandomFloats(3, kOutputs * inputs);
  // Halfway between two: to the even one. Rounded up to infinity; as good as zero.
  const float special[] = {1 + 0x1p-8f, 1 + 3 * 0x1p-8f, -1 - 0x1p-8f,    -INFINITY,
                           NAN,         -0.0f,           0x1.fffffep127f, 0x1p-140f};
  for (int64_t n = 0; n < kOutputs; ++n) {
    for (int64_t k = 0; k < 8; ++k) {
      w[static_cast<size_t>(n * inputs + (n + k) % inputs)] = special[k];
    }
  }
  const PackedMatrix packed = PackRows(pool, Format::kBf16, w, inputs);
  std::vector<float> row(static_cast<size_t>(inputs));
  int wrong = 0;
  for (int64_t n = 0; n < kOutputs; ++n) {
    packed.ReadRow(n, row.data());
    for (int64_t k = 0; k < inputs; ++k) {
      const float expected = ToFloat(ToBf16(w[static_cast<size_t>(n * inputs + k)]));
      wrong +=
          std::bit_cast<uint32_t>(row[static_cast<size_t>(k)]) != std::bit_cast<uint32_t>(expected);
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("packing stops at the first error of its source", "[cpu]") {
  ThreadPool pool(2);
  const absl::StatusOr<PackedMatrix> packed =
      PackedMatrix::Pack(pool, Format::kBf16, 640, 8, [](int64_t first, int64_t, float*) {
        return first == 320 ? absl::DataLossError("torn") : absl::OkStatus();
      });
  CHECK(packed.status() == absl::DataLossError("torn"));
}

TEST_CASE("MatMul is the product of activations and weights", "[cpu]") {
  const Format format = GENERATE(Format::kF32, Format::kBf16, Format::kInt8, Format::kInt8A8);
  const auto [rows, outputs, inputs] = GENERATE(table<int64_t, int64_t, int64_t>(
      {{1, 64, 64}, {3, 70, 33}, {7, 1, 1}, {13, 130, 96}, {2, 64, 5000}, {200, 65, 31}}));
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  CAPTURE(static_cast<int>(format), rows, outputs, inputs, NameOf(set));
  ThreadPool pool(2);
  const CpuContext cpu = {&pool, set};
  Case c = MakeCase(format, rows, outputs, inputs);
  const PackedMatrix packed = PackRows(pool, format, c.w, inputs);
  FillExpected(c, packed);
  const MatMulScratch scratch = MatMulScratch::Allocate(rows, inputs).value();
  std::vector<float> y(static_cast<size_t>(rows * outputs));
  SECTION("in f32") {
    MatMul(cpu, View(y, {rows, outputs}), Activations(c), packed, c.bias.data(), scratch);
    CheckWithin(y, c, 0);
  }
  SECTION("added to what was there") {
    std::fill(y.begin(), y.end(), 2.5f);
    MatMulAdd(cpu, View(y, {rows, outputs}), Activations(c), packed, c.bias.data(), scratch);
    for (double& value : c.value) value += 2.5;
    CheckWithin(y, c, 2 * kF32Unit);
  }
  SECTION("rounded once to bf16") {
    if (format == Format::kF32) return;
    std::vector<float> wide(y.size());
    MatMul(cpu, View(wide, {rows, outputs}), Activations(c), packed, c.bias.data(), scratch);
    std::vector<bf16> narrow(y.size());
    MatMul(cpu, View(narrow, {rows, outputs}), Activations(c), packed, c.bias.data(), scratch);
    std::vector<bf16> rounded;
    for (const float value : wide) rounded.push_back(ToBf16(value));
    CHECK(SameBits(narrow, rounded));
    std::vector<bf16> sum(y.size(), ToBf16(2.5f));
    MatMulAdd(cpu, View(sum, {rows, outputs}), Activations(c), packed, c.bias.data(), scratch);
    for (double& value : c.value) value += 2.5;
    CheckWithin(Widen(sum), c, kBf16Unit + 2 * kF32Unit);
  }
}

/// An activation in f64, and how far an f32 one may stray from it, in units of its value.
struct Activated {
  Activated(Activation activation, double x) {
    // exp is good to 2 ulps (4 units); sum, quotient and product round once each.
    units = 7;
    if (activation == Activation::kSilu) {
      value = x / (1 + std::exp(-x));
    } else {
      const double u = std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x);
      value = x / 2 * (1 + std::tanh(u));
      // Before exp, -2u rounds in two constants, the square, the sum and the product: 4 units of
      // it.
      units += 4 * std::fabs(2 * u);
    }
  }
  double value;
  double units;
};

TEST_CASE("MatMulGated is the activation of one product times the other", "[cpu]") {
  const Activation activation = GENERATE(Activation::kSilu, Activation::kGeluTanh);
  const Format format = GENERATE(Format::kF32, Format::kBf16, Format::kInt8, Format::kInt8A8);
  const auto [rows, outputs, inputs] =
      GENERATE(table<int64_t, int64_t, int64_t>({{1, 32, 64}, {5, 97, 48}, {9, 64, 77}}));
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  CAPTURE(static_cast<int>(activation), static_cast<int>(format), rows, outputs, inputs,
          NameOf(set));
  ThreadPool pool(2);
  const CpuContext cpu = {&pool, set};
  Case gate = MakeCase(format, rows, outputs, inputs);
  Case up = gate;
  for (float& value : gate.w) value *= 0.125f;
  up.w = Widen(RandomBf16(9, outputs * inputs));
  const MatMulScratch scratch = MatMulScratch::Allocate(rows, inputs).value();
  const PackedMatrix both = PackedMatrix::PackGated(pool, format, outputs, inputs,
                                                    Rows{gate.w, inputs}, Rows{up.w, inputs})
                                .value();
  CHECK(both.bytes() == PackedMatrix::BytesFor(format, outputs, inputs, true));
  const std::vector<float> bias = Widen(RandomBf16(10, 2 * outputs));
  // Biases enter the products, which round once more each.
  for (const float* b : {static_cast<const float*>(nullptr), bias.data()}) {
    CAPTURE(b != nullptr);
    const float* up_bias = b == nullptr ? nullptr : b + outputs;
    // The two products alone have the same bits, so only the gate's own arithmetic is in question.
    std::vector<float> g(static_cast<size_t>(rows * outputs)), u(g), y(g);
    MatMul(cpu, View(g, {rows, outputs}), Activations(gate), PackRows(pool, format, gate.w, inputs),
           b, scratch);
    MatMul(cpu, View(u, {rows, outputs}), Activations(gate), PackRows(pool, format, up.w, inputs),
           up_bias, scratch);
    MatMulGated(cpu, View(y, {rows, outputs}), Activations(gate), both, b, activation, scratch);
    double worst = 0;
    for (size_t i = 0; i < y.size(); ++i) {
      const Activated a(activation, double{g[i]});
      const double expected = a.value * double{u[i]};
      worst = std::max(
          worst, std::fabs(double{y[i]} - expected) / (a.units * (std::fabs(expected) + 1e-30)));
    }
    CHECK(worst <= kF32Unit);
  }
}

TEST_CASE("activations of extreme gates stay finite and instruction sets agree on them", "[cpu]") {
  const Activation activation = GENERATE(Activation::kSilu, Activation::kGeluTanh);
  // A product with one input and weight 1 for the gate and for the up projection: y = act(x) x.
  const std::vector<float> ones(32, 1.0f);
  std::vector<float> x = {0, -0.0f, 1e-20f, -1e-20f, 1, -1, 5, -5, 9, -9, 40, -40, 1e9f, -1e9f};
  const auto rows = static_cast<int64_t>(x.size());
  ThreadPool pool(1);
  const PackedMatrix both =
      PackedMatrix::PackGated(pool, Format::kF32, 32, 1, Rows{ones, 1}, Rows{ones, 1}).value();
  std::vector<std::vector<float>> results;
  for (const InstructionSet set : InstructionSets()) {
    std::vector<float> y(static_cast<size_t>(rows) * 32);
    MatMulGated({&pool, set}, View(y, {rows, 32}), View(x, {rows, 1}), both, nullptr, activation,
                MatMulScratch::Allocate(rows, 1).value());
    for (const float value : y) REQUIRE(std::isfinite(value));
    // Far from zero the activation is the identity or nothing.
    CHECK(y[12 * 32] == 1e9f * 1e9f);
    CHECK(std::fabs(y[13 * 32]) < 1e-10f);
    CHECK(y[0] == 0);
    results.push_back(y);
  }
  for (const std::vector<float>& result : results) CHECK(SameBits(result, results[0]));
}

TEST_CASE("a row's product has the same bits in any company", "[cpu]") {
  const Format format = GENERATE(Format::kF32, Format::kBf16, Format::kInt8, Format::kInt8A8);
  const int64_t inputs = GENERATE(130, 4500);
  CAPTURE(static_cast<int>(format), inputs);
  constexpr int64_t kRows = 70;
  constexpr int64_t kOutputs = 130;
  ThreadPool one(1);
  Case c = MakeCase(format, kRows, kOutputs, inputs);
  const PackedMatrix packed = PackRows(one, format, c.w, inputs);
  const MatMulScratch scratch = MatMulScratch::Allocate(450, inputs).value();
  std::vector<float> all(static_cast<size_t>(kRows * kOutputs));
  const CpuContext reference = {&one, InstructionSets().back()};
  MatMul(reference, View(all, {kRows, kOutputs}), Activations(c), packed, c.bias.data(), scratch);
  const auto rows_from = [&](int64_t first, int64_t rows) {
    const size_t row_bytes = static_cast<size_t>(inputs) * (format == Format::kF32 ? 4 : 2);
    const ConstTensor x = Activations(c);
    return ConstTensor(x.as<uint8_t>() + static_cast<size_t>(first) * row_bytes, x.dtype,
                       {rows, inputs});
  };
  SECTION("for every number of rows, threads and instruction set") {
    for (const InstructionSet set : InstructionSets()) {
      for (const int threads : {1, 2, 5}) {
        ThreadPool pool(threads);
        int wrong = 0;
        for (int64_t rows = 1; rows <= kRows; rows += inputs > 1000 ? 5 : 1) {
          const int64_t first = kRows - rows;
          std::vector<float> y(static_cast<size_t>(rows * kOutputs));
          MatMul({&pool, set}, View(y, {rows, kOutputs}), rows_from(first, rows), packed,
                 c.bias.data(), scratch);
          wrong += !SameBits(y, std::vector<float>(all.begin() + first * kOutputs, all.end()));
        }
        CAPTURE(NameOf(set), threads);
        CHECK(wrong == 0);
      }
    }
  }
  SECTION("and in batches beyond one block of rows") {
    Case many = c;
    many.rows = 450;
    many.x32.clear();
    many.x16.clear();
    for (int64_t r = 0; r < many.rows; ++r) {
      const int64_t from = r % kRows * inputs;
      many.x32.insert(many.x32.end(), c.x32.begin() + from, c.x32.begin() + from + inputs);
      many.x16.insert(many.x16.end(), c.x16.begin() + from, c.x16.begin() + from + inputs);
    }
    ThreadPool pool(2);
    for (const InstructionSet set : InstructionSets()) {
      std::vector<float> y(static_cast<size_t>(many.rows * kOutputs));
      MatMul({&pool, set}, View(y, {many.rows, kOutputs}), Activations(many), packed, c.bias.data(),
             scratch);
      int wrong = 0;
      for (int64_t r = 0; r < many.rows; ++r) {
        wrong += std::memcmp(y.data() + r * kOutputs, all.data() + r % kRows * kOutputs,
                             kOutputs * sizeof(float)) != 0;
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("instruction sets agree on tiny and huge values", "[cpu]") {
  if (InstructionSets().size() < 2) SKIP("this machine has one instruction set");
  constexpr int64_t kInputs = 256;
  std::vector<bf16> x(8 * kInputs);
  std::vector<float> w(128 * kInputs);
  // Exponents of a row are alike, from one where all products are denormal to one where sums
  // overflow.
  const auto value = [](size_t i, uint64_t exponent) {
    const uint64_t bits = SplitMix64(i);
    return bf16{static_cast<uint16_t>((bits & 0x807f) | ((exponent + bits / 0x10000 % 8) << 7))};
  };
  for (size_t i = 0; i < x.size(); ++i) x[i] = value(i, 60 + i / kInputs * 18);
  for (size_t i = 0; i < w.size(); ++i)
    w[i] = ToFloat(value(i + 999983, 56 + i / kInputs % 8 * 10));
  ThreadPool pool(2);
  const PackedMatrix packed = PackRows(pool, Format::kBf16, w, kInputs);
  const MatMulScratch scratch = MatMulScratch::Allocate(8, kInputs).value();
  std::vector<std::vector<bf16>> results;
  for (const InstructionSet set : InstructionSets()) {
    std::vector<bf16> y(8 * 128);
    MatMul({&pool, set}, View(y, {8, 128}), View(x, {8, kInputs}), packed, nullptr, scratch);
    results.push_back(y);
  }
  for (const std::vector<bf16>& result : results) CHECK(SameBits(result, results[0]));
}

TEST_CASE("int8 products of the largest values do not overflow", "[cpu]") {
  const Format format = GENERATE(Format::kInt8, Format::kInt8A8);
  const float weight = GENERATE(1.0f, -1.0f);
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  CAPTURE(static_cast<int>(format), weight, NameOf(set));
  constexpr int64_t kInputs = 4096;
  ThreadPool pool(1);
  const std::vector<float> w(64 * kInputs, weight);
  std::vector<bf16> x(kInputs, ToBf16(-1.0f));
  std::vector<float> y(64);
  MatMul({&pool, set}, View(y, {1, 64}), View(x, {1, kInputs}), PackRows(pool, format, w, kInputs),
         nullptr, MatMulScratch::Allocate(1, kInputs).value());
  // 8 sums of int8 or 32 of int8-a8, 3 scales' roundings and 2 products.
  CHECK(std::fabs(double{y[17]} + kInputs * double{weight}) <= kInputs * 37 * kF32Unit);
}

TEST_CASE("int8-a8 is the sum of exact integer products of groups times their scales", "[cpu]") {
  const auto [rows, outputs, inputs] = GENERATE(table<int64_t, int64_t, int64_t>(
      {{1, 64, 128}, {11, 70, 384}, {3, 1, 1}, {6, 66, 333}, {1, 64, 8194}, {5, 64, 4226}}));
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  CAPTURE(rows, outputs, inputs, NameOf(set));
  ThreadPool pool(2);
  Case c = MakeCase(Format::kInt8A8, rows, outputs, inputs);
  const PackedMatrix packed = PackRows(pool, Format::kInt8A8, c.w, inputs);
  std::vector<float> y(static_cast<size_t>(rows * outputs));
  MatMul({&pool, set}, View(y, {rows, outputs}), Activations(c), packed, nullptr,
         MatMulScratch::Allocate(rows, inputs).value());
  // Spread as the next test checks it.
  const auto spread = [&](std::vector<float> values) {
    const int64_t count = static_cast<int64_t>(values.size()) / inputs;
    for (int64_t i = 0; i < count; ++i) {
      KernelsFor(set).spread_inputs(values.data() + i * inputs, inputs);
    }
    return values;
  };
  const std::vector<float> all_x = spread(c.x32);
  const std::vector<float> all_w = spread(c.w);
  const auto largest = [](const float* values, int64_t count) {
    float found = 0;
    for (int64_t i = 0; i < count; ++i) found = std::max(found, std::fabs(values[i]));
    return found;
  };
  int wrong = 0;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t n = 0; n < outputs; ++n) {
      const float* x = all_x.data() + r * inputs;
      const float* w = all_w.data() + n * inputs;
      const float w_scale = largest(w, inputs) / 127.0f;
      float sum = 0;
      for (int64_t first = 0; first < inputs; first += 128) {
        const int64_t count = std::min<int64_t>(128, inputs - first);
        const float most = largest(x + first, count);
        int64_t dot = 0;
        for (int64_t k = first; k < first + count; ++k) {
          dot += std::lrint(w[k] / w_scale) * std::lrint(x[k] * (127.0f / most));
        }
        sum = std::fma(static_cast<float>(dot), most / 127.0f, sum);
      }
      wrong += y[static_cast<size_t>(r * outputs + n)] != sum * w_scale;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("spreading is Hadamard's matrix of each 128 inputs, and its own inverse", "[cpu]") {
  const int64_t inputs = GENERATE(128, 576, 1, 15, 16, 33, 127, 240, 1023);
  CAPTURE(inputs);
  const std::vector<float> given = RandomFloats(5, inputs);
  std::vector<double> expected(given.begin(), given.end());
  SpreadByDefinition(expected.data(), inputs);
  double norm = 0;
  for (const float value : given) norm += double{value} * double{value};
  // A product, seven sums and the rounding of the factor, of values no larger than the norm.
  const double allowed = 9 * kF32Unit * std::sqrt(norm);
  std::vector<float> first;
  for (const InstructionSet set : InstructionSets()) {
    CAPTURE(NameOf(set));
    std::vector<float> x = given;
    KernelsFor(set).spread_inputs(x.data(), inputs);
    if (first.empty()) first = x;
    CHECK(SameBits(x, first));
    double worst = 0;
    for (size_t k = 0; k < x.size(); ++k) {
      worst = std::max(worst, std::fabs(double{x[k]} - expected[k]));
    }
    CHECK(worst <= allowed);
    KernelsFor(set).spread_inputs(x.data(), inputs);
    worst = 0;
    for (size_t k = 0; k < x.size(); ++k) {
      worst = std::max(worst, std::fabs(double{x[k]} - double{given[k]}));
    }
    CHECK(worst <= 2 * allowed);
  }
}

TEST_CASE("one large input of int8-a8 does not drown the other 127 of its group", "[cpu]") {
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  constexpr int64_t kInputs = 128;
  ThreadPool pool(1);
  std::vector<float> w = RandomFloats(1, 64 * kInputs);
  for (int64_t n = 0; n < 64; ++n) w[static_cast<size_t>(n * kInputs + 77)] = 0;
  std::vector<bf16> x = RandomBf16(2, kInputs);
  x[77] = ToBf16(200.0f);
  std::vector<float> y(64);
  MatMul({&pool, set}, View(y, {1, 64}), View(x, {1, kInputs}),
         PackRows(pool, Format::kInt8A8, w, kInputs), nullptr,
         MatMulScratch::Allocate(1, kInputs).value());
  double error = 0, size = 0;
  for (size_t n = 0; n < 64; ++n) {
    double expected = 0;
    for (size_t k = 0; k < kInputs; ++k) {
      expected += double{w[n * kInputs + k]} * double{ToFloat(x[k])};
    }
    error += (double{y[n]} - expected) * (double{y[n]} - expected);
    size += expected * expected;
  }
  // Beside inputs and weights of deviation 1: steps of (200 / sqrt(128) + 3) / 127 round to within
  // 0.05, and the weights' steps of 3 / 127 make 0.007 * 200 / sqrt(128) = 0.12 of the large input.
  // Not spread, steps of 200 / 127 would give 0.45.
  CHECK(std::sqrt(error / size) <= 0.2);
}

TEST_CASE(
    "a group of int8-a8 that is tiny, or zeros, or huge beside its neighbours, is exact alone",
    "[cpu]") {
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  constexpr int64_t kInputs = 5 * 128;
  ThreadPool pool(1);
  // Weights of one step each, so that only activations round.
  const std::vector<float> w(64 * kInputs, 0.5f);
  std::vector<bf16> x(kInputs, ToBf16(0.0f));
  const std::vector<float> values = {3e-39f, 1.2e-38f, 0.0f, 0x1p40f, 0x1p-10f};
  for (size_t k = 0; k < x.size(); ++k) x[k] = ToBf16(values[k / 128]);
  std::vector<float> y(64);
  const PackedMatrix packed = PackRows(pool, Format::kInt8A8, w, kInputs);
  const MatMulScratch scratch = MatMulScratch::Allocate(1, kInputs).value();
  const auto product = [&] {
    MatMul({&pool, set}, View(y, {1, 64}), View(x, {1, kInputs}), packed, nullptr, scratch);
    return double{y[63]};
  };
  CHECK(std::fabs(product() - 0x1p46) <= 0x1p46 * 8 * kF32Unit);
  std::fill(x.begin() + 3 * 128, x.begin() + 4 * 128, ToBf16(0.0f));
  CHECK(std::fabs(product() - 0x1p-4) <= 0x1p-4 * 8 * kF32Unit);
}

TEST_CASE("a row with a NaN gives NaNs and leaves its neighbours alone", "[cpu]") {
  const Format format = GENERATE(Format::kF32, Format::kBf16, Format::kInt8, Format::kInt8A8);
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  ThreadPool pool(1);
  Case c = MakeCase(format, 3, 64, 64);
  const PackedMatrix packed = PackRows(pool, format, c.w, 64);
  const MatMulScratch scratch = MatMulScratch::Allocate(3, 64).value();
  std::vector<float> clean(3 * 64), y(3 * 64);
  MatMul({&pool, set}, View(clean, {3, 64}), Activations(c), packed, nullptr, scratch);
  c.x32[64 + 5] = NAN;
  c.x16[64 + 5] = ToBf16(NAN);
  MatMul({&pool, set}, View(y, {3, 64}), Activations(c), packed, nullptr, scratch);
  int wrong = 0;
  for (size_t i = 0; i < y.size(); ++i) wrong += i / 64 == 1 ? !std::isnan(y[i]) : y[i] != clean[i];
  CHECK(wrong == 0);
}

}  // namespace
}  // namespace neurogrid
