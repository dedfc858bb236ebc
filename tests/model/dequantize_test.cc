// Stored types against the reference dequantisation.
#include "engine/model/dequantize.h"

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstring>
#include <set>
#include <vector>

#include "engine/model/gguf.h"
#include "engine/model/read_rows.h"
#include "engine/model/safetensors.h"
#include "tests/support/golden.h"

namespace neurogrid {
namespace {

TEST_CASE("every block type gives the reference's bits", "[dequantize]") {
  const auto gguf = Gguf::Open(Golden("gguf/blocks.gguf")).value();
  const SafetensorsFile reference = OpenSafetensors(Golden("gguf/blocks.safetensors")).value();
  std::set<DType> seen;
  for (const SafetensorsFile::NamedTensor& expected : reference.tensors) {
    CAPTURE(expected.name);
    const Gguf::TensorInfo* info = gguf->FindTensor(expected.name);
    REQUIRE(info != nullptr);
    REQUIRE(info->tensor.shape == expected.tensor.shape);
    const int64_t elements = info->tensor.shape.elements();
    std::vector<float> values(static_cast<size_t>(elements));
    Dequantize(info->tensor.dtype, info->tensor.data, elements, values.data());
    CHECK(std::memcmp(values.data(), expected.tensor.data, values.size() * sizeof(float)) == 0);
    seen.insert(info->tensor.dtype);
  }
  CHECK(seen.size() == 14);
  CHECK(reference.tensors.size() == 14);
}

TEST_CASE("rows read alone equal rows read together, in float32 and in bfloat16", "[dequantize]") {
  const auto gguf = Gguf::Open(Golden("gguf/blocks.gguf")).value();
  for (const Gguf::TensorInfo& info : gguf->tensors()) {
    CAPTURE(info.name);
    const WeightStore::Entry entry{info.tensor, "blocks.gguf"};
    std::vector<float> together(64 * 512);
    ReadRows(entry, 0, 64, together.data());
    bool equal = true;
    for (int row = 0; row < 64; ++row) {
      std::vector<float> alone(512);
      std::vector<bf16> rounded(512);
      ReadRows(entry, row, 1, alone.data());
      ReadRows(entry, row, 1, rounded.data());
      equal = equal && std::memcmp(alone.data(), &together[row * 512], 2048) == 0;
      for (int i = 0; i < 512; ++i) equal = equal && rounded[i].bits == ToBf16(alone[i]).bits;
    }
    CHECK(equal);
  }
}

TEST_CASE("all 65,536 halves widen as HalfToFloat says", "[dequantize]") {
  std::vector<uint16_t> halves(65536);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  std::vector<float> values(halves.size());
  Dequantize(DType::kF16, halves.data(), 65536, values.data());
  int wrong = 0;
  for (size_t i = 0; i < halves.size(); ++i) {
    const float expected = HalfToFloat(halves[i]);
    wrong += std::bit_cast<uint32_t>(expected) != std::bit_cast<uint32_t>(values[i]);
  }
  CHECK(wrong == 0);
  CHECK(values[0x3c00] == 1.0f);
  CHECK(values[0x0001] == 0x1p-24f);
  CHECK(values[0xfbff] == -65504.0f);
  CHECK(std::isinf(values[0x7c00]));
  CHECK(std::isnan(values[0x7e00]));
}

TEST_CASE("interleaved rows are put back to halves", "[dequantize]") {
  // Two heads of 4 rows of 1 column; row h*4 + 2j + r of the file is row h*4 + 2r + j of the model.
  const std::vector<float> stored = {0, 2, 1, 3, 4, 6, 5, 7};
  WeightStore::Entry entry{ConstTensor(stored.data(), DType::kF32, {8, 1}), "m.gguf", 2};
  std::vector<float> rows(8);
  ReadRows(entry, 0, 8, rows.data());
  CHECK(rows == std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7});
  ReadRows(entry, 5, 2, rows.data());
  CHECK(rows[0] == 5);
  CHECK(rows[1] == 6);
  entry.tensor.shape = Shape{8};  // a bias
  ReadRows(entry, 0, 1, rows.data());
  CHECK(rows == std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7});
}

TEST_CASE("a quantised bias with interleaved rows is put back too", "[dequantize]") {
  // One head of 32: a block of Q8_0, 1.0 (0x3c00) times 0..31.
  std::vector<uint8_t> block = {0x00, 0x3c};
  for (uint8_t i = 0; i < 32; ++i) block.push_back(i);
  const WeightStore::Entry entry{ConstTensor(block.data(), DType::kQ8_0, {32}), "m.gguf", 1};
  std::vector<float> bias(32);
  std::vector<bf16> rounded(32);
  ReadRows(entry, 0, 1, bias.data());
  ReadRows(entry, 0, 1, rounded.data());
  for (size_t j = 0; j < 16; ++j) {
    CHECK(bias[j] == static_cast<float>(2 * j));
    CHECK(bias[j + 16] == static_cast<float>(2 * j + 1));
    CHECK(ToFloat(rounded[j]) == bias[j]);
  }
}

}  // namespace
}  // namespace neurogrid
