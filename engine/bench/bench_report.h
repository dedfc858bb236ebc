// How a bench's figures look.
#pragma once

#include "engine/bench/bench.h"

namespace neurogrid {

/// Before and after the cases of a table.
void PrintSubject(const BenchSubject& subject, int rounds);
void PrintCeilings(const BenchSubject& subject, const DeviceCeilings& ceilings);
void PrintRow(const BenchSubject& subject, const BenchResult& result);
void PrintContextCost(const BenchSubject& subject, const std::vector<BenchResult>& results);

/// One object on one line, complete in itself.
void PrintJson(const BenchSubject& subject, const DeviceCeilings& ceilings,
               const BenchResult& result, int rounds);

}  // namespace neurogrid
