#include "engine/cpu/machine_speed.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>
#include <vector>

#include "engine/cpu/kernels.h"

namespace neurogrid {
namespace {

constexpr int64_t kChunkBytes = int64_t{1} << 20;
constexpr int64_t kLargestBytes = int64_t{512} << 20;
constexpr int64_t kSmallestBytes = int64_t{64} << 20;
constexpr double kReadSeconds = 0.2;
constexpr double kMatmulSeconds = 0.05;

/// Operations a second of `each`, which runs `amount` of them: the best of passes over `seconds`,
/// for a disturbed pass measures the disturbance.
template <typename Each>
double BestRate(double seconds, double amount, Each each) {
  using Clock = std::chrono::steady_clock;
  const auto elapsed = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  const Clock::time_point begin = Clock::now();
  double best = 0;
  do {
    const Clock::time_point start = Clock::now();
    each();
    best = std::max(best, amount / elapsed(start));
  } while (elapsed(begin) < seconds);
  return best;
}

double ReadBandwidth(const CpuContext& cpu, const Buffer& buffer) {
  const Kernels& kernels = KernelsFor(cpu.instructions);
  const int64_t chunks = static_cast<int64_t>(buffer.bytes()) / kChunkBytes;
  // Touch every page first: untouched ones are all one page of zeros.
  cpu.pool->ParallelFor(chunks, [&](int64_t chunk, int) {
    std::memset(buffer.as<uint8_t>() + chunk * kChunkBytes, 0, kChunkBytes);
  });
  std::vector<float> sums(static_cast<size_t>(chunks));
  return BestRate(kReadSeconds, static_cast<double>(chunks * kChunkBytes), [&] {
    cpu.pool->ParallelFor(chunks, [&](int64_t chunk, int) {
      sums[static_cast<size_t>(chunk)] =
          kernels.sum_memory(buffer.as<uint8_t>() + chunk * kChunkBytes, kChunkBytes);
    });
  });
}

double MatmulRate(const CpuContext& cpu) {
  const Kernels& kernels = KernelsFor(cpu.instructions);
  constexpr int64_t kRounds = 100'000;
  const int64_t threads = cpu.pool->threads();
  std::vector<float> sums(static_cast<size_t>(threads));
  return BestRate(kMatmulSeconds, static_cast<double>(threads * kRounds * kernels.peak_operations),
                  [&] {
                    cpu.pool->ParallelFor(threads, [&](int64_t chunk, int) {
                      sums[static_cast<size_t>(chunk)] = kernels.chain_dots(kRounds);
                    });
                  });
}

}  // namespace

absl::StatusOr<MachineSpeed> MeasureMachineSpeed(const CpuContext& cpu, Buffer* buffer) {
  int64_t bytes = kLargestBytes;
  absl::StatusOr<Buffer> memory = Buffer::Allocate(static_cast<size_t>(bytes));
  while (!memory.ok() && bytes > kSmallestBytes) {
    bytes /= 2;
    memory = Buffer::Allocate(static_cast<size_t>(bytes));
  }
  NG_RETURN_IF_ERROR(memory.status());
  const MachineSpeed speed = {ReadBandwidth(cpu, *memory), MatmulRate(cpu)};
  if (buffer != nullptr) *buffer = *std::move(memory);
  return speed;
}

}  // namespace neurogrid
