#include "coordinator/answer_reader.h"

#include <algorithm>
#include <utility>

namespace neurogrid {
namespace {

/// Drops what follows the first complete call. False when there is none.
bool KeepFirstCall(AnswerPieces& pieces) {
  const auto end = std::find_if(pieces.begin(), pieces.end(), [](const AnswerPiece& piece) {
    return piece.kind == AnswerPiece::Kind::kCallEnd;
  });
  if (end == pieces.end()) return false;
  pieces.erase(end + 1, pieces.end());
  return true;
}

}  // namespace

AnswerReader::AnswerReader(const Tokenizer& tokenizer, const GenerationRequest& request)
    : tokenizer_(tokenizer),
      one_call_(request.one_call),
      budget_(request.reasoning_budget),
      close_(request.reasoning_close) {
  const size_t count = request.prompts.size() * static_cast<size_t>(request.n);
  for (size_t i = 0; i < count; ++i) {
    choices_.push_back({AnswerParser({.format = request.format,
                                      .stops = request.stops,
                                      .include_stop_text = request.include_stop_text,
                                      .tokens_min = request.tokens_min,
                                      .skip_special = request.skip_special,
                                      .strip_leading_space = request.strip_leading_space})});
  }
}

bool AnswerReader::all_ended() const {
  return std::all_of(choices_.begin(), choices_.end(),
                     [](const Choice& choice) { return choice.ended; });
}

int64_t AnswerReader::reasoning_tokens() const {
  int64_t tokens = 0;
  for (const Choice& choice : choices_) tokens += choice.parser.reasoning_tokens();
  return tokens;
}

/// True once, when the budget is spent.
bool AnswerReader::MustClose(Choice& choice) const {
  if (!choice.parser.in_reasoning()) {
    choice.closing = false;
    return false;
  }
  if (budget_ < 0 || choice.parser.open_reasoning_tokens() < budget_) return false;
  return !std::exchange(choice.closing, true);
}

std::vector<int32_t> AnswerReader::FirstTokens(int choice) {
  return MustClose(choices_[static_cast<size_t>(choice)]) ? close_ : std::vector<int32_t>();
}

AnswerReader::Reading AnswerReader::Take(SchedulerEvent event) {
  Reading reading;
  GenerationEvent& out = reading.event;
  Choice& choice = choices_[static_cast<size_t>(event.choice)];
  out.choice = event.choice;
  out.prompt = std::move(event.prompt);
  out.finish = event.finish;
  out.stop_reason = std::move(event.stop_reason);
  bool stopped = false;
  if (event.token.has_value()) {
    out.tokens.push_back(*std::move(event.token));
    const int32_t id = out.tokens.back().id;
    // A token that ended the choice as end or stop id is no part of the text.
    if (event.finish != FinishReason::kStop) {
      AnswerParser::Step step =
          choice.parser.Push(id, tokenizer_.Bytes(id), tokenizer_.IsSpecial(id));
      out.pieces = std::move(step.pieces);
      const bool called = one_call_ && KeepFirstCall(out.pieces);
      stopped = step.stop.has_value() || called;
      if (stopped) {
        out.finish = FinishReason::kStop;
        out.stop_reason = step.stop.has_value() ? Json(*std::move(step.stop)) : Json();
        reading.ends = !event.finish.has_value();
      }
    }
  }
  if (out.finish.has_value()) {
    choice.ended = true;
    if (stopped) return reading;
    AnswerPieces rest = choice.parser.Finish(out.finish == FinishReason::kLength);
    if (one_call_ && KeepFirstCall(rest)) {
      out.finish = FinishReason::kStop;
      out.stop_reason = Json();
    }
    for (AnswerPiece& piece : rest) out.pieces.push_back(std::move(piece));
  } else if (MustClose(choice)) {
    reading.forced = close_;
  }
  return reading;
}

}  // namespace neurogrid
