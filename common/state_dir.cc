#include "common/state_dir.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace neurogrid {
namespace {

absl::Status Failed(absl::string_view what, const std::string& path) {
  return absl::UnavailableError(absl::StrCat(path, ": cannot ", what, ": ", std::strerror(errno)));
}

absl::Status WriteAll(int descriptor, absl::string_view content, const std::string& path) {
  while (!content.empty()) {
    const ssize_t written = write(descriptor, content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return Failed("write", path);
    content.remove_prefix(static_cast<size_t>(written));
  }
  if (fsync(descriptor) != 0) return Failed("sync", path);
  return absl::OkStatus();
}

absl::Status SyncFolderOf(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  const int descriptor = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return Failed("open", folder);
  const int result = fsync(descriptor);
  close(descriptor);
  return result == 0 ? absl::OkStatus() : Failed("sync", folder);
}

}  // namespace

absl::Status EnsureStateDir(const std::string& path) {
  std::error_code error;
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  if (!parent.empty()) std::filesystem::create_directories(parent, error);
  if (error)
    return absl::UnavailableError(absl::StrCat(path, ": cannot create: ", error.message()));
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return Failed("create", path);
  struct stat info = {};
  if (stat(path.c_str(), &info) != 0) return Failed("read", path);
  if (!S_ISDIR(info.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": is not a folder"));
  }
  if ((info.st_mode & 0077) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": holds private keys but other users may enter it; chmod 700 it"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadStateFile(const std::string& path, size_t bytes_max) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    if (errno == ENOENT) return absl::NotFoundError(absl::StrCat(path, ": no such file"));
    return Failed("open", path);
  }
  std::string content;
  char chunk[4096];
  absl::Status status;
  while (true) {
    const ssize_t got = read(descriptor, chunk, sizeof(chunk));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) status = Failed("read", path);
    if (got <= 0) break;
    content.append(chunk, static_cast<size_t>(got));
    if (content.size() > bytes_max) {
      status =
          absl::ResourceExhaustedError(absl::StrCat(path, ": larger than ", bytes_max, " bytes"));
      break;
    }
  }
  close(descriptor);
  if (!status.ok()) return status;
  return content;
}

absl::Status WriteStateFile(const std::string& path, absl::string_view content) {
  const std::string partial = absl::StrCat(path, ".", getpid(), ".partial");
  const int descriptor = open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (descriptor < 0) return Failed("create", partial);
  absl::Status status = WriteAll(descriptor, content, partial);
  close(descriptor);
  if (status.ok() && rename(partial.c_str(), path.c_str()) != 0) status = Failed("rename to", path);
  if (status.ok()) status = SyncFolderOf(path);
  if (!status.ok()) unlink(partial.c_str());
  return status;
}

absl::StatusOr<std::unique_ptr<FileLock>> FileLock::Lock(const std::string& path, int operation) {
  const int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) return Failed("open", path);
  while (flock(descriptor, operation) != 0) {
    if (errno == EINTR) continue;
    const bool held = errno == EWOULDBLOCK;
    const absl::Status failed = Failed("lock", path);
    close(descriptor);
    if (held)
      return absl::FailedPreconditionError(absl::StrCat(path, ": another process holds it"));
    return failed;
  }
  return std::unique_ptr<FileLock>(new FileLock(descriptor));
}

absl::StatusOr<std::unique_ptr<FileLock>> FileLock::Wait(const std::string& path) {
  return Lock(path, LOCK_EX);
}

absl::StatusOr<std::unique_ptr<FileLock>> FileLock::Try(const std::string& path) {
  return Lock(path, LOCK_EX | LOCK_NB);
}

FileLock::~FileLock() { close(descriptor_); }

}  // namespace neurogrid
