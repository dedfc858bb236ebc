// safetensors files: one header of JSON, then the tensors' bytes (models.md 4).
#pragma once

#include <string>
#include <vector>

#include "common/mapped_file.h"
#include "common/status.h"
#include "common/tensor.h"

namespace neurogrid {

struct SafetensorsFile {
  struct NamedTensor {
    std::string name;
    ConstTensor tensor;  // inside `file`; its bytes may be unaligned
  };

  MappedFile file;
  std::vector<NamedTensor> tensors;  // in the order of their bytes
};

/// F32, F16 and BF16 tensors. The data must cover the file without gap or overlap, each size equal
/// to what dtype and shape imply. Errors name the file, the tensor, what was found and expected; a
/// file of another kind is named for what it is.
absl::StatusOr<SafetensorsFile> OpenSafetensors(const std::string& path);

}  // namespace neurogrid
