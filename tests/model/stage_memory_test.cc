// Bytes counted by hand, and synthetic models.
#include "engine/model/stage_memory.h"

#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "absl/strings/match.h"
#include "engine/model/block_groups.h"
#include "engine/model/checkpoint.h"
#include "engine/model/read_rows.h"
#include "engine/model/synthetic.h"
#include "tests/support/golden.h"

namespace neurogrid {
namespace {

TEST_CASE("packed weights count whole panels of 64 rows", "[memory]") {
  CHECK(PackedMatrixBytes(64, 128, Precision::kBf16) == 64 * 128 * 2);
  CHECK(PackedMatrixBytes(65, 128, Precision::kBf16) == 128 * 128 * 2);
  CHECK(PackedMatrixBytes(64, 127, Precision::kBf16) == 64 * 128 * 2);
  CHECK(PackedMatrixBytes(64, 127, Precision::kF32) == 64 * 127 * 4);
  CHECK(PackedMatrixBytes(64, 128, Precision::kInt8) == 64 * 128 + 256);
  CHECK(PackedMatrixBytes(64, 126, Precision::kInt8) == 64 * 126 + 128 + 256);
  CHECK(PackedMatrixBytes(64, 125, Precision::kInt8A8) == 64 * 128 + 256);
  CHECK(PackedGatedBytes(33, 128, Precision::kBf16) == 128 * 128 * 2);
  CHECK(VectorBytes(1) == 256);
  CHECK(TableBytes(3, 100, Precision::kInt8) == 64 * 100 * 2);
}

TEST_CASE("blocks count panels of their own", "[memory]") {
  // Q4_1: d and m in f16 and 16 bytes of nibbles for 32 inputs.
  CHECK(StoredMatrixBytes({{DType::kQ4_1, 65}}, 64) == 128 * 2 * 20);
  CHECK(StoredMatrixBytes({{DType::kQ4_1, 60}, {DType::kQ4_1, 4}}, 64) == 64 * 2 * 20);
  // Q6_K: as in the file, 210 bytes for 256 inputs.
  CHECK(StoredMatrixBytes({{DType::kQ4_1, 1}, {DType::kQ6_K, 1}}, 512) == 128 * (160 + 210));
  CHECK(StoredMatrixBytes({{DType::kF16, 32}, {DType::kF32, 32}}, 64) == 64 * 64 * 2);
  CHECK(StoredGatedBytes(32, 64, DType::kQ4_0, DType::kQ4_0) == 64 * 2 * 18);
  // 8 bits, and f32 scale and minimum for 16 inputs.
  CHECK(StoredGatedBytes(32, 64, DType::kQ4_0, DType::kQ8_0) == 64 * (64 + 4 * 8));
  CHECK(StoredGatedBytes(32, 64, DType::kQ4_0, DType::kF16) == 64 * 64 * 2);
}

TEST_CASE("a GPU's driver hands out memory in large pieces", "[memory]") {
  // What cudaMemGetInfo showed of 32 allocations of each size (H200, driver 580.159.04).
  constexpr int64_t kKiB = 1024;
  CHECK(GpuAllocationBytes(0) == 0);
  CHECK(GpuAllocationBytes(256 * kKiB) == 256 * kKiB);
  CHECK(GpuAllocationBytes(900 * kKiB) == 1024 * kKiB);
  CHECK(GpuAllocationBytes(1024 * kKiB) == 1024 * kKiB);
  CHECK(GpuAllocationBytes(1025 * kKiB) == 2048 * kKiB);
  CHECK(GpuAllocationBytes(2049 * kKiB) == 4096 * kKiB);
  CHECK(GpuAllocationBytes(5000 * kKiB) == 6144 * kKiB);
  CHECK(GpuAllocationBytes(16385 * kKiB) == 18432 * kKiB);
}

TEST_CASE("a GPU holds weights in tiles of 16 rows of whole 128 bytes", "[memory]") {
  const auto model = Checkpoint::Open(Golden("tiny/llama")).value();
  const ModelConfig& c = model->config();
  const auto tiles = [](int64_t rows) { return (rows + 15) / 16; };
  const auto row = [](int64_t bytes) { return (bytes + 127) / 128 * 128; };
  const int64_t queries = c.query_heads * c.head_dim;
  const int64_t keys = c.kv_heads * c.head_dim;
  const auto matrix = [&](int64_t rows, int64_t columns, int64_t element) {
    return GpuAllocationBytes(16 * tiles(rows) * row(columns * element));
  };
  const int64_t gated_rows = 2 * ((c.ffn_size + 7) / 8 * 8);
  for (const auto& [precision, element] :
       {std::pair{Precision::kF32, 4}, std::pair{Precision::kBf16, 2}}) {
    const ModelMemory memory = MemoryOf(c, precision, WeightLayout::kTiles);
    CHECK(memory.layers[0].weight_bytes ==
          matrix(queries + 2 * keys, c.hidden_size, element) +
              matrix(c.hidden_size, queries, element) + matrix(gated_rows, c.hidden_size, element) +
              matrix(c.hidden_size, c.ffn_size, element) + 2 * VectorBytes(c.hidden_size));
  }
  // 16 rows of 4.5, 6, 3.125, 3.5625, 4.625, 6.5625 and 12 bits a weight, and of 128 inputs at
  // least.
  CHECK(StoredTileBytes(DType::kQ4_0, 256) == 2304);
  CHECK(StoredTileBytes(DType::kQ5_1, 256) == 3072);
  CHECK(StoredTileBytes(DType::kQ2_K, 256) == 1600);
  CHECK(StoredTileBytes(DType::kQ3_K, 256) == 1824);
  CHECK(StoredTileBytes(DType::kQ4_K, 256) == 2368);
  CHECK(StoredTileBytes(DType::kQ6_K, 256) == 3360);
  CHECK(StoredTileBytes(DType::kIQ4_NL, 32) == 1152);
  CHECK(WideTileBytes(128) == 3072);
}

TEST_CASE("the Llama-1B shape weighs what its table says", "[memory]") {
  const auto model = MakeSyntheticCheckpoint("llama-1b").value();
  const ModelMemory memory = MemoryOf(model->config(), Precision::kBf16);
  int64_t parameters = 0;
  for (const ModelMemory::Layer& layer : memory.layers) parameters += layer.parameters;
  CHECK(parameters == 973'078'528);  // 16 * (2048 * 3072 + 2048 * 2048 + 3 * 2048 * 8192)
  CHECK(memory.head_parameters == 134'217'728);
  CHECK(memory.layers[0].kv_bytes_per_token * 16 == 32 * 1024);
  CHECK(memory.layers[0].weight_bytes == 2 * 60'817'408 + 2 * 4 * 2048);
  CHECK(PageBytes(memory, {0, 16}, 16) == 16 * 32 * 1024);
  CHECK(StateBytes(memory, {0, 16}) == 0);
  CHECK(StageWeightBytes(memory, {0, 16}) ==
        StageWeightBytes(memory, {0, 7}) + StageWeightBytes(memory, {7, 16}) - 2 * 134'217'728);
  CHECK(StageWeightBytes(memory, {3, 5}) == 2 * memory.layers[0].weight_bytes);
  CHECK(MemoryOf(model->config(), Precision::kF32).layers[0].kv_bytes_per_token == 4096);
}

TEST_CASE("a layer of convolution weighs its parts, holds a state and no keys", "[memory]") {
  const auto model = Checkpoint::Open(Golden("tiny/lfm2-bias")).value();  // H 96, F 64, K 4
  const ModelMemory memory = MemoryOf(model->config(), Precision::kBf16);
  const ModelMemory::Layer& layer = memory.layers[0];
  const int64_t matrices = 320 * 96 + 128 * 96 + 128 * 96 + 128 * 64;  // in, out, gate and up, down
  const int64_t vectors = 2 * 512 + 1536 + 1280 + 2 * 512;  // norms, taps, biases of in, taps, out
  CHECK(layer.weight_bytes == 2 * matrices + vectors);
  CHECK(layer.kv_bytes_per_token == 0);
  CHECK(layer.state_bytes_per_slot == 3 * 96 * 2);
  CHECK(layer.parameters == 4 * 96 * 96 + 3 * 64 * 96);
  CHECK(StateBytes(memory, {0, 6}) == 4 * 3 * 96 * 2);
  CHECK(StateBytes(MemoryOf(model->config(), Precision::kF32), {0, 6}) == 4 * 3 * 96 * 4);
  CHECK(memory.layers[1].state_bytes_per_slot == 0);
  CHECK(memory.layers[1].kv_bytes_per_token == 2 * 48 * 2);
}

TEST_CASE("norms of heads and norms after a block are counted", "[memory]") {
  const auto weight_bytes = [](const char* name) {
    const auto model = Checkpoint::Open(Golden(name)).value();
    return MemoryOf(model->config(), Precision::kBf16).layers[0].weight_bytes;
  };
  // Hidden 96, ffn 160, heads of 32: q, k, v; o; gate and up; down.
  const int64_t gemma2 = 2 * (256 * 96 + 128 * 128 + 320 * 96 + 128 * 160) + 4 * 512;
  CHECK(weight_bytes("tiny/gemma2") == gemma2);
  CHECK(weight_bytes("tiny/qwen3") == gemma2 - 2 * 512 + 2 * 256);
  CHECK(weight_bytes("tiny/gemma3") == gemma2 - 2 * (64 * 96) + 2 * 256);
}

TEST_CASE("precisions have names", "[memory]") {
  CHECK(ParsePrecision("int8").value() == Precision::kInt8);
  CHECK(ParsePrecision("int8-a8").value() == Precision::kInt8A8);
  CHECK(ParsePrecision("blocks-a8").value() == Precision::kBlocksA8);
  CHECK(NameOf(Precision::kBf16) == "bf16");
  CHECK(ParsePrecision("auto").value() == Precision::kAuto);
  CHECK(ParsePrecision("fp4").status().message() ==
        "precision \"fp4\" is not known; known are auto, f32, bf16, int8, int8-a8, blocks-a8");
}

TEST_CASE("synthetic weights are normal, norms are one, rows differ", "[synthetic]") {
  const auto model = MakeSyntheticCheckpoint("smollm2-135m").value();
  CHECK(model->config().layers_count() == 30);
  CHECK(model->config().tied_embeddings);
  CHECK(model->weights_description() == "BF16");
  const WeightStore::Entry norm = model->weights().Find("model.norm.weight", {576}).value();
  std::vector<float> ones(576);
  ReadRows(norm, 0, 1, ones.data());
  CHECK(ones == std::vector<float>(576, 1.0f));

  const WeightStore::Entry table =
      model->weights().Find("model.embed_tokens.weight", {49152, 576}).value();
  std::vector<float> values(4096 * 576);
  ReadRows(table, 40000, 4096, values.data());
  double sum = 0, squares = 0;
  for (const float value : values) {
    sum += value;
    squares += double{value} * value;
  }
  const double count = static_cast<double>(values.size());
  CHECK(std::abs(sum / count) < 1e-4);                        // 0.02 / sqrt(10^6) is 2e-5
  CHECK(std::abs(std::sqrt(squares / count) - 0.02) < 1e-4);  // as sharp
  for (int row = 1; row < 4096; ++row) {
    REQUIRE(!std::equal(values.begin(), values.begin() + 576, values.begin() + row * 576));
  }
  std::vector<float> alone(576);
  ReadRows(table, 41821, 1, alone.data());
  CHECK(std::equal(alone.begin(), alone.end(), values.begin() + 1821 * 576));
}

TEST_CASE("a synthetic model takes any config.json and names what it does not know",
          "[synthetic]") {
  const auto tiny = MakeSyntheticCheckpoint(Golden("tiny/llama3-rope/config.json")).value();
  CHECK(tiny->config().head_dim == 16);
  CHECK(absl::StrContains(MakeSyntheticCheckpoint("llama-9z").status().message(),
                          "known are llama-1b, smollm2-135m"));
}

}  // namespace
}  // namespace neurogrid
