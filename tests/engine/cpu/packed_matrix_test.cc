// Packing rows of a bf16 checkpoint, which go to their places without a way by f32.
#include "engine/cpu/packed_matrix.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <vector>

#include "tests/engine/cpu_support.h"

namespace neurogrid {
namespace {

/// Rows of a matrix in bf16, and in f32 for whoever wants them so.
struct RowsOfBf16 {
  const std::vector<bf16>& values;
  int64_t inputs;
  absl::Status operator()(int64_t first, int64_t count, float* out) const {
    for (int64_t i = 0; i < count * inputs; ++i) {
      out[i] = ToFloat(values[static_cast<size_t>(first * inputs + i)]);
    }
    return absl::OkStatus();
  }
  absl::Status operator()(int64_t first, int64_t count, bf16* out) const {
    std::copy_n(values.data() + first * inputs, count * inputs, out);
    return absl::OkStatus();
  }
};

TEST_CASE("rows that come in bf16 keep their bits, each in its place", "[cpu]") {
  const auto [outputs, inputs] =
      GENERATE(table<int64_t, int64_t>({{64, 64}, {1, 1}, {70, 33}, {200, 128}, {33, 70}}));
  CAPTURE(outputs, inputs);
  ThreadPool pool(2);
  std::vector<bf16> w = RandomBf16(7, outputs * inputs);
  std::vector<bf16> up = RandomBf16(8, outputs * inputs);
  const uint16_t special[] = {0x8000, 0x0001, 0x7f80, 0x7fc1};  // -0, a denormal, infinity, a NaN
  for (size_t i = 0; i < w.size(); ++i) {
    if (i % 7 == 0) w[i].bits = special[i / 7 % 4];
  }
  const RowsOfBf16 rows = {w, inputs};
  const RowsOfBf16 up_rows = {up, inputs};
  CHECK(RowSource(rows).rounds());
  const auto in_f32 = [](int64_t, int64_t, float*) { return absl::OkStatus(); };
  CHECK(!RowSource(in_f32).rounds());
  const PackedMatrix plain =
      PackedMatrix::Pack(pool, PackedMatrix::Format::kBf16, outputs, inputs, rows).value();
  const PackedMatrix gated =
      PackedMatrix::PackGated(pool, PackedMatrix::Format::kBf16, outputs, inputs, rows, up_rows)
          .value();
  const auto bits = [&](const PackedMatrix& matrix, int64_t panel, int64_t slot, int64_t k) {
    // [inputs / 2][64][2]
    return reinterpret_cast<const bf16*>(matrix.panel(panel).data)[k / 2 * 128 + slot * 2 + k % 2]
        .bits;
  };
  int wrong = 0;
  for (int64_t panel = 0; panel < plain.panels(); ++panel) {
    for (int64_t slot = 0; slot < 64; ++slot) {
      for (int64_t k = 0; k < (inputs + 1) / 2 * 2; ++k) {
        const int64_t n = 64 * panel + slot;
        const bool present = n < outputs && k < inputs;
        wrong += bits(plain, panel, slot, k) !=
                 (present ? w[static_cast<size_t>(n * inputs + k)].bits : 0);
      }
    }
  }
  for (int64_t panel = 0; panel < gated.panels(); ++panel) {
    for (int64_t slot = 0; slot < 64; ++slot) {
      for (int64_t k = 0; k < inputs; ++k) {
        const int64_t n = 32 * panel + slot % 32;
        const std::vector<bf16>& from = slot < 32 ? w : up;
        wrong += bits(gated, panel, slot, k) !=
                 (n < outputs ? from[static_cast<size_t>(n * inputs + k)].bits : 0);
      }
    }
  }
  CHECK(wrong == 0);
}

}  // namespace
}  // namespace neurogrid
