// Files that must outlive a process: keys, certificates, tokens, the epoch. Folder 0700, files
// 0600.
#pragma once

#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "common/status.h"

namespace neurogrid {

/// Makes the folder and its parents with mode 0700. FailedPrecondition when it exists and others
/// may enter it.
absl::Status EnsureStateDir(const std::string& path);

/// The whole file. NotFound when there is none; ResourceExhausted above `bytes_max`.
absl::StatusOr<std::string> ReadStateFile(const std::string& path, size_t bytes_max = 1 << 20);

/// Replaces the file in one step, mode 0600: either the old or the new content survives a crash,
/// and after the return the new one does.
absl::Status WriteStateFile(const std::string& path, absl::string_view content);

/// An exclusive lock on a file, held until destruction; the system frees it when the process dies.
class FileLock {
 public:
  /// Waits for the lock.
  static absl::StatusOr<std::unique_ptr<FileLock>> Wait(const std::string& path);
  /// FailedPrecondition when another process holds it.
  static absl::StatusOr<std::unique_ptr<FileLock>> Try(const std::string& path);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  explicit FileLock(int descriptor) : descriptor_(descriptor) {}
  static absl::StatusOr<std::unique_ptr<FileLock>> Lock(const std::string& path, int operation);
  int descriptor_;
};

}  // namespace neurogrid
