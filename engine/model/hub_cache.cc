#include "engine/model/hub_cache.h"

#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/mapped_file.h"
#include "engine/model/model_list.h"

namespace neurogrid {
namespace {

constexpr absl::string_view kPrefix = "models--";
constexpr size_t kNameBytesMax = 96;
constexpr size_t kRevisionBytesMax = 255;

std::string Shown(absl::string_view text) { return absl::CHexEscape(text.substr(0, 200)); }

/// The hub's own rule for both halves of a name.
bool IsNamePart(absl::string_view part) {
  if (part.empty() || part.size() > kNameBytesMax) return false;
  for (const char c : part) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '_' && c != '.') {
      return false;
    }
  }
  const auto edge = [](char c) { return c == '-' || c == '.'; };
  return !edge(part.front()) && !edge(part.back()) && part.find("--") == part.npos &&
         part.find("..") == part.npos;
}

}  // namespace

std::string HubName::ToString() const {
  return absl::StrCat(repository, revision == "main" ? "" : absl::StrCat("@", revision),
                      file.empty() ? "" : absl::StrCat(":", file));
}

bool IsCommit(absl::string_view revision) {
  if (revision.size() != 40) return false;
  for (const char c : revision) {
    if (!absl::ascii_isdigit(static_cast<unsigned char>(c)) && (c < 'a' || c > 'f')) return false;
  }
  return true;
}

absl::Status CheckRevision(absl::string_view revision) {
  bool good = !revision.empty() && revision.size() <= kRevisionBytesMax &&
              revision.front() != '/' && revision.back() != '/' &&
              revision.find("..") == revision.npos && revision.find("//") == revision.npos;
  for (const char c : revision) {
    good = good && absl::ascii_isgraph(static_cast<unsigned char>(c)) && c != '\\';
  }
  if (good) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("\"", Shown(revision), "\" is no revision: a branch, a tag or a commit"));
}

absl::StatusOr<HubName> ParseHubName(absl::string_view text) {
  HubName name;
  absl::string_view rest = text;
  if (const size_t colon = rest.find(':'); colon != rest.npos) {
    name.file = std::string(rest.substr(colon + 1));
    rest = rest.substr(0, colon);
    if (name.file.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", Shown(text), "\" names no file after its colon"));
    }
  }
  if (const size_t at = rest.find('@'); at != rest.npos) {
    name.revision = std::string(rest.substr(at + 1));
    rest = rest.substr(0, at);
    NG_RETURN_IF_ERROR(CheckRevision(name.revision));
  }
  const size_t slash = rest.find('/');
  if (slash == rest.npos || !IsNamePart(rest.substr(0, slash)) ||
      !IsNamePart(rest.substr(slash + 1))) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", Shown(text),
                     "\" is no name on a hub: ORG/NAME, ORG/NAME@REVISION or ORG/NAME:FILE.gguf, "
                     "of letters, digits, '-', '_' and '.'"));
  }
  name.repository = std::string(rest);
  return name;
}

HubCachePlace::HubCachePlace(const std::string& cache, const std::string& repository) {
  const std::string name = absl::StrCat(kPrefix, absl::StrReplaceAll(repository, {{"/", "--"}}));
  folder = absl::StrCat(cache, "/", name);
  locks = absl::StrCat(cache, "/.locks/", name);
}

std::string RepositoryOfSnapshot(const std::string& path) {
  for (std::filesystem::path at = std::filesystem::path(path).lexically_normal();
       at.has_relative_path(); at = at.parent_path()) {
    const std::string repository = at.parent_path().parent_path().filename().string();
    if (at.parent_path().filename() != "snapshots" || !absl::StartsWith(repository, kPrefix))
      continue;
    return absl::StrReplaceAll(absl::string_view(repository).substr(kPrefix.size()), {{"--", "/"}});
  }
  return "";
}

absl::StatusOr<std::string> CachedCommit(const HubCachePlace& place, const HubName& name) {
  if (IsCommit(name.revision)) return name.revision;
  const std::string ref = place.Ref(name.revision);
  const absl::StatusOr<std::string> text = ReadSmallFile(ref, 256);
  if (!text.ok()) {
    return absl::NotFoundError(absl::StrCat("the hub cache has no ", ref));
  }
  const std::string commit(absl::StripAsciiWhitespace(*text));
  if (!IsCommit(commit)) {
    return absl::NotFoundError(
        absl::StrCat(ref, " holds \"", Shown(commit), "\", expected a commit"));
  }
  return commit;
}

absl::StatusOr<std::string> FindInHubCache(const std::string& cache, const HubName& name) {
  const HubCachePlace place(cache, name.repository);
  NG_ASSIGN_OR_RETURN(const std::string commit, CachedCommit(place, name));
  const std::string snapshot = place.Snapshot(commit);
  if (name.file.empty() && MissingFromFolder(snapshot).empty()) return snapshot;
  std::vector<ModelFound> found;
  for (ModelFound& model : ListModels(snapshot, 1)) {
    if (model.missing.empty() && model.path != snapshot) found.push_back(std::move(model));
  }
  if (found.empty()) {
    const std::string missing = MissingFromFolder(snapshot);
    return absl::NotFoundError(
        absl::StrCat(snapshot, " has no whole model",
                     missing.empty() ? "" : absl::StrCat(": ", missing, " is missing")));
  }
  absl::StatusOr<size_t> chosen =
      ChooseModel(found, name.file, absl::StrCat(name.repository, " in the hub cache"),
                  absl::StrCat(name.repository, ":"));
  if (!chosen.ok()) return chosen.status();
  return found[*chosen].path;
}

}  // namespace neurogrid
