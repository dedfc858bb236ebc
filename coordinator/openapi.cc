// GET /openapi.json, written from the tables that route and validate.
#include <set>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "coordinator/info_api.h"

namespace neurogrid {
namespace {

Json Reference(absl::string_view schema) {
  return Json::Object{{"$ref", absl::StrCat("#/components/schemas/", schema)}};
}

Json Content(absl::string_view type, Json schema) {
  return Json::Object{{std::string(type), Json::Object{{"schema", std::move(schema)}}}};
}

Json ErrorAnswer(absl::string_view description) {
  return Json::Object{{"description", description},
                      {"content", Content("application/json", Reference("Error"))}};
}

absl::string_view SchemaName(unsigned body_kind) {
  switch (body_kind) {
    case kChatBody:
      return "ChatRequest";
    case kCompletionBody:
      return "CompletionRequest";
    case kTokenizeBody:
      return "TokenizeRequest";
    default:
      return "DetokenizeRequest";
  }
}

Json ErrorSchema() {
  const Json text = Json::Object{{"type", "string"}};
  const Json text_or_null = Json::Object{{"type", Json::Array{"string", "null"}}};
  return Json::Object{
      {"type", "object"},
      {"required", Json::Array{"error"}},
      {"properties",
       Json::Object{
           {"error", Json::Object{{"type", "object"},
                                  {"required", Json::Array{"message", "type", "param", "code"}},
                                  {"properties", Json::Object{{"message", text},
                                                              {"type", text},
                                                              {"param", text_or_null},
                                                              {"code", text_or_null}}}}}}}};
}

Json Operation(const Route& route) {
  Json::Object answer = {{"description", "Done"}};
  const bool streams = route.body_kind == kChatBody || route.body_kind == kCompletionBody;
  const absl::string_view type = route.path == "/metrics" ? "text/plain" : "application/json";
  Json content = Content(
      type, type == "text/plain" ? Json(Json::Object{{"type", "string"}}) : Json(Json::Object{}));
  if (streams) {
    content.Set("text/event-stream", Json::Object{{"schema", Json::Object{{"type", "string"}}}});
  }
  answer.push_back({"content", std::move(content)});
  Json::Object answers = {{"200", std::move(answer)}};
  if (route.scope != Scope::kOpen) answers.push_back({"401", ErrorAnswer("No valid API key")});
  if (route.body_kind != 0) {
    answers.push_back({"400", ErrorAnswer("The request cannot be honoured")});
    answers.push_back({"413", ErrorAnswer("The body is too large")});
    answers.push_back({"415", ErrorAnswer("The body is not JSON")});
    answers.push_back({"429", ErrorAnswer("Come back later")});
  }
  answers.push_back({"404", ErrorAnswer("No such thing")});
  answers.push_back({"503", ErrorAnswer("Not able to serve now")});
  std::string id = absl::AsciiStrToLower(route.method);
  absl::StrAppend(&id, absl::StrReplaceAll(route.path, {{"/", "_"}, {"*", "id"}, {".", "_"}}));
  Json operation = Json::Object{
      {"operationId", id}, {"summary", route.summary}, {"responses", std::move(answers)}};
  if (route.scope != Scope::kOpen) {
    operation.Set("security", Json::Array{Json::Object{{"bearer", Json::Array{}}},
                                          Json::Object{{"header", Json::Array{}}}});
  }
  if (route.body_kind != 0) {
    operation.Set("requestBody",
                  Json::Object{{"required", true},
                               {"content", Content("application/json",
                                                   Reference(SchemaName(route.body_kind)))}});
  }
  if (absl::EndsWith(route.path, "*")) {
    operation.Set("parameters",
                  Json::Array{Json::Object{{"name", "id"},
                                           {"in", "path"},
                                           {"required", true},
                                           {"schema", Json::Object{{"type", "string"}}}}});
  }
  return operation;
}

}  // namespace

Json OpenApiDocument(const ApiContext& context) {
  Json paths = Json::Object{};
  for (const Route& route : Routes()) {
    const std::string path = absl::StrReplaceAll(route.path, {{"*", "{id}"}});
    if (paths.Find(path) == nullptr) paths.Set(path, Json::Object{});
    paths.Find(path)->Set(absl::AsciiStrToLower(route.method), Operation(route));
  }
  Json schemas = Json::Object{{"Error", ErrorSchema()}};
  for (const BodyKind kind : {kChatBody, kCompletionBody, kTokenizeBody, kDetokenizeBody}) {
    schemas.Set(SchemaName(kind), BodySchema(kind));
  }
  const Json bearer = Json::Object{{"type", "http"}, {"scheme", "bearer"}};
  const Json header = Json::Object{{"type", "apiKey"}, {"in", "header"}, {"name", "X-Api-Key"}};
  return Json::Object{
      {"openapi", "3.1.0"},
      {"info",
       Json::Object{{"title", "NeuroGrid"},
                    {"version", context.options.version.empty() ? "0" : context.options.version}}},
      {"paths", std::move(paths)},
      {"components",
       Json::Object{{"schemas", std::move(schemas)},
                    {"securitySchemes", Json::Object{{"bearer", bearer}, {"header", header}}}}}};
}

HttpResponse AnswerOpenApi(ApiContext& context, const RouteCall&) {
  return {.body = ToString(OpenApiDocument(context))};
}

}  // namespace neurogrid
