// Attention of rows that it rotates on its way: the bits of RopeAndWriteKv and of attention behind
// it, in the pages too.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "kernels/attention.h"
#include "kernels/device_limits.h"
#include "kernels/kv_pages.h"
#include "tests/kernels/attention_context.h"
#include "tests/kernels/device.h"
#include "tests/kernels/seeds.h"

namespace neurogrid::kernels {
namespace {

enum class NormsOf { kNothing, kKeys, kBoth };

/// Sequences that decode a row each, in pages that lie one behind the other.
class DecodingRows {
 public:
  DecodingRows(const Heads& heads, const std::vector<int>& positions, NormsOf norms)
      : h_(heads),
        positions_(positions),
        norms_(norms),
        weight_(RandomFloats(3, Size(1, h_.dim))),
        table_(RandomFloats(4, Size(positions_max() + 1, h_.dim))) {
    for (size_t s = 0; s < positions.size(); ++s) {
      const auto row = static_cast<int>(s);
      const int first_page = static_cast<int>(pages_.size());
      for (int page = 0; page <= positions[s] / kPageTokens; ++page) {
        pages_.push_back(first_page + page);
      }
      slots_.push_back(int64_t{pages_.back()} * kPageTokens + positions[s] % kPageTokens);
      AddSequence({row, 1, positions[s], first_page}, h_.query_heads / h_.kv_heads, h_.window, 1000,
                  work_);
    }
  }

  struct Result {
    std::vector<Bf16> out;
    std::vector<Bf16> pages;
    bool operator==(const Result& other) const {
      return SameBits(out, other.out) && SameBits(pages, other.pages);
    }
  };
  /// One kernel after the other, or both in one, whose blocks have units or whole heads. `spare`:
  /// what a recorded launch has room for.
  Result Run(bool together, int spare, bool whole_heads = false) const {
    const auto rows = static_cast<int>(positions_.size());
    const Device<Bf16> qkv(RandomOf<Bf16>(5, Size(rows, qkv_width())));
    const Device<Bf16> pages(RandomOf<Bf16>(6, Size(static_cast<int>(pages_.size()), page())));
    const Device<Bf16> out(Size(rows, h_.query_heads * h_.dim));
    const Device<float> states(
        static_cast<size_t>(StateFloats(work_.states, h_.query_heads, h_.dim)) + 1);
    const Device<int32_t> table(pages_);
    const Device<int32_t> positions(std::vector<int32_t>(positions_.begin(), positions_.end()));
    const Device<int64_t> slots(slots_);
    const Device<AttentionTile> tiles(work_.few_tiles);
    std::vector<AttentionItem> all_items = work_.items;
    all_items.resize(all_items.size() + static_cast<size_t>(spare));
    const Device<AttentionItem> items(all_items);
    std::vector<AttentionMerge> all_merges = work_.merges;
    all_merges.resize(all_merges.size() + 1);
    const Device<AttentionMerge> merges(all_merges);
    const AttentionCounts counts{rows, static_cast<int>(work_.items.size()),
                                 static_cast<int>(work_.merges.size()), 0};
    const Device<AttentionCounts> live(std::vector<AttentionCounts>{counts});
    const AttentionWorkView view{tiles.data(),
                                 items.data(),
                                 merges.data(),
                                 nullptr,
                                 rows + spare,
                                 counts.items + spare,
                                 counts.merges,
                                 0,
                                 spare > 0 ? live.data() : nullptr,
                                 whole_heads};
    const KvPages<Bf16> kv{pages.data(), page(), h_.kv_heads, h_.dim};
    const HeadNorms norms{norms_ == NormsOf::kBoth ? weight_.data() : nullptr,
                          norms_ == NormsOf::kNothing ? nullptr : weight_.data(), 1e-6f,
                          norms_ == NormsOf::kKeys};
    AttentionOperands<Bf16> operands{out.data(),   qkv.data(),    qkv_width(),    kv,
                                     table.data(), states.data(), h_.query_heads, 0.1f,
                                     h_.softcap,   h_.window};
    if (together) {
      operands.rotation = {table_.data(), norms};
      REQUIRE(AttentionRotates(operands, view));
    } else {
      REQUIRE(RopeAndWriteKv(qkv.data(), rows, h_.query_heads, norms, table_.data(),
                             positions.data(), slots.data(), kv, nullptr) == cudaSuccess);
    }
    REQUIRE(Attention(operands, view, nullptr) == cudaSuccess);
    return {out.Read(), pages.Read()};
  }

 private:
  int qkv_width() const { return (h_.query_heads + 2 * h_.kv_heads) * h_.dim; }
  int64_t page() const { return int64_t{2} * kPageTokens * h_.kv_heads * h_.dim; }
  int positions_max() const { return *std::max_element(positions_.begin(), positions_.end()); }

  Heads h_;
  std::vector<int> positions_;
  NormsOf norms_;
  Device<float> weight_;
  Device<float> table_;
  std::vector<int32_t> pages_;
  std::vector<int64_t> slots_;
  AttentionWork work_;
};

}  // namespace

TEST_CASE("attention rotates rows in the bits of the kernel for that", "[kernels]") {
  if (!UsesTensorCores()) return;
  const Seeded seeded;
  const Heads heads = GENERATE(Heads{8, 2, 64}, Heads{3, 1, 32, 0, 100}, Heads{5, 1, 128, 6},
                               Heads{2, 2, 256}, Heads{16, 1, 64, 0, 300});
  const NormsOf norms = GENERATE(NormsOf::kNothing, NormsOf::kKeys, NormsOf::kBoth);
  CAPTURE(heads.query_heads, heads.kv_heads, heads.dim, static_cast<int>(norms));
  for (const std::vector<int>& positions :
       {std::vector<int>{0}, {17}, {255}, {256}, {600, 31, 511}}) {
    CAPTURE(positions[0]);
    const DecodingRows rows(heads, positions, norms);
    const auto apart = rows.Run(false, 0);
    CHECK(rows.Run(true, 0) == apart);
    CHECK(rows.Run(true, 3) == apart);
  }
}

TEST_CASE("attention of whole heads rotates rows in the bits of the kernel for that", "[kernels]") {
  if (!UsesTensorCores()) return;
  const Seeded seeded;
  struct Case {
    Heads heads;
    NormsOf norms;
  };
  const auto [heads, norms] =
      GENERATE(Case{{8, 2, 64}, NormsOf::kBoth}, Case{{16, 4, 64, 0, 300}, NormsOf::kKeys},
               Case{{3, 1, 32, 0, 100}, NormsOf::kNothing}, Case{{10, 2, 128, 6}, NormsOf::kBoth},
               Case{{2, 2, 256}, NormsOf::kKeys});
  CAPTURE(heads.query_heads, heads.kv_heads, heads.dim, static_cast<int>(norms));
  // More heads than two, three and five blocks of each multiprocessor: of three it has room for,
  // of four where they are small.
  const int blocks = GENERATE(2, 3, 5);
  CAPTURE(blocks);
  std::vector<int> positions = {600, 128, 255, 17, 383, 127, 256, 1030};
  positions.resize(static_cast<size_t>(blocks * MultiprocessorCount() / heads.kv_heads + 1));
  for (size_t i = 8; i < positions.size(); ++i) positions[i] = static_cast<int>(i % 270);
  const DecodingRows rows(heads, positions, norms);
  const auto apart = rows.Run(false, 0);
  CHECK(rows.Run(true, 0, /*whole_heads=*/true) == apart);
  CHECK(rows.Run(true, 3, /*whole_heads=*/true) == apart);
}

TEST_CASE("attention rotates rows where each unit or head has a block of its own", "[kernels]") {
  AttentionOperands<Bf16> operands{};
  operands.query_heads = 8;
  operands.kv = {nullptr, 0, 2, 64};
  AttentionWorkView view{};
  view.items_count = 128;
  CHECK(AttentionRotates(operands, view) == UsesTensorCores());
  view.items_count = 129;
  CHECK_FALSE(AttentionRotates(operands, view));
  view.whole_heads = true;
  view.few_tiles_count = MultiprocessorCount();  // of two heads
  CHECK_FALSE(AttentionRotates(operands, view));
  ++view.few_tiles_count;
  CHECK(AttentionRotates(operands, view) == UsesTensorCores());
  view.whole_heads = false;
  view.items_count = 1;
  view.more_tiles_count = 1;
  CHECK_FALSE(AttentionRotates(operands, view));
  view.more_tiles_count = 0;
  operands.kv.head_dim = 80;
  CHECK_FALSE(AttentionRotates(operands, view));
  const float table = 0;
  operands.rotation.table = &table;
  CHECK(Attention(operands, view, nullptr) == cudaErrorInvalidValue);
}

}  // namespace neurogrid::kernels
