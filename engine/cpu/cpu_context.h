// What every CPU op needs beside its operands.
#pragma once

#include "engine/cpu/cpu_features.h"
#include "engine/cpu/thread_pool.h"

namespace neurogrid {

struct CpuContext {
  ThreadPool* pool = nullptr;
  InstructionSet instructions = InstructionSet::kAvx2;
};

}  // namespace neurogrid
