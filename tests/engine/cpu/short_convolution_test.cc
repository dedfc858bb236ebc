// Short convolutions with their state in slots, against float64.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <cmath>

#include "engine/cpu/cpu_ops.h"
#include "tests/engine/cpu_support.h"

namespace neurogrid {
namespace {

constexpr int kSlots = 6;

/// A convolution over the channels of one layer, with rows of B, C and U for several sequences.
struct World {
  World(DType dtype_in, int taps_in, int columns_in, bool with_bias)
      : dtype(dtype_in), taps(taps_in), columns(columns_in) {
    weights = RandomFloats(1, taps * columns);
    if (with_bias) bias = RandomFloats(2, columns);
    // Something in every slot, so that reading the wrong one shows.
    Fill(state, RandomFloats(3, int64_t{kSlots} * (taps - 1) * columns));
  }

  void Fill(std::vector<uint8_t>& bytes, const std::vector<float>& values) const {
    bytes.resize(values.size() * size());
    for (size_t i = 0; i < values.size(); ++i) {
      if (dtype == DType::kBF16) {
        reinterpret_cast<bf16*>(bytes.data())[i] = ToBf16(values[i]);
      } else {
        reinterpret_cast<float*>(bytes.data())[i] = values[i];
      }
    }
  }
  size_t size() const { return dtype == DType::kBF16 ? 2 : 4; }
  double At(const std::vector<uint8_t>& bytes, size_t i) const {
    return dtype == DType::kBF16 ? ToFloat(reinterpret_cast<const bf16*>(bytes.data())[i])
                                 : reinterpret_cast<const float*>(bytes.data())[i];
  }
  double Round(double value) const {
    return dtype == DType::kBF16 ? ToFloat(ToBf16(static_cast<float>(value)))
                                 : static_cast<float>(value);
  }
  StateLayerView View() {
    return {.rows = taps - 1,
            .columns = columns,
            .dtype = dtype,
            .slots = kSlots,
            .slot_bytes = static_cast<int64_t>(size()) * (taps - 1) * columns,
            .data = state.data()};
  }
  std::vector<uint8_t> Slot(int slot) const {
    const auto bytes = static_cast<std::ptrdiff_t>(size()) * (taps - 1) * columns;
    return {state.begin() + slot * bytes, state.begin() + (slot + 1) * bytes};
  }

  /// Rows of B, C, U: the same for the same first number and count.
  std::vector<float> Rows(uint64_t sequence, int first, int count) const {
    const std::vector<float> all = RandomFloats(100 + sequence, int64_t{64} * 3 * columns);
    return {all.begin() + first * 3 * columns, all.begin() + (first + count) * 3 * columns};
  }

  struct Part {
    uint64_t sequence;
    int first, count;
    int source, slot;
  };
  /// Runs the parts as one batch and gives its rows back, [rows * columns].
  std::vector<uint8_t> Run(Ops& ops, const std::vector<Part>& parts) {
    Batch batch;
    batch.sequence_offsets = {0};
    std::vector<float> rows;
    for (const Part& part : parts) {
      const std::vector<float> some = Rows(part.sequence, part.first, part.count);
      rows.insert(rows.end(), some.begin(), some.end());
      batch.tokens.resize(batch.tokens.size() + static_cast<size_t>(part.count));
      batch.sequence_offsets.push_back(batch.rows());
      batch.state_sources.push_back(part.source);
      batch.state_slots.push_back(part.slot);
    }
    std::vector<uint8_t> in;
    Fill(in, rows);
    std::vector<uint8_t> out(in.size() / 3);
    const Shape shape({batch.rows(), columns});
    ops.ShortConvolution(
        {out.data(), dtype, shape}, {in.data(), dtype, Shape({batch.rows(), 3 * columns})},
        {weights.data(), DType::kF32, Shape({taps, columns})},
        bias.empty() ? ConstTensor() : ConstTensor(bias.data(), DType::kF32, Shape({columns})),
        View(), batch);
    return out;
  }

  DType dtype;
  int taps, columns;
  std::vector<float> weights, bias;
  std::vector<uint8_t> state;
};

void Append(std::vector<uint8_t>& whole, const std::vector<uint8_t>& part) {
  whole.insert(whole.end(), part.begin(), part.end());
}

}  // namespace

TEST_CASE("ShortConvolution weighs the last K gated inputs of its sequence", "[cpu]") {
  const DType dtype = GENERATE(DType::kF32, DType::kBF16);
  const auto [taps, columns, with_bias] = GENERATE(
      table<int, int, bool>({{3, 64, false}, {4, 37, true}, {1, 5, true}, {2, 200, false}}));
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  const int source = GENERATE(-1, 2);
  CAPTURE(InfoOf(dtype).name, taps, columns, with_bias, NameOf(set), source);
  ThreadPool pool(3);
  CpuOps ops(pool, set);
  World world(dtype, taps, columns, with_bias);
  const std::vector<uint8_t> before = world.state;
  constexpr int kRows = 7;
  const std::vector<uint8_t> out = world.Run(ops, {{1, 0, kRows, source, 4}});

  std::vector<uint8_t> in;
  world.Fill(in, world.Rows(1, 0, kRows));
  const auto input = [&](int row, int part, int c) {
    return world.At(in, static_cast<size_t>((row * 3 + part) * columns + c));
  };
  const auto g = [&](int row, int c) {
    if (row >= 0) return world.Round(input(row, 0, c) * input(row, 2, c));
    if (source < 0) return 0.0;
    const int slot_row = row + taps - 1;
    return world.At(before, static_cast<size_t>((source * (taps - 1) + slot_row) * columns + c));
  };
  // z is a chain of f32 sums, one rounding of the sum of magnitudes a tap, and rounded to the
  // dtype; the product once more.
  const double unit = dtype == DType::kBF16 ? 0x1p-8 : 0x1p-24;
  double worst = 0;
  for (int row = 0; row < kRows; ++row) {
    for (int c = 0; c < columns; ++c) {
      double z = with_bias ? world.bias[static_cast<size_t>(c)] : 0;
      double magnitude = std::abs(z);
      for (int j = 0; j < taps; ++j) {
        const double product = double{world.weights[static_cast<size_t>(j * columns + c)]} *
                               g(row - (taps - 1) + j, c);
        z += product;
        magnitude += std::abs(product);
      }
      const double expected = input(row, 1, c) * z;
      const double bound = std::abs(input(row, 1, c)) * magnitude * taps * 0x1p-24 +
                           2.01 * unit * std::abs(expected);
      const double found = world.At(out, static_cast<size_t>(row * columns + c));
      worst = std::max(worst, std::abs(found - expected) - bound);
    }
  }
  CHECK(worst <= 1e-30);
  // The slot holds the last g, oldest first, and no other slot has changed.
  int wrong = 0;
  for (size_t i = 0; i < world.state.size() / world.size(); ++i) {
    const auto row = static_cast<int>(i) / columns;
    const int c = static_cast<int>(i) % columns;
    const bool written = row / std::max(1, taps - 1) == 4;
    const double expected =
        written ? g(kRows - (taps - 1) + row % (taps - 1), c) : world.At(before, i);
    wrong += world.At(world.state, i) != expected;
  }
  CHECK(wrong == 0);
}

TEST_CASE("a convolved sequence has the same bits in any chunks and company", "[cpu]") {
  const DType dtype = GENERATE(DType::kF32, DType::kBF16);
  const int taps = GENERATE(3, 4);
  const InstructionSet set = GENERATE(from_range(InstructionSets()));
  const int threads = GENERATE(1, 4);
  CAPTURE(InfoOf(dtype).name, taps, NameOf(set), threads);
  constexpr int kColumns = 150;
  ThreadPool one(1);
  CpuOps reference(one, InstructionSets().back());
  World whole(dtype, taps, kColumns, true);
  const std::vector<uint8_t> alone = whole.Run(reference, {{1, 0, 40, -1, 0}});
  ThreadPool pool(threads);
  CpuOps ops(pool, set);

  SECTION("in chunks, also shorter than the state") {
    for (const int chunk : {1, 2, 3, 16, 40}) {
      CAPTURE(chunk);
      World world(dtype, taps, kColumns, true);
      std::vector<uint8_t> joined;
      for (int first = 0; first < 40; first += chunk) {
        Append(joined,
               world.Run(ops, {{1, first, std::min(chunk, 40 - first), first == 0 ? -1 : 0, 0}}));
      }
      CHECK(SameBits(joined, alone));
      CHECK(SameBits(world.Slot(0), whole.Slot(0)));
    }
  }
  SECTION("from slot to slot, beside others in a batch") {
    World world(dtype, taps, kColumns, true);
    std::vector<uint8_t> joined;
    for (int first = 0, turn = 0; first < 40; first += 8, ++turn) {
      const int slot = turn % 2 == 0 ? 3 : 5;
      const int source = turn == 0 ? -1 : 8 - slot;
      const std::vector<uint8_t> rows = world.Run(
          ops,
          {{2, 0, 5, -1, 1}, {1, first, 8, source, slot}, {3, turn, 1, turn == 0 ? -1 : 2, 2}});
      const auto row_bytes = static_cast<std::ptrdiff_t>(kColumns * world.size());
      Append(joined, {rows.begin() + 5 * row_bytes, rows.begin() + 13 * row_bytes});
    }
    CHECK(SameBits(joined, alone));
    CHECK(SameBits(world.Slot(3), whole.Slot(0)));
  }
  SECTION("and a saved state serves several sequences, which leave it as it is") {
    World world(dtype, taps, kColumns, true);
    world.Run(ops, {{1, 0, 24, -1, 0}});
    const std::vector<uint8_t> saved = world.Slot(0);
    const std::vector<uint8_t> rows =
        world.Run(ops, {{1, 24, 16, 0, 1}, {7, 3, 2, 0, 2}, {1, 24, 16, 0, -1}});
    const auto row_bytes = static_cast<std::ptrdiff_t>(kColumns * world.size());
    const std::vector<uint8_t> rest(alone.begin() + 24 * row_bytes, alone.end());
    CHECK(SameBits({rows.begin(), rows.begin() + 16 * row_bytes}, rest));
    CHECK(SameBits({rows.end() - 16 * row_bytes, rows.end()}, rest));
    CHECK(SameBits(world.Slot(0), saved));
    CHECK(SameBits(world.Slot(1), whole.Slot(0)));
  }
}

}  // namespace neurogrid
