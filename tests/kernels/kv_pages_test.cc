// Head norms, rotation and the way of keys and values into pages, against f64.
#include "kernels/kv_pages.h"

#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "tests/kernels/device.h"
#include "tests/kernels/seeds.h"

namespace neurogrid::kernels {
namespace {

size_t Size(int64_t a, int64_t b) { return static_cast<size_t>(a * b); }

struct Bounded {
  double value;
  double bound;  // of the error that it may have
};

/// Element c of a head behind its norm; `weight` null: behind none.
template <typename T>
Bounded NormedAt(const float* head, int dim, int c, const float* weight, bool rounds) {
  const double x = double{head[c]};
  if (weight == nullptr) return {x, 0};
  double squares = 0;
  for (int i = 0; i < dim; ++i) squares += std::pow(double{head[i]}, 2);
  const double quotient = x / std::sqrt(squares / dim + 1e-6);
  const double value = quotient * double{weight[c]};
  // A sum of dim terms in chains of dim / 32 and a tree, halved by the root; root, division, two
  // products. Then the roundings to T.
  const double f32 = 20 * 0x1p-24 * std::abs(value);
  const double before = rounds ? HalfUlp<T>(quotient * 1.01) * std::abs(double{weight[c]}) : 0;
  return {value, f32 + before + HalfUlp<T>(value * 1.01)};
}

/// Cosines, then sines of each position.
std::vector<float> RotationOf(int dim, int positions) {
  const int half = dim / 2;
  std::vector<float> rotation;
  for (int position = 0; position < positions; ++position) {
    for (int j = 0; j < dim; ++j) {
      const double angle = position * std::pow(10000.0, -2.0 * (j % half) / dim);
      rotation.push_back(static_cast<float>(j < half ? std::cos(angle) : std::sin(angle)));
    }
  }
  return rotation;
}

/// Element c of a head rotated by an angle's cosines and sines.
template <typename T>
Bounded RotatedAt(const float* head, int dim, int c, const float* weight, bool rounds,
                  const float* cosines) {
  const int half = dim / 2;
  const Bounded a = NormedAt<T>(head, dim, c % half, weight, rounds);
  const Bounded b = NormedAt<T>(head, dim, c % half + half, weight, rounds);
  const double cosine = double{cosines[c % half]};
  const double sine = double{cosines[c % half + half]};
  const double value =
      c < half ? a.value * cosine - b.value * sine : b.value * cosine + a.value * sine;
  // What the operands may be off by; two products and a sum in f32; the rounding to T.
  const double before = a.bound + b.bound + 3 * 0x1p-24 * (std::abs(a.value) + std::abs(b.value));
  return {value, before + HalfUlp<T>(std::abs(value) + before + 0x1p-20)};
}

}  // namespace

TEMPLATE_TEST_CASE("RopeAndWriteKv norms and rotates queries and keys and fills their slots",
                   "[kernels]", float, Bf16) {
  const Seeded seeded;
  const int query_heads = 3;
  const int kv_heads = 2;
  const int dim = GENERATE(16, 24, 64, 128, 200, 256);
  const bool norms_queries = GENERATE(false, true);
  const bool norms_keys = GENERATE(false, true);
  const bool rounds = dim % 16 == 0;
  CAPTURE(dim, norms_queries, norms_keys);
  const int width = (query_heads + 2 * kv_heads) * dim;
  const std::vector<int32_t> positions = {0, 5, 33, 7};
  const std::vector<int64_t> slots = {3 * 16 + 0, 1 * 16 + 5, 0 * 16 + 1, -1};  // nowhere
  const int rows = 4;
  const std::vector<float> rotation = RotationOf(dim, 34);
  const std::vector<TestType> qkv = RandomOf<TestType>(1, Size(rows, width));
  const std::vector<float> x = Widen(qkv);
  const std::vector<float> query_weight = RandomFloats(2, Size(1, dim));
  const std::vector<float> key_weight = RandomFloats(3, Size(1, dim));
  Device<TestType> device_qkv(qkv);
  const int64_t page_elements = int64_t{2} * 16 * kv_heads * dim;
  Device<TestType> pages(RandomOf<TestType>(5, Size(4, page_elements)));
  const std::vector<float> before = Widen(pages.Read());
  const Device<float> device_rotation(rotation);
  const Device<int32_t> device_positions(positions);
  const Device<int64_t> device_slots(slots);
  const Device<float> device_query_weight(query_weight);
  const Device<float> device_key_weight(key_weight);
  const HeadNorms norms{norms_queries ? device_query_weight.data() : nullptr,
                        norms_keys ? device_key_weight.data() : nullptr, 1e-6f, rounds};
  const KvPages<TestType> kv{pages.data(), page_elements, kv_heads, dim};
  REQUIRE(RopeAndWriteKv(device_qkv.data(), rows, query_heads, norms, device_rotation.data(),
                         device_positions.data(), device_slots.data(), kv, nullptr) == cudaSuccess);
  const std::vector<float> rotated = Widen(device_qkv.Read());
  const std::vector<float> after = Widen(pages.Read());

  std::vector<bool> written(after.size());
  size_t wrong = 0;
  for (size_t row = 0; row < rows; ++row) {
    for (int head = 0; head < query_heads + 2 * kv_heads; ++head) {
      const bool is_query = head < query_heads;
      if (!is_query && slots[row] < 0) continue;
      const bool is_value = head >= query_heads + kv_heads;
      const float* weight = is_query ? norms_queries ? query_weight.data() : nullptr
                            : is_value || !norms_keys ? nullptr
                                                      : key_weight.data();
      const size_t first = Size(static_cast<int64_t>(row), width) + Size(head, dim);
      for (int c = 0; c < dim; ++c) {
        Bounded expected = RotatedAt<TestType>(&x[first], dim, c, weight, rounds,
                                               &rotation[Size(positions[row], dim)]);
        if (is_value) expected = {double{x[first + static_cast<size_t>(c)]}, 0};
        float found = rotated[first + static_cast<size_t>(c)];
        if (!is_query) {
          const int kv_head = (head - query_heads) % kv_heads;
          const int64_t tile = (2 * kv_head + (is_value ? 1 : 0)) * 16 * dim;
          const auto at = static_cast<size_t>(slots[row] / 16 * page_elements + tile +
                                              slots[row] % 16 * dim + c);
          found = after[at];
          written[at] = true;
        }
        if (!(std::abs(double{found} - expected.value) <= expected.bound)) ++wrong;
      }
    }
  }
  CHECK(wrong == 0);
  for (size_t i = 0; i < after.size(); ++i) {
    if (!written[i] && after[i] != before[i]) ++wrong;
  }
  CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("many rows rotate as each does alone", "[kernels]", float, Bf16) {
  const Seeded seeded;
  const auto [query_heads, kv_heads, dim] =
      GENERATE(table<int, int, int>({{5, 2, 64}, {1, 1, 24}, {3, 1, 128}, {60, 3, 16}}));
  CAPTURE(query_heads, kv_heads, dim);
  constexpr int kRows = 512;
  const int width = (query_heads + 2 * kv_heads) * dim;
  std::vector<int32_t> positions;
  std::vector<int64_t> slots;
  for (int row = 0; row < kRows; ++row) {
    positions.push_back(row % 34);
    slots.push_back(row % 3 == 0 ? -1 : row);
  }
  const std::vector<TestType> qkv = RandomOf<TestType>(1, Size(kRows, width));
  const int64_t page_elements = int64_t{2} * kPageTokens * kv_heads * dim;
  const std::vector<TestType> pages =
      RandomOf<TestType>(5, Size(kRows / kPageTokens, page_elements));
  const Device<float> rotation(RotationOf(dim, 34));
  const Device<int32_t> device_positions(positions);
  const Device<int64_t> device_slots(slots);
  const Device<float> weight(RandomFloats(2, Size(1, dim)));
  const HeadNorms norms{weight.data(), weight.data(), 1e-6f, false};
  const auto rotated = [&](int rows_at_once) {
    Device<TestType> device_qkv(qkv);
    Device<TestType> device_pages(pages);
    const KvPages<TestType> kv{device_pages.data(), page_elements, kv_heads, dim};
    for (int row = 0; row < kRows; row += rows_at_once) {
      REQUIRE(RopeAndWriteKv(device_qkv.data() + int64_t{row} * width, rows_at_once, query_heads,
                             norms, rotation.data(), device_positions.data() + row,
                             device_slots.data() + row, kv, nullptr) == cudaSuccess);
    }
    return std::pair(device_qkv.Read(), device_pages.Read());
  };
  const auto many = rotated(kRows);
  const auto few = rotated(kRows / 4);
  CHECK(SameBits(many.first, few.first));
  CHECK(SameBits(many.second, few.second));
}

TEST_CASE("RopeAndWriteKv refuses heads that its lanes cannot hold", "[kernels]") {
  const KvPages<Bf16> kv{nullptr, 0, 1, 264};
  CHECK(RopeAndWriteKv<Bf16>(nullptr, 1, 1, {}, nullptr, nullptr, nullptr, kv, nullptr) ==
        cudaErrorInvalidValue);
}

}  // namespace neurogrid::kernels
