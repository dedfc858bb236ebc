#include "coordinator/info_api.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "coordinator/api_error.h"
#include "coordinator/generation_params.h"
#include "coordinator/token_json.h"

namespace neurogrid {
namespace {

/// The longest that may pass since a token went through every stage.
constexpr double kCanaryAgeMaxMs = 3000;

HttpResponse JsonResponse(const Json& body, int status = 200) {
  return {.status = status, .body = ToString(body)};
}

struct Readiness {
  const char* status;  // of /ready
  const char* code;    // of the error
};

Readiness ReadinessOf(const ApiContext& context) {
  if (context.draining || context.ending) return {"draining", "draining"};
  switch (context.generator.state()) {
    case ServingState::kLoading:
      return {"loading", "loading"};
    case ServingState::kWaitingForWorkers:
      return {"waiting_for_workers", "no_workers"};
    case ServingState::kPlanning:
      return {"planning", "loading"};
    case ServingState::kRecovering:
      return {"recovering", "recovering"};
    case ServingState::kCanaryFailed:
      return {"canary_failed", "recovering"};
    case ServingState::kDraining:
      return {"draining", "draining"};
    case ServingState::kReady:
      break;
  }
  const double age = context.generator.canary_age_ms();
  if (age < 0 || age > kCanaryAgeMaxMs) return {"canary_failed", "recovering"};
  return {"ready", ""};
}

Json ModelJson(const ApiContext& context, absl::string_view id) {
  return Json::Object{{"id", id},
                      {"object", "model"},
                      {"created", context.model.created},
                      {"owned_by", "neurogrid"},
                      {"max_model_len", context.model.max_model_len},
                      {"status", ReadinessOf(context).status}};
}

Json MarkerJson(const Marker& marker) {
  if (marker.text.empty()) return nullptr;
  return Json::Object{{"text", marker.text},
                      {"token", marker.id < 0 ? Json() : Json(static_cast<int>(marker.id))}};
}

/// How this model is told of tools and writes calls; null when it does neither.
Json ToolCallsJson(const ChatFormat& format) {
  if (!format.takes_tools && format.tools == ToolSyntax::kNone) return nullptr;
  return Json::Object{{"takes_tools", format.takes_tools},
                      {"syntax", NameOf(format.tools)},
                      {"opening", MarkerJson(format.call_open)},
                      {"closing", MarkerJson(format.call_close)},
                      {"template_prints_calls", format.prints_calls},
                      {"content_beside_calls", format.null_beside_calls ? "null" : "empty"},
                      {"arguments_as", format.arguments_as_text ? "text" : "object"},
                      {"nine_character_ids", format.nine_character_ids}};
}

Json ReasoningJson(const ChatFormat& format) {
  if (format.think_open.text.empty()) return nullptr;
  return Json::Object{{"opening", MarkerJson(format.think_open)},
                      {"closing", MarkerJson(format.think_close)},
                      {"reads_enable_thinking", format.reads_enable_thinking},
                      {"reads_reasoning_effort", format.reads_reasoning_effort}};
}

/// A figure without its float noise: 0.1f is 0.1.
Json Figure(float value) { return LogprobJson(value); }

}  // namespace

HttpResponse AnswerModels(ApiContext& context, const RouteCall&) {
  return JsonResponse(Json::Object{{"object", "list"},
                                   {"data", Json::Array{ModelJson(context, context.model.id)}}});
}

HttpResponse AnswerModel(ApiContext& context, const RouteCall& call) {
  CheckedBody body;
  body.fields.Set("model", call.rest);
  std::string name;
  if (const MaybeError error = CheckModel(context, body, &name)) return ErrorResponse(*error);
  return JsonResponse(ModelJson(context, name));
}

HttpResponse AnswerHealth(ApiContext& context, const RouteCall&) {
  if (context.generator.alive()) return JsonResponse(Json::Object{{"status", "ok"}});
  return ErrorResponse({.status = 503,
                        .code = "stalled",
                        .message = "The coordinator's loop has not turned for two seconds."});
}

HttpResponse AnswerReady(ApiContext& context, const RouteCall&) {
  const Readiness readiness = ReadinessOf(context);
  const Json cluster = context.generator.DescribeCluster();
  const Json* epoch = cluster.Find("epoch");
  Json body = Json::Object{{"status", readiness.status},
                           {"epoch", epoch == nullptr ? Json() : *epoch},
                           {"canary_age_ms", context.generator.canary_age_ms()}};
  if (absl::string_view(readiness.status) == "ready") return JsonResponse(body);
  Json::Array missing;
  for (const std::string& thing : context.generator.missing()) missing.push_back(thing);
  body.Set("missing", std::move(missing));
  const Json error = ErrorBody({.status = 503,
                                .code = readiness.code,
                                .message = absl::StrCat("Not ready: ", readiness.status, ".")});
  body.Set("error", *error.Find("error"));
  HttpResponse response = JsonResponse(body, 503);
  response.headers.emplace_back("Retry-After", "2");
  return response;
}

HttpResponse AnswerMetrics(ApiContext& context, const RouteCall&) {
  return {.content_type = "text/plain; version=0.0.4", .body = context.metrics.Expose()};
}

HttpResponse AnswerCluster(ApiContext& context, const RouteCall&) {
  return JsonResponse(context.generator.DescribeCluster());
}

HttpResponse AnswerRequests(ApiContext& context, const RouteCall&) {
  return JsonResponse(context.generator.DescribeRequests());
}

HttpResponse AnswerProps(ApiContext& context, const RouteCall&) {
  const SamplingOptions& defaults = context.model.defaults;
  Json::Array end_ids;
  for (const int32_t id : context.model.end_ids) end_ids.push_back(static_cast<int>(id));
  const ChatTemplate* chat = context.chat_template;
  return JsonResponse(
      Json::Object{{"model", context.model.id},
                   {"version", context.options.version},
                   {"system_fingerprint", context.generator.fingerprint()},
                   {"max_model_len", context.model.max_model_len},
                   {"context_tokens_max", context.generator.context_tokens_max()},
                   {"max_body_bytes", context.options.max_body_bytes},
                   {"end_token_ids", std::move(end_ids)},
                   {"default_sampling",
                    Json::Object{{"temperature", Figure(defaults.temperature)},
                                 {"top_p", Figure(defaults.top_p)},
                                 {"top_k", static_cast<int>(defaults.top_k)},
                                 {"min_p", Figure(defaults.min_p)},
                                 {"repetition_penalty", Figure(defaults.repetition_penalty)}}},
                   {"chat_template", chat == nullptr ? Json() : Json(chat->source())},
                   {"template_reads_clock", chat != nullptr && chat->reads_clock()},
                   {"template_takes_content_parts", chat != nullptr && chat->takes_content_lists()},
                   {"tool_calls", ToolCallsJson(context.chat_format)},
                   {"reasoning", ReasoningJson(context.chat_format)}});
}

HttpResponse AnswerEmbeddings(ApiContext&, const RouteCall&) {
  return ErrorResponse({.code = "unsupported_model_operation",
                        .message = "This model generates text; it gives no embeddings.",
                        .param = "model"});
}

}  // namespace neurogrid
