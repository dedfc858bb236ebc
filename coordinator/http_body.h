// Bodies in chunks (RFC 9112 7.1), read strictly: no extensions, no trailers.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "coordinator/api_error.h"

namespace neurogrid {

class ChunkedBody {
 public:
  /// At most `bytes_max` decoded bytes are taken.
  explicit ChunkedBody(int64_t bytes_max) : bytes_max_(bytes_max) {}

  /// Appends what `bytes` decode to and reports how many of them belong to this body: all of them
  /// until it is done.
  MaybeError Push(absl::string_view bytes, std::string* body, size_t* taken);
  bool done() const { return state_ == State::kDone; }

 private:
  enum class State { kSize, kSizeLf, kData, kDataCr, kDataLf, kEndCr, kEndLf, kDone };
  MaybeError Step(char c);

  const int64_t bytes_max_;
  State state_ = State::kSize;
  int digits_ = 0;
  int64_t chunk_bytes_ = 0;  // of the current chunk, still to come
  int64_t body_bytes_ = 0;
};

/// 413 naming the limit.
ApiError BodyTooLarge(int64_t bytes_max);

}  // namespace neurogrid
