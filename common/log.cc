#include "common/log.h"

#include <glog/logging.h>
#include <unistd.h>

#include <atomic>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace neurogrid {
namespace {

constexpr size_t kLineMax = 4096;
std::atomic<LogLevel> lowest_level = LogLevel::kInfo;

std::string Escaped(absl::string_view text) {
  std::string line;
  line.reserve(text.size());
  for (const char c : text) {
    if (line.size() >= kLineMax) return line + "...";
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      line += absl::StrCat("\\x", absl::Hex(static_cast<unsigned char>(c), absl::kZeroPad2));
    } else {
      line += c;
    }
  }
  return line;
}

}  // namespace

void StartLogging(absl::string_view program, LogLevel level) {
  static const std::string name(program);
  FLAGS_logtostderr = true;
  FLAGS_log_prefix = false;  // LogLine has its own: these lines have no place in a source file
  FLAGS_colorlogtostderr = isatty(STDERR_FILENO) != 0;
  lowest_level = level;
  google::InitGoogleLogging(name.c_str());
}

void LogLine(LogLevel level, absl::string_view text) {
  if (level < lowest_level.load(std::memory_order_relaxed)) return;
  const auto write = [&](char letter, google::LogSeverity severity) {
    const std::string time =
        absl::FormatTime("%Y-%m-%d %H:%M:%E3S", absl::Now(), absl::LocalTimeZone());
    google::LogMessage("", 0, severity).stream() << time << ' ' << letter << ' ' << Escaped(text);
  };
  switch (level) {
    case LogLevel::kDebug:
      return write('D', google::GLOG_INFO);
    case LogLevel::kInfo:
      return write('I', google::GLOG_INFO);
    case LogLevel::kWarning:
      return write('W', google::GLOG_WARNING);
    case LogLevel::kError:
      return write('E', google::GLOG_ERROR);
  }
}

}  // namespace neurogrid
