// The short convolution against f64, and over chunks, slots and batch mates bit for bit.
#include "kernels/short_convolution.h"

#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "tests/kernels/device.h"
#include "tests/kernels/seeds.h"

namespace neurogrid::kernels {
namespace {

constexpr int kSlots = 4;

/// A dtype and a number of channels: a whole number of 16 bytes or not.
template <typename Type, int kChannels>
struct Case {
  using T = Type;
  static constexpr int kColumns = kChannels;
};

template <typename T>
T Rounded(double x) {
  if constexpr (sizeof(T) == 2) {
    return __float2bfloat16(static_cast<float>(x));
  } else {
    return static_cast<float>(x);
  }
}
float WideOf(float x) { return x; }
float WideOf(Bf16 x) { return __bfloat162float(x); }

/// A layer with its slots, and long sequences whose parts are run in batches.
template <typename OfCase>
class Layer {
 public:
  using T = typename OfCase::T;
  static constexpr int kColumns = OfCase::kColumns;
  static constexpr size_t kWidth = 3 * kColumns;

  Layer(bool with_bias, int taps)
      : count_(taps),
        taps_(RandomFloats(1, static_cast<size_t>(taps * kColumns))),
        bias_(with_bias ? RandomFloats(2, kColumns) : std::vector<float>()),
        device_taps_(taps_),
        device_bias_(with_bias ? bias_ : std::vector<float>(1)),
        state_(RandomOf<T>(3, static_cast<size_t>(kSlots * kept() * kColumns) + 1)) {
    for (size_t s = 0; s < 3; ++s) bcu_.push_back(RandomOf<T>(4 + s, 100 * kWidth));
  }

  struct Part {
    size_t sequence;
    int first;
    int rows;
    int source;
    int slot;
  };

  std::vector<T> Run(const std::vector<Part>& batch) {
    std::vector<T> bcu;
    std::vector<ConvolutionChunk> chunks;
    std::vector<ConvolutionChunk> states;
    int rows = 0;
    for (const Part& part : batch) {
      const auto begin = bcu_[part.sequence].begin() + part.first * static_cast<int>(kWidth);
      bcu.insert(bcu.end(), begin, begin + part.rows * static_cast<int>(kWidth));
      AddSequence({rows, part.rows, part.source, part.slot}, chunks, states);
      rows += part.rows;
    }
    const auto states_count = static_cast<int>(states.size());
    states.resize(states.size() + 1);
    const Device<T> device_bcu(bcu);
    const Device<ConvolutionChunk> device_chunks(chunks);
    const Device<ConvolutionChunk> device_states(states);
    Device<T> out(static_cast<size_t>(rows * kColumns));
    const ConvolutionOperands<T> operands{out.data(),
                                          device_bcu.data(),
                                          device_taps_.data(),
                                          bias_.empty() ? nullptr : device_bias_.data(),
                                          state_.data(),
                                          kept() * kColumns,
                                          kColumns,
                                          count_};
    REQUIRE(ShortConvolution(operands, device_chunks.data(), static_cast<int>(chunks.size()),
                             device_states.data(), states_count, nullptr) == cudaSuccess);
    return out.Read();
  }

  std::vector<T> Slot(int slot) const {
    const std::vector<T> all = state_.Read();
    const auto begin = all.begin() + slot * kept() * kColumns;
    return {begin, begin + kept() * kColumns};
  }

  /// g of a sequence that started from zeros.
  T Product(size_t sequence, int row, size_t column) const {
    if (row < 0) return Rounded<T>(0);
    const T* b = &bcu_[sequence][static_cast<size_t>(row) * kWidth + column];
    return Rounded<T>(double{WideOf(b[0])} * double{WideOf(b[2 * kColumns])});
  }

  /// The two values that rounding z up or down may give, in order.
  std::pair<double, double> Bounds(size_t sequence, int row, size_t column) const {
    double z = bias_.empty() ? 0 : double{bias_[column]};
    double size = std::abs(z);
    for (int j = 0; j < count_; ++j) {
      const double term = double{taps_[static_cast<size_t>(j) * kColumns + column]} *
                          double{WideOf(Product(sequence, row - kept() + j, column))};
      z += term;
      size += std::abs(term);
    }
    const double c =
        double{WideOf(bcu_[sequence][static_cast<size_t>(row) * kWidth + kColumns + column])};
    // A multiply-add in f32 for each tap, then z and the product are rounded to the dtype.
    const double f32 = count_ * 0x1p-24 * size;
    const double z_error = f32 + HalfUlp<T>(std::abs(z) + f32);
    const double error = std::abs(c) * z_error + HalfUlp<T>((std::abs(z) + z_error) * c);
    return {z * c - error, z * c + error};
  }

 private:
  int kept() const { return count_ - 1; }

  int count_;
  std::vector<float> taps_;
  std::vector<float> bias_;
  Device<float> device_taps_;
  Device<float> device_bias_;
  Device<T> state_;
  std::vector<std::vector<T>> bcu_;
};

}  // namespace

TEMPLATE_TEST_CASE("a short convolution is its taps over products, gated", "[kernels]",
                   (Case<float, 136>), (Case<Bf16, 136>), (Case<float, 134>), (Case<Bf16, 132>)) {
  using T = typename TestType::T;
  constexpr int kColumns = TestType::kColumns;
  const Seeded seeded;
  const bool with_bias = GENERATE(false, true);
  const int taps = GENERATE(1, 2, 3, 4, 16);
  CAPTURE(with_bias, taps);
  Layer<TestType> layer(with_bias, taps);
  const std::vector<T> out = layer.Run({{0, 0, 1, -1, 0}, {1, 0, 40, -1, 1}, {2, 0, 16, -1, -1}});
  size_t wrong = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    const auto row = static_cast<int>(i / kColumns);
    const size_t sequence = row < 1 ? 0 : row < 41 ? 1 : 2;
    const int in_sequence = row - (row < 1 ? 0 : row < 41 ? 1 : 41);
    const auto [low, high] = layer.Bounds(sequence, in_sequence, i % kColumns);
    if (!(double{WideOf(out[i])} >= low && double{WideOf(out[i])} <= high)) ++wrong;
  }
  CHECK(wrong == 0);
  const std::vector<T> first = layer.Slot(0);
  const std::vector<T> second = layer.Slot(1);
  for (int i = 0; i < taps - 1; ++i) {
    for (size_t c = 0; c < kColumns; ++c) {  // one row: zeros, then its product
      const size_t at = static_cast<size_t>(i) * kColumns + c;
      wrong += WideOf(first[at]) != WideOf(layer.Product(0, i - (taps - 2), c));
      wrong += WideOf(second[at]) != WideOf(layer.Product(1, 40 - (taps - 1) + i, c));
    }
  }
  CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("a sequence convolved in parts, in and out of place, has the same bits",
                   "[kernels]", (Case<float, 136>), (Case<Bf16, 136>), (Case<Bf16, 132>)) {
  using T = typename TestType::T;
  constexpr int kColumns = TestType::kColumns;
  const Seeded seeded;
  Layer<TestType> layer(true, GENERATE(3, 5, 16));  // 16: a state keeps more than 5 rows bring
  const std::vector<T> whole = layer.Run({{0, 0, 60, -1, 0}});
  const std::vector<T> end = layer.Slot(0);
  std::vector<T> parts;
  // Slots 1 and 2 in turn, each chunk size around that of a thread's rows; a mate beside it.
  int slot = -1;
  int first = 0;
  for (const int rows : {1, 1, 4, 5, 2, 3, 16, 28}) {
    const int next = slot == 1 && rows != 5 ? 2 : 1;  // 5 rows go in place
    const std::vector<T> out = layer.Run({{1, first, 3, -1, -1}, {0, first, rows, slot, next}});
    parts.insert(parts.end(), out.begin() + 3 * kColumns, out.end());
    slot = next;
    first += rows;
  }
  REQUIRE(first == 60);
  CHECK(SameBits(parts, whole));
  CHECK(SameBits(layer.Slot(slot), end));
}

TEMPLATE_TEST_CASE("a sequence convolved among many has the bits it has alone", "[kernels]",
                   (Case<float, 136>), (Case<Bf16, 136>), (Case<Bf16, 132>)) {
  using T = typename TestType::T;
  constexpr int kColumns = TestType::kColumns;
  const Seeded seeded;
  Layer<TestType> layer(true, GENERATE(2, 3));
  const std::vector<T> alone = layer.Run({{1, 0, 43, 3, 0}});
  const std::vector<T> end = layer.Slot(0);
  const std::vector<T> all =  // more chunks than one thread a channel serves
      layer.Run({{0, 0, 100, -1, -1}, {1, 0, 43, 3, 1}, {2, 0, 100, -1, -1}, {0, 0, 100, -1, 2}});
  const auto begin = all.begin() + 100 * kColumns;
  CHECK(SameBits(std::vector<T>(begin, begin + 43 * kColumns), alone));
  CHECK(SameBits(layer.Slot(1), end));
}

TEST_CASE("a short convolution refuses more taps than its threads hold", "[kernels]") {
  ConvolutionOperands<Bf16> operands{};
  operands.columns = 8;
  operands.taps_count = 17;
  CHECK(ShortConvolution(operands, nullptr, 1, nullptr, 0, nullptr) == cudaErrorInvalidValue);
}

}  // namespace neurogrid::kernels
