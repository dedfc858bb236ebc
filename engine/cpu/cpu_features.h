// Which instructions the kernels may use. Asked once; tests choose the narrower set by hand.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "common/status.h"

namespace neurogrid {

/// Sets the kernels are compiled for. A machine with AVX-512 but without its BF16 and VNNI parts
/// runs kAvx2. Both give the same bits: see vec_avx2.h.
enum class InstructionSet { kAvx2, kAvx512Bf16 };

/// The widest set that processor and system support. FailedPrecondition without AVX2, FMA
/// and F16C.
absl::StatusOr<InstructionSet> DetectInstructionSet();

/// "avx2" or "avx512bf16".
absl::string_view NameOf(InstructionSet set);

/// The processor's own name, such as "AMD EPYC 9354"; "x86-64 processor" when it has none.
std::string CpuName();

}  // namespace neurogrid
