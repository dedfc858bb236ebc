// Generation events to the JSON of an answer, whole or in chunks (api.md 3).
#pragma once

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "common/json.h"
#include "coordinator/api_context.h"
#include "coordinator/generation_params.h"
#include "coordinator/generator.h"
#include "coordinator/token_json.h"

namespace neurogrid {

/// Writes one answer. Whole: Add every event, then Whole. Streamed: Opening, Chunks for every batch
/// of events, Closing; merging the chunks gives the whole answer.
class AnswerWriter {
 public:
  AnswerWriter(const ApiContext& context, const PreparedRequest& prepared);

  void Add(const GenerationEvent& event);
  Json Whole(const GenerationUsage& usage);

  std::string Opening();
  /// One chunk for each choice that moved; "" when nothing can be shown yet.
  std::string Chunks(absl::Span<const GenerationEvent> events, const GenerationUsage& usage);
  std::string Closing(const GenerationUsage& usage);

 private:
  /// Tokens that the answer shows.
  struct Tokens {
    std::vector<CompletionToken> scored;
    std::vector<int32_t> ids;  // generated ones
    bool empty() const { return scored.empty() && ids.empty(); }
    void Append(Tokens more);
  };
  /// A piece with the tokens that came since the one before it.
  struct Shown {
    AnswerPiece piece;
    int call = 0;         // number of its tool call
    std::string call_id;  // of kCallBegin
    Tokens tokens;
  };
  struct Choice {
    std::vector<Shown> shown;  // not yet written
    Tokens tokens;             // behind the last piece
    int calls = 0;             // begun
    int calls_ended = 0;
    std::optional<FinishReason> finish;
    Json stop_reason;
    bool begun = false;
    bool ended = false;       // the chunk with the finish reason is written
    int64_t text_offset = 0;  // code points before the next token
  };

  Choice& Begin(int index);
  Json Head(absl::string_view object) const;
  void AddPiece(Choice& choice, AnswerPiece piece) const;
  Json Logprobs(Choice& choice, std::vector<CompletionToken> tokens) const;
  Json Message(const Choice& choice) const;
  Json WholeChoice(int index, Choice& choice);
  static Json Delta(const Shown& shown);
  Json ShownChoice(int index, Choice& choice, Shown shown) const;
  void AppendChoice(int index, Choice& choice, const GenerationUsage& usage, std::string* out);
  std::string Chunk(Json choice, const GenerationUsage& usage, Json extra = Json::Object{}) const;
  std::string FinishName(const Choice& choice) const;
  int prompt_of(int index) const { return index / prepared_.generation.n; }

  const ApiContext& context_;
  const PreparedRequest& prepared_;
  const bool shows_tokens_;      // logprobs or ids
  std::string fingerprint_;      // of the chain that serves now: another one may have taken over
  std::vector<Choice> choices_;  // [prompts * n]
  int unfinished_;
};

/// {"prompt_tokens":.., "completion_tokens":.., ...}
Json UsageJson(const GenerationUsage& usage);

/// `data: {...}` and the blank line.
std::string SseEvent(const Json& data);
inline constexpr absl::string_view kSseDone = "data: [DONE]\n\n";

}  // namespace neurogrid
