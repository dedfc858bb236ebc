// The HTTP API: routes, keys and handlers behind one HttpHandler.
#pragma once

#include <memory>

#include "common/status.h"
#include "coordinator/api_context.h"
#include "coordinator/api_keys.h"
#include "coordinator/http_types.h"
#include "coordinator/routes.h"

namespace neurogrid {

class Api final : public HttpHandler {
 public:
  /// Everything passed by reference must outlive the API. `chat_template` is null for a model
  /// without one. The error is that of a malformed key.
  static absl::StatusOr<std::unique_ptr<Api>> Create(Generator& generator,
                                                     const Tokenizer& tokenizer,
                                                     const ChatTemplate* chat_template,
                                                     ModelInfo model, ApiOptions options,
                                                     ServingMetrics& metrics);

  Admission Admit(const HttpRequest& head) override;
  HttpResponse Answer(const HttpRequest& request, HttpPeer& peer) override;
  void Refused(absl::string_view code) override { context_.metrics.AddRefused(code); }

  /// New work gets 503 draining from now on, and /ready says so.
  void BeginDrain() { context_.draining = true; }
  /// What still runs ends with an error, streams with an error event.
  void EndRequests() { context_.ending = true; }

 private:
  Api(Generator& generator, const Tokenizer& tokenizer, const ChatTemplate* chat_template,
      ModelInfo model, ApiOptions options, ServingMetrics& metrics, ApiKeys keys);
  std::optional<HttpResponse> Refusal(const HttpRequest& head, const RouteMatch& match) const;
  void AddCors(const HttpRequest& request, const RouteMatch& match, HttpResponse* response) const;

  ApiContext context_;
  const ApiKeys keys_;
};

}  // namespace neurogrid
