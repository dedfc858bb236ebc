#include "coordinator/generation_api.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/log.h"
#include "coordinator/answer_writer.h"
#include "coordinator/api_ids.h"
#include "coordinator/chat_request.h"
#include "coordinator/prompt_request.h"

namespace neurogrid {
namespace {

/// How often the peer is looked at: while a whole answer is made, and in a silent stream.
constexpr absl::Duration kWholePoll = absl::Milliseconds(50);
constexpr absl::Duration kStreamPoll = absl::Milliseconds(100);
/// How often a client hears that its text goes on as soon as the rest of the cluster has it.
constexpr absl::Duration kRecoveryNote = absl::Seconds(1);

ApiError DrainingError() {
  return {.status = 503,
          .code = "draining",
          .message = "The server is shutting down.",
          .retry_after_s = 5,
          .never_retry = true};
}

/// 20 percent either way, so that refused clients do not come back together.
double Jittered(double seconds) {
  const double share = static_cast<double>(RandomBits() >> 11) / 9007199254740992.0;  // [0, 1)
  return seconds * (0.8 + 0.4 * share);
}

ApiError ErrorOfRefusal(const Refusal& refusal, const PreparedRequest& prepared) {
  const double retry_after_s = Jittered(refusal.retry_after_s > 0 ? refusal.retry_after_s : 1);
  const auto unavailable = [&](const char* code) {
    return ApiError{
        .status = 503, .code = code, .message = refusal.message, .retry_after_s = retry_after_s};
  };
  switch (refusal.kind) {
    case Refusal::Kind::kQueueFull:
      return {.status = 429,
              .code = "queue_full",
              .message = refusal.message,
              .retry_after_s = retry_after_s};
    case Refusal::Kind::kRateLimited:
      return {.status = 429,
              .code = "rate_limit_exceeded",
              .message = refusal.message,
              .retry_after_s = retry_after_s};
    case Refusal::Kind::kLoading:
      return unavailable("loading");
    case Refusal::Kind::kNoWorkers:
      return unavailable("no_workers");
    case Refusal::Kind::kRecovering:
      return unavailable("recovering");
    case Refusal::Kind::kDraining:
      return DrainingError();
    case Refusal::Kind::kTooLong:
      break;
  }
  return {.code = "context_length_exceeded",
          .message = refusal.message,
          .param = prepared.chat ? "messages" : "prompt"};
}

absl::string_view PhaseName(Generation::State state) {
  switch (state) {
    case Generation::State::kQueued:
      return "queued";
    case Generation::State::kPrefill:
      return "prefill";
    case Generation::State::kRecovering:
      return "recovering";
    case Generation::State::kDecode:
      break;
  }
  return "decode";
}

/// A comment that keeps proxies and clients from giving up, and says what is going on.
std::string KeepAliveComment(const Generation::Progress& progress) {
  switch (progress.state) {
    case Generation::State::kQueued:
      return absl::StrCat(": queued ", progress.queue_position, " eta_ms ",
                          static_cast<int64_t>(progress.queue_eta_ms), "\n\n");
    case Generation::State::kPrefill:
      return absl::StrCat(": prefill ", progress.prefill_done, "/", progress.prefill_total, "\n\n");
    case Generation::State::kRecovering:
      return ": recovering\n\n";
    case Generation::State::kDecode:
      break;
  }
  return ": decoding\n\n";
}

void LogCancelled(ApiContext& context, const Generation& generation, const std::string& id) {
  const absl::string_view phase = PhaseName(generation.progress().state);
  context.metrics.AddCancelled(phase);
  LogInfo("request ", id, " cancelled in ", phase, ": the client left");
}

HttpResponse AnswerWhole(ApiContext& context, const PreparedRequest& prepared,
                         Generation& generation, const std::string& request_id, HttpPeer& peer) {
  AnswerWriter writer(context, prepared);
  while (true) {
    absl::StatusOr<std::vector<GenerationEvent>> events = generation.Next(kWholePoll);
    if (!events.ok()) return ErrorResponse(ErrorOfStatus(events.status(), request_id));
    for (const GenerationEvent& event : *events) writer.Add(event);
    if (events->empty() && generation.done()) break;
    if (context.ending) return ErrorResponse(DrainingError());
    if (!peer.alive()) {
      LogCancelled(context, generation, prepared.generation.id);
      return {.status = 499, .close = true};  // nobody reads it
    }
  }
  return {.body = ToString(writer.Whole(generation.usage()))};
}

/// What a stream needs until its end; the response function holds it.
struct OpenStream {
  PreparedRequest prepared;
  std::unique_ptr<Generation> generation;
  std::string request_id;
};

void AnswerStream(ApiContext& context, OpenStream& stream, HttpSink& sink) {
  AnswerWriter writer(context, stream.prepared);
  Generation& generation = *stream.generation;
  const auto fail = [&](const ApiError& error) {
    sink.Write(absl::StrCat(SseEvent(ErrorBody(error)), kSseDone));
  };
  std::string out = writer.Opening();
  absl::Time last_write = absl::Now();
  const absl::Duration keep_alive = absl::Milliseconds(context.options.sse_keepalive_ms);
  while (true) {
    if (const absl::Duration silent = absl::Now() - last_write;
        out.empty() && silent >= std::min(keep_alive, kRecoveryNote)) {
      const Generation::Progress progress = generation.progress();
      const bool recovering = progress.state == Generation::State::kRecovering;
      if (recovering || silent >= keep_alive) out = KeepAliveComment(progress);
    }
    if (!sink.alive() || (!out.empty() && !sink.Write(out))) {
      return LogCancelled(context, generation, stream.prepared.generation.id);
    }
    if (!out.empty()) last_write = absl::Now();
    const auto events = generation.Next(std::min(kStreamPoll, keep_alive));
    if (!events.ok()) return fail(ErrorOfStatus(events.status(), stream.request_id));
    if (events->empty() && generation.done()) break;
    if (context.ending) return fail(DrainingError());
    out = writer.Chunks(*events, generation.usage());
  }
  sink.Write(writer.Closing(generation.usage()));
}

HttpResponse Refused(ApiContext& context, const ApiError& error) {
  context.metrics.AddRefused(error.code);
  return ErrorResponse(error);
}

/// Hands the request to the generator and answers as it was asked for.
HttpResponse Run(ApiContext& context, PreparedRequest prepared, const HttpRequest& request,
                 HttpPeer& peer) {
  Refusal refusal;
  std::unique_ptr<Generation> generation = context.generator.Start(prepared.generation, &refusal);
  if (generation == nullptr) return Refused(context, ErrorOfRefusal(refusal, prepared));
  HttpResponse response;
  if (!prepared.stream) {
    response = AnswerWhole(context, prepared, *generation, request.request_id, peer);
  } else {
    const Generation::Progress progress = generation->progress();
    response.content_type = "text/event-stream";
    response.headers = {
        {"Cache-Control", "no-cache"},
        {"X-Accel-Buffering", "no"},
        {"X-Queue-Position", absl::StrCat(progress.queue_position)},
        {"X-Queue-Eta-Ms", absl::StrCat(static_cast<int64_t>(progress.queue_eta_ms))}};
    auto stream = std::make_shared<OpenStream>(
        OpenStream{prepared, std::move(generation), request.request_id});
    response.stream = [&context, stream](HttpSink& sink) {
      AnswerStream(context, *stream, sink);
      stream->generation = nullptr;  // frees its pages now, not when the response is destroyed
    };
  }
  if (!prepared.ignored.empty()) {
    response.headers.emplace_back("X-Ignored-Params", IgnoredParams(prepared.ignored));
  }
  return response;
}

void TakeAnswer(const ApiContext& context, ChatAnswer answer, PreparedRequest* prepared) {
  GenerationRequest& generation = prepared->generation;
  generation.format = std::move(answer.format);
  generation.one_call = answer.one_call;
  generation.reasoning_budget = answer.reasoning_budget;
  generation.reasoning_close = context.chat_format.think_close_ids;
  if (answer.banned_token >= 0) generation.sampling.bias.emplace_back(answer.banned_token, -100.f);
  prepared->include_reasoning = answer.include_reasoning;
}

MaybeError Prepare(ApiContext& context, const HttpRequest& request, const Caller& caller, bool chat,
                   PreparedRequest* prepared) {
  CheckedBody body;
  NG_RETURN_IF_REFUSED(ReadBody(context, request, chat ? kChatBody : kCompletionBody, &body));
  NG_RETURN_IF_REFUSED(CheckModel(context, body, &prepared->model));
  NG_RETURN_IF_REFUSED(CheckServing(context));
  NG_RETURN_IF_REFUSED(ReadGenerationParams(context, body, chat, prepared));
  if (chat) {
    ChatPrompt prompt;
    NG_RETURN_IF_REFUSED(ReadChatPrompt(context, body, &prompt));
    prepared->template_ms = prompt.template_ms;
    prepared->generation.prompts.push_back(std::move(prompt.tokens));
    TakeAnswer(context, std::move(prompt.answer), prepared);
  } else {
    NG_RETURN_IF_REFUSED(ReadPrompts(context, body, prepared));
  }
  prepared->generation.tenant = caller.key_id;
  prepared->ignored = std::move(body.ignored);
  return CheckRoom(context, *prepared);
}

HttpResponse Answer(ApiContext& context, const HttpRequest& request, const Caller& caller,
                    bool chat, HttpPeer& peer) {
  PreparedRequest prepared;
  if (const MaybeError error = Prepare(context, request, caller, chat, &prepared)) {
    return Refused(context, *error);
  }
  return Run(context, std::move(prepared), request, peer);
}

}  // namespace

std::string IgnoredParams(const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) {
    if (list.size() > 2000) return list + ", ...";
    if (!list.empty()) list += ", ";
    for (const char c : name.substr(0, 64)) {
      const auto byte = static_cast<unsigned char>(c);
      if (absl::ascii_isalnum(byte) || absl::StrContains("_.-[]", c)) {
        list += c;
      } else {
        absl::StrAppend(&list, "%", absl::Hex(byte, absl::kZeroPad2));
      }
    }
  }
  return list;
}

MaybeError CheckServing(const ApiContext& context) {
  if (context.draining || context.ending) return DrainingError();
  const auto unavailable = [](const char* code, const char* message) {
    return ApiError{.status = 503, .code = code, .message = message, .retry_after_s = Jittered(2)};
  };
  switch (context.generator.state()) {
    case ServingState::kLoading:
      return unavailable("loading", "The model is being loaded.");
    case ServingState::kWaitingForWorkers:
      return unavailable("no_workers", "The server waits for workers.");
    case ServingState::kRecovering:
      return unavailable("recovering", "A worker was lost; the server recovers.");
    case ServingState::kDraining:
      return DrainingError();
    case ServingState::kReady:
    case ServingState::kPlanning:      // the model moves to a better plan: requests wait for it
    case ServingState::kCanaryFailed:  // requests may still pass: only balancers look at it
      break;
  }
  return std::nullopt;
}

MaybeError ReadBody(const ApiContext& context, const HttpRequest& request, BodyKind kind,
                    CheckedBody* body) {
  if (request.body.empty()) {
    return ApiError{.code = "invalid_json", .message = "The body is empty: send a JSON object."};
  }
  absl::StatusOr<Json> json = ParseJson(request.body);
  if (!json.ok()) {
    return ApiError{
        .code = "invalid_json",
        .message = absl::StrCat("The body is not valid JSON: ", json.status().message(), ".")};
  }
  return CheckFields(*json, kind, context.options.params, body);
}

HttpResponse AnswerChat(ApiContext& context, const HttpRequest& request, const Caller& caller,
                        HttpPeer& peer) {
  return Answer(context, request, caller, /*chat=*/true, peer);
}

HttpResponse AnswerCompletion(ApiContext& context, const HttpRequest& request, const Caller& caller,
                              HttpPeer& peer) {
  return Answer(context, request, caller, /*chat=*/false, peer);
}

}  // namespace neurogrid
