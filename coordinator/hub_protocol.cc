#include "coordinator/hub_protocol.h"

#include <algorithm>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/json.h"
#include "engine/model/gguf_part.h"
#include "engine/model/model_list.h"

namespace neurogrid {
namespace {

constexpr size_t kFileNameBytesMax = 1024;
constexpr int64_t kFileBytesMax = int64_t{1} << 50;

std::string Shown(absl::string_view text) { return absl::CHexEscape(text.substr(0, 200)); }

bool IsHex(absl::string_view text, size_t digits) {
  return text.size() == digits && text.find_first_not_of("0123456789abcdef") == text.npos;
}

absl::Status BadListing(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("the hub's list of files cannot be used: ", what));
}

/// A name from outside becomes a path: every part of it is a plain name.
absl::Status CheckFileName(absl::string_view name) {
  bool good = !name.empty() && name.size() <= kFileNameBytesMax;
  for (const char c : name) {
    good = good && static_cast<unsigned char>(c) >= 0x20 && c != 0x7f && c != '\\';
  }
  for (const absl::string_view part : absl::StrSplit(name, '/')) {
    good = good && !part.empty() && part != "." && part != ".." && part.size() <= 255;
  }
  if (good) return absl::OkStatus();
  return BadListing(absl::StrCat("\"", Shown(name), "\" is no safe file name"));
}

absl::StatusOr<int64_t> ReadSize(const std::string& name, const Json& value) {
  if (value.is_integer() && value.as_integer() >= 0 && value.as_integer() <= kFileBytesMax) {
    return value.as_integer();
  }
  return BadListing(absl::StrCat("the size of ", Shown(name), " is ", Shown(ToString(value))));
}

absl::StatusOr<std::string> ReadDigest(const std::string& name, const Json& value, size_t digits) {
  if (value.is_string() && IsHex(value.as_string(), digits)) return value.as_string();
  return BadListing(absl::StrCat("the digest of ", Shown(name), " is ", Shown(ToString(value)),
                                 ", expected ", digits, " hexadecimal digits"));
}

absl::StatusOr<HubFile> ReadFile(const Json& entry) {
  const Json* name = entry.Find("rfilename");
  if (name == nullptr || !name->is_string()) return BadListing("an entry has no rfilename");
  HubFile file{.name = name->as_string(), .size = -1, .digest = ""};
  NG_RETURN_IF_ERROR(CheckFileName(file.name));
  const auto given = [&entry](const char* key) -> const Json* {
    const Json* value = entry.Find(key);
    return value == nullptr || value->is_null() ? nullptr : value;
  };
  if (const Json* size = given("size")) {
    NG_ASSIGN_OR_RETURN(file.size, ReadSize(file.name, *size));
  }
  if (const Json* blob = given("blobId")) {
    NG_ASSIGN_OR_RETURN(file.digest, ReadDigest(file.name, *blob, 40));
  }
  if (const Json* lfs = given("lfs")) {
    const Json* digest = lfs->Find("sha256");
    const Json* size = lfs->Find("size");
    if (digest == nullptr || size == nullptr) {
      return BadListing(absl::StrCat("lfs of ", Shown(file.name), " lacks sha256 or size"));
    }
    NG_ASSIGN_OR_RETURN(file.digest, ReadDigest(file.name, *digest, 64));
    NG_ASSIGN_OR_RETURN(file.size, ReadSize(file.name, *size));
  }
  return file;
}

const HubFile* Find(const HubListing& listing, absl::string_view name) {
  for (const HubFile& file : listing.files) {
    if (file.name == name) return &file;
  }
  return nullptr;
}

/// What a folder of safetensors needs beside its weights.
bool IsNeededBesideWeights(absl::string_view name) {
  if (absl::StartsWith(name, "additional_chat_templates/")) {
    return std::count(name.begin(), name.end(), '/') == 1 && absl::EndsWith(name, ".jinja");
  }
  if (absl::StrContains(name, '/')) return false;
  const bool json = absl::EndsWith(name, ".json");
  return name == "config.json" || name == "generation_config.json" ||
         name == "special_tokens_map.json" || name == "added_tokens.json" ||
         (absl::StartsWith(name, "tokenizer") && json) ||
         (absl::StartsWith(name, "chat_template") && (json || absl::EndsWith(name, ".jinja")));
}

std::vector<ModelFound> GgufModels(const HubListing& listing) {
  std::vector<ModelFound> models;
  for (const HubFile& file : listing.files) {
    if (!IsGgufModel(file.name)) continue;
    ModelFound model{.path = file.name, .name = file.name, .bytes = file.size, .missing = ""};
    if (const std::optional<GgufPart> first = ParseGgufPart(file.name)) {
      if (first->part != 1) continue;
      for (int part = 2; part <= first->count; ++part) {
        const HubFile* other = Find(listing, first->Name(part));
        if (other != nullptr) model.bytes += other->size;
        if (other == nullptr && model.missing.empty()) model.missing = first->Name(part);
      }
    }
    models.push_back(std::move(model));
  }
  return models;
}

absl::Status NothingToServe(const HubListing& listing, const HubName& name) {
  std::string others;
  bool pickled = false;
  for (const HubFile& file : listing.files) {
    pickled = pickled || absl::EndsWith(file.name, ".bin") || absl::EndsWith(file.name, ".pth");
  }
  for (size_t i = 0; i < listing.files.size() && i < 8; ++i) {
    absl::StrAppend(&others, i == 0 ? "" : ", ", Shown(listing.files[i].name));
  }
  return absl::NotFoundError(absl::StrCat(
      name.repository, " holds no model that can be served: neither config.json with ",
      "model.safetensors (or its index) nor a .gguf file. ",
      pickled ? "Its weights are Python pickles, which are never loaded. " : "", "It has ",
      listing.files.size(), " files: ", others, listing.files.size() > 8 ? ", ..." : ""));
}

absl::StatusOr<HubPick> PickGguf(const HubListing& listing, const HubName& name) {
  const std::vector<ModelFound> models = GgufModels(listing);
  if (models.empty()) return NothingToServe(listing, name);
  NG_ASSIGN_OR_RETURN(const size_t chosen, ChooseModel(models, name.file, name.repository,
                                                       absl::StrCat(name.repository, ":")));
  HubPick pick;
  pick.gguf = models[chosen].name;
  if (!models[chosen].missing.empty()) {
    return absl::NotFoundError(absl::StrCat(name.repository, ": ", Shown(pick.gguf),
                                            " is one part of several, and ",
                                            Shown(models[chosen].missing), " is missing"));
  }
  pick.files.push_back(*Find(listing, pick.gguf));
  if (const std::optional<GgufPart> first = ParseGgufPart(pick.gguf)) {
    for (int part = 2; part <= first->count; ++part) {
      pick.files.push_back(*Find(listing, first->Name(part)));
    }
  }
  return pick;
}

/// The hub's own words, where it has any.
std::string ServerMessage(const HubHead& head, absl::string_view body) {
  std::string message(head.Find("x-error-message"));
  if (message.empty()) {
    const absl::StatusOr<Json> json = ParseJson(body);
    const Json* error = json.ok() ? json->Find("error") : nullptr;
    if (error != nullptr && error->is_string()) message = error->as_string();
  }
  return message.empty() ? "" : absl::StrCat(" (\"", Shown(message), "\")");
}

}  // namespace

absl::string_view HubHead::Find(absl::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return "";
}

absl::StatusOr<HubListing> ParseListing(absl::string_view body) {
  if (static_cast<int64_t>(body.size()) > kHubListingBytesMax) return BadListing("above 16 MiB");
  const absl::StatusOr<Json> root = ParseJson(body);
  if (!root.ok()) {
    return BadListing(absl::StrCat("it is not JSON (", root.status().message(),
                                   "); does HF_ENDPOINT name a hub?"));
  }
  HubListing listing;
  const Json* commit = root->Find("sha");
  if (commit == nullptr || !commit->is_string() || !IsCommit(commit->as_string())) {
    return BadListing("sha is no commit; does HF_ENDPOINT name a hub?");
  }
  listing.commit = commit->as_string();
  const Json* siblings = root->Find("siblings");
  if (siblings == nullptr || !siblings->is_array()) return BadListing("siblings is no list");
  if (siblings->as_array().size() > kHubFilesMax) {
    return BadListing(
        absl::StrCat(siblings->as_array().size(), " files, at most ", kHubFilesMax, " are taken"));
  }
  std::set<std::string> names;
  for (const Json& entry : siblings->as_array()) {
    NG_ASSIGN_OR_RETURN(HubFile file, ReadFile(entry));
    if (!names.insert(file.name).second) {
      return BadListing(absl::StrCat(Shown(file.name), " stands twice"));
    }
    listing.files.push_back(std::move(file));
  }
  return listing;
}

absl::StatusOr<HubFile> ParseFileHead(const std::string& name, const HubHead& head) {
  absl::string_view etag = head.Find("x-linked-etag");
  if (etag.empty()) etag = head.Find("etag");
  absl::ConsumePrefix(&etag, "W/");
  absl::ConsumePrefix(&etag, "\"");
  absl::ConsumeSuffix(&etag, "\"");
  absl::string_view size = head.Find("x-linked-size");
  if (size.empty() && head.status < 300) size = head.Find("content-length");
  HubFile file{.name = name, .size = -1, .digest = std::string(etag)};
  if (!IsHex(etag, 64) && !IsHex(etag, 40)) {
    return absl::FailedPreconditionError(
        absl::StrCat(Shown(name), ": the hub gives no digest (ETag \"", Shown(etag),
                     "\"), so that it could not be checked"));
  }
  if (!absl::SimpleAtoi(size, &file.size) || file.size < 0 || file.size > kFileBytesMax) {
    return absl::FailedPreconditionError(
        absl::StrCat(Shown(name), ": the hub gives no size (\"", Shown(size), "\")"));
  }
  return file;
}

absl::StatusOr<HubPick> PickFiles(const HubListing& listing, const HubName& name) {
  const bool whole = Find(listing, "model.safetensors") != nullptr;
  const bool indexed = Find(listing, "model.safetensors.index.json") != nullptr;
  if (Find(listing, "config.json") == nullptr || !(whole || indexed) || !name.file.empty()) {
    return PickGguf(listing, name);
  }
  HubPick pick;
  pick.sharded = !whole;
  for (const HubFile& file : listing.files) {
    if (IsNeededBesideWeights(file.name)) pick.files.push_back(file);
  }
  pick.files.push_back(
      *Find(listing, whole ? "model.safetensors" : "model.safetensors.index.json"));
  return pick;
}

absl::StatusOr<std::vector<HubFile>> PickShards(const HubListing& listing,
                                                const std::vector<std::string>& shards) {
  std::vector<HubFile> files;
  for (const std::string& shard : shards) {
    const HubFile* file = Find(listing, shard);
    if (file == nullptr) {
      return absl::NotFoundError(absl::StrCat("model.safetensors.index.json names ", Shown(shard),
                                              ", which the repository does not have"));
    }
    files.push_back(*file);
  }
  return files;
}

absl::Status ExplainAnswer(const HubQuestion& question, const HubHead& head,
                           absl::string_view body) {
  const std::string& repository = question.name.repository;
  const std::string page = absl::StrCat(question.endpoint, "/", repository);
  const absl::string_view code = head.Find("x-error-code");
  const std::string said = absl::StrCat(" [", head.status, ServerMessage(head, body), "]");
  if (code == "GatedRepo") {
    return absl::PermissionDeniedError(absl::StrCat(
        repository, " is gated: ask for access at ", page,
        question.with_token
            ? " with the account of your token, then run this again"
            : ", then set HF_TOKEN to a token of the account that has it, and run this again",
        said));
  }
  if (code == "RevisionNotFound") {
    return absl::NotFoundError(absl::StrCat(repository, " has no revision ",
                                            Shown(question.name.revision), "; see ", page,
                                            "/commits/main", said));
  }
  if (code == "EntryNotFound") {
    return absl::NotFoundError(absl::StrCat(repository, " has no file ", Shown(question.file),
                                            " at revision ", Shown(question.name.revision), said));
  }
  if (head.status == 401 || (head.status == 404 && code == "RepoNotFound")) {
    return absl::UnauthenticatedError(absl::StrCat(
        "the hub knows no ", repository,
        question.with_token
            ? " that your token may read: check the name, and that HF_TOKEN is valid"
            : ": check the name; if it is private or gated, set HF_TOKEN to a token with access",
        said));
  }
  if (head.status == 403) {
    return absl::PermissionDeniedError(
        absl::StrCat("the hub refuses ", repository, ": see ", page, said));
  }
  if (head.status == 404) {
    return absl::NotFoundError(absl::StrCat("there is no ", repository,
                                            question.file.empty() ? "" : "/", Shown(question.file),
                                            " at ", question.endpoint, said));
  }
  if (head.status == 429) {
    const std::optional<int> wait = RetryAfterSeconds(head);
    return absl::UnavailableError(
        absl::StrCat("the hub has had too many requests from here",
                     wait.has_value() ? absl::StrCat("; it asks to wait ", *wait, " s") : "",
                     question.with_token ? "" : "; with HF_TOKEN it allows more", said));
  }
  const std::string text = absl::StrCat("the hub fails for ", repository, said);
  return head.status >= 500 || head.status == 408 ? absl::UnavailableError(text)
                                                  : absl::FailedPreconditionError(text);
}

std::optional<int> RetryAfterSeconds(const HubHead& head) {
  int seconds = 0;
  if (!absl::SimpleAtoi(head.Find("retry-after"), &seconds) || seconds < 0) return std::nullopt;
  return std::min(seconds, 60);
}

std::optional<ContentRange> ParseContentRange(absl::string_view text) {
  if (!absl::ConsumePrefix(&text, "bytes ")) return std::nullopt;
  const std::vector<absl::string_view> parts = absl::StrSplit(text, absl::ByAnyChar("-/"));
  ContentRange range;
  if (parts.size() != 3 || !absl::SimpleAtoi(parts[0], &range.first) ||
      !absl::SimpleAtoi(parts[1], &range.last) || range.first < 0 || range.last < range.first) {
    return std::nullopt;
  }
  if (parts[2] != "*" && (!absl::SimpleAtoi(parts[2], &range.size) || range.size <= range.last)) {
    return std::nullopt;
  }
  return range;
}

}  // namespace neurogrid
