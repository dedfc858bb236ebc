// The route table: method, path, scope, body cap, handler. What is not in it is refused.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "coordinator/api_context.h"
#include "coordinator/api_keys.h"
#include "coordinator/http_types.h"
#include "coordinator/request_fields.h"

namespace neurogrid {

/// What a handler gets beside the context.
struct RouteCall {
  const HttpRequest& request;
  Caller caller;
  HttpPeer& peer;
  std::string rest;  // of the path, for routes that take it
};
using RouteHandler = HttpResponse (*)(ApiContext& context, const RouteCall& call);

struct Route {
  /// There is no default: a row without a scope does not compile.
  constexpr Route(absl::string_view route_method, absl::string_view route_path, Scope route_scope,
                  RouteHandler route_handler, absl::string_view route_summary, unsigned body = 0)
      : method(route_method),
        path(route_path),
        scope(route_scope),
        handler(route_handler),
        summary(route_summary),
        body_kind(body) {}

  absl::string_view method;
  absl::string_view path;  // a final '*' takes the rest of the path, slashes included
  Scope scope;
  RouteHandler handler;
  absl::string_view summary;
  unsigned body_kind;  // of BodyKind; 0: no body
};

absl::Span<const Route> Routes();

/// The rows of a path; paths of /v1/ also answer without it.
struct RouteMatch {
  const Route* route = nullptr;  // the one of this method; HEAD finds GET
  bool path_known = false;
  Scope scope = Scope::kAdmin;  // of the path: the method's own, else any row's
  std::string allow;            // "GET, HEAD, OPTIONS"
  std::string rest;
};
RouteMatch FindRoute(absl::string_view method, absl::string_view path);

}  // namespace neurogrid
