// What a case has to read and to compute, by the model's numbers alone.
#pragma once

#include <vector>

#include "engine/bench/bench_cases.h"
#include "engine/device.h"
#include "engine/model/checkpoint.h"
#include "engine/model/precision.h"

namespace neurogrid {

/// Of all steps of a case together.
struct BenchWork {
  double weight_bytes = 0;          // once a step: layers and head
  double cache_bytes = 0;           // keys and values, once for each sequence and step
  double matmul_operations = 0;     // a multiply-add is two
  double attention_operations = 0;  // scores and weighted sums over visible keys

  /// The least time: weights and matmuls overlap, and so do keys and attention; these two follow
  /// each other.
  double FloorSeconds(const DeviceCeilings& ceilings) const;
};

/// A model in one precision, as its work depends on it.
class BenchModel {
 public:
  BenchModel(const Checkpoint& checkpoint, Precision precision);

  BenchWork WorkOf(const BenchCase& c) const;
  /// The products of a step.
  std::vector<MatMulShape> ShapesOf(int rows, int samples) const;

  int64_t weight_bytes_per_step() const { return weight_bytes_; }
  int64_t cache_bytes_per_token() const { return cache_bytes_; }

 private:
  double VisibleKeys(int position, int rows, int window) const;

  ModelConfig config_;
  int64_t weight_bytes_ = 0;
  int64_t cache_bytes_ = 0;
  int64_t body_parameters_ = 0;
  int64_t head_parameters_ = 0;
  std::vector<int64_t> layer_cache_bytes_;  // of a token, of each layer
};

}  // namespace neurogrid
