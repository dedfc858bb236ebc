// Attention over pages against f64, and the same bits for a row however its batch is cut.
#include "kernels/attention.h"

#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "kernels/attention_ways.h"
#include "kernels/device_limits.h"
#include "tests/kernels/attention_context.h"
#include "tests/kernels/seeds.h"

namespace neurogrid::kernels {
namespace {

const Heads kHeads[] = {
    {4, 2, 64},          {3, 1, 16},        {4, 4, 24, 0, 5},    {8, 2, 32, 4},
    {2, 1, 128, 0, 300}, {6, 2, 80},        {16, 1, 64, 0, 260}, {2, 1, 256, 30, 17},
    {5, 1, 64, 10, 70},  {12, 1, 96, 0, 0}, {7, 1, 200, 0, 256}, {16, 1, 256},
};

cudaError_t AttendByFiveBlocks(const AttentionOperands<Bf16>& operands,
                               const AttentionWorkView& work, cudaStream_t stream) {
  return AttendFewRowsBy(5, operands, work, stream);
}
cudaError_t AttendByManyBlocks(const AttentionOperands<Bf16>& operands,
                               const AttentionWorkView& work, cudaStream_t stream) {
  return AttendFewRowsBy(1000, operands, work, stream);
}

}  // namespace

TEMPLATE_TEST_CASE("attention is a softmax over the visible keys", "[kernels]", float, Bf16) {
  const Seeded seeded;
  const Heads heads = GENERATE(from_range(kHeads));
  CAPTURE(heads.query_heads, heads.kv_heads, heads.dim, heads.softcap, heads.window);
  const Context<TestType> context(heads, {300, 21});
  // A chunk that crosses a split, a decode behind it, a short prompt.
  const std::vector<float> out = context.Run({{0, 250, 40}, {0, 299, 1}, {1, 0, 21}});
  for (const int i : {0, 5, 6, 20, 39}) context.Check(RowsOf(context, out, i, 1), 0, 250 + i);
  context.Check(RowsOf(context, out, 40, 1), 0, 299);
  for (const int i : {0, 3, 20}) context.Check(RowsOf(context, out, 41 + i, 1), 1, i);
}

TEMPLATE_TEST_CASE("a row has the same bits decoded, in a chunk and in a whole prompt", "[kernels]",
                   float, Bf16) {
  const Seeded seeded;
  const Heads heads = GENERATE(Heads{4, 2, 64}, Heads{3, 1, 24, 0, 40}, Heads{2, 1, 128, 5, 300});
  CAPTURE(heads.query_heads, heads.kv_heads, heads.dim, heads.softcap, heads.window);
  const int length = 540;  // three splits
  const Context<TestType> context(heads, {length, 33});
  const std::vector<float> tail = context.Run({{0, 480, 60}});
  const std::vector<float> mixed = context.Run({{1, 32, 1}, {0, 480, 7}, {0, 487, 53}});
  CHECK(SameBits(tail, RowsOf(context, mixed, 1, 60)));
  for (const int position : {480, 511, 512, 539}) {
    CAPTURE(position);
    const std::vector<float> alone = context.Run({{0, position, 1}});
    CHECK(SameBits(alone, RowsOf(context, tail, position - 480, 1)));
    CHECK(SameBits(alone, context.Run({{0, position, 1}}, {.states_max = 0})));
  }
  CHECK(SameBits(context.Run({{1, 32, 1}}), RowsOf(context, mixed, 0, 1)));
}

TEMPLATE_TEST_CASE("states of any number of splits merge in order", "[kernels]", float, Bf16) {
  const Seeded seeded;
  // As many as are merged at a time, and some more; and as many as several warps weigh.
  const Heads heads =
      GENERATE(Heads{1, 1, 256, 0, 0}, Heads{1, 1, 256, 0, 8900}, Heads{1, 1, 64, 0, 0});
  const int length = 36 * kSplitTokens + 5;
  const Context<TestType> context(heads, {length, 300});
  const std::vector<float> out = context.Run({{1, 299, 1}, {0, length - 2, 2}});
  for (const int i : {0, 1}) context.Check(RowsOf(context, out, 1 + i, 1), 0, length - 2 + i);
  CHECK(SameBits(RowsOf(context, out, 1, 2), context.Run({{0, length - 2, 2}}, {.states_max = 0})));
}

TEST_CASE("states of a large device's many blocks merge in order", "[kernels]") {
  if (!UsesTensorCores()) SKIP("tiles are for GPUs from sm_80 on");
  const Seeded seeded;
  // A state for every split: more than are merged at a time, and as many as two warps weigh.
  const Heads heads = GENERATE(Heads{1, 1, 256, 0, 0}, Heads{8, 1, 64, 0, 0});
  const int position = 36 * kSplitTokens + 5;
  const Context<Bf16> context(heads, {position + 1});
  const std::vector<float> out = context.Run({{0, position, 1}}, {.way = AttendByManyBlocks});
  context.Check(out, 0, position);
  CHECK(SameBits(out, context.Run({{0, position, 1}}, {.states_max = 0})));
}

TEST_CASE("a head has the same bits wherever blocks cut it", "[kernels]") {
  const Seeded seeded;
  const Context<Bf16> context({2, 2, 16}, {20 * kSplitTokens});
  std::vector<Context<Bf16>::Part> batch;
  std::vector<std::vector<float>> uncut;
  for (const int splits : {13, 12, 14, 10, 7, 14, 11, 20, 1, 18, 3}) {
    batch.push_back({0, splits * kSplitTokens - 9, 1});
    uncut.push_back(context.Run({batch.back()}, {.states_max = 0}));
  }
  context.Check(uncut[2], 0, batch[2].first);
  // Each row less moves every place where the units are cut.
  for (; batch.size() > 1; batch.pop_back()) {
    const std::vector<float> out = context.Run(batch);
    for (size_t i = 0; i < batch.size(); ++i) {
      CAPTURE(batch.size(), i);
      CHECK(SameBits(RowsOf(context, out, static_cast<int>(i), 1), uncut[i]));
    }
  }
}

TEST_CASE("a head has the same bits where blocks take whole ones", "[kernels]") {
  if (!UsesTensorCores()) SKIP("tiles are for GPUs from sm_80 on");
  const Seeded seeded;
  const Heads heads = GENERATE(Heads{6, 3, 64}, Heads{2, 1, 128}, Heads{4, 2, 16, 0, 300});
  const Context<Bf16> context(heads, {700, 513, 20});
  const std::vector<Context<Bf16>::Part> batch{{0, 699, 1}, {1, 512, 1}, {2, 0, 2},
                                               {0, 300, 1}, {2, 19, 1},  {1, 255, 1}};
  const std::vector<float> cut = context.Run(batch);
  context.Check(RowsOf(context, cut, 0, 1), 0, 699);
  // More heads than blocks, and the other way round; counts that a recorded launch reads.
  for (auto* way : {AttendByFiveBlocks, AttendByManyBlocks}) {
    for (const int spare : {0, 3}) {
      CHECK(SameBits(cut, context.Run(batch, {.way = way, .spare = spare, .whole_heads = true})));
    }
  }
}

TEST_CASE("whole heads pay where multiprocessors have like shares", "[kernels]") {
  const auto pay = [](int sequences, int kv_heads, int first, int others) {
    AttentionWork work;
    for (int s = 0; s < sequences; ++s) {
      AddSequence({s, 1, s == 0 ? first : others, 0}, 1, 0, 1 << 20, work);
    }
    return WholeHeadsPay(work, kv_heads, 10);
  };
  CHECK(pay(20, 1, 1000, 1000));
  CHECK(pay(2, 10, 1000, 1000));
  CHECK_FALSE(pay(1, 10, 1000, 1000));    // a head each: too few blocks under way
  CHECK_FALSE(pay(11, 1, 1000, 1000));    // one has two heads, the others one
  CHECK_FALSE(pay(20, 1, 100000, 1000));  // one long sequence
  CHECK(pay(60, 1, 1256, 1000));          // one that is a little longer
}

TEST_CASE("the states of many rows merge as those of few", "[kernels]") {
  const Seeded seeded;
  const Heads heads = GENERATE(Heads{15, 1, 64}, Heads{15, 1, 72}, Heads{15, 1, 136});
  const Context<Bf16> context(heads, {291, 600});
  std::vector<Context<Bf16>::Part> batch{{1, 599, 1}};
  for (int position = 257; position < 291; ++position) batch.push_back({0, position, 1});
  // Of a large device, so that every row is cut; more units than its merging warps have work for.
  const std::vector<float> out =
      UsesTensorCores() ? context.Run(batch, {.way = AttendByManyBlocks}) : context.Run(batch);
  context.Check(RowsOf(context, out, 0, 1), 1, 599);
  CHECK(SameBits(out, context.Run(batch)));  // of a device that leaves most rows whole
  CHECK(SameBits(RowsOf(context, out, 0, 1), context.Run({batch[0]})));
  for (const int i : {1, 33}) {
    CHECK(SameBits(RowsOf(context, out, i, 1), context.Run({batch[static_cast<size_t>(i)]})));
  }
}

TEMPLATE_TEST_CASE("a recorded launch takes what there is and leaves the rest of its grid",
                   "[kernels]", float, Bf16) {
  const Seeded seeded;
  const Context<TestType> context({4, 2, 64}, {600, 33, 1});
  using Batch = std::vector<typename Context<TestType>::Part>;
  const Batch batch = GENERATE(Batch{{0, 599, 1}, {1, 32, 1}, {2, 0, 1}}, Batch{{1, 3, 30}},
                               Batch{{0, 500, 90}, {1, 30, 2}, {2, 0, 1}}, Batch{{2, 0, 1}});
  CHECK(SameBits(context.Run(batch), context.Run(batch, {.spare = 9})));
}

TEST_CASE("attention refuses heads that no kernel takes", "[kernels]") {
  AttentionOperands<Bf16> operands{};
  operands.query_heads = 17;
  operands.kv = {nullptr, 0, 1, 64};
  CHECK(Attention(operands, AttentionWorkView{}, nullptr) == cudaErrorInvalidValue);
  operands.query_heads = 2;
  operands.kv.head_dim = 264;
  CHECK(Attention(operands, AttentionWorkView{}, nullptr) == cudaErrorInvalidValue);
}

}  // namespace neurogrid::kernels
