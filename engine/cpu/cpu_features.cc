#include "engine/cpu/cpu_features.h"

#include <cpuid.h>

#include <cstring>

#include "absl/strings/ascii.h"

namespace neurogrid {
namespace {

/// Not every compiler's builtin knows this one.
bool HasF16c() {
  uint32_t a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

}  // namespace

absl::StatusOr<InstructionSet> DetectInstructionSet() {
  // The builtin looks at CPUID and at what the system saves of the registers.
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !HasF16c()) {
    return absl::FailedPreconditionError(
        "this processor lacks AVX2, FMA or F16C: the CPU device needs all three");
  }
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
  return wide ? InstructionSet::kAvx512Bf16 : InstructionSet::kAvx2;
}

absl::string_view NameOf(InstructionSet set) {
  switch (set) {
    case InstructionSet::kAvx2:
      return "avx2";
    case InstructionSet::kAvx512Bf16:
      return "avx512bf16";
  }
  return "unknown";
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
