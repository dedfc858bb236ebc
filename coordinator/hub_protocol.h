// What a hub answers, as checked values: the files of a repository, which of them a model needs,
// and what an error means. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/status.h"
#include "engine/model/hub_cache.h"

namespace neurogrid {

inline constexpr int64_t kHubListingBytesMax = int64_t{16} << 20;
inline constexpr int kHubFilesMax = 4096;
inline constexpr int kHubRedirectsMax = 5;

/// Status line and headers of an answer.
struct HubHead {
  int status = 0;
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case

  /// Empty when absent.
  absl::string_view Find(absl::string_view name) const;
};

struct HubFile {
  std::string name;    // path in the repository: relative, without "..", plain characters
  int64_t size = -1;   // bytes; negative: the listing does not say
  std::string digest;  // 64 hex digits: SHA-256; 40: git's SHA-1; empty: the listing does not say
};

struct HubListing {
  std::string commit;
  std::vector<HubFile> files;
};

/// The answer to GET /api/models/ORG/NAME/revision/REVISION?blobs=true. Names that could leave the
/// folder they are meant for, and names that stand twice, are errors.
absl::StatusOr<HubListing> ParseListing(absl::string_view body);

/// Size and digest of a file from the answer to HEAD .../resolve/COMMIT/FILE.
absl::StatusOr<HubFile> ParseFileHead(const std::string& name, const HubHead& head);

/// What a model needs of a repository.
struct HubPick {
  std::vector<HubFile> files;
  bool sharded = false;  // `files` holds an index; PickShards says the rest
  std::string gguf;      // the first .gguf file; empty: the folder is the model
};

/// Safetensors with configuration, tokenizer and templates; or one GGUF, in all its parts, which
/// `name.file` chooses. Errors list what is there, with sizes.
absl::StatusOr<HubPick> PickFiles(const HubListing& listing, const HubName& name);
absl::StatusOr<std::vector<HubFile>> PickShards(const HubListing& listing,
                                                const std::vector<std::string>& shards);

/// An answer with a status of 400 and above, as an error for the user; Unavailable when trying
/// again may help. `what` is the repository, with revision or file where one was asked for.
struct HubQuestion {
  std::string endpoint;
  HubName name;
  std::string file;
  bool with_token = false;
};
absl::Status ExplainAnswer(const HubQuestion& question, const HubHead& head,
                           absl::string_view body);

/// Seconds of a Retry-After header, at most 60; nothing when absent or a date.
std::optional<int> RetryAfterSeconds(const HubHead& head);

/// "bytes FIRST-LAST/SIZE" of Content-Range.
struct ContentRange {
  int64_t first = 0;
  int64_t last = 0;
  int64_t size = -1;  // negative: '*'
};
std::optional<ContentRange> ParseContentRange(absl::string_view text);

}  // namespace neurogrid
