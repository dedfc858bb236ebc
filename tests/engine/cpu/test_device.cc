// The column cpu.
#include "tests/engine/test_device.h"

#include "absl/strings/str_cat.h"
#include "engine/cpu/cpu_device.h"
#include "tests/engine/cpu_support.h"

namespace neurogrid {
namespace {

DeviceVariant Variant(InstructionSet set, int threads) {
  return {absl::StrCat(NameOf(set), ", ", threads, " threads"),
          [=] { return std::make_unique<CpuDevice>(threads, set); }};
}

}  // namespace

Column ThisColumn() { return Column::kCpu; }

std::unique_ptr<Device> TestDevice() { return Variant(InstructionSets().back(), 3).make(); }

std::vector<DeviceVariant> DeviceVariants() {
  std::vector<DeviceVariant> variants;
  for (const InstructionSet set : InstructionSets()) variants.push_back(Variant(set, 2));
  for (const int threads : {1, 5}) variants.push_back(Variant(InstructionSets().back(), threads));
  return variants;
}

std::vector<DeviceVariant> KernelVariants() {
  std::vector<DeviceVariant> variants;
  for (const InstructionSet set : InstructionSets()) variants.push_back(Variant(set, 2));
  return variants;
}

}  // namespace neurogrid
