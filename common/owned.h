// Objects of C libraries in std::unique_ptr.
#pragma once

namespace neurogrid {

/// The deleter that frees by a function: `std::unique_ptr<BIO, FreeBy<BIO_free_all>>`.
template <auto kFree>
struct FreeBy {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};

}  // namespace neurogrid
