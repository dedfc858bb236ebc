#include "engine/cpu/short_convolution.h"

#include <algorithm>

#include "engine/cpu/kernels.h"

namespace neurogrid {
namespace {

/// Of one chunk of work: 128 bytes of bf16, whole lines, in each row of B, C and U.
constexpr int64_t kChunkChannels = 64;

}  // namespace

void ShortConvolution(const CpuContext& cpu, Tensor out, ConstTensor bcu, const float* taps,
                      const float* bias, const StateLayerView& state, const Batch& batch) {
  const Kernels& kernels = KernelsFor(cpu.instructions);
  const int64_t columns = state.columns;
  const int64_t size = state.dtype == DType::kBF16 ? 2 : 4;
  const int64_t blocks = (columns + kChunkChannels - 1) / kChunkChannels;
  const auto slot = [&](int32_t id) {
    return id < 0 ? nullptr : static_cast<uint8_t*>(state.data) + id * state.slot_bytes;
  };
  // A chunk reads its source before it writes its slot, and no other chunk touches these channels
  // of the slot: it may be its own source.
  cpu.pool->ParallelFor(batch.sequences() * blocks, [&](int64_t chunk, int) {
    const auto sequence = static_cast<size_t>(chunk / blocks);
    const int64_t first = chunk % blocks * kChunkChannels;
    const int64_t row = batch.sequence_offsets[sequence];
    const uint8_t* source = slot(batch.state_sources[sequence]);
    uint8_t* target = slot(batch.state_slots[sequence]);
    ConvolutionJob job;
    job.is_bf16 = state.dtype == DType::kBF16;
    job.rows = static_cast<int>(batch.sequence_offsets[sequence + 1] - row);
    job.channels = static_cast<int>(std::min(kChunkChannels, columns - first));
    job.taps_count = state.rows + 1;
    job.in_stride_bytes = 3 * columns * size;
    job.b = bcu.as<uint8_t>() + row * job.in_stride_bytes + first * size;
    job.c = job.b + columns * size;
    job.u = job.c + columns * size;
    job.out_stride_bytes = columns * size;
    job.out = out.as<uint8_t>() + row * job.out_stride_bytes + first * size;
    job.taps = taps + first;
    job.taps_stride = columns;
    job.bias = bias == nullptr ? nullptr : bias + first;
    job.source = source == nullptr ? nullptr : source + first * size;
    job.target = target == nullptr ? nullptr : target + first * size;
    job.state_stride_bytes = columns * size;
    kernels.convolve(job);
  });
}

}  // namespace neurogrid
