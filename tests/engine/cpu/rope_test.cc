#include "engine/rope.h"

#include <cmath>
#include <numbers>
#include <vector>

#include "catch2/catch_test_macros.hpp"
#include "catch2/matchers/catch_matchers_floating_point.hpp"

namespace neurogrid {
namespace {

using Catch::Matchers::WithinRel;
using Scaling = RopeParameters::Scaling;

constexpr double kUnit = 0x1p-23;  // an f32 rounding and its neighbour

std::vector<float> Frequencies(const RopeParameters& parameters, int head_dim) {
  return RopeFrequencies(parameters, head_dim).value();
}

TEST_CASE("plain rope frequencies fall geometrically from 1", "[cpu]") {
  const std::vector<float> f = Frequencies({.theta = 10000}, 8);
  REQUIRE(f.size() == 4);
  CHECK(f[0] == 1);
  CHECK_THAT(f[1], WithinRel(0.1, kUnit));
  CHECK_THAT(f[2], WithinRel(0.01, kUnit));
  CHECK_THAT(f[3], WithinRel(0.001, kUnit));
}

TEST_CASE("linear scaling and divisors divide frequencies", "[cpu]") {
  CHECK_THAT(Frequencies({.scaling = Scaling::kLinear, .factor = 8}, 8)[1],
             WithinRel(0.0125, kUnit));
  CHECK_THAT(Frequencies({.frequency_divisors = {1, 2, 4, 8}}, 8)[2], WithinRel(0.0025, kUnit));
}

TEST_CASE("llama3 scaling keeps short waves, divides long ones and blends between", "[cpu]") {
  const RopeParameters p = {.scaling = Scaling::kLlama3,
                            .theta = 10000,
                            .factor = 8,
                            .low_freq_factor = 1,
                            .high_freq_factor = 4,
                            .original_max_positions = 1000};
  const std::vector<float> f = Frequencies(p, 8);
  CHECK(f[0] == 1);                              // wave 6.3 < 1000 / 4
  CHECK_THAT(f[1], WithinRel(0.1, kUnit));       // 63
  CHECK_THAT(f[3], WithinRel(0.000125, kUnit));  // 6283 > 1000
  // 628.3 lies between: s = (1000 / 628.3 - 1) / 3.
  const double s = (1000 * 0.01 / (2 * std::numbers::pi) - 1) / 3;
  CHECK_THAT(f[2], WithinRel((1 - s) * 0.01 / 8 + s * 0.01, kUnit));
}

TEST_CASE("yarn stretches slow turns, keeps fast ones and raises the magnitude", "[cpu]") {
  const RopeParameters p = {
      .scaling = Scaling::kYarn, .theta = 10000, .factor = 4, .original_max_positions = 4096};
  const std::vector<float> f = Frequencies(p, 128);
  // bound(32) = 128 ln(4096 / 64 pi) / (2 ln 1e4) = 20.9 -> 20; bound(1) = 45.03 -> 46.
  CHECK_THAT(f[20], WithinRel(std::pow(1e4, -40.0 / 128), kUnit));
  CHECK_THAT(f[46], WithinRel(std::pow(1e4, -92.0 / 128) / 4, kUnit));
  const double plain = std::pow(1e4, -66.0 / 128);
  CHECK_THAT(f[33], WithinRel(plain / 4 * 0.5 + plain * 0.5, kUnit));
  CHECK_THAT(RopeMagnitude(p), WithinRel(0.1 * std::log(4.0) + 1, 1e-12));
  RopeParameters given = p;
  given.attention_factor = 1.25;
  CHECK(RopeMagnitude(given) == 1.25);
  CHECK(RopeTable::Make(given, 128, 1).value().cosines(0)[5] == 1.25f);
}

TEST_CASE("a rope table holds cosines and sines of f32 angles", "[cpu]") {
  const RopeTable table = RopeTable::Make({}, 8, 100).value();
  CHECK(table.cosines(0)[3] == 1);
  CHECK(table.sines(0)[3] == 0);
  const float angle = 99 * Frequencies({}, 8)[1];
  CHECK_THAT(table.cosines(99)[1], WithinRel(std::cos(double{angle}), kUnit));
  CHECK_THAT(table.sines(99)[1], WithinRel(std::sin(double{angle}), kUnit));
}

TEST_CASE("rope parameters that make no frequency are errors", "[cpu]") {
  CHECK_FALSE(RopeFrequencies({.theta = 0}, 8).ok());
  CHECK_FALSE(RopeFrequencies({.theta = NAN}, 8).ok());
  CHECK_FALSE(RopeFrequencies({.scaling = Scaling::kLinear, .factor = 0}, 8).ok());
  CHECK_FALSE(RopeFrequencies({.scaling = Scaling::kYarn}, 8).ok());
  CHECK_FALSE(
      RopeFrequencies(
          {.scaling = Scaling::kLlama3, .low_freq_factor = 4, .original_max_positions = 8}, 8)
          .ok());
  CHECK_FALSE(RopeFrequencies({.frequency_divisors = {1, 2}}, 8).ok());
  CHECK_FALSE(RopeFrequencies({.frequency_divisors = {1, 2, 0, 1}}, 8).ok());
}

}  // namespace
}  // namespace neurogrid
