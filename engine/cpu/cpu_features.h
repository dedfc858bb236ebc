// Which instructions the kernels may use. Asked once; tests choose a narrower set by hand.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/status.h"

namespace neurogrid {

/// Sets the kernels are compiled for, each one's instructions in those behind it, but for AVX-VNNI.
/// All give the same bits: see vec_avx2.h.
enum class InstructionSet {
  kAvx2,        // with FMA and F16C
  kAvxVnni,     // the same, and products of bytes: Alder Lake and later without AVX-512
  kAvx512,      // Skylake-X
  kAvx512Vnni,  // Cascade Lake, Ice Lake, Tiger Lake, Rocket Lake
  kAvx512Bf16,  // Cooper Lake, Sapphire Rapids, Zen 4 and later; with VNNI
};

/// What processor and system say of it. 0 where a leaf does not exist.
struct CpuWords {
  uint32_t leaf_0_ebx = 0;  // the maker's first letters
  uint32_t leaf_1_ecx = 0;
  uint32_t leaf_7_ebx = 0;
  uint32_t leaf_7_ecx = 0;
  uint32_t leaf_7_1_eax = 0;
  uint64_t xcr0 = 0;  // registers that the system saves
};
CpuWords ReadCpuWords();

/// Those that processor and system run, in the order of InstructionSet. FailedPrecondition without
/// AVX2, FMA and F16C.
absl::StatusOr<std::vector<InstructionSet>> InstructionSetsOf(const CpuWords& words);

/// The fastest of those. On Intel's processors that is not the last one: on Sapphire Rapids
/// vdpbf16ps does 85 Gop/s where the multiply-adds of kAvx512Vnni do 120.
InstructionSet FastestOf(const std::vector<InstructionSet>& sets, const CpuWords& words);

/// The fastest one on this machine.
absl::StatusOr<InstructionSet> DetectInstructionSet();

/// "avx2", "avxvnni", "avx512", "avx512vnni" or "avx512bf16".
absl::string_view NameOf(InstructionSet set);

/// Whether the processor keeps up with one long stream of reads by itself, while it computes: then
/// attention reads so. AMD's do (Zen 4), Intel's do not (Sapphire Rapids lost 10 to 25 %).
bool FollowsStreams();

/// The processor's own name, such as "AMD EPYC 9354"; "x86-64 processor" when it has none.
std::string CpuName();

}  // namespace neurogrid
