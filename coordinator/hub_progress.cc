#include "coordinator/hub_progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/model/model_list.h"

namespace neurogrid {
namespace {

constexpr double kWindowS = 10;
constexpr double kBarEveryS = 0.1;
constexpr double kLineEveryS = 30;
constexpr int kCells = 12;

int Percent(const DownloadState& state) {
  return state.total <= 0 ? 100
                          : static_cast<int>(100.0 * static_cast<double>(state.done) /
                                             static_cast<double>(state.total));
}

std::string RateText(const DownloadState& state) {
  return state.bytes_per_second > 0
             ? absl::StrCat(SizeText(static_cast<int64_t>(state.bytes_per_second)), "/s")
             : "-";
}

std::string LeftText(const DownloadState& state) {
  if (state.bytes_per_second <= 0) return "";
  const double seconds =
      std::ceil(static_cast<double>(state.total - state.done) / state.bytes_per_second);
  if (seconds >= 360'000) return "days left";
  const int whole = static_cast<int>(seconds);
  if (whole >= 3600) {
    return absl::StrFormat("%d:%02d:%02d left", whole / 3600, whole / 60 % 60, whole % 60);
  }
  return absl::StrFormat("%d:%02d left", whole / 60, whole % 60);
}

int Columns(std::FILE* out) {
  winsize size = {};
  return ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

void RateMeter::Add(double now_s, int64_t bytes_done) {
  moments_.emplace_back(now_s, bytes_done);
  while (moments_.size() > 2 && moments_.front().first < now_s - kWindowS) moments_.pop_front();
}

double RateMeter::BytesPerSecond() const {
  if (moments_.size() < 2 || moments_.back().first <= moments_.front().first) return 0;
  return static_cast<double>(moments_.back().second - moments_.front().second) /
         (moments_.back().first - moments_.front().first);
}

std::string ProgressBarText(const DownloadState& state, int columns) {
  const int percent = Percent(state);
  const size_t filled = static_cast<size_t>(percent * kCells / 100);
  std::string text = absl::StrFormat(
      "[%s%s] %3d %%  %s of %s  %s  %s  %s", std::string(filled, '#'),
      std::string(kCells - filled, '.'), percent, SizeText(state.done), SizeText(state.total),
      RateText(state), LeftText(state), absl::CHexEscape(state.file));
  return text.substr(0, static_cast<size_t>(std::max(columns - 1, 20)));
}

std::string ProgressLineText(const DownloadState& state) {
  const std::string left = LeftText(state);
  return absl::StrFormat("%d %%: %s of %s, %s%s%s", Percent(state), SizeText(state.done),
                         SizeText(state.total), RateText(state), left.empty() ? "" : ", ", left);
}

void DownloadProgress::Say(absl::string_view text) {
  if (style_ == Style::kSilent) return;
  if (open_line_) std::fprintf(out_, "\r\x1b[K");
  open_line_ = false;
  std::fprintf(out_, "%s\n", std::string(text).c_str());
  std::fflush(out_);
}

void DownloadProgress::Start(int64_t total, int64_t there) {
  state_ = {.file = "", .done = there, .total = total, .bytes_per_second = 0};
  rate_ = {};
  shown_tenth_ = total > 0 ? 10 * there / total : 10;
}

void DownloadProgress::Add(const std::string& file, int64_t bytes) {
  state_.file = file;
  state_.done += bytes;
}

void DownloadProgress::Show(double now_s) {
  const double every = style_ == Style::kBar ? kBarEveryS : kLineEveryS;
  const int64_t tenth = state_.total > 0 ? 10 * state_.done / state_.total : 10;
  if (style_ == Style::kSilent) return;
  if (now_s - shown_s_ < every && (style_ == Style::kBar || tenth == shown_tenth_)) return;
  rate_.Add(now_s, state_.done);
  state_.bytes_per_second = rate_.BytesPerSecond();
  const bool first = shown_s_ < 0;
  shown_s_ = now_s;
  shown_tenth_ = tenth;
  if (style_ == Style::kBar) {
    std::fprintf(out_, "\r\x1b[K%s", ProgressBarText(state_, Columns(out_)).c_str());
    open_line_ = true;
  } else if (!first) {
    std::fprintf(out_, "%s\n", ProgressLineText(state_).c_str());
  }
  std::fflush(out_);
}

void DownloadProgress::End() {
  if (open_line_) std::fprintf(out_, "\r\x1b[K");
  open_line_ = false;
  std::fflush(out_);
}

}  // namespace neurogrid
