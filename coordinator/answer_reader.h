// From a scheduler's tokens to a reader's events: one request's answers, choice by choice.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/generator.h"
#include "coordinator/scheduler.h"
#include "engine/text/answer_parser.h"
#include "engine/text/tokenizer.h"

namespace neurogrid {

class AnswerReader {
 public:
  AnswerReader(const Tokenizer& tokenizer, const GenerationRequest& request);

  struct Reading {
    GenerationEvent event;
    bool ends = false;            // the text ended the choice: the scheduler does not know it yet
    std::vector<int32_t> forced;  // the tokens that must follow
  };
  /// Takes what happened to a choice that has not ended.
  Reading Take(SchedulerEvent event);

  int choices() const { return static_cast<int>(choices_.size()); }
  bool ended(int choice) const { return choices_[static_cast<size_t>(choice)].ended; }
  bool all_ended() const;
  /// Tokens that a choice must begin with: a budget of no reasoning at all.
  std::vector<int32_t> FirstTokens(int choice);
  int64_t reasoning_tokens() const;

 private:
  struct Choice {
    AnswerParser parser;
    bool ended = false;
    bool closing = false;  // the end of reasoning is being forced
  };
  bool MustClose(Choice& choice) const;

  const Tokenizer& tokenizer_;
  const bool one_call_;
  const int64_t budget_;
  const std::vector<int32_t> close_;
  std::vector<Choice> choices_;
};

}  // namespace neurogrid
