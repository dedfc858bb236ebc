#include "coordinator/answer_writer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/api_ids.h"

namespace neurogrid {
namespace {

Json IdsJson(absl::Span<const int32_t> ids) {
  Json::Array array;
  for (const int32_t id : ids) array.push_back(static_cast<int>(id));
  return array;
}

Json TimingsJson(const PreparedRequest& prepared, const GenerationUsage& usage) {
  return Json::Object{{"seed", static_cast<int64_t>(prepared.generation.sampling.seed)},
                      {"queue_ms", usage.queue_ms},
                      {"template_ms", prepared.template_ms},
                      {"prefill_ms", usage.prefill_ms},
                      {"decode_ms", usage.decode_ms},
                      {"cached_tokens", usage.cached_tokens},
                      {"preemptions", usage.preemptions},
                      {"recoveries", usage.recoveries}};
}

/// A tool call that has no arguments yet.
Json CallJson(const std::string& id, const std::string& name) {
  return Json::Object{{"id", id},
                      {"type", "function"},
                      {"function", Json::Object{{"name", name}, {"arguments", ""}}}};
}

}  // namespace

Json UsageJson(const GenerationUsage& usage) {
  return Json::Object{
      {"prompt_tokens", usage.prompt_tokens},
      {"completion_tokens", usage.completion_tokens},
      {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
      {"prompt_tokens_details", Json::Object{{"cached_tokens", usage.cached_tokens}}},
      {"completion_tokens_details", Json::Object{{"reasoning_tokens", usage.reasoning_tokens}}}};
}

std::string SseEvent(const Json& data) { return absl::StrCat("data: ", ToString(data), "\n\n"); }

AnswerWriter::AnswerWriter(const ApiContext& context, const PreparedRequest& prepared)
    : context_(context),
      prepared_(prepared),
      shows_tokens_(prepared.logprobs || prepared.return_token_ids),
      fingerprint_(context.generator.fingerprint()),
      choices_(prepared.generation.prompts.size() * static_cast<size_t>(prepared.generation.n)),
      unfinished_(static_cast<int>(choices_.size())) {}

/// The choice, with the echoed prompt in it from the first time on.
AnswerWriter::Choice& AnswerWriter::Begin(int index) {
  Choice& choice = choices_[static_cast<size_t>(index)];
  if (choice.begun) return choice;
  choice.begun = true;
  if (!prepared_.echo) return choice;
  const auto prompt = static_cast<size_t>(prompt_of(index));
  if (prepared_.logprobs) {
    choice.tokens.scored.push_back({{.id = prepared_.generation.prompts[prompt][0]}, false});
  }
  AddPiece(choice, {AnswerPiece::Kind::kContent, prepared_.echo_texts[prompt]});
  return choice;
}

void AnswerWriter::Tokens::Append(Tokens more) {
  scored.insert(scored.end(), more.scored.begin(), more.scored.end());
  ids.insert(ids.end(), more.ids.begin(), more.ids.end());
}

/// The piece takes the tokens that wait; text joins text of its kind.
void AnswerWriter::AddPiece(Choice& choice, AnswerPiece piece) const {
  using Kind = AnswerPiece::Kind;
  if (piece.kind == Kind::kCallEnd) {
    ++choice.calls_ended;
    return;
  }
  if (piece.kind == Kind::kReasoning && !prepared_.include_reasoning) return;
  const bool joins = piece.kind != Kind::kCallBegin && !choice.shown.empty() &&
                     choice.shown.back().piece.kind == piece.kind;
  if (joins) {
    choice.shown.back().piece.text += piece.text;
  } else {
    if (piece.kind == Kind::kCallBegin) ++choice.calls;
    const bool begins = piece.kind == Kind::kCallBegin;
    choice.shown.push_back({std::move(piece), choice.calls - 1, begins ? NewId("call_") : "", {}});
  }
  choice.shown.back().tokens.Append(std::exchange(choice.tokens, {}));
}

void AnswerWriter::Add(const GenerationEvent& event) {
  Choice& choice = Begin(event.choice);
  if (prepared_.logprobs && prepared_.echo) {
    for (const GeneratedToken& token : event.prompt) choice.tokens.scored.push_back({token});
  }
  for (const GeneratedToken& token : event.tokens) {
    if (prepared_.logprobs) choice.tokens.scored.push_back({token});
    if (prepared_.return_token_ids) choice.tokens.ids.push_back(token.id);
  }
  for (const AnswerPiece& piece : event.pieces) AddPiece(choice, piece);
  if (!event.finish || choice.finish) return;
  choice.finish = event.finish;
  choice.stop_reason = event.stop_reason;
  if (event.stop_reason.is_integer()) {
    const auto named =
        prepared_.stop_text_of.find(static_cast<int32_t>(event.stop_reason.as_integer()));
    if (named != prepared_.stop_text_of.end()) choice.stop_reason = Json(named->second);
  }
  --unfinished_;
}

std::string AnswerWriter::FinishName(const Choice& choice) const {
  if (choice.finish != FinishReason::kStop) return "length";
  return choice.calls_ended > 0 ? "tool_calls" : "stop";
}

Json AnswerWriter::Head(absl::string_view object) const {
  return Json::Object{{"id", prepared_.generation.id},
                      {"object", object},
                      {"created", prepared_.created},
                      {"model", prepared_.model},
                      {"system_fingerprint", fingerprint_}};
}

/// Null when not asked for.
Json AnswerWriter::Logprobs(Choice& choice, std::vector<CompletionToken> tokens) const {
  if (!prepared_.logprobs) return nullptr;
  if (!prepared_.chat) {
    return CompletionLogprobs(context_.tokenizer, tokens, prepared_.generation.skip_special,
                              &choice.text_offset);
  }
  std::vector<GeneratedToken> generated;
  for (const CompletionToken& token : tokens) generated.push_back(token.token);
  return ChatLogprobs(context_.tokenizer, generated);
}

Json AnswerWriter::Message(const Choice& choice) const {
  using Kind = AnswerPiece::Kind;
  std::string content;
  std::string reasoning;
  Json::Array calls;
  for (const Shown& shown : choice.shown) {
    switch (shown.piece.kind) {
      case Kind::kContent:
        content += shown.piece.text;
        break;
      case Kind::kReasoning:
        reasoning += shown.piece.text;
        break;
      case Kind::kCallBegin:
        calls.push_back(CallJson(shown.call_id, shown.piece.text));
        break;
      case Kind::kArguments: {
        Json& arguments = *calls.back().Find("function")->Find("arguments");
        arguments = Json(arguments.as_string() + shown.piece.text);
        break;
      }
      case Kind::kCallEnd:
        break;
    }
  }
  Json message = Json::Object{{"role", "assistant"}};
  const bool none = content.empty() && !calls.empty();
  message.Set("content", none ? Json() : Json(std::move(content)));
  message.Set("refusal", nullptr);
  if (!reasoning.empty()) message.Set("reasoning_content", std::move(reasoning));
  if (!calls.empty()) message.Set("tool_calls", std::move(calls));
  return message;
}

Json AnswerWriter::WholeChoice(int index, Choice& choice) {
  Json json = Json::Object{{"index", index}};
  if (prepared_.chat) {
    json.Set("message", Message(choice));
  } else {
    std::string text;
    for (const Shown& shown : choice.shown) text += shown.piece.text;
    json.Set("text", std::move(text));
  }
  Tokens tokens;
  for (Shown& shown : choice.shown) tokens.Append(std::move(shown.tokens));
  tokens.Append(std::move(choice.tokens));
  json.Set("logprobs", Logprobs(choice, std::move(tokens.scored)));
  json.Set("finish_reason", FinishName(choice));
  json.Set("stop_reason", choice.stop_reason);
  if (prepared_.return_token_ids) {
    json.Set("token_ids", IdsJson(tokens.ids));
    if (!prepared_.chat) {
      const auto prompt = static_cast<size_t>(prompt_of(index));
      json.Set("prompt_token_ids", IdsJson(prepared_.generation.prompts[prompt]));
    }
  }
  return json;
}

Json AnswerWriter::Whole(const GenerationUsage& usage) {
  fingerprint_ = context_.generator.fingerprint();
  Json answer = Head(prepared_.chat ? "chat.completion" : "text_completion");
  Json::Array choices;
  for (size_t i = 0; i < choices_.size(); ++i) {
    const int index = static_cast<int>(i);
    choices.push_back(WholeChoice(index, Begin(index)));
  }
  answer.Set("choices", std::move(choices));
  answer.Set("usage", UsageJson(usage));
  if (prepared_.return_token_ids && prepared_.chat) {
    answer.Set("prompt_token_ids", IdsJson(prepared_.generation.prompts[0]));
  }
  if (prepared_.timings) answer.Set("timings", TimingsJson(prepared_, usage));
  return answer;
}

std::string AnswerWriter::Chunk(Json choice, const GenerationUsage& usage, Json extra) const {
  Json chunk = Head(prepared_.chat ? "chat.completion.chunk" : "text_completion");
  chunk.Set("choices", Json::Array{std::move(choice)});
  if (prepared_.include_usage) {
    chunk.Set("usage", prepared_.continuous_usage ? UsageJson(usage) : Json());
  }
  for (JsonMember& member : extra.as_object()) chunk.Set(member.key, std::move(member.value));
  return SseEvent(chunk);
}

std::string AnswerWriter::Opening() {
  std::string out;
  if (!prepared_.chat) return out;
  for (size_t i = 0; i < choices_.size(); ++i) {
    Json choice = Json::Object{{"index", static_cast<int>(i)},
                               {"delta", Json::Object{{"role", "assistant"}, {"content", ""}}},
                               {"logprobs", nullptr},
                               {"finish_reason", nullptr}};
    Json extra = Json::Object{};
    if (i == 0 && prepared_.return_token_ids) {
      extra.Set("prompt_token_ids", IdsJson(prepared_.generation.prompts[0]));
    }
    out += Chunk(std::move(choice), {}, std::move(extra));
  }
  return out;
}

/// What a chat's delta says of a piece.
Json AnswerWriter::Delta(const Shown& shown) {
  switch (shown.piece.kind) {
    case AnswerPiece::Kind::kContent:
      return Json::Object{{"content", shown.piece.text}};
    case AnswerPiece::Kind::kReasoning:
      return Json::Object{{"reasoning_content", shown.piece.text}};
    case AnswerPiece::Kind::kCallBegin: {
      Json call = Json::Object{{"index", shown.call}};
      const Json named = CallJson(shown.call_id, shown.piece.text);
      for (const JsonMember& member : named.as_object()) call.Set(member.key, member.value);
      return Json::Object{{"tool_calls", Json::Array{std::move(call)}}};
    }
    case AnswerPiece::Kind::kArguments:
      return Json::Object{
          {"tool_calls",
           Json::Array{Json::Object{{"index", shown.call},
                                    {"function", Json::Object{{"arguments", shown.piece.text}}}}}}};
    case AnswerPiece::Kind::kCallEnd:
      break;
  }
  return Json::Object{};
}

/// `{"index":.., "delta" or "text":.., "logprobs":.., "finish_reason":null}`, and ids.
Json AnswerWriter::ShownChoice(int index, Choice& choice, Shown shown) const {
  Json json = Json::Object{{"index", index}};
  if (prepared_.chat) {
    json.Set("delta", Delta(shown));
  } else {
    json.Set("text", std::move(shown.piece.text));
  }
  json.Set("logprobs", Logprobs(choice, std::move(shown.tokens.scored)));
  json.Set("finish_reason", nullptr);
  if (prepared_.return_token_ids) json.Set("token_ids", IdsJson(shown.tokens.ids));
  return json;
}

void AnswerWriter::AppendChoice(int index, Choice& choice, const GenerationUsage& usage,
                                std::string* out) {
  const bool ends = choice.finish && !choice.ended;
  std::vector<Shown> shown = std::exchange(choice.shown, {});
  // Tokens without text, the end token above all, go out with an empty text at the end.
  if (ends && (!choice.tokens.empty() || (!prepared_.chat && shown.empty()))) {
    if (shown.empty()) shown.push_back({});
    shown.back().tokens.Append(std::exchange(choice.tokens, {}));
  }
  Json json;
  for (size_t i = 0; i < shown.size(); ++i) {
    json = ShownChoice(index, choice, std::move(shown[i]));
    const bool last = i + 1 == shown.size();
    // A completion's finish reason stands beside its last text.
    if (prepared_.chat || !ends || !last) *out += Chunk(json, usage);
  }
  if (!ends) return;
  choice.ended = true;
  if (prepared_.chat) {
    json = Json::Object{{"index", index}, {"delta", Json::Object{}}, {"logprobs", nullptr}};
  } else if (prepared_.return_token_ids) {
    const auto prompt = static_cast<size_t>(prompt_of(index));
    json.Set("prompt_token_ids", IdsJson(prepared_.generation.prompts[prompt]));
  }
  json.Set("finish_reason", FinishName(choice));
  json.Set("stop_reason", choice.stop_reason);
  Json extra = Json::Object{};
  // The times of a request are known when its last choice ends; the usage chunk comes even later.
  if (prepared_.timings && unfinished_ == 0 && !prepared_.include_usage) {
    extra.Set("timings", TimingsJson(prepared_, usage));
  }
  *out += Chunk(std::move(json), usage, std::move(extra));
}

std::string AnswerWriter::Chunks(absl::Span<const GenerationEvent> events,
                                 const GenerationUsage& usage) {
  fingerprint_ = context_.generator.fingerprint();
  std::vector<int> moved;  // in the order of their first event
  for (const GenerationEvent& event : events) {
    Add(event);
    if (std::find(moved.begin(), moved.end(), event.choice) == moved.end()) {
      moved.push_back(event.choice);
    }
  }
  std::string out;
  for (const int index : moved) {
    AppendChoice(index, choices_[static_cast<size_t>(index)], usage, &out);
  }
  return out;
}

std::string AnswerWriter::Closing(const GenerationUsage& usage) {
  std::string out;
  if (prepared_.include_usage) {
    Json chunk = Head(prepared_.chat ? "chat.completion.chunk" : "text_completion");
    chunk.Set("choices", Json::Array{});
    chunk.Set("usage", UsageJson(usage));
    if (prepared_.timings) chunk.Set("timings", TimingsJson(prepared_, usage));
    out += SseEvent(chunk);
  }
  absl::StrAppend(&out, kSseDone);
  return out;
}

}  // namespace neurogrid
