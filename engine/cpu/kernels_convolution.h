// Short convolution over time, sixteen channels at a time: the last taps' products stay in L1.
#pragma once

#include "engine/cpu/kernels.h"
#include "engine/cpu/kernels_math.h"
#include "engine/cpu/kernels_rows.h"
#include "engine/ops.h"

namespace neurogrid {
namespace {

template <bool kBf16>
Simd::Float Rounded(Simd::Float x) {
  if constexpr (!kBf16) return x;
  uint16_t bits[16];
  Simd::StoreBf16(bits, x);
  return Simd::LoadBf16(bits);
}

template <bool kBf16>
void ConvolveChannels(const ConvolutionJob& job, int first) {
  constexpr int64_t kSize = kBf16 ? 2 : 4;
  const int count = job.channels - first < 16 ? job.channels - first : 16;
  const int64_t offset = first * kSize;
  const int last = job.taps_count - 1;
  const auto load_f32 = [&](const float* p) {
    return LoadSome(reinterpret_cast<const uint8_t*>(p + first), false, count);
  };
  Simd::Float taps[kConvolutionTapsMax];
  Simd::Float g[kConvolutionTapsMax];  // oldest first; the last is the current row's
  for (int j = 0; j <= last; ++j) taps[j] = load_f32(job.taps + j * job.taps_stride);
  for (int j = 0; j < last; ++j) {
    g[j] = job.source == nullptr
               ? Simd::Zero()
               : LoadSome(job.source + j * job.state_stride_bytes + offset, kBf16, count);
  }
  const Simd::Float bias = job.bias == nullptr ? Simd::Zero() : load_f32(job.bias);
  for (int row = 0; row < job.rows; ++row) {
    const int64_t in = row * job.in_stride_bytes + offset;
    g[last] = Rounded<kBf16>(
        Simd::Mul(LoadSome(job.b + in, kBf16, count), LoadSome(job.u + in, kBf16, count)));
    Simd::Float z = bias;
    for (int j = 0; j <= last; ++j) z = Simd::Fma(taps[j], g[j], z);
    const Simd::Float y = Simd::Mul(LoadSome(job.c + in, kBf16, count), Rounded<kBf16>(z));
    StoreSome(job.out + row * job.out_stride_bytes + offset, kBf16, y, count);
    for (int j = 0; j < last; ++j) g[j] = g[j + 1];
  }
  if (job.target == nullptr) return;
  for (int j = 0; j < last; ++j) {
    StoreSome(job.target + j * job.state_stride_bytes + offset, kBf16, g[j], count);
  }
}

void Convolve(const ConvolutionJob& job) {
  for (int first = 0; first < job.channels; first += 16) {
    if (job.is_bf16) {
      ConvolveChannels<true>(job, first);
    } else {
      ConvolveChannels<false>(job, first);
    }
  }
}

}  // namespace
}  // namespace neurogrid
