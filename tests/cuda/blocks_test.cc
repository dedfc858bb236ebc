// GGUF blocks on a CUDA device: values and products against the reference dequantisation and f64,
// and models of blocks within the bounds that the CPU keeps to.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <cmath>
#include <map>

#include "engine/model/read_rows.h"
#include "tests/cuda/cuda_support.h"
#include "tests/engine/cpu_support.h"
#include "tests/engine/golden_blocks.h"

namespace neurogrid {
namespace {

constexpr int64_t kInputs = kGoldenBlockInputs;

using Entry = WeightStore::Entry;

MatrixSpec SpecOf(const std::vector<Entry>& parts, std::vector<float> bias = {}) {
  MatrixSpec spec{.format = MatrixFormat::kStored, .inputs = kInputs, .bias = std::move(bias)};
  for (const Entry& part : parts) spec.outputs += part.tensor.shape[0];
  return spec;
}

std::unique_ptr<Matrix> Packed(Ops& ops, const std::vector<Entry>& parts,
                               const std::vector<float>& bias = {}) {
  auto matrix = ops.PackStored(SpecOf(parts, bias), parts);
  INFO(matrix.status().ToString());
  REQUIRE(matrix.ok());
  return *std::move(matrix);
}

/// Operands of a product on the device.
class Product {
 public:
  Product(Ops& ops, int64_t rows, const Matrix& w)
      : ops_(ops), x_values_(RandomBf16(5, rows * kInputs)), w_(w) {
    y_ = ops.Allocate(4 * rows * w.outputs()).value();
    x_ = ops.Allocate(2 * rows * kInputs).value();
    shape_ = Shape({rows, w.outputs()});
  }

  /// Rows [first, first + rows).
  std::vector<float> Run(int64_t first, int64_t rows) {
    ops_.BeginBatch(batch_);
    const ConstTensor from(x_values_.data() + first * kInputs, DType::kBF16,
                           Shape({rows, kInputs}));
    const Tensor x(x_->data(), DType::kBF16, Shape({rows, kInputs}));
    const Tensor y(y_->data(), DType::kF32, Shape({rows, w_.outputs()}));
    ops_.CopyFromHost(x, from);
    if (w_.gated()) {
      ops_.MatMulGated(y, x, w_, Activation::kSilu);
    } else {
      ops_.MatMul(y, x, w_);
    }
    const auto* result = static_cast<const float*>(ops_.CopyToHost(y).data);
    INFO(ops_.Health().ToString());
    REQUIRE(ops_.Health().ok());
    return {result, result + rows * w_.outputs()};
  }
  std::vector<float> Run() { return Run(0, shape_[0]); }
  std::vector<float> x() const { return Widen(x_values_); }

 private:
  Ops& ops_;
  std::vector<bf16> x_values_;
  const Matrix& w_;
  Shape shape_;
  Batch batch_;
  std::unique_ptr<DeviceBuffer> y_;
  std::unique_ptr<DeviceBuffer> x_;
};

/// The values of all rows, by the embedding.
std::vector<float> RowsOf(Ops& ops, const Matrix& table) {
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < table.outputs(); ++id) ids.push_back(id);
  const auto memory = ops.Allocate(4 * table.outputs() * table.inputs()).value();
  const Tensor y(memory->data(), DType::kF32, Shape({table.outputs(), table.inputs()}));
  const Batch batch;
  ops.BeginBatch(batch);
  ops.Embed(y, table, ids, 1);
  const auto* rows = static_cast<const float*>(ops.CopyToHost(y).data);
  REQUIRE(ops.Health().ok());
  return {rows, rows + table.outputs() * table.inputs()};
}

}  // namespace

TEST_CASE("a GPU refuses blocks-a8 by name", "[cuda][groups]") {
  const std::unique_ptr<Device> device = Cuda();
  const std::vector<Entry> parts = {TheBlocks().Entry(DType::kQ4_K)};
  MatrixSpec spec = SpecOf(parts);
  spec.format = MatrixFormat::kStoredA8;
  CHECK(device->ops().PackStored(spec, parts).status() ==
        absl::UnimplementedError("a GPU has no kernels for blocks-a8, which rounds activations to "
                                 "8 bits: use auto there"));
}

TEST_CASE("blocks on a CUDA device have the bits of the reference's values", "[cuda][groups]") {
  const std::unique_ptr<Device> device = Cuda();
  for (const DType dtype : BlockTypes()) {
    CAPTURE(InfoOf(dtype).name);
    const auto table = Packed(device->ops(), {TheBlocks().Entry(dtype)});
    CHECK(SameBits(RowsOf(device->ops(), *table), TheBlocks().Values(dtype)));
  }
}

TEST_CASE("blocks on a CUDA device take little more than in the file", "[cuda][groups]") {
  const std::unique_ptr<Device> device = Cuda();
  const std::map<DType, double> bits = {
      {DType::kQ4_0, 4.5},   {DType::kQ4_1, 5},     {DType::kQ5_0, 5.5},   {DType::kQ5_1, 6},
      {DType::kQ8_0, 8.5},   {DType::kQ4_K, 4.625}, {DType::kQ5_K, 5.625}, {DType::kQ6_K, 6.5625},
      {DType::kIQ4_NL, 4.5}, {DType::kQ2_K, 3.125}, {DType::kQ3_K, 3.5625}};
  for (const auto& [dtype, expected] : bits) {
    CAPTURE(InfoOf(dtype).name);
    // A GPU gives memory in pieces of 2 MiB: as many copies as that holds fill one, one more two.
    constexpr int64_t kPiece = int64_t{2} << 20;
    const auto bytes = static_cast<int64_t>(expected * kGoldenBlockRows * kInputs / 8);
    std::vector<WeightStore::Entry> copies(static_cast<size_t>(kPiece / bytes),
                                           TheBlocks().Entry(dtype));
    CHECK(Packed(device->ops(), copies)->bytes() == kPiece);
    copies.push_back(copies.front());
    CHECK(Packed(device->ops(), copies)->bytes() == 2 * kPiece);
  }
}

TEST_CASE("a product with stored blocks is that of their values", "[cuda][groups]") {
  const DType dtype = GENERATE(from_range(BlockTypes()));
  CAPTURE(InfoOf(dtype).name);
  SeedFor(std::string(InfoOf(dtype).name));
  const std::unique_ptr<Device> device = Cuda();
  const Entry entry = TheBlocks().Entry(dtype);
  const std::vector<float> bias = RandomFloats(6, kGoldenBlockRows);
  const auto matrix = Packed(device->ops(), {entry}, bias);
  constexpr int64_t kRows = 20;
  Product product(device->ops(), kRows, *matrix);
  const std::vector<float> x = product.x();
  const std::vector<float> y = product.Run();
  const std::vector<float> values = TheBlocks().Values(dtype);
  const std::vector<float> magnitudes = MagnitudesOf(entry);
  double worst = 0;
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t n = 0; n < kGoldenBlockRows; ++n) {
      double sum = bias[static_cast<size_t>(n)];
      double magnitude = std::abs(sum);
      for (int64_t k = 0; k < kInputs; ++k) {
        const auto at = static_cast<size_t>(n * kInputs + k);
        const double activation = x[static_cast<size_t>(r * kInputs + k)];
        sum += double{values[at]} * activation;
        magnitude += double{magnitudes[at]} * std::abs(activation);
      }
      // As tests/kernels/matmul_blocks_test.cc says: 2 for a chain, 2 for each of a chunk's eight
      // groups at most, 8 for the slices, 1 for the bias, and the last rounding.
      const double bound = (2 + 16 + 8 + 1 + 1) * 0x1p-23 * magnitude;
      const double error = std::abs(double{y[static_cast<size_t>(r * kGoldenBlockRows + n)]} - sum);
      worst = std::max(worst, error / bound);
    }
  }
  CHECK(worst <= 1);
  const std::vector<float> last(y.end() - kGoldenBlockRows, y.end());
  CHECK(SameBits(product.Run(kRows - 1, 1), last));
}

TEST_CASE("stored parts of several types stand below each other", "[cuda][groups]") {
  const std::unique_ptr<Device> device = Cuda();
  const std::vector<Entry> parts = {FirstRows(TheBlocks().Entry(DType::kQ4_K), 50),
                                    FirstRows(TheBlocks().Entry(DType::kQ4_K), 20),
                                    FirstRows(TheBlocks().Entry(DType::kQ6_K), 33),
                                    FirstRows(TheBlocks().Entry(DType::kBF16), 3)};
  const int64_t rows = GENERATE(3, 18);
  const std::vector<float> bias = RandomFloats(6, 106);
  const auto matrix = Packed(device->ops(), parts, bias);
  const std::vector<float> y = Product(device->ops(), rows, *matrix).Run();
  int64_t first = 0;
  for (const Entry& part : parts) {
    const int64_t outputs = part.tensor.shape[0];
    const std::vector<float> own(bias.begin() + first, bias.begin() + first + outputs);
    const auto alone = Packed(device->ops(), {part}, own);
    const std::vector<float> expected = Product(device->ops(), rows, *alone).Run();
    for (int64_t r = 0; r < rows; ++r) {
      const auto from = y.begin() + r * 106 + first;
      const auto begin = expected.begin() + r * outputs;
      CHECK(SameBits(std::vector<float>(from, from + outputs),
                     std::vector<float>(begin, begin + outputs)));
    }
    first += outputs;
  }
}

TEST_CASE("gate and up projections in blocks of any types meet in one tile", "[cuda][groups]") {
  const auto [gate_type, up_type] = GENERATE(table<DType, DType>({{DType::kQ4_1, DType::kQ4_1},
                                                                  {DType::kQ4_K, DType::kQ6_K},
                                                                  {DType::kIQ4_NL, DType::kQ2_K},
                                                                  {DType::kQ8_0, DType::kBF16}}));
  CAPTURE(InfoOf(gate_type).name, InfoOf(up_type).name);
  constexpr int64_t kFfn = 45;
  constexpr int64_t kRows = 3;
  const std::unique_ptr<Device> device = Cuda();
  const Entry gate = FirstRows(TheBlocks().Entry(gate_type), kFfn);
  const Entry up = FirstRows(TheBlocks().Entry(up_type), kFfn);
  const MatrixSpec spec{.format = MatrixFormat::kStored,
                        .outputs = kFfn,
                        .inputs = kInputs,
                        .bias = RandomFloats(4, 2 * kFfn)};
  const auto both = device->ops().PackGatedStored(spec, gate, up).value();
  Product product(device->ops(), kRows, *both);
  const std::vector<float> y = product.Run();
  const std::vector<float> x = product.x();
  // A block type beside a plain one is rounded to bf16, so its weights stray by half an ulp.
  const bool rounds = up_type == DType::kBF16;
  const auto values = [](const Entry& entry) {
    std::vector<float> rows(kFfn * kInputs);
    ReadRows(entry, 0, kFfn, rows.data());
    return rows;
  };
  const auto magnitudes = [&](const Entry& entry) {
    return IsBlockType(entry.tensor.dtype) ? MagnitudesOf(entry) : values(entry);
  };
  struct Sum {
    double value, bound;
  };
  const auto sum_of = [&](const std::vector<float>& w, const std::vector<float>& m, int64_t r,
                          int64_t n, double bias) {
    Sum sum{bias, std::abs(bias)};
    for (int64_t k = 0; k < kInputs; ++k) {
      const double activation = x[static_cast<size_t>(r * kInputs + k)];
      sum.value += w[static_cast<size_t>(n * kInputs + k)] * activation;
      sum.bound += std::abs(m[static_cast<size_t>(n * kInputs + k)] * activation);
    }
    sum.bound *= 32 * 0x1p-23 + (rounds ? 0x1p-9 : 0);
    return sum;
  };
  const std::vector<float> gates = values(gate), ups = values(up);
  const std::vector<float> gate_magnitudes = magnitudes(gate), up_magnitudes = magnitudes(up);
  double worst = 0;
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t n = 0; n < kFfn; ++n) {
      const Sum g = sum_of(gates, gate_magnitudes, r, n, spec.bias[static_cast<size_t>(n)]);
      const Sum u = sum_of(ups, up_magnitudes, r, n, spec.bias[static_cast<size_t>(kFfn + n)]);
      const double silu = g.value / (1 + std::exp(-g.value));
      // SiLU's slope is below 1.1; it is computed within 8 ulps and the product rounds.
      const double allowed =
          (1.1 * g.bound + 8 * 0x1p-23 * std::abs(g.value)) * (std::abs(u.value) + u.bound) +
          std::abs(silu) * u.bound + 0x1p-22 * std::abs(silu * u.value);
      const double error = std::abs(double{y[static_cast<size_t>(r * kFfn + n)]} - silu * u.value);
      worst = std::max(worst, error / allowed);
    }
  }
  CHECK(worst <= 1);
}

TEST_CASE("rows that a file interleaves are put back on a CUDA device", "[cuda][groups]") {
  const std::unique_ptr<Device> device = Cuda();
  Entry entry = TheBlocks().Entry(DType::kQ4_K);
  entry.interleaved_heads = 4;  // of 16 rows
  const std::vector<float> rows = RowsOf(device->ops(), *Packed(device->ops(), {entry}));
  std::vector<float> expected(rows.size());
  ReadRows(entry, 0, kGoldenBlockRows, expected.data());
  CHECK(SameBits(rows, expected));
}

}  // namespace neurogrid
