// The weights that the int8 modes compute with, in float32.
#pragma once

#include <algorithm>
#include <cmath>
#include <list>
#include <string>
#include <vector>

#include "engine/model/read_rows.h"
#include "engine/model/weight_store.h"
#include "tests/engine/spread.h"

namespace neurogrid {

/// Embeddings, norms and the taps of convolutions are never quantised.
inline bool IsQuantised(const std::string& name, const WeightStore::Entry& entry) {
  return entry.tensor.shape.rank() == 2 && name != "model.embed_tokens.weight";
}

/// A checkpoint's tensors, each matrix replaced by q * scale: scale = max|w| / 127 of a row, or of
/// each `group` columns of it, in float32, q = w / scale rounded to the nearest integer, ties to
/// even. Perhaps rounded when spread as int8-a8 spreads them, and taken back.
class RoundedWeights {
 public:
  explicit RoundedWeights(const WeightStore& weights, int64_t group = 0, bool spreads = false) {
    for (const auto& [name, entry] : weights.entries()) {
      if (!IsQuantised(name, entry)) {
        store_.Add(name, entry);
        continue;
      }
      const int64_t rows = entry.tensor.shape[0];
      const int64_t columns = entry.tensor.shape[1];
      std::vector<float>& values = memory_.emplace_back(static_cast<size_t>(rows * columns));
      ReadRows(entry, 0, rows, values.data());
      for (int64_t row = 0; row < rows; ++row) {
        const int64_t size = group == 0 ? columns : group;
        float* const of_row = values.data() + row * columns;
        if (spreads) SpreadByDefinition(of_row, columns);
        for (int64_t first = 0; first < columns; first += size) {
          Round(of_row + first, std::min(size, columns - first));
        }
        if (spreads) SpreadByDefinition(of_row, columns);
      }
      store_.Add(name, {.tensor = {values.data(), DType::kF32, entry.tensor.shape},
                        .file = "rounded weights"});
    }
  }
  const WeightStore& store() const { return store_; }

 private:
  static void Round(float* row, int64_t columns) {
    float largest = 0;
    for (int64_t c = 0; c < columns; ++c) largest = std::max(largest, std::fabs(row[c]));
    if (largest == 0) return;
    const float scale = largest / 127.0f;
    for (int64_t c = 0; c < columns; ++c) row[c] = std::nearbyint(row[c] / scale) * scale;
  }

  std::list<std::vector<float>> memory_;
  WeightStore store_;
};

}  // namespace neurogrid
