// The one place where tests of the engine get their device: a program is one of the columns cpu,
// cuda-emulated and cuda.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/device.h"
#include "engine/model/precision.h"
#include "tests/support/sanitized.h"

namespace neurogrid {

enum class Column { kCpu, kCudaEmulated, kCuda };

/// Of this program.
Column ThisColumn();

/// A new one: the first GPU, or the processor with its widest kernels. Emulated threads take turns
/// in an order that depends on the test and differs between the devices of a test.
std::unique_ptr<Device> TestDevice();

/// All that converts matrices on this program's device; int8-a8 is for processors.
inline std::vector<Precision> WeightPrecisions() {
  std::vector<Precision> all = {Precision::kF32, Precision::kBf16, Precision::kInt8};
  if (ThisColumn() == Column::kCpu) all.push_back(Precision::kInt8A8);
  return all;
}

/// All that keeps blocks on this program's device; blocks-a8 is for processors.
inline std::vector<Precision> BlockPrecisions() {
  if (ThisColumn() == Column::kCpu) return {Precision::kAuto, Precision::kBlocksA8};
  return {Precision::kAuto};
}

/// How far a test goes. The emulator takes a second for what a processor does in a few
/// milliseconds, so it looks at samples; the whole sweep is a test of its own there, tagged [long].
/// So does AddressSanitizer, which is after addresses: samples have all of those.
enum class Depth { kSamples, kEverything };
inline Depth UsualDepth() {
  const bool slow = ThisColumn() == Column::kCudaEmulated || Sanitized() || kAddressSanitizer;
  return slow ? Depth::kSamples : Depth::kEverything;
}

struct DeviceVariant {
  std::string name;
  std::function<std::unique_ptr<Device>()> make;
};

/// What gives other roundings where something is wrong: each set of kernels, any number of threads,
/// any order of turns.
std::vector<DeviceVariant> DeviceVariants();

/// Those that differ in their kernels.
std::vector<DeviceVariant> KernelVariants();

}  // namespace neurogrid
