#include "coordinator/generation_params.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "coordinator/api_ids.h"

namespace neurogrid {
namespace {

constexpr size_t kStopsMax = 16;
constexpr size_t kStopBytesMax = 256;
constexpr size_t kStopIdsMax = 64;
constexpr size_t kBiasMax = 1024;
constexpr size_t kSaltBytesMax = 1024;

/// A field whose meaning hangs on another one that is missing: refused, or ignored when lenient.
MaybeError NeedsOther(CheckedBody& body, const std::string& name, const std::string& other) {
  if (body.mode != ParamsMode::kLenient) {
    return InvalidValue(name, absl::StrCat("'", name, "' needs ", other, "."));
  }
  body.ignored.push_back(name);
  return std::nullopt;
}

MaybeError CheckTokenId(const ApiContext& context, const std::string& param, Json& value) {
  const Field id = {.name = param,
                    .type = FieldType::kInteger,
                    .minimum = 0,
                    .maximum = static_cast<double>(context.tokenizer.vocab_size() - 1)};
  return CheckValue(id, param, value);
}

MaybeError ReadStops(const ApiContext& context, CheckedBody& body, PreparedRequest* prepared) {
  GenerationRequest& out = prepared->generation;
  if (const Json* stop = body.Find("stop")) {
    Json::Array items;
    if (stop->is_string()) {
      items.push_back(*stop);
    } else if (stop->is_array()) {
      items = stop->as_array();
    } else {
      return InvalidType("stop",
                         absl::StrCat("'stop' must be a string or an array of strings, not ",
                                      stop->kind_name(), "."));
    }
    if (items.size() > kStopsMax) {
      return LimitExceeded("stop", absl::StrCat("'stop' holds ", items.size(), " strings; at most ",
                                                kStopsMax, " are allowed."));
    }
    for (size_t i = 0; i < items.size(); ++i) {
      const std::string param = stop->is_string() ? "stop" : absl::StrCat("stop[", i, "]");
      if (!items[i].is_string()) {
        return InvalidType(param, absl::StrCat("'", param, "' must be a string."));
      }
      const std::string& text = items[i].as_string();
      if (text.empty() || text.size() > kStopBytesMax) {
        return InvalidValue(param, absl::StrCat("'", param, "' must have 1 to ", kStopBytesMax,
                                                " bytes, but has ", text.size(), "."));
      }
      out.stops.push_back(text);
      // The text of a special token is not part of the output: its id is what can be seen.
      const int32_t id = context.tokenizer.Find(text);
      if (id >= 0 && context.tokenizer.IsSpecial(id)) {
        out.stop_ids.push_back(id);
        prepared->stop_text_of[id] = text;
      }
    }
  }
  if (Json* ids = body.fields.Find("stop_token_ids")) {
    Json::Array& items = ids->as_array();
    if (items.size() > kStopIdsMax) {
      return LimitExceeded("stop_token_ids",
                           absl::StrCat("'stop_token_ids' holds ", items.size(), " ids; at most ",
                                        kStopIdsMax, " are allowed."));
    }
    for (size_t i = 0; i < items.size(); ++i) {
      NG_RETURN_IF_REFUSED(
          CheckTokenId(context, absl::StrCat("stop_token_ids[", i, "]"), items[i]));
      out.stop_ids.push_back(static_cast<int32_t>(items[i].as_integer()));
    }
  }
  return std::nullopt;
}

MaybeError ReadBias(const ApiContext& context, CheckedBody& body, SamplingOptions* sampling) {
  Json* bias = body.fields.Find("logit_bias");
  if (bias == nullptr) return std::nullopt;
  if (bias->as_object().size() > kBiasMax) {
    return LimitExceeded("logit_bias",
                         absl::StrCat("'logit_bias' has ", bias->as_object().size(),
                                      " entries; at most ", kBiasMax, " are allowed."));
  }
  const Field range = {
      .name = "logit_bias", .type = FieldType::kNumber, .minimum = -100, .maximum = 100};
  for (JsonMember& member : bias->as_object()) {
    const std::string param = absl::StrCat("logit_bias.", member.key.substr(0, 100));
    int32_t id = -1;
    const bool digits =
        !member.key.empty() && std::all_of(member.key.begin(), member.key.end(),
                                           [](char c) { return c >= '0' && c <= '9'; });
    if (!digits && body.mode == ParamsMode::kLenient) {
      body.ignored.push_back(param);
      continue;
    }
    if (!digits || !absl::SimpleAtoi(member.key, &id) || id >= context.tokenizer.vocab_size()) {
      return InvalidValue(param, absl::StrCat("The key of '", param, "' must be a token id below ",
                                              context.tokenizer.vocab_size(), "."));
    }
    NG_RETURN_IF_REFUSED(CheckValue(range, param, member.value));
    sampling->bias.emplace_back(id, static_cast<float>(member.value.as_number()));
  }
  return std::nullopt;
}

MaybeError ReadLogprobs(CheckedBody& body, PreparedRequest* prepared) {
  SamplingOptions& sampling = prepared->generation.sampling;
  if (!prepared->chat) {
    prepared->echo = body.Bool("echo", false);
    prepared->logprobs = body.Find("logprobs") != nullptr;
    if (prepared->logprobs) {
      sampling.top_logprobs = static_cast<int32_t>(body.Integer("logprobs", 0));
      prepared->generation.echo_logprobs = prepared->echo;
    }
    return std::nullopt;
  }
  prepared->logprobs = body.Bool("logprobs", false);
  if (body.Find("top_logprobs") != nullptr && !prepared->logprobs) {
    return NeedsOther(body, "top_logprobs", "'logprobs' to be true");
  }
  if (prepared->logprobs) {
    sampling.top_logprobs = static_cast<int32_t>(body.Integer("top_logprobs", 0));
  }
  return std::nullopt;
}

MaybeError ReadSampling(const ApiContext& context, CheckedBody& body, SamplingOptions* sampling) {
  const SamplingOptions& defaults = context.model.defaults;
  const auto number = [&](absl::string_view name, float otherwise) {
    return static_cast<float>(body.Number(name, otherwise));
  };
  sampling->temperature = number("temperature", defaults.temperature);
  sampling->top_p = number("top_p", defaults.top_p);
  sampling->min_p = number("min_p", defaults.min_p);
  sampling->top_k = static_cast<int32_t>(body.Integer("top_k", defaults.top_k));
  sampling->repetition_penalty = number("repetition_penalty", defaults.repetition_penalty);
  sampling->repeat_last_n = static_cast<int32_t>(body.Integer("repeat_last_n", -1));
  sampling->presence_penalty = number("presence_penalty", 0);
  sampling->frequency_penalty = number("frequency_penalty", 0);
  const int64_t seed = body.Integer("seed", -1);
  // 53 bits: the seed told in timings passes through every JSON reader.
  sampling->seed = seed == -1 ? RandomBits() >> 11 : static_cast<uint64_t>(seed);
  return ReadBias(context, body, sampling);
}

MaybeError ReadLengths(const ApiContext& context, CheckedBody& body, PreparedRequest* prepared) {
  GenerationRequest& out = prepared->generation;
  // The whole context means "until it ends": a prompt takes at least one token of it.
  const int64_t context_tokens = context.generator.context_tokens_max();
  int64_t otherwise = 16;
  if (prepared->chat) {
    otherwise = context.options.default_max_tokens > 0 ? context.options.default_max_tokens
                                                       : context_tokens;
  }
  const std::string name =
      body.Find("max_completion_tokens") != nullptr ? "max_completion_tokens" : "max_tokens";
  const int64_t asked = body.Integer(name, otherwise);
  out.tokens_max = std::min(asked, context_tokens);
  out.tokens_min = body.Integer("min_tokens", 0);
  if (out.tokens_min > asked) {
    return InvalidValue("min_tokens", absl::StrCat("'min_tokens' is ", out.tokens_min, " but '",
                                                   name, "' is ", asked, "."));
  }
  out.ignore_eos = body.Bool("ignore_eos", false);
  if (const Json* timeout = body.Find("timeout_ms")) {
    out.timeout = absl::Milliseconds(timeout->as_integer());
  }
  return std::nullopt;
}

MaybeError ReadStreamOptions(CheckedBody& body, PreparedRequest* prepared) {
  prepared->stream = body.Bool("stream", false);
  const Json* options = body.Find("stream_options");
  if (options == nullptr) return std::nullopt;
  if (!prepared->stream) return NeedsOther(body, "stream_options", "'stream' to be true");
  for (const JsonMember& member : options->as_object()) {
    const std::string param = absl::StrCat("stream_options.", member.key);
    if (member.value.is_null()) continue;
    bool* target = member.key == "include_usage"            ? &prepared->include_usage
                   : member.key == "continuous_usage_stats" ? &prepared->continuous_usage
                                                            : nullptr;
    if (target == nullptr) {
      body.ignored.push_back(param);
    } else if (!member.value.is_bool()) {
      return InvalidType(param, absl::StrCat("'", param, "' must be a boolean."));
    } else {
      *target = member.value.as_bool();
    }
  }
  if (prepared->continuous_usage) prepared->include_usage = true;
  return std::nullopt;
}

}  // namespace

MaybeError CheckModel(const ApiContext& context, const CheckedBody& body,
                      std::string* answer_name) {
  *answer_name = body.String("model", context.model.id);
  if (*answer_name == context.model.id || context.options.any_model_name) return std::nullopt;
  return ApiError{
      .status = 404,
      .code = "model_not_found",
      .message = absl::StrCat("The model '", answer_name->substr(0, 200),
                              "' does not exist; this server has '", context.model.id, "'."),
      .param = "model"};
}

MaybeError ReadGenerationParams(const ApiContext& context, CheckedBody& body, bool chat,
                                PreparedRequest* prepared) {
  GenerationRequest& out = prepared->generation;
  prepared->chat = chat;
  prepared->created = absl::ToUnixSeconds(absl::Now());
  out.id = NewId(chat ? "chatcmpl-" : "cmpl-");
  out.end_ids = context.model.end_ids;
  out.n = static_cast<int>(body.Integer("n", 1));
  out.skip_special = body.Bool("skip_special_tokens", true);
  out.include_stop_text = body.Bool("include_stop_str_in_output", false);
  out.use_cache = body.Bool("cache_prompt", true);
  out.strip_leading_space = chat && context.tokenizer.strips_leading_space();
  if (const Json* salt = body.Find("cache_salt")) {
    out.cache_salt = salt->as_string();
    if (out.cache_salt.empty() || out.cache_salt.size() > kSaltBytesMax) {
      return InvalidValue("cache_salt",
                          absl::StrCat("'cache_salt' must have 1 to ", kSaltBytesMax,
                                       " bytes, but has ", out.cache_salt.size(), "."));
    }
  }
  NG_RETURN_IF_REFUSED(ReadStreamOptions(body, prepared));
  NG_RETURN_IF_REFUSED(ReadLengths(context, body, prepared));
  NG_RETURN_IF_REFUSED(ReadSampling(context, body, &out.sampling));
  NG_RETURN_IF_REFUSED(ReadLogprobs(body, prepared));
  NG_RETURN_IF_REFUSED(ReadStops(context, body, prepared));
  prepared->return_token_ids = body.Bool("return_token_ids", false);
  prepared->timings = body.Bool("timings", false);
  return std::nullopt;
}

ApiError ContextExceeded(std::string param, int64_t prompt_tokens, int64_t context_tokens,
                         bool at_least) {
  return {.code = "context_length_exceeded",
          .message = absl::StrCat("This model's maximum context length is ", context_tokens,
                                  " tokens, but the prompt has ", at_least ? "at least " : "",
                                  prompt_tokens, "."),
          .param = std::move(param),
          .extra = {{"prompt_tokens", prompt_tokens}, {"max_context", context_tokens}}};
}

MaybeError CheckRoom(const ApiContext& context, const PreparedRequest& prepared) {
  const GenerationRequest& generation = prepared.generation;
  const int64_t room = context.generator.context_tokens_max();
  for (const std::vector<int32_t>& prompt : generation.prompts) {
    const auto tokens = static_cast<int64_t>(prompt.size());
    if (tokens > room - std::max<int64_t>(1, generation.tokens_min)) {
      return ContextExceeded(prepared.chat ? "messages" : "prompt", tokens, room,
                             /*at_least=*/false);
    }
  }
  return std::nullopt;
}

MaybeError CheckRoomByBytes(const ApiContext& context, std::string param, int64_t text_bytes) {
  const int64_t room = context.generator.context_tokens_max();
  if (text_bytes / context.longest_token_bytes <= room) return std::nullopt;
  return ContextExceeded(std::move(param), text_bytes / context.longest_token_bytes, room,
                         /*at_least=*/true);
}

int64_t PromptTokensMax(const ApiContext& context) {
  return std::max<int64_t>(2 * context.generator.context_tokens_max(), 16'384);
}

}  // namespace neurogrid
