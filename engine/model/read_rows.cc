#include "engine/model/read_rows.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/check.h"
#include "engine/model/dequantize.h"

namespace neurogrid {
namespace {

/// Where row `row` of Hugging Face's order stands in a file that interleaves the halves of each of
/// `heads` heads: HF row h*d + r*(d/2) + j is GGUF row h*d + 2j + r.
int64_t PlaceInFile(int64_t row, int64_t rows, int heads) {
  const int64_t head_dim = rows / heads;
  const int64_t in_head = row % head_dim;
  const int64_t half = head_dim / 2;
  return row - in_head + 2 * (in_head % half) + in_head / half;
}

/// Calls visit(data, elements) for the stored pieces that hold `count` elements from `first` on.
template <typename Visit>
void ForPieces(const WeightStore::Entry& entry, int64_t first, int64_t count, Visit visit) {
  const uint8_t* data = static_cast<const uint8_t*>(entry.tensor.data);
  const DType dtype = entry.tensor.dtype;
  if (entry.cycle_elements == 0) {
    visit(data + BytesOf(dtype, first), count);
    return;
  }
  int64_t place = (entry.cycle_start + first) % entry.cycle_elements;
  while (count > 0) {
    const int64_t piece = std::min(count, entry.cycle_elements - place);
    visit(data + BytesOf(dtype, place), piece);
    count -= piece;
    place = 0;
  }
}

void ReadElements(const WeightStore::Entry& entry, int64_t first, int64_t count, float* out) {
  ForPieces(entry, first, count, [&](const uint8_t* data, int64_t elements) {
    Dequantize(entry.tensor.dtype, data, elements, out);
    out += elements;
  });
}

void ReadElements(const WeightStore::Entry& entry, int64_t first, int64_t count, bf16* out) {
  ForPieces(entry, first, count, [&](const uint8_t* data, int64_t elements) {
    if (entry.tensor.dtype == DType::kBF16) {
      std::memcpy(out, data, static_cast<size_t>(elements) * sizeof(bf16));
    } else {
      constexpr int64_t kChunk = 4096;  // a multiple of every block, small enough for the stack
      float wide[kChunk];
      for (int64_t done = 0; done < elements; done += kChunk) {
        const int64_t size = std::min(kChunk, elements - done);
        Dequantize(entry.tensor.dtype, data + BytesOf(entry.tensor.dtype, done), size, wide);
        for (int64_t i = 0; i < size; ++i) out[done + i] = ToBf16(wide[i]);
      }
    }
    out += elements;
  });
}

template <typename T>
void ReadRowsAs(const WeightStore::Entry& entry, int64_t first_row, int64_t count, T* out) {
  const auto [rows, columns] = MatrixOf(entry.tensor.shape);
  NG_CHECK(first_row >= 0 && count >= 0 && first_row + count <= rows);
  if (entry.interleaved_heads == 0) {
    ReadElements(entry, first_row * columns, count * columns, out);
    return;
  }
  if (entry.tensor.shape.rank() == 1 && count > 0) {
    // A bias: its elements are the rows, and a block of several cannot be read in part.
    std::vector<T> stored(static_cast<size_t>(columns));
    ReadElements(entry, 0, columns, stored.data());
    for (int64_t row = 0; row < columns; ++row) {
      out[row] = stored[static_cast<size_t>(PlaceInFile(row, columns, entry.interleaved_heads))];
    }
    return;
  }
  for (int64_t row = first_row; row < first_row + count; ++row) {
    ReadElements(entry, PlaceInFile(row, rows, entry.interleaved_heads) * columns, columns, out);
    out += columns;
  }
}

}  // namespace

MatrixView MatrixOf(const Shape& shape) {
  if (shape.rank() == 0) return {1, 1};
  if (shape.rank() == 1) return {1, shape[0]};
  return {shape[0], shape[0] == 0 ? 0 : shape.elements() / shape[0]};
}

const uint8_t* StoredRow(const WeightStore::Entry& entry, int64_t row) {
  const auto [rows, columns] = MatrixOf(entry.tensor.shape);
  NG_CHECK(entry.cycle_elements == 0 && row >= 0 && row < rows);
  if (entry.interleaved_heads > 0) row = PlaceInFile(row, rows, entry.interleaved_heads);
  return static_cast<const uint8_t*>(entry.tensor.data) +
         BytesOf(entry.tensor.dtype, row * columns);
}

void ReadRows(const WeightStore::Entry& entry, int64_t first_row, int64_t count, float* out) {
  ReadRowsAs(entry, first_row, count, out);
}

void ReadRows(const WeightStore::Entry& entry, int64_t first_row, int64_t count, bf16* out) {
  ReadRowsAs(entry, first_row, count, out);
}

}  // namespace neurogrid
