// What the benches of kernels share: memory with numbers in it, and the time of a graph.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

namespace neurogrid::kernels {

inline void Require(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

/// Device memory with a pattern of finite, small, unequal numbers in every format.
class Memory {
 public:
  explicit Memory(int64_t bytes) {
    Require(cudaMalloc(&data_, static_cast<size_t>(bytes)), "memory");
    constexpr int64_t kPiece = int64_t{1} << 22;
    std::vector<uint8_t> piece(static_cast<size_t>(kPiece));
    uint32_t state = 1;
    for (size_t i = 0; i < piece.size(); i += 2) {
      state = state * 1664525u + 1013904223u;
      piece[i] = static_cast<uint8_t>(state >> 24);
      piece[i + 1] = static_cast<uint8_t>(0x3c + (state >> 16 & 0x80));  // bf16 near +-0.01
    }
    const void* from = piece.data();
    for (int64_t at = 0; at < bytes; at += kPiece) {
      Require(cudaMemcpy(static_cast<uint8_t*>(data_) + at, from,
                         static_cast<size_t>(std::min(kPiece, bytes - at)), cudaMemcpyDefault),
              "pattern");
      from = data_;
    }
    Require(cudaDeviceSynchronize(), "pattern");
  }
  ~Memory() { cudaFree(data_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
};

/// Median microseconds of a replay of what `body` queues.
inline double GraphUs(cudaStream_t stream, const std::function<void()>& body) {
  constexpr int kWarm = 5;
  constexpr int kRuns = 21;
  cudaGraph_t graph;
  cudaGraphExec_t runnable;
  Require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  body();
  Require(cudaStreamEndCapture(stream, &graph), "capture");
  Require(cudaGraphInstantiate(&runnable, graph, 0), "graph");
  cudaEvent_t start, end;
  Require(cudaEventCreate(&start), "event");
  Require(cudaEventCreate(&end), "event");
  std::vector<double> times;
  for (int i = 0; i < kWarm + kRuns; ++i) {
    Require(cudaEventRecord(start, stream), "event");
    Require(cudaGraphLaunch(runnable, stream), "graph");
    Require(cudaEventRecord(end, stream), "event");
    Require(cudaEventSynchronize(end), "a step");
    float ms = 0;
    Require(cudaEventElapsedTime(&ms, start, end), "event");
    if (i >= kWarm) times.push_back(double{ms} * 1e3);
  }
  cudaGraphExecDestroy(runnable);
  cudaGraphDestroy(graph);
  std::nth_element(times.begin(), times.begin() + kRuns / 2, times.end());
  return times[kRuns / 2];
}

template <typename T>
const T* Upload(const std::vector<T>& values) {
  T* data = nullptr;
  const size_t bytes = std::max<size_t>(values.size(), 1) * sizeof(T);
  Require(cudaMalloc(&data, bytes), "memory");
  Require(cudaMemcpy(data, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice),
          "inputs");
  return data;  // until the program ends
}

}  // namespace neurogrid::kernels
