// Kernels wait for what they read: for their own copies, for other warps, for their predecessor.
// Here all of that comes late and shared memory holds NaN before, so that a wait left out shows.
// Expected bits come from the common kernels, with everything there beforehand.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <functional>
#include <optional>
#include <string>

#include "kernels/device_limits.h"
#include "kernels/matmul.h"
#include "kernels/matmul_blocks_sm90.h"
#include "kernels/matmul_sm90.h"
#include "tests/kernels/adverse.h"
#include "tests/kernels/packed.h"
#include "tests/kernels/packed_blocks.h"
#include "tests/support/sanitized.h"

namespace neurogrid::kernels {
namespace {

size_t Size(int64_t a, int64_t b) { return static_cast<size_t>(a * b); }

/// A product [rows, outputs] of f32, whose operands may lie anywhere.
struct Product {
  int rows;
  int outputs;
  int inputs;
  float* slices = nullptr;
  int64_t slices_floats = 0;

  MatMulOperands Operands(const void* x, void* y) const {
    MatMulOperands operands{y, true, x, rows, Epilogue::kStore};
    operands.slices = slices;
    operands.slices_floats = slices_floats;
    return operands;
  }
  using Kernel = std::function<cudaError_t(const MatMulOperands&, const Weights&)>;
  std::vector<float> Run(const Kernel& kernel, const void* x, const Weights& w) const {
    const Device<float> y(std::vector<float>(Size(rows, outputs), NAN));
    PoisonSharedMemory();
    REQUIRE(kernel(Operands(x, y.data()), w) == cudaSuccess);
    return y.Read();
  }
};

cudaError_t ByTiles(const MatMulOperands& operands, const Weights& w) {
  return MatMulBy(MatMulKernel::kWideTiles, operands, w, nullptr);
}

/// The kernels of sm_90 for a product of these weights.
std::vector<std::pair<std::string, Product::Kernel>> Sm90Kernels(const Product& product,
                                                                 const Weights& w) {
  std::vector<std::pair<std::string, Product::Kernel>> kernels;
  if (w.format == WeightFormat::kBlocks) {
    for (const bool tall : {false, true}) {
      kernels.emplace_back(tall ? "tall" : "low",
                           [tall](const MatMulOperands& operands, const Weights& weights) {
                             return MatMulBlocksSm90By(tall, operands, weights, nullptr);
                           });
    }
    return kernels;
  }
  for (int variant = 0; variant < Sm90Variants(); ++variant) {
    if (!Sm90VariantFits(variant, product.Operands(nullptr, nullptr), w)) continue;
    kernels.emplace_back(Sm90VariantName(variant),
                         [variant](const MatMulOperands& operands, const Weights& weights) {
                           return MatMulSm90By(variant, operands, weights, nullptr);
                         });
  }
  return kernels;
}

/// The product by each kernel of sm_90, x and weights read over the bus.
void CheckOverBus(const Product& product, const Weights& w) {
  const auto bytes = static_cast<size_t>(w.bytes());
  const Pinned<uint8_t> late_weights(w.data, bytes);
  const Device<Bf16> x(ToBf16(RandomFloats(2, Size(product.rows, product.inputs))));
  const Pinned<Bf16> late_x(x.data(), static_cast<size_t>(x.count()));
  Weights late = w;
  late.data = late_weights.data();
  const std::vector<float> expected = product.Run(ByTiles, x.data(), w);
  for (const auto& [name, kernel] : Sm90Kernels(product, w)) {
    CAPTURE(name);
    CHECK(SameBits(product.Run(kernel, x.data(), w), expected));
    CHECK(SameBits(product.Run(kernel, late_x.data(), late), expected));
  }
}

/// y [rows, outputs] of bf16 from each kernel that may move it by map. It lies in the host's
/// memory: what it held comes late, and what leaves by map leaves its box late.
void CheckYOverBus(const Product& product, const Weights& w, Epilogue epilogue) {
  const auto bytes = OldBytes(Size(product.rows, product.outputs), false);
  const Device<Bf16> x(ToBf16(RandomFloats(2, Size(product.rows, product.inputs))));
  MatMulOperands operands = product.Operands(x.data(), nullptr);
  operands.epilogue = epilogue;
  operands.y_is_f32 = false;
  const Device<uint8_t> y(bytes);
  operands.y = y.data();
  REQUIRE(ByTiles(operands, w) == cudaSuccess);
  const std::vector<uint8_t> expected = y.Read();
  for (const auto& [name, kernel] : Sm90Kernels(product, w)) {
    CAPTURE(name);
    const Pinned<uint8_t> late(bytes);
    operands.y = late.data();
    PoisonSharedMemory();
    REQUIRE(kernel(operands, w) == cudaSuccess);
    PoisonSharedMemory();  // where boxes may still lie
    CHECK(SameBits(std::vector<uint8_t>(late.data(), late.data() + late.count()), expected));
  }
}

/// One sequence's attention: rows [length - rows, length) of two kv heads.
class Attended {
 public:
  Attended(int dim, int group, int length, int rows, float softcap, int64_t states_max)
      : dim_(dim), heads_(2 * group), rows_(rows), softcap_(softcap) {
    AttentionWork work;
    AddSequence({0, rows, length - rows, 0}, group, 0, states_max, work);
    std::vector<int32_t> pages;
    for (int page = (length + kPageTokens - 1) / kPageTokens; page > 0; --page) {
      pages.push_back(page - 1);
    }
    pages_.emplace(pages);
    page_count_ = pages.size();
    few_.emplace(NotEmpty(work.few_tiles));
    items_.emplace(NotEmpty(work.items));
    merges_.emplace(NotEmpty(work.merges));
    more_.emplace(NotEmpty(work.more_tiles));
    states_.emplace(static_cast<size_t>(StateFloats(work.states, heads_, dim)) + 1);
    view_ = {few_->data(),
             items_->data(),
             merges_->data(),
             more_->data(),
             static_cast<int>(work.few_tiles.size()),
             static_cast<int>(work.items.size()),
             static_cast<int>(work.merges.size()),
             static_cast<int>(work.more_tiles.size())};
  }

  size_t qkv_elements() const { return Size(rows_, stride()); }
  size_t kv_elements() const { return page_count_ * static_cast<size_t>(page_elements()); }

  using Way = cudaError_t (*)(const AttentionOperands<Bf16>&, const AttentionWorkView&,
                              cudaStream_t);
  /// The result as bf16; `before` queues what writes the operands.
  std::vector<Bf16> Run(
      Way way, const Bf16* qkv, Bf16* kv, const std::function<void()>& before = [] {}) const {
    const Device<Bf16> out(std::vector<Bf16>(Size(rows_, heads_ * dim_), __float2bfloat16(NAN)));
    PoisonSharedMemory();
    before();
    const AttentionOperands<Bf16> operands{out.data(),     qkv,
                                           stride(),       {kv, page_elements(), 2, dim_},
                                           pages_->data(), states_->data(),
                                           heads_,         0.125f,
                                           softcap_,       0};
    REQUIRE(way(operands, view_, nullptr) == cudaSuccess);
    return out.Read();
  }

 private:
  template <typename T>
  static std::vector<T> NotEmpty(std::vector<T> values) {
    values.resize(std::max<size_t>(values.size(), 1));
    return values;
  }
  int stride() const { return (heads_ + 4) * dim_; }
  int64_t page_elements() const { return int64_t{4} * kPageTokens * dim_; }

  int dim_;
  int heads_;
  int rows_;
  float softcap_;
  size_t page_count_ = 0;
  AttentionWorkView view_{};
  std::optional<Device<int32_t>> pages_;
  std::optional<Device<AttentionTile>> few_;
  std::optional<Device<AttentionItem>> items_;
  std::optional<Device<AttentionMerge>> merges_;
  std::optional<Device<AttentionTile>> more_;
  std::optional<Device<float>> states_;
};

void CheckProductWaits(const Product& product, const Weights& w, const Product::Kernel& kernel) {
  const LateWriter<Bf16> x(Size(product.rows, product.inputs));
  CheckWaits(x, [&](const std::function<void()>& before) {
    const Device<float> y(std::vector<float>(Size(product.rows, product.outputs), NAN));
    PoisonSharedMemory();
    before();
    REQUIRE(kernel(product.Operands(x.data(), y.data()), w) == cudaSuccess);
    return y.Read();
  });
}

}  // namespace

TEST_CASE("products on sm_90 wait for weights and rows that come late", "[kernels][sm90][order]") {
  if (!RunsSm90()) SKIP("needs a GPU of compute capability 9.0");
  const WeightFormat format = GENERATE(WeightFormat::kBf16, WeightFormat::kInt8);
  // Rings that are filled several times; more tiles than blocks; one chain.
  const auto [rows, outputs, inputs] =
      GENERATE(table<int, int, int>({{40, 200, 2312}, {300, 1800, 264}, {130, 4200, 712}}));
  if (Sanitized() && rows > 40) return;
  CAPTURE(static_cast<int>(format), rows, outputs, inputs);
  const PackedWeights weights(format, outputs, inputs, RandomFloats(1, Size(outputs, inputs)));
  const Device<float> slices(Size(8 * rows, weights.view().packed_outputs()));
  CheckOverBus({rows, outputs, inputs, slices.data(), slices.count()}, weights.view());
}

TEST_CASE("products on sm_90 wait for a y that comes and leaves late", "[kernels][sm90][order]") {
  if (!RunsSm90()) SKIP("needs a GPU of compute capability 9.0");
  const WeightFormat format = GENERATE(WeightFormat::kBf16, WeightFormat::kInt8);
  const Epilogue epilogue = GENERATE(Epilogue::kStore, Epilogue::kAdd, Epilogue::kSiluGated);
  // Several tiles a block, each multiplied in less time than the one before it takes to leave; one
  // chain, and slices.
  const auto [rows, outputs] = GENERATE(table<int, int>({{1100, 6152}, {2100, 2048}}));
  if (Sanitized()) return;
  CAPTURE(static_cast<int>(format), static_cast<int>(epilogue), rows, outputs);
  constexpr int kInputs = 136;
  const bool gated = epilogue == Epilogue::kSiluGated;
  const int own = gated ? outputs / 2 : outputs;
  const PackedWeights weights(format, own, kInputs, RandomFloats(1, Size(outputs, kInputs)), {},
                              gated);
  CheckYOverBus({rows, own, kInputs}, weights.view(), epilogue);
}

TEST_CASE("products with blocks on sm_90 wait for weights and rows that come late",
          "[kernels][blocks][sm90][order]") {
  if (!RunsSm90()) SKIP("needs a GPU of compute capability 9.0");
  const BlockType type = GENERATE(BlockType::kQ4_0, BlockType::kQ4_1, BlockType::kQ8_0);
  const auto [rows, outputs, units] =
      GENERATE(table<int, int, int>({{40, 200, 19}, {300, 4200, 3}}));
  if (Sanitized() && rows > 40) return;
  CAPTURE(static_cast<int>(type), rows, outputs, units);
  const int inputs = units * FormatOf(type).unit_inputs();
  const PackedBlocks weights(type, outputs, inputs);
  CheckOverBus({rows, outputs, inputs}, weights.view());
}

TEST_CASE("attention with wgmma waits for keys and values that come late",
          "[kernels][sm90][order]") {
  if (!RunsSm90()) SKIP("needs a GPU of compute capability 9.0");
  const auto [dim, softcap] = GENERATE(table<int, float>({{64, 0}, {128, 0}, {256, 0}, {256, 30}}));
  const int group = GENERATE(1, 4);
  CAPTURE(dim, softcap, group);
  // So many blocks that the bus is busy: what is copied arrives long after what it follows.
  const int length = Sanitized() ? 300 : 1500;
  const Attended attended(dim, group, length, length, softcap, 0);
  const Device<Bf16> qkv(RepeatedOf<Bf16>(3, attended.qkv_elements()));
  const Device<Bf16> kv(RepeatedOf<Bf16>(4, attended.kv_elements()));
  const Pinned<Bf16> late(kv.data(), attended.kv_elements());
  const std::vector<Bf16> expected = attended.Run(AttendTiles, qkv.data(), kv.data());
  CHECK(SameBits(attended.Run(AttendTilesSm90, qkv.data(), kv.data()), expected));
  CHECK(SameBits(attended.Run(AttendTilesSm90, qkv.data(), late.data()), expected));
}

// Few rows read the keys and values of earlier steps before they wait (CopyOld in attention.cuh): a
// copy lies between two steps, so those have been written.
TEST_CASE("attention waits for the rows, keys and values that its predecessor writes",
          "[kernels][sm90][order]") {
  if (!RunsSm90()) SKIP("needs a GPU of compute capability 9.0");
  const auto [dim, softcap] = GENERATE(table<int, float>({{64, 0}, {128, 0}, {256, 0}, {256, 30}}));
  const int rows = GENERATE(1, 100);
  CAPTURE(dim, softcap, rows);
  const Attended attended(dim, 4, 600, rows, softcap, rows == 1 ? 1000 : 0);
  const LateWriter<Bf16> qkv(attended.qkv_elements());
  const LateWriter<Bf16> kv(attended.kv_elements());
  kv.Queue();
  std::vector<Attended::Way> ways{AttendRows};
  if (rows == 1) ways.push_back(AttendFewRows);
  if (rows > 1) ways.push_back(AttendTiles);
  if (rows > 1) ways.push_back(AttendTilesSm90);
  for (size_t way = 0; way < ways.size(); ++way) {
    CAPTURE(way);
    const auto run = [&](const std::function<void()>& before) {
      return attended.Run(ways[way], qkv.data(), kv.data(), before);
    };
    CheckWaits(qkv, run);
    if (ways[way] != AttendFewRows) CheckWaits(kv, run);
  }
}

TEST_CASE("products wait for the rows that their predecessor writes", "[kernels][sm90][order]") {
  if (!RunsSm90()) SKIP("needs a GPU of compute capability 9.0");
  const WeightFormat format =
      GENERATE(WeightFormat::kBf16, WeightFormat::kInt8, WeightFormat::kBlocks);
  const auto [rows, outputs, inputs] = GENERATE(table<int, int, int>({{1, 200, 2304},
                                                                      {2, 4200, 512},
                                                                      {7, 200, 2304},
                                                                      {16, 4200, 512},
                                                                      {40, 200, 2304},
                                                                      {130, 4200, 512}}));
  CAPTURE(static_cast<int>(format), rows, outputs, inputs);
  std::optional<PackedWeights> dense;
  std::optional<PackedBlocks> blocks;
  if (format == WeightFormat::kBlocks) {
    blocks.emplace(BlockType::kQ4_1, outputs, inputs);
  } else {
    dense.emplace(format, outputs, inputs, RandomFloats(1, Size(outputs, inputs)));
  }
  const Weights& w = blocks ? blocks->view() : dense->view();
  const Device<float> slices(Size(8 * rows, w.packed_outputs()));
  const Product product{rows, outputs, inputs, slices.data(), slices.count()};
  if (FewRowsFit(w, rows, LimitsOfGpu())) {
    CheckProductWaits(product, w, [](const MatMulOperands& operands, const Weights& weights) {
      return MatMulBy(MatMulKernel::kFewRows, operands, weights, nullptr);
    });
  }
  CheckProductWaits(product, w, ByTiles);
  CheckProductWaits(product, w, [](const MatMulOperands& operands, const Weights& weights) {
    return MatMulBy(MatMulKernel::kNarrowTiles, operands, weights, nullptr);
  });
  if (rows < 9) return;
  for (const auto& [name, kernel] : Sm90Kernels(product, w)) {
    CAPTURE(name);
    CheckProductWaits(product, w, kernel);
  }
}

}  // namespace neurogrid::kernels
