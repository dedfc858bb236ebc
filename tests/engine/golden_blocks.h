// Tensors of every block type, and their values by the reference.
#pragma once

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "engine/model/block_groups.h"
#include "engine/model/gguf.h"
#include "engine/model/safetensors.h"
#include "engine/model/weight_store.h"
#include "tests/support/golden.h"

namespace neurogrid {

inline constexpr int64_t kGoldenBlockRows = 64;
inline constexpr int64_t kGoldenBlockInputs = 512;

/// The block tensors of the golden file by type, with the reference's values.
struct GoldenBlocks {
  std::unique_ptr<Gguf> gguf = Gguf::Open(Golden("gguf/blocks.gguf")).value();
  SafetensorsFile reference = OpenSafetensors(Golden("gguf/blocks.safetensors")).value();

  WeightStore::Entry Entry(DType dtype) const {
    for (const Gguf::TensorInfo& info : gguf->tensors()) {
      if (info.tensor.dtype == dtype) return {.tensor = info.tensor, .file = "blocks.gguf"};
    }
    FAIL("no blocks of " << InfoOf(dtype).name);
    return {};
  }
  /// [64][512]
  std::vector<float> Values(DType dtype) const {
    for (const Gguf::TensorInfo& info : gguf->tensors()) {
      if (info.tensor.dtype != dtype) continue;
      for (const SafetensorsFile::NamedTensor& named : reference.tensors) {
        if (named.name != info.name) continue;
        std::vector<float> values(static_cast<size_t>(kGoldenBlockRows * kGoldenBlockInputs));
        std::memcpy(values.data(), named.tensor.data, values.size() * sizeof(float));
        return values;
      }
    }
    FAIL("no values of " << InfoOf(dtype).name);
    return {};
  }
};

inline const GoldenBlocks& TheBlocks() {
  static const GoldenBlocks blocks;
  return blocks;
}

inline std::vector<DType> BlockTypes() {
  return {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ8_0,  DType::kQ2_K,
          DType::kQ3_K, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL};
}

/// Some rows of a tensor as a tensor of its own.
inline WeightStore::Entry FirstRows(WeightStore::Entry entry, int64_t rows) {
  entry.tensor.shape = Shape({rows, entry.tensor.shape[1]});
  return entry;
}

/// |scale * value| + |minimum| of all weights of a stored tensor.
inline std::vector<float> MagnitudesOf(const WeightStore::Entry& entry) {
  const DType dtype = entry.tensor.dtype;
  const DTypeInfo& info = InfoOf(dtype);
  const GroupFormat& format = GroupFormatOf(dtype);
  std::vector<float> magnitudes;
  const uint8_t* block = static_cast<const uint8_t*>(entry.tensor.data);
  for (int64_t i = 0; i < entry.tensor.shape.elements(); i += info.block_elements) {
    BlockNumbers numbers;
    DecodeBlock(dtype, block, numbers);
    block += info.block_bytes;
    for (int k = 0; k < info.block_elements; ++k) {
      const int group = k / format.group_inputs;
      float magnitude = std::fabs(numbers.ScaleOf(format, group) *
                                  static_cast<float>(format.ValueOf(numbers.codes[k])));
      if (format.has_minimum) magnitude += std::fabs(numbers.MinimumOf(format, group));
      magnitudes.push_back(magnitude);
    }
  }
  return magnitudes;
}

}  // namespace neurogrid
