// Which models a folder holds, and which of several is meant.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/status.h"

namespace neurogrid {

struct ModelFound {
  std::string path;     // folder with config.json and safetensors, or a .gguf file
  std::string name;     // path below the folder that was searched
  int64_t bytes = 0;    // of the weights
  std::string missing;  // the first file that it lacks, such as a shard; empty: it is whole
};

/// True for names of .gguf files that hold a language model: not image projectors or matrices that
/// quantisers use.
bool IsGgufModel(absl::string_view name);

/// The first file that a folder with config.json and safetensors lacks; empty when it is whole.
std::string MissingFromFolder(const std::string& folder);

/// Models in `folder` and `depth` levels below, in order of their names. Folders of a hub cache are
/// looked through by the commit of their branch "main". At most 4,096 entries are looked at.
std::vector<ModelFound> ListModels(const std::string& folder, int depth);

/// Which of `found` the user means. `wanted`: a name, a glob, or a part of a name such as Q4_K_M;
/// empty: there must be one alone. Errors list names with sizes; `place` says where they are and
/// `prefix` what stands before a name to choose it. Pure.
absl::StatusOr<size_t> ChooseModel(absl::Span<const ModelFound> found, absl::string_view wanted,
                                   absl::string_view place, absl::string_view prefix);

/// "1.23 GB"
std::string SizeText(int64_t bytes);

}  // namespace neurogrid
