// How much of the machine's processors others took while something was measured.
#pragma once

#include <optional>
#include <string>

namespace neurogrid {

/// Since the machine's start, over all of its processors; `own` is this process alone.
struct ProcessorTime {
  double busy_s = 0;
  double idle_s = 0;
  double own_s = 0;
};

/// `stat` begins as /proc/stat does, its unit a tick; nothing when it is something else.
std::optional<ProcessorTime> ParseProcessorTime(const std::string& stat, double ticks_per_s,
                                                double own_s);
std::optional<ProcessorTime> ReadProcessorTime();

/// This process's, over its threads.
struct OwnTime {
  double program_s = 0;
  double system_s = 0;  // on its behalf: first touches of memory above all
};
OwnTime ReadOwnTime();

/// Of all processors' time between the two, from 0 to 1.
double ForeignShare(const ProcessorTime& before, const ProcessorTime& after);

}  // namespace neurogrid
