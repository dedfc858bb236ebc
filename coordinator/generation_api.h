// Runs a prepared request and answers it, whole or as server-sent events.
#pragma once

#include "coordinator/api_context.h"
#include "coordinator/generation_params.h"
#include "coordinator/http_types.h"

namespace neurogrid {

/// Why no new work is taken at the moment, if so.
MaybeError CheckServing(const ApiContext& context);

/// POST /v1/chat/completions and POST /v1/completions.
HttpResponse AnswerChat(ApiContext& context, const HttpRequest& request, const Caller& caller,
                        HttpPeer& peer);
HttpResponse AnswerCompletion(ApiContext& context, const HttpRequest& request, const Caller& caller,
                              HttpPeer& peer);

/// Parses a body and checks its fields against the table.
MaybeError ReadBody(const ApiContext& context, const HttpRequest& request, BodyKind kind,
                    CheckedBody* body);

/// Names for the header X-Ignored-Params; they come from outside and are cut and encoded.
std::string IgnoredParams(const std::vector<std::string>& names);

}  // namespace neurogrid
