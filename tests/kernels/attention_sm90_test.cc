// Attention with wgmma against the base path, bit for bit. Runs on GPUs of compute capability 9.0.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "kernels/attention_ways.h"
#include "kernels/device_limits.h"
#include "tests/kernels/attention_context.h"
#include "tests/kernels/seeds.h"
#include "tests/support/sanitized.h"

namespace neurogrid::kernels {

TEST_CASE("attention with wgmma has the bits of the base path and of decoding", "[kernels]") {
  if (!RunsSm90()) SKIP("needs a GPU of compute capability 9.0 and code for sm_80 or later");
  const Seeded seeded;
  const auto [group, window] =
      GENERATE(table<int, int>({{1, 0}, {3, 40}, {4, 0}, {4, 300}, {8, 1}, {12, 300}, {16, 0}}));
  constexpr int kKvHeads = 2;
  const auto [dim, softcap] = GENERATE(table<int, float>({{64, 0}, {128, 0}, {256, 0}, {256, 30}}));
  if (Sanitized() && (group + window + dim / 64 + (softcap > 0 ? 2 : 0)) % 11 != 0) return;
  CAPTURE(group, dim, softcap, window);
  const int length = Sanitized() ? 300 : 1100;
  const Context<Bf16> context({group * kKvHeads, kKvHeads, dim, softcap, window},
                              {length, 257, 40});
  for (const auto& batch : std::vector<std::vector<Context<Bf16>::Part>>{
           {{0, 0, length}},
           {{2, 3, 37}, {0, length - 400, 390}, {1, 0, 257}},
           {{0, 255, 2}, {0, 511, 130}, {1, 200, 57}, {2, 0, 17}}}) {
    if (Sanitized() && batch.size() > 1) break;
    const std::vector<float> base = context.Run(batch, {.states_max = 0, .way = AttendTiles});
    CHECK(SameBits(base, context.Run(batch, {.states_max = 0, .way = AttendTilesSm90})));
    CHECK(SameBits(base, context.Run(batch, {.states_max = 0})));
  }
  const std::vector<float> whole =
      context.Run({{0, 0, length}}, {.states_max = 0, .way = AttendTilesSm90});
  for (const int position : {0, 255, 256, length - 400, length - 1}) {
    if (position < 0) continue;
    CAPTURE(position);
    CHECK(SameBits(RowsOf(context, whole, position, 1), context.Run({{0, position, 1}})));
    context.Check(RowsOf(context, whole, position, 1), 0, position);
  }
}

}  // namespace neurogrid::kernels
