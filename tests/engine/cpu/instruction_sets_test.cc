// Which instruction sets a processor runs, and that all of them give the same bits. Products,
// attention and convolutions are compared in their own tests, set by set.
#include <algorithm>

#include "catch2/catch_test_macros.hpp"
#include "catch2/generators/catch_generators.hpp"
#include "catch2/generators/catch_generators_range.hpp"
#include "engine/cpu/kernels.h"
#include "engine/cpu/packed_groups.h"
#include "engine/cpu/thread_pool.h"
#include "tests/engine/cpu_support.h"

namespace neurogrid {
namespace {

using Set = InstructionSet;
using Sets = std::vector<InstructionSet>;

// Words of CPUID as the makers publish them, features that nobody here asks for left out.
constexpr uint32_t kFmaF16cXgetbv = 0x38001000;
constexpr uint32_t kAvx2 = 0x20;
constexpr uint32_t kAvx512FDqBwVl = 0xc0030000;
constexpr uint32_t kAvx512Vnni = 0x800;
constexpr uint32_t kAvxVnni = 0x10;
constexpr uint32_t kAvx512Bf16 = 0x20;
constexpr uint64_t kSavesYmm = 0x7;
constexpr uint64_t kSavesZmm = 0xe7;

struct Processor {
  const char* name;
  CpuWords words;
  Sets sets;
};
const Processor kProcessors[] = {
    {"Haswell", {0, kFmaF16cXgetbv, kAvx2, 0, 0, kSavesYmm}, {Set::kAvx2}},
    {"Zen 3", {0, kFmaF16cXgetbv, kAvx2, 0, 0, kSavesYmm}, {Set::kAvx2}},
    {"Alder Lake", {0, kFmaF16cXgetbv, kAvx2, 0, kAvxVnni, kSavesYmm}, {Set::kAvx2, Set::kAvxVnni}},
    {"Skylake-X",
     {0, kFmaF16cXgetbv, kAvx2 | kAvx512FDqBwVl, 0, 0, kSavesZmm},
     {Set::kAvx2, Set::kAvx512}},
    {"Ice Lake",
     {0, kFmaF16cXgetbv, kAvx2 | kAvx512FDqBwVl, kAvx512Vnni, 0, kSavesZmm},
     {Set::kAvx2, Set::kAvx512, Set::kAvx512Vnni}},
    {"Zen 4",
     {0, kFmaF16cXgetbv, kAvx2 | kAvx512FDqBwVl, kAvx512Vnni, kAvx512Bf16, kSavesZmm},
     {Set::kAvx2, Set::kAvx512, Set::kAvx512Vnni, Set::kAvx512Bf16}},
    {"Sapphire Rapids",
     {0, kFmaF16cXgetbv, kAvx2 | kAvx512FDqBwVl, kAvx512Vnni, kAvx512Bf16 | kAvxVnni, kSavesZmm},
     {Set::kAvx2, Set::kAvxVnni, Set::kAvx512, Set::kAvx512Vnni, Set::kAvx512Bf16}},
    {"Sapphire Rapids under a system that saves no zmm registers",
     {0, kFmaF16cXgetbv, kAvx2 | kAvx512FDqBwVl, kAvx512Vnni, kAvx512Bf16 | kAvxVnni, kSavesYmm},
     {Set::kAvx2, Set::kAvxVnni}},
    {"Knights Landing, whose AVX-512 has no words",
     {0, kFmaF16cXgetbv, kAvx2 | 0x10000, 0, 0, kSavesZmm},
     {Set::kAvx2}},
};

TEST_CASE("a processor runs the sets that it and its system have", "[cpu]") {
  for (const Processor& processor : kProcessors) {
    CAPTURE(processor.name);
    CHECK(InstructionSetsOf(processor.words).value() == processor.sets);
  }
}

TEST_CASE("Intel's processors multiply bf16 by multiply-adds, others by their own instruction",
          "[cpu]") {
  const Sets all = {Set::kAvx2, Set::kAvxVnni, Set::kAvx512, Set::kAvx512Vnni, Set::kAvx512Bf16};
  const CpuWords intel = {.leaf_0_ebx = 0x756e6547};  // "Genu"
  const CpuWords amd = {.leaf_0_ebx = 0x68747541};    // "Auth"
  CHECK(FastestOf(all, intel) == Set::kAvx512Vnni);
  CHECK(FastestOf(all, amd) == Set::kAvx512Bf16);
  CHECK(FastestOf({Set::kAvx2, Set::kAvxVnni}, intel) == Set::kAvxVnni);
}

TEST_CASE("a processor below AVX2 is refused by name of what it lacks", "[cpu]") {
  const CpuWords ivy_bridge = {0, kFmaF16cXgetbv & ~0x1000u, 0, 0, 0, kSavesYmm};
  const absl::Status status = InstructionSetsOf(ivy_bridge).status();
  CHECK(status.code() == absl::StatusCode::kFailedPrecondition);
  CHECK(status.message() ==
        "this processor lacks AVX2, FMA or F16C: the CPU device needs all three");
  const CpuWords old_system = {0, kFmaF16cXgetbv, kAvx2, 0, 0, 1};
  CHECK(InstructionSetsOf(old_system).status().message() ==
        "this system does not save the registers of AVX, which the CPU device needs");
}

/// bf16 of every exponent but that of infinity, so denormals too.
std::vector<uint16_t> WideBf16(uint64_t seed, int64_t count) {
  std::vector<uint16_t> values;
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t bits = SplitMix64(seed * 1000003 + static_cast<uint64_t>(i));
    values.push_back(static_cast<uint16_t>((bits & 0x807f) | (bits / 0x10000 % 255) << 7));
  }
  return values;
}

/// What the operations over rows make of the same numbers.
struct RowResults {
  std::vector<uint16_t> normed16, rotated16;
  std::vector<float> normed32, rotated32, capped, scales, group_scales;
  std::vector<int16_t> words;
  std::vector<int8_t> bytes;
  std::vector<int32_t> starts, sums;
  std::vector<double> exponentials;
};

RowResults RowsBy(const Kernels& kernels, int64_t count) {
  const auto size = static_cast<size_t>(count);
  const size_t padded = (size + 15) / 16 * 16;
  const std::vector<uint16_t> wide = WideBf16(1, count);
  std::vector<uint16_t> x16;
  for (const bf16 value : RandomBf16(2, count)) x16.push_back(value.bits);
  const std::vector<float> x32 = RandomFloats(3, count);
  const std::vector<float> w = RandomFloats(4, count);
  RowResults out;
  for (const std::vector<uint16_t>& x : {wide, x16}) {
    for (const bool twice : {false, true}) {
      std::vector<uint16_t> y(size);
      kernels.rms_norm_bf16(y.data(), x.data(), w.data(), count, 1e-5f, twice);
      out.normed16.insert(out.normed16.end(), y.begin(), y.end());
    }
    std::vector<int16_t> words(padded);
    out.scales.push_back(kernels.quantize_row(x.data(), count, words.data()));
    out.words.insert(out.words.end(), words.begin(), words.end());
    const size_t groups = (size + kA8GroupInputs - 1) / kA8GroupInputs;
    std::vector<int8_t> bytes(padded);
    std::vector<float> scales(groups);
    std::vector<int32_t> starts(groups);
    kernels.quantize_groups(x.data(), count, bytes.data(), scales.data(), starts.data());
    out.bytes.insert(out.bytes.end(), bytes.begin(), bytes.end());
    out.group_scales.insert(out.group_scales.end(), scales.begin(), scales.end());
    out.starts.insert(out.starts.end(), starts.begin(), starts.end());
    const size_t whole = size / 32 * 32;  // the integers are in an order of each set's own
    std::vector<uint8_t> split(2 * whole);
    std::vector<float> block_scales(whole / kGroupBlockInputs + 1);
    std::vector<int32_t> sums(whole / 16 + whole / 32);
    kernels.quantize_blocks(x.data(), static_cast<int64_t>(whole), split.data(),
                            block_scales.data(), sums.data(), sums.data() + whole / 16);
    out.group_scales.insert(out.group_scales.end(), block_scales.begin(), block_scales.end());
    out.sums.insert(out.sums.end(), sums.begin(), sums.end());
  }
  out.normed32.resize(size);
  kernels.rms_norm_f32(out.normed32.data(), x32.data(), w.data(), count, 1e-5f);
  const int half = static_cast<int>(count / 2);
  out.rotated16 = x16;
  kernels.rotate_bf16(out.rotated16.data(), w.data(), x32.data(), half);
  out.rotated32 = x32;
  kernels.rotate_f32(out.rotated32.data(), w.data(), w.data() + half, half);
  out.capped = x32;
  for (float& value : out.capped) value *= 40;
  kernels.softcap(out.capped.data(), count, 30);
  out.exponentials = {kernels.sum_of_exponentials(x32.data(), count, 8, 0.7f),
                      kernels.sum_of_exponentials(x32.data(), count, 90, 1)};
  return out;
}

TEST_CASE("every instruction set norms, rotates, quantises and sums rows in the bits of AVX2",
          "[cpu]") {
  const Set set = GENERATE(Set::kAvxVnni, Set::kAvx512, Set::kAvx512Vnni, Set::kAvx512Bf16);
  const int64_t count = GENERATE(2, 30, 128, 1002, 5000);
  CAPTURE(NameOf(set), count);
  const Sets here = InstructionSets();
  if (std::find(here.begin(), here.end(), set) == here.end()) {
    SKIP("this machine lacks " << NameOf(set));
  }
  RowResults expected, found;
  ThreadPool pool(1);  // for its denormals
  pool.ParallelFor(1, [&](int64_t, int) {
    expected = RowsBy(KernelsFor(Set::kAvx2), count);
    found = RowsBy(KernelsFor(set), count);
  });
  CHECK(SameBits(found.normed16, expected.normed16));
  CHECK(SameBits(found.normed32, expected.normed32));
  CHECK(SameBits(found.rotated16, expected.rotated16));
  CHECK(SameBits(found.rotated32, expected.rotated32));
  CHECK(SameBits(found.capped, expected.capped));
  CHECK(SameBits(found.words, expected.words));
  CHECK(SameBits(found.scales, expected.scales));
  CHECK(SameBits(found.bytes, expected.bytes));
  CHECK(SameBits(found.group_scales, expected.group_scales));
  CHECK(SameBits(found.starts, expected.starts));
  CHECK(SameBits(found.sums, expected.sums));
  CHECK(SameBits(found.exponentials, expected.exponentials));
}

}  // namespace
}  // namespace neurogrid
