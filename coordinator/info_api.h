// Routes that tell about the server: models, health, metrics, cluster, limits.
#pragma once

#include "coordinator/routes.h"

namespace neurogrid {

HttpResponse AnswerModels(ApiContext& context, const RouteCall& call);
HttpResponse AnswerModel(ApiContext& context, const RouteCall& call);
HttpResponse AnswerHealth(ApiContext& context, const RouteCall& call);
HttpResponse AnswerReady(ApiContext& context, const RouteCall& call);
HttpResponse AnswerMetrics(ApiContext& context, const RouteCall& call);
HttpResponse AnswerCluster(ApiContext& context, const RouteCall& call);
HttpResponse AnswerRequests(ApiContext& context, const RouteCall& call);
HttpResponse AnswerProps(ApiContext& context, const RouteCall& call);
HttpResponse AnswerEmbeddings(ApiContext& context, const RouteCall& call);
HttpResponse AnswerOpenApi(ApiContext& context, const RouteCall& call);

/// The OpenAPI 3.1 document, from the route and field tables.
Json OpenApiDocument(const ApiContext& context);

}  // namespace neurogrid
