#include "engine/bench/processor_time.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

namespace neurogrid {
namespace {

double SecondsOf(const timeval& time) {
  return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
}

}  // namespace

std::optional<ProcessorTime> ParseProcessorTime(const std::string& stat, double ticks_per_s,
                                                double own_s) {
  // user, nice, system, idle, waiting for a disk, interrupts, soft ones, stolen by the host; what
  // guests took is within user.
  constexpr int kCounts = 8;
  std::istringstream words(stat);
  std::string name;
  if (!(words >> name) || name != "cpu") return std::nullopt;
  ProcessorTime time;
  time.own_s = own_s;
  for (int i = 0; i < kCounts; ++i) {
    double ticks = 0;
    if (!(words >> ticks)) return std::nullopt;
    (i == 3 || i == 4 ? time.idle_s : time.busy_s) += ticks / ticks_per_s;
  }
  return time;
}

std::optional<ProcessorTime> ReadProcessorTime() {
  std::ifstream file("/proc/stat");  // has no size, so it is not mapped
  std::string machine;
  rusage used;
  if (!std::getline(file, machine) || getrusage(RUSAGE_SELF, &used) != 0) return std::nullopt;
  return ParseProcessorTime(machine, static_cast<double>(sysconf(_SC_CLK_TCK)),
                            SecondsOf(used.ru_utime) + SecondsOf(used.ru_stime));
}

OwnTime ReadOwnTime() {
  rusage used;
  if (getrusage(RUSAGE_SELF, &used) != 0) return {};
  return {SecondsOf(used.ru_utime), SecondsOf(used.ru_stime)};
}

double ForeignShare(const ProcessorTime& before, const ProcessorTime& after) {
  const double busy = after.busy_s - before.busy_s;
  const double all = busy + after.idle_s - before.idle_s;
  if (all <= 0) return 0;
  return std::clamp((busy - (after.own_s - before.own_s)) / all, 0.0, 1.0);
}

}  // namespace neurogrid
