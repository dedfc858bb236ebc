// What tests set and ask of the emulator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace simt {

/// Order in which threads and blocks take turns, from here on. 0: ascending. Odd: any thread may be
/// next. Even: a warp runs as far as it can before the next. A kernel whose result depends on the
/// seed lacks a barrier.
void SetSeed(uint64_t seed);

/// The first failure since the last TakeFailure, or empty. Taking it clears the sticky error.
std::string TakeFailure();

/// Notes a failure (the first one stays) and makes every later runtime call fail.
void SetFailure(const std::string& what);
const std::string& Failure();

/// Checks the guard zones of every device allocation; false, with a failure, when one was written.
bool CheckGuards(const std::string& after);

/// Kernels run since the start of the process.
uint64_t KernelsRun();

/// Of the launches of this kernel to run, that behind the next `after` fails as an illegal access
/// does: on the device, while the host goes on.
void FailKernel(const std::string& name, int after = 0);

/// Bytes of device memory from here on, 0: 8 GiB.
void SetMemory(size_t bytes);
/// Whether there is managed memory, as there is at first.
void SetManagedMemory(bool there_is);

/// Allocations of device memory and of pinned memory since the start of the process.
uint64_t Allocations();

}  // namespace simt
