#include "coordinator/routes.h"

#include <algorithm>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/generation_api.h"
#include "coordinator/info_api.h"
#include "coordinator/text_api.h"

namespace neurogrid {
namespace {

HttpResponse Chat(ApiContext& context, const RouteCall& call) {
  return AnswerChat(context, call.request, call.caller, call.peer);
}
HttpResponse Completion(ApiContext& context, const RouteCall& call) {
  return AnswerCompletion(context, call.request, call.caller, call.peer);
}

constexpr Route kRoutes[] = {
    {"POST", "/v1/chat/completions", Scope::kInfer, Chat, "Answer a conversation", kChatBody},
    {"POST", "/v1/completions", Scope::kInfer, Completion, "Continue a text", kCompletionBody},
    {"POST", "/v1/embeddings", Scope::kInfer, AnswerEmbeddings, "Not with this model",
     kCompletionBody},
    {"GET", "/v1/models", Scope::kInfer, AnswerModels, "Served models"},
    {"GET", "/v1/models/*", Scope::kInfer, AnswerModel, "One served model"},
    {"POST", "/tokenize", Scope::kInfer, AnswerTokenize, "Text to token ids", kTokenizeBody},
    {"POST", "/detokenize", Scope::kInfer, AnswerDetokenize, "Token ids to text", kDetokenizeBody},
    {"POST", "/apply-template", Scope::kInfer, AnswerApplyTemplate, "A conversation as a prompt",
     kChatBody},
    {"GET", "/tokenizer_info", Scope::kInfer, AnswerTokenizerInfo, "Special tokens and template"},
    {"GET", "/health", Scope::kOpen, AnswerHealth, "The server lives"},
    {"GET", "/ready", Scope::kOpen, AnswerReady, "The model answers"},
    {"GET", "/metrics", Scope::kRead, AnswerMetrics, "Figures for Prometheus"},
    {"GET", "/v1/cluster", Scope::kRead, AnswerCluster, "Nodes and plan"},
    {"GET", "/v1/cluster/info", Scope::kRead, AnswerCluster, "Nodes and plan"},
    {"GET", "/v1/requests", Scope::kRead, AnswerRequests, "Running and queued requests"},
    {"GET", "/props", Scope::kRead, AnswerProps, "Template, limits and defaults"},
    {"GET", "/openapi.json", Scope::kOpen, AnswerOpenApi, "This document"},
};

bool Matches(absl::string_view pattern, absl::string_view path, std::string* rest) {
  if (!absl::EndsWith(pattern, "*")) return pattern == path;
  pattern.remove_suffix(1);
  if (!absl::StartsWith(path, pattern) || path.size() == pattern.size()) return false;
  *rest = std::string(path.substr(pattern.size()));
  return true;
}

RouteMatch FindExactly(absl::string_view method, absl::string_view path) {
  RouteMatch match;
  std::vector<absl::string_view> allowed;
  const absl::string_view wanted = method == "HEAD" ? absl::string_view("GET") : method;
  for (const Route& route : kRoutes) {
    if (!Matches(route.path, path, &match.rest)) continue;
    if (!match.path_known || route.method == wanted) match.scope = route.scope;
    match.path_known = true;
    if (route.method == wanted) match.route = &route;
    allowed.push_back(route.method);
    if (route.method == "GET") allowed.push_back("HEAD");
  }
  allowed.push_back("OPTIONS");
  match.allow = absl::StrJoin(allowed, ", ");
  return match;
}

}  // namespace

absl::Span<const Route> Routes() { return kRoutes; }

RouteMatch FindRoute(absl::string_view method, absl::string_view path) {
  RouteMatch match = FindExactly(method, path);
  return match.path_known ? match : FindExactly(method, absl::StrCat("/v1", path));
}

}  // namespace neurogrid
