#include "coordinator/api_error.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"

namespace neurogrid {
namespace {

/// OpenAI's error classes; clients choose what to raise by the status and show this.
absl::string_view TypeOf(int status) {
  switch (status) {
    case 403:
      return "permission_error";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    case 500:
    case 504:
      return "server_error";
    default:
      return "invalid_request_error";
  }
}

}  // namespace

ApiError InvalidType(std::string param, std::string message) {
  return {.code = "invalid_type", .message = std::move(message), .param = std::move(param)};
}

ApiError InvalidValue(std::string param, std::string message) {
  return {.code = "invalid_value", .message = std::move(message), .param = std::move(param)};
}

ApiError MissingParameter(std::string param) {
  std::string message = absl::StrCat("Missing required parameter: '", param, "'.");
  return {.code = "missing_required_parameter",
          .message = std::move(message),
          .param = std::move(param)};
}

ApiError UnsupportedParameter(std::string param, std::string message) {
  return {
      .code = "unsupported_parameter", .message = std::move(message), .param = std::move(param)};
}

ApiError LimitExceeded(std::string param, std::string message) {
  return {.code = "limit_exceeded", .message = std::move(message), .param = std::move(param)};
}

ApiError InternalError(const std::string& request_id) {
  return {.status = 500,
          .code = "internal_error",
          .message = absl::StrCat("The server had an error; request id ", request_id, ".")};
}

ApiError ErrorOfStatus(const absl::Status& status, const std::string& request_id) {
  const std::string message(status.message());
  switch (status.code()) {
    case absl::StatusCode::kDeadlineExceeded:
      return {.status = 408, .code = "deadline_exceeded", .message = message, .never_retry = true};
    case absl::StatusCode::kResourceExhausted:
      return {.status = 429, .code = "queue_full", .message = message, .retry_after_s = 1};
    case absl::StatusCode::kInvalidArgument:
      return {.message = message};
    case absl::StatusCode::kAborted:
      return {
          .status = 422, .code = "request_quarantined", .message = message, .never_retry = true};
    case absl::StatusCode::kUnavailable: {
      // "worker_lost: one of the workers ...": the code stands before the colon.
      const size_t colon = message.find(": ");
      const bool named = colon != std::string::npos &&
                         std::all_of(message.begin(), message.begin() + colon,
                                     [](char c) { return c == '_' || (c >= 'a' && c <= 'z'); });
      const std::string code = named ? message.substr(0, colon) : "recovering";
      return {.status = code == "worker_timeout" ? 504 : 503,
              .code = code,
              .message = named ? message.substr(colon + 2) : message,
              .retry_after_s = 1};
    }
    default:
      LogError("request ", request_id, ": ", message);
      return InternalError(request_id);
  }
}

Json ErrorBody(const ApiError& error) {
  Json::Object object = {
      {"message", error.message},
      {"type", TypeOf(error.status)},
      {"param", error.param.empty() ? Json() : Json(error.param)},
      {"code", error.code},
  };
  object.insert(object.end(), error.extra.begin(), error.extra.end());
  return Json::Object{{"error", std::move(object)}};
}

HttpResponse ErrorResponse(const ApiError& error) {
  HttpResponse response{.status = error.status, .body = ToString(ErrorBody(error))};
  if (error.retry_after_s > 0) {
    const double seconds = std::clamp(error.retry_after_s, 0.05, 120.0);
    response.headers.emplace_back("Retry-After", absl::StrCat(RetryAfterSeconds(seconds)));
    response.headers.emplace_back("retry-after-ms",
                                  absl::StrCat(static_cast<int64_t>(std::ceil(seconds * 1000))));
  }
  if (error.never_retry) response.headers.emplace_back("x-should-retry", "false");
  return response;
}

int64_t RetryAfterSeconds(double seconds) {
  return static_cast<int64_t>(std::clamp(std::ceil(seconds), 1.0, 120.0));
}

}  // namespace neurogrid
