// Ops that are more than a call of one kernel, against float64, on each device.
#include "engine/ops.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cmath>
#include <random>

#include "tests/engine/test_device.h"

namespace neurogrid {
namespace {

std::unique_ptr<Device> Ready() {
  std::unique_ptr<Device> device = TestDevice();
  const absl::Status reserved = device->ops().Reserve({.rows_max = 64,
                                                       .samples_max = 64,
                                                       .inputs_max = 128,
                                                       .query_heads = 3,
                                                       .kv_heads = 1,
                                                       .head_dim = 24,
                                                       .positions_max = 64,
                                                       .vocab_size = 1000,
                                                       .activation_bytes = 1 << 20});
  REQUIRE(reserved.ToString() == "OK");
  return device;
}

/// Normal values that bf16 holds exactly, in f32 or bf16, and memory of the device that holds them.
class Values {
 public:
  Values(Ops& ops, DType dtype, int64_t rows, int64_t columns, int seed)
      : f32(static_cast<size_t>(rows * columns)),
        ops_(ops),
        dtype_(dtype),
        shape_({rows, columns}),
        memory_(ops.Allocate(BytesOf(dtype, rows * columns)).value()) {
    std::mt19937 random(static_cast<unsigned>(seed));
    std::normal_distribution<float> normal;
    for (float& x : f32) x = ToFloat(ToBf16(normal(random)));
    Write();
  }
  size_t Count() const { return f32.size(); }
  double at(size_t i) const { return f32[i]; }
  Tensor view() const { return {memory_->data(), dtype_, shape_}; }
  /// Row r, of one dimension.
  ConstTensor row(int64_t r) const {
    return {static_cast<const char*>(memory_->data()) + BytesOf(dtype_, r * shape_[1]), dtype_,
            Shape({shape_[1]})};
  }

  /// f32 to the device.
  void Write() {
    std::vector<bf16> half;
    for (const float x : f32) half.push_back(ToBf16(x));
    const void* data = dtype_ == DType::kF32 ? static_cast<const void*>(f32.data()) : half.data();
    ops_.CopyFromHost(view(), {data, dtype_, shape_});
  }
  /// What the device has now, to f32.
  void Read() {
    const ConstTensor host = ops_.CopyToHost(view());
    REQUIRE(ops_.Health().ToString() == "OK");
    for (size_t i = 0; i < f32.size(); ++i) {
      f32[i] = dtype_ == DType::kF32 ? host.as<float>()[i] : ToFloat(host.as<bf16>()[i]);
    }
  }

  std::vector<float> f32;

 private:
  Ops& ops_;
  DType dtype_;
  Shape shape_;
  std::unique_ptr<DeviceBuffer> memory_;
};

/// Element j of the key of position 0 in a page of one head, each backend's layout being its own:
/// engine/cpu/kv_pages.h, kernels/kv_pages.h.
double KeyAt(const Values& page, DType dtype, size_t j) {
  if (ThisColumn() != Column::kCpu) return page.at(j);
  constexpr size_t kTokens = kPageTokens;
  return page.at(dtype == DType::kF32 ? j * kTokens : j / 2 * 2 * kTokens + j % 2);
}

/// Half a unit in the last place of the dtype, relative.
double UnitOf(DType dtype) { return dtype == DType::kF32 ? 0x1p-24 : 0x1p-8; }

}  // namespace

TEST_CASE("RmsNormAdd is a norm, a sum rounded once and the next norm", "[ops]") {
  const DType dtype = GENERATE(DType::kF32, DType::kBF16);
  const bool rounds = GENERATE(false, true);
  const std::unique_ptr<Device> device = Ready();
  Ops& ops = device->ops();
  constexpr int64_t kColumns = 19;
  Values y(ops, dtype, 37, kColumns, 1);
  Values x(ops, dtype, 37, kColumns, 2);
  Values z(ops, dtype, 37, kColumns, 3);
  Values expected_z(ops, dtype, 37, kColumns, 3);
  const Values w(ops, DType::kF32, 2, kColumns, 4);
  const Norm norm{w.row(0), 1e-3f, rounds};
  const Norm next{w.row(1), 1e-5f, !rounds};
  const std::vector<float> before = y.f32;
  Values normed(ops, dtype, 37, kColumns, 5);
  ops.RmsNorm(normed.view(), x.view(), norm);
  SECTION("with a next norm") {
    ops.RmsNormAdd(y.view(), x.view(), norm, z.view(), next);
    ops.RmsNorm(expected_z.view(), y.view(), next);
  }
  SECTION("without one") { ops.RmsNormAdd(y.view(), x.view(), norm, z.view(), Norm()); }
  for (Values* values : {&y, &z, &expected_z, &normed}) values->Read();
  for (size_t i = 0; i < y.Count(); ++i) {
    const double expected = double{before[i]} + normed.at(i);
    REQUIRE(std::abs(y.at(i) - expected) <= UnitOf(dtype) * std::abs(expected));
    REQUIRE(z.at(i) == expected_z.at(i));
  }
}

TEST_CASE("RmsNormRows norms the rows it is told", "[ops]") {
  const DType dtype = GENERATE(DType::kF32, DType::kBF16);
  const std::unique_ptr<Device> device = Ready();
  Ops& ops = device->ops();
  Values x(ops, dtype, 9, 7, 7);
  Values y(ops, dtype, 3, 7, 8);
  Values all(ops, dtype, 9, 7, 9);
  const Values w(ops, DType::kF32, 1, 7, 10);
  const Norm norm{w.row(0), 1e-3f, false};
  ops.RmsNormRows(y.view(), x.view(), {{8, 0, 4}}, norm);
  ops.RmsNorm(all.view(), x.view(), norm);
  y.Read();
  all.Read();
  const size_t rows[] = {8, 0, 4};
  for (size_t i = 0; i < y.Count(); ++i) REQUIRE(y.at(i) == all.at(rows[i / 7] * 7 + i % 7));
}

TEST_CASE("RopeAndWriteKv norms each head of queries and keys", "[ops]") {
  const DType dtype = GENERATE(DType::kF32, DType::kBF16);
  const bool queries = GENERATE(false, true);
  const std::unique_ptr<Device> device = Ready();
  Ops& ops = device->ops();
  constexpr int64_t kDim = 24;
  constexpr int kHeads = 3;
  Values qkv(ops, dtype, 1, (kHeads + 2) * kDim, 3);
  const std::vector<float> before = qkv.f32;
  const Values w(ops, DType::kF32, 1, kDim, 4);
  const Norm norm{w.row(0), 1e-3f, false};
  const HeadNorms norms = queries ? HeadNorms{norm, {}} : HeadNorms{{}, norm};
  // Position 0 rotates by nothing, so what is left is the norm.
  Batch batch;
  batch.tokens = {0};
  batch.positions = {0};
  batch.sequence_offsets = {0, 1};
  batch.page_offsets = {0, 1};
  batch.pages = {0};
  const auto rotation = ops.MakeRotation(RopeParameters(), kDim, 1);
  REQUIRE(rotation.ok());
  Values page(ops, dtype, 2 * kPageTokens, kDim, 6);
  const KvLayerView kv{.kv_heads = 1,
                       .head_dim = kDim,
                       .dtype = dtype,
                       .pages = 1,
                       .page_bytes = BytesOf(dtype, static_cast<int64_t>(page.Count())),
                       .data = page.view().data};
  ops.BeginBatch(batch);
  ops.RopeAndWriteKv(qkv.view(), kHeads, norms, **rotation, kv, batch);
  qkv.Read();
  page.Read();
  double worst = 0;
  for (size_t i = 0; i < (kHeads + 1) * kDim; ++i) {
    const size_t head = i / kDim;
    // What becomes of the keys inside qkv is open: they are written to their page.
    const double found = head < kHeads ? qkv.at(i) : KeyAt(page, dtype, i % kDim);
    if (queries == (head == kHeads)) {
      REQUIRE(found == before[i]);
      continue;
    }
    double squares = 0;
    for (size_t j = head * kDim; j < (head + 1) * kDim; ++j) {
      squares += double{before[j]} * before[j];
    }
    const double expected = w.at(i % kDim) * before[i] / std::sqrt(squares / kDim + 1e-3f);
    worst = std::max(worst, std::abs(found - expected) / (std::abs(expected) + 1e-30));
  }
  // Sum, root, quotient and two products round in f32; the result in the dtype.
  CHECK(worst <= 12 * 0x1p-24 + UnitOf(dtype));
}

TEST_CASE("Embed reads rows of a packed table exactly", "[ops]") {
  const DType dtype = GENERATE(DType::kF32, DType::kBF16);
  const int64_t columns = ThisColumn() == Column::kCpu ? 51 : 56;  // multiples of 8 on a GPU
  const std::unique_ptr<Device> device = Ready();
  Ops& ops = device->ops();
  const Values table(ops, DType::kF32, 70, columns, 5);
  const MatrixSpec spec{.format = dtype == DType::kF32 ? MatrixFormat::kF32 : MatrixFormat::kBf16,
                        .outputs = 70,
                        .inputs = columns};
  const auto packed = ops.Pack(spec, [&](int64_t first, int64_t count, float* out) {
    std::copy_n(table.f32.data() + first * columns, count * columns, out);
    return absl::OkStatus();
  });
  REQUIRE(packed.ok());
  const std::vector<int32_t> ids = {0, 69, 63, 64, 0, 12};
  Values y(ops, dtype, 6, columns, 6);
  ops.Embed(y.view(), **packed, ids, 2.0f);
  y.Read();
  const auto width = static_cast<size_t>(columns);
  for (size_t i = 0; i < y.Count(); ++i) {
    const size_t row = static_cast<size_t>(ids[i / width]);
    REQUIRE(y.at(i) == 2 * table.at(row * width + i % width));
  }
}

TEST_CASE("Softcap bends values towards its bound", "[ops]") {
  const std::unique_ptr<Device> device = Ready();
  const float cap = GENERATE(3.0f, 30.0f);
  Values y(device->ops(), DType::kF32, 21, 37, 10);
  for (size_t i = 0; i < y.Count(); ++i) y.f32[i] *= static_cast<float>(i % 40);
  y.f32[0] = 1e30f;
  y.f32[1] = -1e30f;
  y.Write();
  const std::vector<float> before = y.f32;
  device->ops().Softcap(y.view(), cap);
  y.Read();
  double worst = 0;
  for (size_t i = 0; i < y.Count(); ++i) {
    worst = std::max(worst, std::abs(y.at(i) - cap * std::tanh(double{before[i]} / cap)));
  }
  CHECK(worst <= 3e-7 * cap);  // tanh within 2e-7, a product within 2^-24
  CHECK(y.f32[0] == cap);
  CHECK(y.f32[1] == -cap);
}

TEST_CASE("an error of a row source stops the packing and comes back", "[ops]") {
  const std::unique_ptr<Device> device = Ready();
  const MatrixSpec spec{.outputs = 200, .inputs = 16};
  const auto packed = device->ops().Pack(spec, [](int64_t first, int64_t count, float* out) {
    std::fill_n(out, count * 16, 1.0f);
    return first >= 64 ? absl::DataLossError("the file ends early") : absl::OkStatus();
  });
  CHECK(packed.status().message() == "the file ends early");
}

TEST_CASE("Sample draws each row as if it were alone", "[ops]") {
  const std::unique_ptr<Device> device = Ready();
  Ops& ops = device->ops();
  Values logits(ops, DType::kF32, 40, 1000, 9);
  std::vector<SamplingRow> rows(40);
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].seed = i % 7;
    rows[i].position = static_cast<int32_t>(i);
    rows[i].top_k = i % 2 == 0 ? 0 : 50;
  }
  const std::vector<SampledToken> together = ops.Sample(logits.view(), rows, 990);
  REQUIRE(together.size() == rows.size());
  logits.Write();
  for (size_t i = 0; i < rows.size(); ++i) {
    const Tensor row(logits.view().as<float>() + i * 1000, DType::kF32, Shape({1, 1000}));
    CHECK(ops.Sample(row, {{rows[i]}}, 990)[0].token == together[i].token);
    CHECK(together[i].token < 990);
  }
}

}  // namespace neurogrid
