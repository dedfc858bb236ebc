// Ops that are more than a call of one kernel, against float64.
#include "engine/ops.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cmath>
#include <random>

#include "engine/device.h"

namespace neurogrid {
namespace {

std::unique_ptr<Device> Cpu() {
  auto device = MakeDevice("cpu", 3);
  REQUIRE(device.ok());
  REQUIRE((*device)
              ->ops()
              .Reserve({.rows_max = 64,
                        .inputs_max = 128,
                        .query_heads = 2,
                        .head_dim = 8,
                        .positions_max = 64,
                        .vocab_size = 1000})
              .ok());
  return *std::move(device);
}

/// Normal values that bf16 holds exactly, with memory of their own in f32 or bf16.
struct Values {
  Values(DType dtype_in, int64_t rows_in, int64_t columns_in, int seed)
      : dtype(dtype_in), rows(rows_in), columns(columns_in), f32(Count()), half(Count()) {
    std::mt19937 random(static_cast<unsigned>(seed));
    std::normal_distribution<float> normal;
    for (size_t i = 0; i < f32.size(); ++i) {
      half[i] = ToBf16(normal(random));
      f32[i] = ToFloat(half[i]);
    }
  }
  size_t Count() const { return static_cast<size_t>(rows * columns); }
  Tensor view() {
    void* data = dtype == DType::kF32 ? static_cast<void*>(f32.data()) : half.data();
    return {data, dtype, Shape({rows, columns})};
  }
  double at(size_t i) const { return dtype == DType::kF32 ? f32[i] : ToFloat(half[i]); }

  DType dtype;
  int64_t rows, columns;
  std::vector<float> f32;
  std::vector<bf16> half;
};

/// Half a unit in the last place of the dtype, relative.
double UnitOf(DType dtype) { return dtype == DType::kF32 ? 0x1p-24 : 0x1p-8; }

}  // namespace

TEST_CASE("RmsNormAdd is a norm, a sum rounded once and the next norm", "[ops]") {
  const DType dtype = GENERATE(DType::kF32, DType::kBF16);
  const bool rounds = GENERATE(false, true);
  const std::unique_ptr<Device> device = Cpu();
  constexpr int64_t kColumns = 19;
  Values y(dtype, 37, kColumns, 1);
  Values x(dtype, 37, kColumns, 2);
  Values z(dtype, 37, kColumns, 3);
  Values w(DType::kF32, 2, kColumns, 4);
  const Shape shape({kColumns});
  const Norm norm{{w.f32.data(), DType::kF32, shape}, 1e-3f, rounds};
  const Norm next{{w.f32.data() + kColumns, DType::kF32, shape}, 1e-5f, !rounds};
  const Values before = y;
  Values normed(dtype, 37, kColumns, 5);
  device->ops().RmsNorm(normed.view(), x.view(), norm);
  Values untouched = z;
  SECTION("with a next norm") {
    device->ops().RmsNormAdd(y.view(), x.view(), norm, z.view(), next);
    device->ops().RmsNorm(untouched.view(), y.view(), next);
  }
  SECTION("without one") { device->ops().RmsNormAdd(y.view(), x.view(), norm, z.view(), Norm()); }
  for (size_t i = 0; i < y.Count(); ++i) {
    const double expected = before.at(i) + normed.at(i);
    REQUIRE(std::abs(y.at(i) - expected) <= UnitOf(dtype) * std::abs(expected));
    REQUIRE(z.at(i) == untouched.at(i));
  }
}

TEST_CASE("RmsNormRows norms the rows it is told", "[ops]") {
  const DType dtype = GENERATE(DType::kF32, DType::kBF16);
  const std::unique_ptr<Device> device = Cpu();
  Values x(dtype, 9, 7, 7);
  Values y(dtype, 3, 7, 8);
  Values all(dtype, 9, 7, 9);
  Values w(DType::kF32, 1, 7, 10);
  const Norm norm{{w.f32.data(), DType::kF32, Shape({7})}, 1e-3f, false};
  device->ops().RmsNormRows(y.view(), x.view(), {{8, 0, 4}}, norm);
  device->ops().RmsNorm(all.view(), x.view(), norm);
  const size_t rows[] = {8, 0, 4};
  for (size_t i = 0; i < y.Count(); ++i) REQUIRE(y.at(i) == all.at(rows[i / 7] * 7 + i % 7));
}

TEST_CASE("RopeAndWriteKv norms each head of queries and keys", "[ops]") {
  const DType dtype = GENERATE(DType::kF32, DType::kBF16);
  const bool queries = GENERATE(false, true);
  const std::unique_ptr<Device> device = Cpu();
  constexpr int64_t kDim = 24;
  constexpr int kHeads = 3;
  Values qkv(dtype, 1, (kHeads + 2) * kDim, 3);
  const Values before = qkv;
  Values w(DType::kF32, 1, kDim, 4);
  const Norm norm{{w.f32.data(), DType::kF32, Shape({kDim})}, 1e-3f, false};
  const HeadNorms norms = queries ? HeadNorms{norm, {}} : HeadNorms{{}, norm};
  // Position 0 rotates by nothing, so what is left is the norm.
  Batch batch;
  batch.tokens = {0};
  batch.positions = {0};
  batch.sequence_offsets = {0, 1};
  batch.page_offsets = {0, 1};
  batch.pages = {0};
  const auto rotation = device->ops().MakeRotation(RopeParameters(), kDim, 1);
  REQUIRE(rotation.ok());
  Values page(dtype, 2 * kPageTokens, kDim, 6);
  const KvLayerView kv{
      .kv_heads = 1,
      .head_dim = kDim,
      .dtype = dtype,
      .pages = 1,
      .page_bytes = static_cast<int64_t>(page.Count()) * (dtype == DType::kF32 ? 4 : 2),
      .data = page.view().data};
  device->ops().RopeAndWriteKv(qkv.view(), kHeads, norms, **rotation, kv, batch);
  double worst = 0;
  for (size_t i = 0; i < qkv.Count(); ++i) {
    const size_t head = i / kDim;
    if (head > kHeads) continue;  // values
    if (queries == (head == kHeads)) {
      REQUIRE(qkv.at(i) == before.at(i));
      continue;
    }
    double squares = 0;
    for (size_t j = head * kDim; j < (head + 1) * kDim; ++j) squares += before.at(j) * before.at(j);
    const double expected = w.f32[i % kDim] * before.at(i) / std::sqrt(squares / kDim + 1e-3f);
    worst = std::max(worst, std::abs(qkv.at(i) - expected) / (std::abs(expected) + 1e-30));
  }
  // Sum, root, quotient and two products round in f32; the result in the dtype.
  CHECK(worst <= 12 * 0x1p-24 + UnitOf(dtype));
}

TEST_CASE("Embed reads rows of a packed table exactly", "[ops]") {
  const DType dtype = GENERATE(DType::kF32, DType::kBF16);
  const std::unique_ptr<Device> device = Cpu();
  Ops& ops = device->ops();
  Values table(DType::kF32, 70, 51, 5);
  const MatrixSpec spec{.format = dtype == DType::kF32 ? MatrixFormat::kF32 : MatrixFormat::kBf16,
                        .outputs = 70,
                        .inputs = 51};
  const auto packed = ops.Pack(spec, [&](int64_t first, int64_t count, float* out) {
    std::copy_n(table.f32.data() + first * 51, count * 51, out);
    return absl::OkStatus();
  });
  REQUIRE(packed.ok());
  const std::vector<int32_t> ids = {0, 69, 63, 64, 0, 12};
  Values y(dtype, 6, 51, 6);
  ops.Embed(y.view(), **packed, ids, 2.0f);
  for (size_t row = 0; row < ids.size(); ++row) {
    for (size_t c = 0; c < 51; ++c) {
      REQUIRE(y.at(row * 51 + c) == 2 * table.at(static_cast<size_t>(ids[row]) * 51 + c));
    }
  }
}

TEST_CASE("Softcap bends values towards its bound", "[ops]") {
  const std::unique_ptr<Device> device = Cpu();
  const float cap = GENERATE(3.0f, 30.0f);
  Values y(DType::kF32, 21, 37, 10);
  for (size_t i = 0; i < y.Count(); ++i) y.f32[i] *= static_cast<float>(i % 40);
  y.f32[0] = 1e30f;
  y.f32[1] = -1e30f;
  const Values before = y;
  device->ops().Softcap(y.view(), cap);
  double worst = 0;
  for (size_t i = 0; i < y.Count(); ++i) {
    worst = std::max(worst, std::abs(y.at(i) - cap * std::tanh(before.at(i) / cap)));
  }
  CHECK(worst <= 3e-7 * cap);  // tanh within 2e-7, a product within 2^-24
  CHECK(y.f32[0] == cap);
  CHECK(y.f32[1] == -cap);
}

TEST_CASE("an error of a row source stops the packing and comes back", "[ops]") {
  const std::unique_ptr<Device> device = Cpu();
  const MatrixSpec spec{.outputs = 200, .inputs = 16};
  const auto packed = device->ops().Pack(spec, [](int64_t first, int64_t count, float* out) {
    std::fill_n(out, count * 16, 1.0f);
    return first >= 64 ? absl::DataLossError("the file ends early") : absl::OkStatus();
  });
  CHECK(packed.status().message() == "the file ends early");
}

TEST_CASE("Sample draws each row as if it were alone", "[ops]") {
  const std::unique_ptr<Device> device = Cpu();
  Values logits(DType::kF32, 40, 1000, 9);
  std::vector<SamplingRow> rows(40);
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].seed = i % 7;
    rows[i].position = static_cast<int32_t>(i);
    rows[i].top_k = i % 2 == 0 ? 0 : 50;
  }
  const Values before = logits;
  const std::vector<SampledToken> together = device->ops().Sample(logits.view(), rows, 990);
  REQUIRE(together.size() == rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    Values alone = before;
    const Tensor row{alone.f32.data() + i * 1000, DType::kF32, Shape({1, 1000})};
    CHECK(device->ops().Sample(row, {{rows[i]}}, 990)[0].token == together[i].token);
    CHECK(together[i].token < 990);
  }
}

}  // namespace neurogrid
