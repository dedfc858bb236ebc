#include "coordinator/api.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace neurogrid {
namespace {

int64_t LongestTokenBytes(const Tokenizer& tokenizer) {
  size_t longest = 1;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    longest = std::max(longest, tokenizer.Bytes(id).size());
  }
  return static_cast<int64_t>(longest);
}

/// The key that a client shows; "" when it shows none.
absl::string_view ShownKey(const HttpRequest& head) {
  absl::string_view shown = head.Header("authorization");
  if (absl::StartsWithIgnoreCase(shown, "bearer ")) {
    return absl::StripAsciiWhitespace(shown.substr(7));
  }
  return head.Header("x-api-key");
}

HttpResponse Refuse(ServingMetrics& metrics, const ApiError& error) {
  metrics.AddRefused(error.code);
  return ErrorResponse(error);
}

HttpResponse Unauthorized(ServingMetrics& metrics, absl::string_view shown) {
  HttpResponse response = Refuse(
      metrics, {.status = 401,
                .code = "invalid_api_key",
                .message = shown.empty() ? "An API key is needed: send Authorization: Bearer KEY."
                                         : "The API key is not valid."});
  response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Api>> Api::Create(Generator& generator, const Tokenizer& tokenizer,
                                                 const ChatTemplate* chat_template, ModelInfo model,
                                                 ApiOptions options, ServingMetrics& metrics) {
  NG_ASSIGN_OR_RETURN(ApiKeys keys, ApiKeys::Parse(options.api_keys));
  return std::unique_ptr<Api>(new Api(generator, tokenizer, chat_template, std::move(model),
                                      std::move(options), metrics, std::move(keys)));
}

Api::Api(Generator& generator, const Tokenizer& tokenizer, const ChatTemplate* chat_template,
         ModelInfo model, ApiOptions options, ServingMetrics& metrics, ApiKeys keys)
    : context_{.generator = generator,
               .tokenizer = tokenizer,
               .chat_template = chat_template,
               .chat_format = chat_template == nullptr ? ChatFormat()
                                                       : FindChatFormat(*chat_template, tokenizer),
               .model = std::move(model),
               .options = std::move(options),
               .metrics = metrics,
               .longest_token_bytes = LongestTokenBytes(tokenizer)},
      keys_(std::move(keys)) {}

std::optional<HttpResponse> Api::Refusal(const HttpRequest& head, const RouteMatch& match) const {
  // A browser asks by OPTIONS before it may send a key.
  if (head.method == "OPTIONS" && (match.path_known || head.path == "*")) {
    HttpResponse response{.status = 204};
    response.headers.emplace_back("Allow", match.allow);
    return response;
  }
  const bool free_metrics = context_.options.open_metrics && head.path == "/metrics";
  if (!keys_.empty() && match.scope != Scope::kOpen && !free_metrics) {
    const absl::string_view shown = ShownKey(head);
    const ApiKey* key = keys_.Find(shown);
    if (key == nullptr) return Unauthorized(context_.metrics, shown);
    if (match.path_known && !key->Allows(match.scope)) {
      return Refuse(context_.metrics, {.status = 403,
                                       .code = "insufficient_scope",
                                       .message = "This API key may not use this route."});
    }
  }
  if (!match.path_known) {
    return Refuse(context_.metrics, {.status = 404,
                                     .code = "unknown_url",
                                     .message = absl::StrCat("Unknown request URL: ", head.method,
                                                             " ", head.path.substr(0, 200), ".")});
  }
  if (match.route == nullptr) {
    HttpResponse response =
        Refuse(context_.metrics, {.status = 405,
                                  .code = "method_not_allowed",
                                  .message = absl::StrCat("This route takes ", match.allow, ".")});
    response.headers.emplace_back("Allow", match.allow);
    return response;
  }
  return std::nullopt;
}

void Api::AddCors(const HttpRequest& request, const RouteMatch& match,
                  HttpResponse* response) const {
  const auto& origins = context_.options.cors_origins;
  if (origins.empty()) return;
  response->headers.emplace_back("Vary", "Origin");
  const absl::string_view origin = request.Header("origin");
  // What is sent back is our own spelling of the origin, never the client's.
  const auto found = std::find_if(origins.begin(), origins.end(), [&](const std::string& allowed) {
    return allowed == "*" || allowed == origin;
  });
  if (origin.empty() || found == origins.end()) return;
  response->headers.emplace_back("Access-Control-Allow-Origin", *found);
  response->headers.emplace_back("Access-Control-Expose-Headers",
                                 "X-Request-Id, X-Ignored-Params, Retry-After, retry-after-ms");
  if (request.method != "OPTIONS") return;
  response->headers.emplace_back("Access-Control-Allow-Methods", match.allow);
  response->headers.emplace_back("Access-Control-Allow-Headers",
                                 "Authorization, Content-Type, X-Api-Key, X-Request-Id");
  response->headers.emplace_back("Access-Control-Max-Age", "600");
}

HttpHandler::Admission Api::Admit(const HttpRequest& head) {
  const RouteMatch match = FindRoute(head.method, head.path);
  Admission admission{.refusal = Refusal(head, match)};
  if (admission.refusal) {
    AddCors(head, match, &*admission.refusal);
    admission.refusal->close = admission.refusal->status >= 400;
  } else if (match.route->body_kind != 0) {
    admission.body_bytes_max = context_.options.max_body_bytes;
  }
  return admission;
}

HttpResponse Api::Answer(const HttpRequest& request, HttpPeer& peer) {
  const RouteMatch match = FindRoute(request.method, request.path);
  RouteCall call{request, {}, peer, match.rest};
  if (const ApiKey* key = keys_.Find(ShownKey(request))) call.caller.key_id = key->id;
  HttpResponse response = match.route->handler(context_, call);
  AddCors(request, match, &response);
  return response;
}

}  // namespace neurogrid
