#include "coordinator/text_stream.h"

#include <algorithm>
#include <utility>

namespace neurogrid {

TextStream::TextStream(const Tokenizer& tokenizer, TextStreamOptions options)
    : tokenizer_(tokenizer),
      options_(std::move(options)),
      matcher_(options_.stops, options_.include_stop_text) {}

TextStream::Piece TextStream::Push(int32_t token) {
  absl::string_view bytes = tokenizer_.Bytes(token);
  const bool may_stop = ++tokens_ > options_.tokens_min;
  if (options_.skip_special && tokenizer_.IsSpecial(token)) {
    // A stop string that is a special token's text matches by id: its text is not part of the
    // answer.
    const auto stop = std::find(options_.stops.begin(), options_.stops.end(), bytes);
    if (stop == options_.stops.end() || !may_stop) return {};
    return {Finish(), *stop};
  }
  if (at_start_ && !bytes.empty()) {
    at_start_ = false;
    if (options_.strip_leading_space && bytes[0] == ' ') bytes.remove_prefix(1);
  }
  if (!may_stop) return {utf8_.Push(bytes), std::nullopt};
  StopMatcher::Result released = matcher_.Push(utf8_.Push(bytes));
  Piece piece = {std::move(released.text), std::nullopt};
  if (released.matched >= 0) piece.stop = options_.stops[released.matched];
  return piece;
}

std::string TextStream::Finish() {
  StopMatcher::Result last = matcher_.Push(utf8_.Finish());
  return last.text + matcher_.Finish();
}

}  // namespace neurogrid
