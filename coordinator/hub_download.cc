#include "coordinator/hub_download.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/state_dir.h"
#include "coordinator/hub_blob.h"
#include "coordinator/hub_partial.h"
#include "engine/model/hub_cache.h"
#include "engine/model/model_directory.h"
#include "engine/model/model_list.h"

namespace neurogrid {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kRoomToSpareBytes = int64_t{64} << 20;

absl::Status CannotWrite(const std::string& path, const std::error_code& error) {
  return absl::FailedPreconditionError(
      absl::StrCat("cannot write ", path, ": ", error.message(),
                   "; HF_HOME or HF_HUB_CACHE name another folder"));
}

absl::Status MakeFolder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  return error ? CannotWrite(folder.string(), error) : absl::OkStatus();
}

/// Puts `make`'s result at `path` in one step.
template <typename Make>
absl::Status Place(const fs::path& path, const Make& make) {
  NG_RETURN_IF_ERROR(MakeFolder(path.parent_path()));
  const fs::path fresh = absl::StrCat(path.string(), ".", getpid(), ".new");
  std::error_code error;
  fs::remove(fresh, error);
  make(fresh, error);
  if (!error) fs::rename(fresh, path, error);
  return error ? CannotWrite(path.string(), error) : absl::OkStatus();
}

class Downloader {
 public:
  Downloader(const HubJob& job, const std::string& cache)
      : job_(job), place_(cache, job.name.repository) {}

  absl::StatusOr<HubDownload> Run() {
    NG_RETURN_IF_ERROR(List());
    NG_ASSIGN_OR_RETURN(HubPick pick, PickFiles(listing_, job_.name));
    for (const fs::path& folder :
         {fs::path(place_.folder) / "blobs", fs::path(place_.folder) / "refs",
          fs::path(place_.Snapshot(listing_.commit))}) {
      NG_RETURN_IF_ERROR(MakeFolder(folder));
    }
    if (pick.sharded) {
      // The index comes first: it says which files the weights are.
      NG_RETURN_IF_ERROR(Bring(pick.files));
      NG_ASSIGN_OR_RETURN(
          const std::vector<std::string> shards,
          ShardsOfIndex(place_.Snapshot(listing_.commit) + "/model.safetensors.index.json"));
      NG_ASSIGN_OR_RETURN(pick.files, PickShards(listing_, shards));
    }
    NG_RETURN_IF_ERROR(Bring(pick.files));
    if (!IsCommit(job_.name.revision)) NG_RETURN_IF_ERROR(WriteRef());
    result_.path = place_.Snapshot(listing_.commit);
    if (!pick.gguf.empty()) absl::StrAppend(&result_.path, "/", pick.gguf);
    return result_;
  }

 private:
  HubQuestion Question(const std::string& file) const {
    return {.endpoint = job_.endpoint.ToString(),
            .name = job_.name,
            .file = file,
            .with_token = !job_.settings.token.empty()};
  }

  /// One request with tries; `ask` is called with a caller of its own connection.
  template <typename Ask>
  absl::Status Asked(const Ask& ask) {
    if (transport_ == nullptr) transport_ = job_.transports();
    HubCaller caller(job_.settings, job_.endpoint, *transport_);
    return WithRetries(job_.settings, job_.stop,
                       [&](int& wait_s) -> absl::Status { return ask(caller, wait_s); });
  }

  absl::Status List() {
    Url url = job_.endpoint;
    absl::StrAppend(&url.target, "/api/models/", job_.name.repository, "/revision/",
                    EncodePath(job_.name.revision, /*slashes=*/false), "?blobs=true");
    return Asked([&](HubCaller& caller, int& wait_s) -> absl::Status {
      NG_ASSIGN_OR_RETURN(const std::string body,
                          caller.Get(url, kHubListingBytesMax, Question(""), wait_s));
      NG_ASSIGN_OR_RETURN(listing_, ParseListing(body));
      return absl::OkStatus();
    });
  }

  /// A hub whose list says neither size nor digest says them in the head of the file.
  absl::Status Describe(HubFile& file) {
    return Asked([&](HubCaller& caller, int& wait_s) -> absl::Status {
      const Url url = FileUrl(job_, listing_.commit, file.name);
      NG_ASSIGN_OR_RETURN(const HubHead head, caller.Head(url, Question(file.name), wait_s));
      NG_ASSIGN_OR_RETURN(file, ParseFileHead(file.name, head));
      return absl::OkStatus();
    });
  }

  bool IsThere(const HubFile& file) const {
    std::error_code error;
    const uintmax_t size = fs::file_size(place_.Blob(file.digest), error);
    return !error && size == static_cast<uintmax_t>(file.size);
  }

  /// Refuses before the first byte what cannot end well.
  absl::Status CheckRoom(int64_t needed) const {
    std::error_code error;
    const fs::space_info space = fs::space(place_.folder, error);
    if (error || needed == 0) return absl::OkStatus();
    const int64_t available = static_cast<int64_t>(space.available);
    if (needed <= available - kRoomToSpareBytes) return absl::OkStatus();
    return absl::ResourceExhaustedError(
        absl::StrCat("the disk of ", place_.folder, " has no room for ", job_.name.repository, ": ",
                     SizeText(needed), " are to come, ", SizeText(available),
                     " are free; HF_HOME or HF_HUB_CACHE name a folder on another disk"));
  }

  absl::Status Bring(std::vector<HubFile>& files) {
    int64_t total = 0, there = 0;
    std::set<std::string> counted;
    for (HubFile& file : files) {
      if (file.size < 0 || file.digest.empty()) NG_RETURN_IF_ERROR(Describe(file));
      if (!counted.insert(file.digest).second) continue;
      total += file.size;
      there +=
          IsThere(file) ? file.size : PartialBlob::BytesThere(place_.Blob(file.digest), file.size);
    }
    NG_RETURN_IF_ERROR(CheckRoom(total - there));
    job_.progress.Start(total, there);
    for (const HubFile& file : files) {
      NG_RETURN_IF_ERROR(BringOne(file));
      ++result_.files;
      result_.bytes += file.size;
    }
    job_.progress.End();
    return absl::OkStatus();
  }

  absl::Status BringOne(const HubFile& file) {
    if (!IsThere(file)) {
      NG_ASSIGN_OR_RETURN(const std::unique_ptr<FileLock> lock, Lock(file));
      if (!IsThere(file)) {  // another process may have brought it meanwhile
        job_.progress.Say(absl::StrCat("downloading ", file.name, " (", SizeText(file.size), ")"));
        const std::string blob = place_.Blob(file.digest);
        const int64_t there = PartialBlob::BytesThere(blob, file.size);
        NG_RETURN_IF_ERROR(DownloadBlob(job_, listing_.commit, file, blob));
        result_.bytes_downloaded += file.size - there;
      }
    }
    return Link(file);
  }

  absl::StatusOr<std::unique_ptr<FileLock>> Lock(const HubFile& file) {
    NG_RETURN_IF_ERROR(MakeFolder(place_.locks));
    const std::string path = absl::StrCat(place_.locks, "/", file.digest, ".lock");
    for (bool said = false;;) {
      absl::StatusOr<std::unique_ptr<FileLock>> lock = FileLock::Try(path);
      if (lock.ok() || !absl::IsFailedPrecondition(lock.status())) return lock;
      if (!said) {
        job_.progress.Say(absl::StrCat("waiting for another process that downloads ", file.name));
      }
      said = true;
      if (!SleepUnlessStopped(200, job_.stop)) return absl::CancelledError("stopped");
    }
  }

  /// snapshots/COMMIT/FILE -> ../../blobs/DIGEST, one more ".." for each folder in FILE.
  absl::Status Link(const HubFile& file) {
    const fs::path link = fs::path(place_.Snapshot(listing_.commit)) / file.name;
    const fs::path target =
        fs::path(place_.Blob(file.digest)).lexically_relative(link.parent_path());
    std::error_code error;
    if (fs::read_symlink(link, error) == target && !error) return absl::OkStatus();
    return Place(link, [&](const fs::path& fresh, std::error_code& failed) {
      fs::create_symlink(target, fresh, failed);
    });
  }

  absl::Status WriteRef() {
    // A cache that only its owner may write is still read by all.
    const absl::StatusOr<std::string> known = CachedCommit(place_, job_.name);
    if (known.ok() && *known == listing_.commit) return absl::OkStatus();
    return Place(place_.Ref(job_.name.revision),
                 [&](const fs::path& fresh, std::error_code& failed) {
                   std::ofstream out(fresh, std::ios::binary);
                   out << listing_.commit;
                   out.close();
                   if (!out) failed = std::error_code(errno, std::generic_category());
                 });
  }

  const HubJob& job_;
  const HubCachePlace place_;
  std::unique_ptr<HubTransport> transport_;
  HubListing listing_;
  HubDownload result_;
};

absl::StatusOr<HubDownload> FromCache(const HubSettings& settings, const HubName& name,
                                      const std::string& why) {
  const absl::StatusOr<std::string> path = FindInHubCache(settings.cache, name);
  if (path.ok()) return HubDownload{.path = *path, .files = 0, .bytes = 0, .bytes_downloaded = 0};
  return absl::Status(path.status().code() == absl::StatusCode::kInvalidArgument
                          ? absl::StatusCode::kInvalidArgument
                          : absl::StatusCode::kUnavailable,
                      absl::StrCat(why, ", and ", path.status().message()));
}

}  // namespace

absl::StatusOr<HubDownload> DownloadModel(const HubSettings& settings, const HubName& name,
                                          const MakeHubTransport& transports,
                                          DownloadProgress& progress,
                                          const std::atomic<bool>& stop) {
  if (settings.offline) return FromCache(settings, name, "HF_HUB_OFFLINE is set");
  NG_ASSIGN_OR_RETURN(const Url endpoint, ParseEndpoint(settings.endpoint));
  const HubJob job{settings, endpoint, name, transports, progress, stop};
  absl::StatusOr<HubDownload> done = Downloader(job, settings.cache).Run();
  progress.End();
  if (!absl::IsUnavailable(done.status())) return done;
  absl::StatusOr<HubDownload> cached =
      FromCache(settings, name, std::string(done.status().message()));
  if (!cached.ok()) return done.status();
  progress.Say(absl::StrCat(done.status().message(), "; using what the cache has"));
  return cached;
}

}  // namespace neurogrid
