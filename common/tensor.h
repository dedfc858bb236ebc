// Views of memory with a dtype and a shape. They own nothing: see Buffer for the owner.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "common/check.h"
#include "common/dtype.h"

namespace neurogrid {

/// Up to four dimensions, outermost first, row-major.
class Shape {
 public:
  static constexpr int kRankMax = 4;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dimensions) {
    NG_CHECK(dimensions.size() <= kRankMax);
    for (const int64_t d : dimensions) dimensions_[rank_++] = d;
  }

  int rank() const { return rank_; }
  int64_t operator[](int i) const {
    NG_CHECK(i >= 0 && i < rank_);
    return dimensions_[i];
  }
  /// Product of the dimensions; 1 for rank 0.
  int64_t elements() const {
    int64_t product = 1;
    for (int i = 0; i < rank_; ++i) product *= dimensions_[i];
    return product;
  }
  void Append(int64_t dimension) {
    NG_CHECK(rank_ < kRankMax);
    dimensions_[rank_++] = dimension;
  }
  bool operator==(const Shape&) const = default;
  /// "[32, 4096]", as error messages show it.
  std::string ToString() const;

 private:
  std::array<int64_t, kRankMax> dimensions_ = {};
  int rank_ = 0;
};

struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kF32;
  Shape shape;

  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

struct ConstTensor {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  Shape shape;

  ConstTensor() = default;
  ConstTensor(const void* data_in, DType dtype_in, const Shape& shape_in)
      : data(data_in), dtype(dtype_in), shape(shape_in) {}
  ConstTensor(const Tensor& tensor)  // NOLINT: a mutable view is a const view.
      : data(tensor.data), dtype(tensor.dtype), shape(tensor.shape) {}

  template <typename T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
  explicit operator bool() const { return data != nullptr; }
  int64_t bytes() const { return BytesOf(dtype, shape.elements()); }
};

}  // namespace neurogrid
