// How a download shows how far it is: a bar on a terminal, plain lines elsewhere.
#pragma once

#include <cstdint>
#include <cstdio>
#include <deque>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"

namespace neurogrid {

/// Bytes per second over the last ten seconds. Pure: time is an argument.
class RateMeter {
 public:
  void Add(double now_s, int64_t bytes_done);
  /// 0 until two moments are known.
  double BytesPerSecond() const;

 private:
  std::deque<std::pair<double, int64_t>> moments_;
};

struct DownloadState {
  std::string file;
  int64_t done = 0;
  int64_t total = 0;
  double bytes_per_second = 0;
};

/// "[#####.......]  43 %  2.13 of 4.95 GB  112.4 MB/s  0:25 left  model.safetensors", cut to
/// `columns`.
std::string ProgressBarText(const DownloadState& state, int columns);
/// "43 %: 2.13 GB of 4.95 GB, 112.4 MB/s, 0:25 left"
std::string ProgressLineText(const DownloadState& state);

class DownloadProgress {
 public:
  enum class Style { kSilent, kLines, kBar };
  DownloadProgress(std::FILE* out, Style style) : out_(out), style_(style) {}

  /// A line of its own.
  void Say(absl::string_view text);
  /// `total` bytes are to come in all, `there` of them are here already.
  void Start(int64_t total, int64_t there);
  /// `bytes` of `file` more have arrived.
  void Add(const std::string& file, int64_t bytes);
  /// Shows where things stand, at most a few times a second.
  void Show(double now_s);
  void End();

 private:
  std::FILE* out_;
  Style style_;
  DownloadState state_;
  RateMeter rate_;
  double shown_s_ = -1e9;
  int64_t shown_tenth_ = 0;
  bool open_line_ = false;
};

}  // namespace neurogrid
