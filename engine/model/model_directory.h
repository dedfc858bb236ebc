// The safetensors files of a model folder, whole or in shards (models.md 4).
#pragma once

#include <string>
#include <vector>

#include "common/status.h"
#include "engine/model/safetensors.h"

namespace neurogrid {

/// FOLDER/NAME once it is known to stay inside `folder`. InvalidArgument for a name that is not
/// plain (with a separator or a leading dot) and for a link that leads out of the folder; links
/// into the blobs folders of a hub cache (snapshots/REVISION/name -> ../../blobs/..., and from
/// there into the one that all its repositories share) are followed.
absl::StatusOr<std::string> ResolveInFolder(const std::string& folder, const std::string& name);

/// The files that a model.safetensors.index.json names, in order.
absl::StatusOr<std::vector<std::string>> ShardsOfIndex(const std::string& path);

/// model.safetensors, else every shard that model.safetensors.index.json names. Each tensor of the
/// index must be in its named shard, and none in two. Other weight files are left alone.
absl::StatusOr<std::vector<SafetensorsFile>> OpenShards(const std::string& folder);

}  // namespace neurogrid
