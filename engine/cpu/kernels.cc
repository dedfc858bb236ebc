#include "engine/cpu/kernels.h"

namespace neurogrid {

const Kernels& KernelsFor(InstructionSet set) {
  switch (set) {
    case InstructionSet::kAvx2:
      break;
    case InstructionSet::kAvxVnni:
      return kAvxVnniKernels;
    case InstructionSet::kAvx512:
      return kAvx512Kernels;
    case InstructionSet::kAvx512Vnni:
      return kAvx512VnniKernels;
    case InstructionSet::kAvx512Bf16:
      return kAvx512Bf16Kernels;
  }
  return kAvx2Kernels;
}

}  // namespace neurogrid
