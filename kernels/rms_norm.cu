#include "kernels/launch.h"
#include "kernels/norm.cuh"
#include "kernels/rms_norm.h"
#include "kernels/simt.cuh"

namespace neurogrid::kernels {
namespace {

struct NormShared {
  BlockScratch<float> scratch;
};

/// A row in pieces of 16 bytes, the last perhaps of fewer columns.
template <typename T>
struct RowPieces {
  static constexpr int kWidth = Vec<T>::kCount;
  int columns;

  /// Whole vectors may be moved: all pieces are whole.
  __device__ __forceinline__ bool whole() const { return columns % kWidth == 0; }
  __device__ __forceinline__ Vec<T> Load(const T* row, int first) const {
    if (whole()) return LoadVec(row + first);
    Vec<T> piece;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      piece.at[i] = first + i < columns ? row[first + i] : FromFloat<T>(0);
    }
    return piece;
  }
  __device__ __forceinline__ void Store(T* row, int first, const Vec<T>& piece) const {
    if (whole()) return StoreVec(row + first, piece);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      if (first + i < columns) row[first + i] = piece.at[i];
    }
  }
};

/// The weights of a thread's pieces; those of its first piece in registers from the start.
template <typename T>
class Weight {
 public:
  static constexpr int kWidth = Vec<T>::kCount;
  struct Piece {
    float at[kWidth];
  };

  __device__ __forceinline__ Weight(const float* weight, int first, int columns)
      : weight_(weight), first_(first), columns_(columns) {
    if (weight != nullptr && first < columns) held_ = Load(first);
  }
  __device__ __forceinline__ Piece At(int column) const {
    return column == first_ ? held_ : Load(column);
  }

 private:
  __device__ __forceinline__ Piece Load(int column) const {
    Piece piece;
    if (columns_ % kWidth == 0) {
#pragma unroll
      for (int i = 0; i < kWidth; i += Vec<float>::kCount) {
        const Vec<float> some = LoadVec(weight_ + column + i);
#pragma unroll
        for (int j = 0; j < Vec<float>::kCount; ++j) piece.at[i + j] = some.at[j];
      }
      return piece;
    }
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      piece.at[i] = column + i < columns_ ? weight_[column + i] : 0.0f;
    }
    return piece;
  }

  const float* weight_;
  int first_;
  int columns_;
  Piece held_;
};

template <typename T>
__device__ __forceinline__ Vec<T> NormedPiece(Vec<T> piece, float factor,
                                              const typename Weight<T>::Piece& weight,
                                              const NormParameters& norm) {
#pragma unroll
  for (int i = 0; i < Vec<T>::kCount; ++i) {
    piece.at[i] = Normed(piece.at[i], factor, weight.at[i], norm.rounds_before_weight);
  }
  return piece;
}

template <typename T, int kThreads>
__global__ void __launch_bounds__(kThreads)
    RmsNormKernel(T* y, const T* x, const int32_t* sources, int columns, NormParameters norm) {
  ReleaseSuccessor();
  constexpr int kStep = kThreads * Vec<T>::kCount;
  BlockScratch<float>& scratch = SharedObject<NormShared>().scratch;
  const RowPieces<T> pieces{columns};
  const int first = static_cast<int>(threadIdx.x) * Vec<T>::kCount;
  const Weight<T> weight(norm.weight, first, columns);
  const int64_t row = blockIdx.x;
  const T* from = x + (sources == nullptr ? row : sources[row]) * columns;
  T* to = y + row * columns;
  WaitForPredecessor();
  Vec<T> held;
  if (first < columns) held = pieces.Load(from, first);
  float squares = first < columns ? AddSquares(0.0f, held) : 0.0f;
  for (int at = first + kStep; at < columns; at += kStep) {
    squares = AddSquares(squares, pieces.Load(from, at));
  }
  const float factor = NormFactor(BlockSum<kThreads>(squares, scratch), columns, norm.epsilon);
  for (int at = first; at < columns; at += kStep) {
    const Vec<T> piece = at == first ? held : pieces.Load(from, at);
    pieces.Store(to, at, NormedPiece(piece, factor, weight.At(at), norm));
  }
}

/// y + normed, of values as they are in memory.
template <typename T>
__device__ __forceinline__ Vec<T> SumOf(const Vec<T>& y, const Vec<T>& normed) {
  Vec<T> sum;
#pragma unroll
  for (int i = 0; i < Vec<T>::kCount; ++i) {
    sum.at[i] = FromFloat<T>(ToFloat(y.at[i]) + ToFloat(normed.at[i]));
  }
  return sum;
}

template <typename T, int kThreads>
__global__ void __launch_bounds__(kThreads)
    RmsNormAddKernel(T* y, const T* x, NormParameters norm, T* z, NormParameters next,
                     int columns) {
  ReleaseSuccessor();
  constexpr int kStep = kThreads * Vec<T>::kCount;
  BlockScratch<float>& scratch = SharedObject<NormShared>().scratch;
  const RowPieces<T> pieces{columns};
  const int first = static_cast<int>(threadIdx.x) * Vec<T>::kCount;
  const Weight<T> weight(norm.weight, first, columns);
  const Weight<T> next_weight(z == nullptr ? nullptr : next.weight, first, columns);
  const int64_t row = static_cast<int64_t>(blockIdx.x) * columns;
  WaitForPredecessor();
  // Of the first piece both operands are on their way at once.
  Vec<T> held;
  Vec<T> sum;
  if (first < columns) {
    held = pieces.Load(x + row, first);
    sum = pieces.Load(y + row, first);
  }
  float squares = first < columns ? AddSquares(0.0f, held) : 0.0f;
  for (int at = first + kStep; at < columns; at += kStep) {
    squares = AddSquares(squares, pieces.Load(x + row, at));
  }
  const float factor = NormFactor(BlockSum<kThreads>(squares, scratch), columns, norm.epsilon);
  squares = 0;
  for (int at = first; at < columns; at += kStep) {
    const bool is_first = at == first;
    const Vec<T> normed =
        NormedPiece(is_first ? held : pieces.Load(x + row, at), factor, weight.At(at), norm);
    const Vec<T> piece = SumOf(is_first ? sum : pieces.Load(y + row, at), normed);
    if (is_first) sum = piece;
    pieces.Store(y + row, at, piece);
    squares = AddSquares(squares, piece);
  }
  if (z == nullptr) return;
  const float next_factor = NormFactor(BlockSum<kThreads>(squares, scratch), columns, next.epsilon);
  for (int at = first; at < columns; at += kStep) {
    const Vec<T> piece = at == first ? sum : pieces.Load(y + row, at);
    pieces.Store(z + row, at, NormedPiece(piece, next_factor, next_weight.At(at), next));
  }
}

}  // namespace

template <typename T>
cudaError_t RmsNorm(T* y, const T* x, const int32_t* sources, int rows, int columns,
                    const NormParameters& norm, cudaStream_t stream) {
  return ForNormThreads<T>(columns, [&](auto threads) {
    constexpr int kThreads = decltype(threads)::value;
    const LaunchShape shape{"RmsNorm", dim3(static_cast<unsigned>(rows)), dim3(kThreads), 0,
                            stream};
    return Launch(shape, RmsNormKernel<T, kThreads>, y, x, sources, columns, norm);
  });
}

template <typename T>
cudaError_t RmsNormAdd(T* y, const T* x, const NormParameters& norm, T* z,
                       const NormParameters& next, int rows, int columns, cudaStream_t stream) {
  return ForNormThreads<T>(columns, [&](auto threads) {
    constexpr int kThreads = decltype(threads)::value;
    const LaunchShape shape{"RmsNormAdd", dim3(static_cast<unsigned>(rows)), dim3(kThreads), 0,
                            stream};
    return Launch(shape, RmsNormAddKernel<T, kThreads>, y, x, norm, z, next, columns);
  });
}

template cudaError_t RmsNorm(float*, const float*, const int32_t*, int, int, const NormParameters&,
                             cudaStream_t);
template cudaError_t RmsNorm(bf16*, const bf16*, const int32_t*, int, int, const NormParameters&,
                             cudaStream_t);
template cudaError_t RmsNormAdd(float*, const float*, const NormParameters&, float*,
                                const NormParameters&, int, int, cudaStream_t);
template cudaError_t RmsNormAdd(bf16*, const bf16*, const NormParameters&, bf16*,
                                const NormParameters&, int, int, cudaStream_t);

}  // namespace neurogrid::kernels
