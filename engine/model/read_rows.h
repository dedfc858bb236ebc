// Weights row by row in the order and type the engine computes on.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "engine/model/weight_store.h"

namespace neurogrid {

/// A tensor seen as a matrix: the first dimension counts rows; one of rank 1 is a single row.
struct MatrixView {
  int64_t rows = 0;
  int64_t columns = 0;
};
MatrixView MatrixOf(const Shape& shape);

/// out[count, columns] = rows [first_row, first_row + count) in Hugging Face's row order: rows that
/// GGUF stores for interleaved rotation are put back (models.md 3.4). Any stored type; float32 out.
/// Calls from several threads at once are fine.
void ReadRows(const WeightStore::Entry& entry, int64_t first_row, int64_t count, float* out);

/// The same, rounded to bfloat16 (nearest, ties to even); BF16 files keep their bits.
void ReadRows(const WeightStore::Entry& entry, int64_t first_row, int64_t count, bf16* out);

/// Where the file stores row `row` of Hugging Face's order. The entry is a matrix, and does not
/// repeat its data.
const uint8_t* StoredRow(const WeightStore::Entry& entry, int64_t row);

}  // namespace neurogrid
