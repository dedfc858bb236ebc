// Errors as clients get them: {"error":{message,type,param,code}} with the right status (api.md 3).
#pragma once

#include <optional>
#include <string>

#include "common/json.h"
#include "common/status.h"
#include "coordinator/http_types.h"

namespace neurogrid {

struct ApiError {
  int status = 400;
  std::string code = "invalid_value";
  std::string message = {};
  std::string param = {};    // path of the field; "": none
  Json::Object extra = {};   // further keys of the error object: counts
  double retry_after_s = 0;  // above 0: the retry headers are sent
  bool never_retry = false;  // x-should-retry: false, for clients that retry by status
};

/// Nothing means all is well.
using MaybeError = std::optional<ApiError>;

#define NG_RETURN_IF_REFUSED(expression)                                      \
  do {                                                                        \
    if (::neurogrid::MaybeError ng_refused = (expression)) return ng_refused; \
  } while (false)

ApiError InvalidType(std::string param, std::string message);
ApiError InvalidValue(std::string param, std::string message);
ApiError MissingParameter(std::string param);
ApiError UnsupportedParameter(std::string param, std::string message);
ApiError LimitExceeded(std::string param, std::string message);
/// 500 whose message names the request id alone; the cause goes to the log.
ApiError InternalError(const std::string& request_id);
/// What a generation's error is to its client. `request_id` stands in for what must stay inside.
ApiError ErrorOfStatus(const absl::Status& status, const std::string& request_id);

/// {"error":{...}} with all four keys.
Json ErrorBody(const ApiError& error);
/// The whole response, retry headers included.
HttpResponse ErrorResponse(const ApiError& error);

/// Retry-After in whole seconds from 1 to 120.
int64_t RetryAfterSeconds(double seconds);

}  // namespace neurogrid
