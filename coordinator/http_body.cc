#include "coordinator/http_body.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace neurogrid {
namespace {

ApiError BadChunk() {
  return {.code = "invalid_value", .message = "Malformed HTTP request: a chunk is malformed."};
}

}  // namespace

ApiError BodyTooLarge(int64_t bytes_max) {
  return {.status = 413,
          .code = "request_too_large",
          .message = absl::StrCat("The body is larger than ", bytes_max, " bytes.")};
}

MaybeError ChunkedBody::Push(absl::string_view bytes, std::string* body, size_t* taken) {
  size_t at = 0;
  while (at < bytes.size() && state_ != State::kDone) {
    if (state_ != State::kData) {
      NG_RETURN_IF_REFUSED(Step(bytes[at++]));
      continue;
    }
    const size_t count = std::min(bytes.size() - at, static_cast<size_t>(chunk_bytes_));
    body->append(bytes.data() + at, count);
    at += count;
    chunk_bytes_ -= static_cast<int64_t>(count);
    if (chunk_bytes_ == 0) state_ = State::kDataCr;
  }
  *taken = at;
  return std::nullopt;
}

/// One byte of what stands around the data.
MaybeError ChunkedBody::Step(char c) {
  const auto expect = [&](char wanted, State next) -> MaybeError {
    if (c != wanted) return BadChunk();
    state_ = next;
    return std::nullopt;
  };
  switch (state_) {
    case State::kSize: {
      if (c == '\r' && digits_ > 0) {
        state_ = State::kSizeLf;
        return std::nullopt;
      }
      // Eight digits hold any size we take; extensions would stand here as well.
      if (!absl::ascii_isxdigit(static_cast<unsigned char>(c)) || ++digits_ > 8) return BadChunk();
      const char lower = absl::ascii_tolower(static_cast<unsigned char>(c));
      chunk_bytes_ = chunk_bytes_ * 16 + (lower <= '9' ? lower - '0' : lower - 'a' + 10);
      return std::nullopt;
    }
    case State::kSizeLf:
      NG_RETURN_IF_REFUSED(expect('\n', chunk_bytes_ == 0 ? State::kEndCr : State::kData));
      digits_ = 0;
      body_bytes_ += chunk_bytes_;
      if (body_bytes_ > bytes_max_) return BodyTooLarge(bytes_max_);
      return std::nullopt;
    case State::kDataCr:
      return expect('\r', State::kDataLf);
    case State::kDataLf:
      return expect('\n', State::kSize);
    case State::kEndCr:
      return expect('\r', State::kEndLf);  // a trailer would stand here
    case State::kEndLf:
      return expect('\n', State::kDone);
    case State::kData:
    case State::kDone:
      break;
  }
  return BadChunk();
}

}  // namespace neurogrid
