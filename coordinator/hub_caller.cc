#include "coordinator/hub_caller.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace neurogrid {
namespace {

constexpr size_t kErrorBodyBytesMax = 64 << 10;

bool IsRedirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

}  // namespace

absl::StatusOr<Url> ParseEndpoint(const std::string& endpoint) {
  absl::StatusOr<Url> url = ParseUrl(endpoint);
  if (!url.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("HF_ENDPOINT: ", url.status().message()));
  }
  if (!url->tls && !url->OnLoopback()) {
    return absl::InvalidArgumentError(absl::StrCat("HF_ENDPOINT is ", url->Origin(),
                                                   ", which is not encrypted: only https is used"));
  }
  if (absl::StrContains(url->target, '?')) {
    return absl::InvalidArgumentError("HF_ENDPOINT has a query part: expected https://HOST/PATH");
  }
  while (absl::EndsWith(url->target, "/")) url->target.pop_back();
  return url;
}

absl::StatusOr<HubAnswer> HubCaller::Call(HubRequest request) {
  for (int hops = 0; hops <= kHubRedirectsMax; ++hops) {
    HubRequest one = request;
    one.token = request.url.SameOrigin(endpoint_) ? settings_.token : "";
    HubAnswer answer;
    answer.url = request.url;
    bool good = false;
    one.on_head = [&](const HubHead& head) {
      answer.head = head;
      good = head.status >= 200 && head.status < 300;
      return !good || !request.on_head || request.on_head(head);
    };
    one.on_body = [&](absl::string_view bytes) {
      if (good) return request.on_body(bytes);
      absl::StrAppend(&answer.body, bytes.substr(0, kErrorBodyBytesMax - answer.body.size()));
      return answer.body.size() < kErrorBodyBytesMax;
    };
    const absl::StatusOr<HubHead> sent = transport_.Send(one);
    // Of an error or a redirect the head is enough, however long its body is.
    if (!sent.ok() && (!absl::IsAborted(sent.status()) || good || answer.head.status == 0)) {
      return sent.status();
    }
    if (sent.ok()) answer.head = *sent;
    if (!IsRedirect(answer.head.status)) return answer;
    NG_ASSIGN_OR_RETURN(Url next, FollowRedirect(request.url, answer.head.Find("location")));
    if (request.head_only && !next.SameOrigin(request.url)) return answer;
    request.url = std::move(next);
  }
  return absl::FailedPreconditionError(
      absl::StrCat(request.url.Origin(), " redirects more than ", kHubRedirectsMax, " times"));
}

absl::StatusOr<std::string> HubCaller::Get(const Url& url, int64_t bytes_max,
                                           const HubQuestion& question, int& wait_s) {
  std::string body;
  HubRequest request{.url = url, .token = "", .on_head = {}, .on_body = {}};
  request.on_body = [&](absl::string_view bytes) {
    absl::StrAppend(&body, bytes);
    return static_cast<int64_t>(body.size()) <= bytes_max;
  };
  absl::StatusOr<HubAnswer> answer = Call(std::move(request));
  if (static_cast<int64_t>(body.size()) > bytes_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat(url.Origin(), " answers with more than ", bytes_max >> 20, " MiB"));
  }
  if (!answer.ok()) return answer.status();
  if (answer->head.status < 300) return body;
  wait_s = RetryAfterSeconds(answer->head).value_or(0);
  return ExplainAnswer(question, answer->head, answer->body);
}

absl::StatusOr<HubHead> HubCaller::Head(const Url& url, const HubQuestion& question, int& wait_s) {
  HubRequest request{.url = url, .head_only = true, .token = "", .on_head = {}, .on_body = {}};
  NG_ASSIGN_OR_RETURN(const HubAnswer answer, Call(std::move(request)));
  if (answer.head.status < 400) return answer.head;
  wait_s = RetryAfterSeconds(answer.head).value_or(0);
  return ExplainAnswer(question, answer.head, answer.body);
}

int RetryDelayMs(const HubSettings& settings, int tries, int wait_s) {
  return std::max(settings.retry_delay_ms << std::min(tries, 10), wait_s * 1000);
}

bool SleepUnlessStopped(int milliseconds, const std::atomic<bool>& stop) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
  while (!stop) {
    const auto left = end - std::chrono::steady_clock::now();
    if (left <= left.zero()) return true;
    std::this_thread::sleep_for(
        std::min<std::chrono::nanoseconds>(left, std::chrono::milliseconds(50)));
  }
  return false;
}

absl::Status WithRetries(const HubSettings& settings, const std::atomic<bool>& stop,
                         const std::function<absl::Status(int& wait_s)>& attempt) {
  for (int tries = 0;; ++tries) {
    int wait_s = 0;
    const absl::Status status = attempt(wait_s);
    if (stop) return absl::CancelledError("stopped");
    if (!absl::IsUnavailable(status) || tries + 1 == kHubTriesMax) return status;
    if (!SleepUnlessStopped(RetryDelayMs(settings, tries, wait_s), stop)) {
      return absl::CancelledError("stopped");
    }
  }
}

}  // namespace neurogrid
