#include "engine/cpu/cpu_features.h"

#include <cpuid.h>

#include <cstring>

#include "absl/strings/ascii.h"

namespace neurogrid {
namespace {

// Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, CPUID.
constexpr uint32_t kGenu = 0x756e6547;  // of GenuineIntel
constexpr uint32_t kFma = 1u << 12;
constexpr uint32_t kXgetbv = 1u << 27;
constexpr uint32_t kF16c = 1u << 29;
constexpr uint32_t kAvx2 = 1u << 5;
constexpr uint32_t kAvx512FDqBwVl = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
constexpr uint32_t kAvx512Vnni = 1u << 11;
constexpr uint32_t kAvxVnni = 1u << 4;
constexpr uint32_t kAvx512Bf16 = 1u << 5;
// Volume 1, XCR0.
constexpr uint64_t kSavesAvx = 0x06;     // both halves of ymm
constexpr uint64_t kSavesAvx512 = 0xe0;  // masks, upper halves of zmm, zmm16 to zmm31

/// Whether all of `bits` are set.
bool Has(uint64_t word, uint64_t bits) { return (word & bits) == bits; }

}  // namespace

CpuWords ReadCpuWords() {
  CpuWords words;
  uint32_t a, b, c, d;
  if (__get_cpuid(0, &a, &b, &c, &d) != 0) words.leaf_0_ebx = b;
  if (__get_cpuid(1, &a, &b, &c, &d) != 0) words.leaf_1_ecx = c;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) != 0) {
    words.leaf_7_ebx = b;
    words.leaf_7_ecx = c;
    // a is the last subleaf.
    if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0) words.leaf_7_1_eax = a;
  }
  if (Has(words.leaf_1_ecx, kXgetbv)) {
    uint32_t low, high;
    asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    words.xcr0 = uint64_t{high} << 32 | low;
  }
  return words;
}

absl::StatusOr<std::vector<InstructionSet>> InstructionSetsOf(const CpuWords& words) {
  if (!Has(words.leaf_7_ebx, kAvx2) || !Has(words.leaf_1_ecx, kFma | kF16c)) {
    return absl::FailedPreconditionError(
        "this processor lacks AVX2, FMA or F16C: the CPU device needs all three");
  }
  if (!Has(words.xcr0, kSavesAvx)) {
    return absl::FailedPreconditionError(
        "this system does not save the registers of AVX, which the CPU device needs");
  }
  std::vector<InstructionSet> sets = {InstructionSet::kAvx2};
  if (Has(words.leaf_7_1_eax, kAvxVnni)) sets.push_back(InstructionSet::kAvxVnni);
  if (!Has(words.leaf_7_ebx, kAvx512FDqBwVl) || !Has(words.xcr0, kSavesAvx512)) return sets;
  sets.push_back(InstructionSet::kAvx512);
  if (!Has(words.leaf_7_ecx, kAvx512Vnni)) return sets;
  sets.push_back(InstructionSet::kAvx512Vnni);
  if (Has(words.leaf_7_1_eax, kAvx512Bf16)) sets.push_back(InstructionSet::kAvx512Bf16);
  return sets;
}

InstructionSet FastestOf(const std::vector<InstructionSet>& sets, const CpuWords& words) {
  const bool slow_dots = words.leaf_0_ebx == kGenu && sets.back() == InstructionSet::kAvx512Bf16;
  return slow_dots ? InstructionSet::kAvx512Vnni : sets.back();
}

absl::StatusOr<InstructionSet> DetectInstructionSet() {
  const CpuWords words = ReadCpuWords();
  NG_ASSIGN_OR_RETURN(const std::vector<InstructionSet> sets, InstructionSetsOf(words));
  return FastestOf(sets, words);
}

absl::string_view NameOf(InstructionSet set) {
  switch (set) {
    case InstructionSet::kAvx2:
      return "avx2";
    case InstructionSet::kAvxVnni:
      return "avxvnni";
    case InstructionSet::kAvx512:
      return "avx512";
    case InstructionSet::kAvx512Vnni:
      return "avx512vnni";
    case InstructionSet::kAvx512Bf16:
      return "avx512bf16";
  }
  return "unknown";
}

bool FollowsStreams() {
  static const bool follows = __builtin_cpu_is("amd") != 0;
  return follows;
}

std::string CpuName() {
  uint32_t registers[12] = {};
  for (uint32_t part = 0; part < 3; ++part) {
    uint32_t* r = registers + 4 * part;
    if (__get_cpuid(0x80000002u + part, &r[0], &r[1], &r[2], &r[3]) == 0) return "x86-64 processor";
  }
  char name[sizeof(registers) + 1] = {};
  std::memcpy(name, registers, sizeof(registers));
  std::string trimmed(absl::StripAsciiWhitespace(name));
  return trimmed.empty() ? "x86-64 processor" : trimmed;
}

}  // namespace neurogrid
