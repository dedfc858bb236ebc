#include "coordinator/answer_writer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

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
                      {"preemptions", usage.preemptions}};
}

}  // namespace

Json UsageJson(const GenerationUsage& usage) {
  return Json::Object{
      {"prompt_tokens", usage.prompt_tokens},
      {"completion_tokens", usage.completion_tokens},
      {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
      {"prompt_tokens_details", Json::Object{{"cached_tokens", usage.cached_tokens}}},
      {"completion_tokens_details", Json::Object{{"reasoning_tokens", 0}}}};
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
  choice.text = prepared_.echo_texts[prompt];
  if (prepared_.logprobs) {
    choice.tokens.push_back({{.id = prepared_.generation.prompts[prompt][0]}, false});
  }
  return choice;
}

void AnswerWriter::Add(const GenerationEvent& event) {
  Choice& choice = Begin(event.choice);
  choice.text += event.text;
  if (prepared_.logprobs && prepared_.echo) {
    for (const GeneratedToken& token : event.prompt) choice.tokens.push_back({token});
  }
  for (const GeneratedToken& token : event.tokens) {
    if (prepared_.logprobs) choice.tokens.push_back({token});
    if (prepared_.return_token_ids) choice.token_ids.push_back(token.id);
  }
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
  return choice.finish == FinishReason::kStop ? "stop" : "length";
}

Json AnswerWriter::Head(absl::string_view object) const {
  return Json::Object{{"id", prepared_.generation.id},
                      {"object", object},
                      {"created", prepared_.created},
                      {"model", prepared_.model},
                      {"system_fingerprint", fingerprint_}};
}

/// Of the tokens that were not written yet; null when not asked for.
Json AnswerWriter::Logprobs(Choice& choice) const {
  if (!prepared_.logprobs) return nullptr;
  const std::vector<CompletionToken> tokens = std::exchange(choice.tokens, {});
  if (!prepared_.chat) {
    return CompletionLogprobs(context_.tokenizer, tokens, prepared_.generation.skip_special,
                              &choice.text_offset);
  }
  std::vector<GeneratedToken> generated;
  for (const CompletionToken& token : tokens) generated.push_back(token.token);
  return ChatLogprobs(context_.tokenizer, generated);
}

Json AnswerWriter::WholeChoice(int index, Choice& choice) {
  Json json = Json::Object{{"index", index}};
  if (prepared_.chat) {
    json.Set("message",
             Json::Object{
                 {"role", "assistant"}, {"content", std::move(choice.text)}, {"refusal", nullptr}});
  } else {
    json.Set("text", std::move(choice.text));
  }
  json.Set("logprobs", Logprobs(choice));
  json.Set("finish_reason", FinishName(choice));
  json.Set("stop_reason", choice.stop_reason);
  if (prepared_.return_token_ids) {
    json.Set("token_ids", IdsJson(choice.token_ids));
    if (!prepared_.chat) {
      const auto prompt = static_cast<size_t>(prompt_of(index));
      json.Set("prompt_token_ids", IdsJson(prepared_.generation.prompts[prompt]));
    }
  }
  return json;
}

Json AnswerWriter::Whole(const GenerationUsage& usage) {
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

void AnswerWriter::AppendChoice(int index, Choice& choice, const GenerationUsage& usage,
                                std::string* out) {
  const bool ends = choice.finish && !choice.ended;
  const bool has_tokens = !choice.tokens.empty() || !choice.token_ids.empty();
  const bool has_content = !choice.text.empty() || (ends && has_tokens);
  if (!has_content && !ends) return;
  Json extra = Json::Object{};
  const auto make = [&](Json body, absl::string_view key) {
    return Json(Json::Object{{"index", index}, {std::string(key), std::move(body)}});
  };
  Json json;
  if (has_content || !prepared_.chat) {
    json = prepared_.chat ? make(Json::Object{{"content", std::exchange(choice.text, {})}}, "delta")
                          : make(std::exchange(choice.text, {}), "text");
    json.Set("logprobs", Logprobs(choice));
    json.Set("finish_reason", nullptr);
    if (prepared_.return_token_ids) {
      json.Set("token_ids", IdsJson(std::exchange(choice.token_ids, {})));
    }
    if (prepared_.chat || !ends) *out += Chunk(json, usage);
  }
  if (!ends) return;
  choice.ended = true;
  if (prepared_.chat) {
    json = make(Json::Object{}, "delta");
    json.Set("logprobs", nullptr);
  } else if (prepared_.return_token_ids) {
    const auto prompt = static_cast<size_t>(prompt_of(index));
    json.Set("prompt_token_ids", IdsJson(prepared_.generation.prompts[prompt]));
  }
  json.Set("finish_reason", FinishName(choice));
  json.Set("stop_reason", choice.stop_reason);
  // The times of a request are known when its last choice ends; the usage chunk comes even later.
  if (prepared_.timings && unfinished_ == 0 && !prepared_.include_usage) {
    extra.Set("timings", TimingsJson(prepared_, usage));
  }
  *out += Chunk(std::move(json), usage, std::move(extra));
}

std::string AnswerWriter::Chunks(absl::Span<const GenerationEvent> events,
                                 const GenerationUsage& usage) {
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
