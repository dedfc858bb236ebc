#include "engine/cpu/kernels.h"

namespace neurogrid {

const Kernels& KernelsFor(InstructionSet set) {
  switch (set) {
    case InstructionSet::kAvx2:
      return kAvx2Kernels;
    case InstructionSet::kAvx512Bf16:
      return kAvx512Kernels;
  }
  return kAvx2Kernels;
}

}  // namespace neurogrid
