// Where the rows of a weight matrix come from while they are packed.
#pragma once

#include <cstdint>
#include <optional>
#include <type_traits>

#include "absl/functional/function_ref.h"
#include "common/dtype.h"
#include "common/status.h"

namespace neurogrid {

/// Refers to a callable rows(first, count, out) that fills out[count][inputs] with rows
/// [first, first + count), in f32, and perhaps in bf16 too: then rounded to nearest, ties to even.
/// Called from several threads at once. Like absl::FunctionRef, it does not own the callable.
class RowSource {
 public:
  template <typename Rows, typename = std::enable_if_t<!std::is_same_v<Rows, RowSource>>>
  RowSource(const Rows& rows) : floats_(rows) {  // NOLINT(google-explicit-constructor)
    if constexpr (std::is_invocable_v<const Rows&, int64_t, int64_t, bf16*>) rounded_.emplace(rows);
  }

  absl::Status operator()(int64_t first, int64_t count, float* out) const {
    return floats_(first, count, out);
  }

  /// Whether rows come in bf16 too: of a checkpoint in bf16 without two conversions.
  bool rounds() const { return rounded_.has_value(); }
  absl::Status operator()(int64_t first, int64_t count, bf16* out) const {
    return (*rounded_)(first, count, out);
  }

 private:
  template <typename T>
  using Function = absl::FunctionRef<absl::Status(int64_t first, int64_t count, T* out)>;
  Function<float> floats_;
  std::optional<Function<bf16>> rounded_;
};

}  // namespace neurogrid
