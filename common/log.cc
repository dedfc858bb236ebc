#include "common/log.h"

#include <glog/logging.h>
#include <unistd.h>

#include <atomic>

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
  FLAGS_colorlogtostderr = isatty(STDERR_FILENO) != 0;
  lowest_level = level;
  google::InitGoogleLogging(name.c_str());
}

void LogLine(LogLevel level, absl::string_view text) {
  if (level < lowest_level.load(std::memory_order_relaxed)) return;
  const std::string line = Escaped(text);
  switch (level) {
    case LogLevel::kDebug:
    case LogLevel::kInfo:
      google::LogMessage("neurogrid", 0, google::GLOG_INFO).stream() << line;
      break;
    case LogLevel::kWarning:
      google::LogMessage("neurogrid", 0, google::GLOG_WARNING).stream() << line;
      break;
    case LogLevel::kError:
      google::LogMessage("neurogrid", 0, google::GLOG_ERROR).stream() << line;
      break;
  }
}

}  // namespace neurogrid
