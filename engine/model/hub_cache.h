// Names of models on a hub, and where its cache keeps them: the layout of huggingface_hub, shared
// with every tool that uses it.
//
//   CACHE/models--ORG--NAME/blobs/DIGEST            the bytes; SHA-256 of large files, git SHA-1
//   else
//                          /refs/REVISION           the commit that a branch or tag stood at
//                          /snapshots/COMMIT/FILE   link to ../../blobs/DIGEST
//   CACHE/.locks/models--ORG--NAME/DIGEST.lock
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "common/status.h"

namespace neurogrid {

/// ORG/NAME[@REVISION][:FILE].
struct HubName {
  std::string repository;         // ORG/NAME
  std::string revision = "main";  // branch, tag or commit
  std::string file;               // which of several models: name, glob or a part such as Q4_K_M

  std::string ToString() const;
};

/// InvalidArgument says what a name must look like.
absl::StatusOr<HubName> ParseHubName(absl::string_view text);
/// A revision becomes part of paths: no "..", no absolute path, no control characters.
absl::Status CheckRevision(absl::string_view revision);
bool IsCommit(absl::string_view revision);

struct HubCachePlace {
  HubCachePlace(const std::string& cache, const std::string& repository);

  std::string folder;  // CACHE/models--ORG--NAME
  std::string locks;   // CACHE/.locks/models--ORG--NAME
  std::string Blob(const std::string& digest) const { return folder + "/blobs/" + digest; }
  std::string Ref(const std::string& revision) const { return folder + "/refs/" + revision; }
  std::string Snapshot(const std::string& commit) const { return folder + "/snapshots/" + commit; }
};

/// ORG/NAME of a snapshot folder or of a path below one; empty for any other path.
std::string RepositoryOfSnapshot(const std::string& path);

/// The commit that the cache knows the revision by. NotFound names the place that was looked at.
absl::StatusOr<std::string> CachedCommit(const HubCachePlace& place, const HubName& name);

/// The whole model in the cache: a snapshot folder or a .gguf file in one. NotFound says what is
/// missing there; InvalidArgument when several models are there and the name chooses none.
absl::StatusOr<std::string> FindInHubCache(const std::string& cache, const HubName& name);

}  // namespace neurogrid
