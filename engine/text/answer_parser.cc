#include "engine/text/answer_parser.h"

#include <algorithm>
#include <utility>

namespace neurogrid {
namespace {

using Kind = AnswerPiece::Kind;

bool Is(const Marker& marker, int32_t id) { return marker.id >= 0 && marker.id == id; }

}  // namespace

AnswerParser::AnswerParser(AnswerOptions options)
    : options_(std::move(options)),
      reasoning_(options_.format.think_open, options_.format.think_close, options_.format.start),
      matcher_(options_.stops, options_.include_stop_text),
      calls_(options_.format) {}

std::optional<std::string> AnswerParser::StopOf(absl::string_view bytes) const {
  const auto found = std::find(options_.stops.begin(), options_.stops.end(), bytes);
  if (found == options_.stops.end()) return std::nullopt;
  return *found;
}

AnswerParser::Step AnswerParser::Push(int32_t id, absl::string_view bytes, bool special) {
  Step step;
  if (ended_) return step;
  const AnswerFormat& format = options_.format;
  const bool was_inside = reasoning_.inside();
  const bool may_stop = ++tokens_ > options_.tokens_min;
  const bool skipped = options_.skip_special && special;
  const bool call_marker =
      format.tools != ToolSyntax::kNone && (Is(format.call_open, id) || Is(format.call_close, id));
  // A token that is not shown as text stops by its id.
  if ((skipped || call_marker) && may_stop && !was_inside) step.stop = StopOf(bytes);
  if (step.stop.has_value()) {
    step.pieces = Finish(/*cut=*/false);
    return step;
  }
  if (!TakeMarker(id, may_stop, step) && !skipped) {
    if (std::exchange(at_start_, at_start_ && bytes.empty()) && options_.strip_leading_space &&
        !bytes.empty() && bytes[0] == ' ') {
      bytes.remove_prefix(1);
    }
    Feed(utf8_.Push(bytes), may_stop, step);
  }
  if (was_inside || reasoning_.inside()) {
    ++reasoning_tokens_;
    open_reasoning_tokens_ = was_inside ? open_reasoning_tokens_ + 1 : 0;
  }
  return step;
}

/// A token that structures the answer where it stands; others are text.
bool AnswerParser::TakeMarker(int32_t id, bool may_stop, Step& step) {
  const AnswerFormat& format = options_.format;
  const bool inside = reasoning_.inside();
  const bool calls = format.tools != ToolSyntax::kNone && !inside;
  const bool turns = Is(inside ? format.think_close : format.think_open, id);
  if (!turns && !(calls && (Is(format.call_open, id) || Is(format.call_close, id)))) return false;
  // Whatever waits for more text waits in vain: what follows is none.
  Feed(utf8_.Finish(), may_stop, step);
  if (ended_) return true;
  AnswerPieces rest;
  if (!turns) {
    reasoning_.Finish(rest);
  } else if (inside) {
    reasoning_.Close(rest);
  } else {
    reasoning_.Open(rest);
  }
  Take(rest, may_stop, step);
  if (ended_) return true;
  calls_.Push(matcher_.Release(), step.pieces);
  if (turns) return true;
  Is(format.call_open, id) ? calls_.Open(step.pieces) : calls_.Close(step.pieces);
  return true;
}

void AnswerParser::Feed(absl::string_view text, bool may_stop, Step& step) {
  AnswerPieces parts;
  reasoning_.Push(text, parts);
  Take(parts, may_stop, step);
}

/// Content may end at a stop string and hold calls.
void AnswerParser::Take(const AnswerPieces& parts, bool may_stop, Step& step) {
  for (const AnswerPiece& part : parts) {
    if (part.kind == Kind::kReasoning) {
      AddText(step.pieces, Kind::kReasoning, part.text);
      continue;
    }
    if (!may_stop) {
      calls_.Push(part.text, step.pieces);
      continue;
    }
    const StopMatcher::Result released = matcher_.Push(part.text);
    calls_.Push(released.text, step.pieces);
    if (released.matched < 0) continue;
    step.stop = options_.stops[static_cast<size_t>(released.matched)];
    calls_.Finish(/*cut=*/false, step.pieces);
    ended_ = true;
    return;
  }
}

AnswerPieces AnswerParser::Finish(bool cut) {
  Step step;
  if (ended_) return step.pieces;
  // What the last bytes complete may still be a stop string; the answer ends here in any case.
  const bool may_stop = tokens_ > options_.tokens_min;
  Feed(utf8_.Finish(), may_stop, step);
  if (ended_) return step.pieces;
  AnswerPieces rest;
  reasoning_.Finish(rest);
  Take(rest, may_stop, step);
  if (ended_) return step.pieces;
  ended_ = true;
  calls_.Push(matcher_.Finish(), step.pieces);
  calls_.Finish(cut, step.pieces);
  return step.pieces;
}

}  // namespace neurogrid
