#include <catch2/catch_test_macros.hpp>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "tests/http/http_client.h"

namespace neurogrid {
namespace {

constexpr const char* kChat = "/v1/chat/completions";
constexpr const char* kHello = R"({"messages":[{"role":"user","content":"Hi"}]})";

/// A chat body about one "Hi" with more fields.
std::string Ask(const std::string& fields) {
  return absl::StrCat(R"({"messages":[{"role":"user","content":"Hi"}],)", fields, "}");
}

/// Ids and times differ from run to run.
std::string Steady(const std::string& body, const Json& any_object) {
  return absl::StrReplaceAll(
      body,
      {{any_object.Find("id")->as_string(), "ID"},
       {absl::StrCat("\"created\":", any_object.Find("created")->as_integer()), "\"created\":1"}});
}

/// The JSON of every data line but [DONE]; comments are left out.
std::vector<Json> Events(const std::string& body) {
  std::vector<Json> events;
  for (absl::string_view block : absl::StrSplit(body, "\n\n")) {
    if (absl::ConsumePrefix(&block, "data: ") && block != "[DONE]") {
      events.push_back(ParseJson(block).value());
    }
  }
  return events;
}

TEST_CASE("a chat completion answers whole, in OpenAI's shape", "[http]") {
  const TestServer server;
  const RawResponse response = server.Post(kChat, kHello);
  REQUIRE(response.status == 200);
  const Json body = response.json();
  CHECK(absl::StartsWith(body.Find("id")->as_string(), "chatcmpl-"));
  CHECK(body.Find("id")->as_string().size() == 9 + 24);
  // <|im_start|>, "user\n", "Hi", <|im_end|>, "\n", <|im_start|>, "assistant\n": 1+5+2+1+1+1+10
  CHECK(Steady(response.body, body) ==
        R"({"id":"ID","object":"chat.completion","created":1,"model":"tiny/model",)"
        R"("system_fingerprint":"fp_0123456789abcdef","choices":[{"index":0,"message":)"
        R"({"role":"assistant","content":"Hello","refusal":null},"logprobs":null,)"
        R"("finish_reason":"stop","stop_reason":null}],"usage":{"prompt_tokens":21,)"
        R"("completion_tokens":6,"total_tokens":27,"prompt_tokens_details":{"cached_tokens":0},)"
        R"("completion_tokens_details":{"reasoning_tokens":0}}})");
}

TEST_CASE("a streamed chat completion is these bytes", "[http]") {
  const TestServer server;
  const RawResponse response =
      server.Post(kChat, Ask(R"("stream":true,"stream_options":{"include_usage":true})"));
  REQUIRE(response.status == 200);
  CHECK(response.Header("Content-Type") == "text/event-stream");
  CHECK(response.Header("Cache-Control") == "no-cache");
  CHECK(response.Header("X-Accel-Buffering") == "no");
  CHECK(response.Header("Content-Length").empty());
  CHECK(response.Header("X-Queue-Position") == "0");
  const std::string head =
      R"(data: {"id":"ID","object":"chat.completion.chunk","created":1,"model":"tiny/model",)"
      R"("system_fingerprint":"fp_0123456789abcdef","choices":[)";
  CHECK(Steady(response.body, Events(response.body)[0]) ==
        absl::StrCat(
            head, R"({"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,)",
            R"("finish_reason":null}],"usage":null})", "\n\n",  //
            head, R"({"index":0,"delta":{"content":"Hel"},"logprobs":null,)",
            R"("finish_reason":null}],"usage":null})", "\n\n",  //
            head, R"({"index":0,"delta":{"content":"lo"},"logprobs":null,)",
            R"("finish_reason":null}],"usage":null})", "\n\n",  //
            head, R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"stop",)",
            R"("stop_reason":null}],"usage":null})", "\n\n",  //
            head, R"(],"usage":{"prompt_tokens":21,"completion_tokens":6,"total_tokens":27,)",
            R"("prompt_tokens_details":{"cached_tokens":0},)",
            R"("completion_tokens_details":{"reasoning_tokens":0}}})", "\n\n",  //
            "data: [DONE]\n\n"));
}

TEST_CASE("no chunk speaks of usage when it was not asked for", "[http]") {
  const TestServer server;
  const RawResponse response = server.Post(kChat, Ask(R"("stream":true)"));
  for (const Json& event : Events(response.body)) CHECK(event.Find("usage") == nullptr);
}

TEST_CASE("continuous usage stands in every chunk", "[http]") {
  const TestServer server;
  const RawResponse response =
      server.Post(kChat, Ask(R"("stream":true,"stream_options":{"continuous_usage_stats":true})"));
  const std::vector<Json> events = Events(response.body);
  for (size_t i = 1; i < events.size(); ++i) CHECK(events[i].Find("usage")->is_object());
  CHECK(events.back().Find("choices")->as_array().empty());
}

/// What a client makes of the chunks of a chat stream.
Json Merge(const std::vector<Json>& events) {
  std::map<int64_t, Json> choices;
  Json merged = Json::Object{};
  for (const Json& event : events) {
    for (const char* key :
         {"id", "created", "model", "system_fingerprint", "usage", "timings", "prompt_token_ids"}) {
      const Json* value = event.Find(key);
      if (value != nullptr && !value->is_null()) merged.Set(key, *value);
    }
    for (const Json& chunk : event.Find("choices")->as_array()) {
      const auto [at, is_new] = choices.try_emplace(chunk.Find("index")->as_integer());
      Json& choice = at->second;
      const Json& delta = *chunk.Find("delta");
      if (is_new) {
        REQUIRE(delta.Find("role") != nullptr);
        choice = Json::Object{
            {"index", *chunk.Find("index")},
            {"message",
             Json::Object{{"role", *delta.Find("role")}, {"content", ""}, {"refusal", nullptr}}},
            {"logprobs", nullptr}};
      } else {
        REQUIRE(delta.Find("role") == nullptr);
      }
      if (const Json* content = delta.Find("content")) {
        Json& text = *choice.Find("message")->Find("content");
        text = Json(text.as_string() + content->as_string());
      }
      if (const Json* logprobs = chunk.Find("logprobs"); !logprobs->is_null()) {
        if (choice.Find("logprobs")->is_null()) {
          choice.Set("logprobs", *logprobs);
        } else {
          Json::Array& all = choice.Find("logprobs")->Find("content")->as_array();
          const Json::Array& more = logprobs->Find("content")->as_array();
          all.insert(all.end(), more.begin(), more.end());
        }
      }
      if (const Json* ids = chunk.Find("token_ids")) {
        if (choice.Find("token_ids") == nullptr) choice.Set("token_ids", Json::Array{});
        Json::Array& all = choice.Find("token_ids")->as_array();
        all.insert(all.end(), ids->as_array().begin(), ids->as_array().end());
      }
      if (!chunk.Find("finish_reason")->is_null()) {
        choice.Set("finish_reason", *chunk.Find("finish_reason"));
        choice.Set("stop_reason", *chunk.Find("stop_reason"));
      }
    }
  }
  Json::Array list;
  for (auto& [index, choice] : choices) list.push_back(std::move(choice));
  merged.Set("choices", std::move(list));
  return merged;
}

/// Two choices whose events interleave, with text held back, several events at once, and ends at
/// different times.
FakeScript Tangled() {
  FakeScript script;
  GenerationEvent held = TextEvent(1, "b");
  held.pieces = {};  // may begin a stop string
  GenerationEvent released = TextEvent(1, "c");
  released.pieces = {{AnswerPiece::Kind::kContent, "bc"}};
  script.batches = {{TextEvent(1, "a"), TextEvent(0, "x")},
                    {held},
                    {TextEvent(0, "y"), TextEvent(0, "z")},
                    {released, EndEvent(0, FinishReason::kLength, Json("max_tokens"))},
                    {EndEvent(1, FinishReason::kStop, Json("END"))}};
  script.usage = {.prompt_tokens = 21, .completion_tokens = 7, .cached_tokens = 16};
  return script;
}

TEST_CASE("the merged stream is the whole answer", "[http]") {
  TestServer server;
  server.generator.script = [](const GenerationRequest&) { return Tangled(); };
  for (const char* fields :
       {R"("n":2)", R"("n":2,"logprobs":true,"top_logprobs":2)", R"("n":2,"return_token_ids":true)",
        R"("n":2,"logprobs":true,"return_token_ids":true)", R"("n":2,"timings":true,"seed":5)"}) {
    CAPTURE(fields);
    Json whole = server.Post(kChat, Ask(fields)).json();
    const bool timed = whole.Find("timings") != nullptr;
    const RawResponse streamed = server.Post(
        kChat,
        Ask(absl::StrCat(fields, R"(,"stream":true,"stream_options":{"include_usage":true})")));
    Json merged = Merge(Events(streamed.body));
    merged.Set("object", "chat.completion");
    for (const char* key : {"id", "created", "timings"}) {
      if (!timed && absl::string_view(key) == "timings") continue;
      REQUIRE(merged.Find(key) != nullptr);
      whole.Set(key, 0);
      merged.Set(key, 0);
    }
    CHECK(ToString(merged, {.sort_keys = true}) == ToString(whole, {.sort_keys = true}));
  }
}

TEST_CASE("every choice opens with its role before any text", "[http]") {
  TestServer server;
  server.generator.script = [](const GenerationRequest&) { return Tangled(); };
  const RawResponse response = server.Post(kChat, Ask(R"("n":2,"stream":true)"));
  const std::vector<Json> events = Events(response.body);
  for (size_t i = 0; i < events.size(); ++i) {
    const Json& choice = events[i].Find("choices")->as_array()[0];
    CHECK((choice.Find("delta")->Find("role") != nullptr) == (i < 2));
    if (i < 2) CHECK(choice.Find("index")->as_integer() == static_cast<int64_t>(i));
    CHECK(*events[i].Find("id") == *events[0].Find("id"));
    CHECK(*events[i].Find("created") == *events[0].Find("created"));
  }
}

TEST_CASE("chat logprobs name every token with its bytes", "[http]") {
  TestServer server;
  server.generator.script = [](const GenerationRequest&) {
    FakeScript script;
    GenerationEvent event;
    event.pieces = {{AnswerPiece::Kind::kContent, "\xc3\xa9"}};
    event.tokens = {{0xc3, 0.0f, {{0xc3, 0.0f}}}, {0xa9, -20000.0f, {}}};
    script.batches = {{event}, {EndEvent(0, FinishReason::kStop)}};
    return script;
  };
  const Json body = server.Post(kChat, Ask(R"("logprobs":true,"top_logprobs":1)")).json();
  CHECK(
      ToString(*body.Find("choices")->as_array()[0].Find("logprobs")) ==
      "{\"content\":["
      "{\"token\":\"\xef\xbf\xbd\",\"logprob\":0.0,\"bytes\":[195],\"top_logprobs\":"
      "[{\"token\":\"\xef\xbf\xbd\",\"logprob\":0.0,\"bytes\":[195]}]},"
      "{\"token\":\"\xef\xbf\xbd\",\"logprob\":-9999.0,\"bytes\":[169],\"top_logprobs\":[]},"
      "{\"token\":\"<|im_end|>\",\"logprob\":-0.1,\"bytes\":[60,124,105,109,95,101,110,100,124,62],"
      "\"top_logprobs\":[]}],\"refusal\":null}");
}

TEST_CASE("user text goes to the tokenizer as input, template text as template", "[http][R31]") {
  TestServer server;
  server.Post(kChat, R"({"messages":[{"role":"user","content":"<|im_end|>"}]})");
  const std::vector<int32_t> prompt = server.generator.last().prompts[0];
  CHECK(std::count(prompt.begin(), prompt.end(), FakeTokenizer::kTurnEnd) == 1);
  CHECK(std::count(prompt.begin(), prompt.end(), FakeTokenizer::kTurn) == 2);
}

TEST_CASE("BOS is added once where the template does not print it", "[http]") {
  TestServer server;
  server.tokenizer.wants_bos = true;
  server.Post(kChat, kHello);
  CHECK(server.generator.last().prompts[0][0] == FakeTokenizer::kBos);
  CHECK(server.generator.last().prompts[0][1] == FakeTokenizer::kTurn);
}

TEST_CASE("messages reach the template in one form", "[http]") {
  TestServer server;
  const std::string body = R"({"messages":[
    {"role":"developer","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"name":null},
    {"role":"assistant","content":null,"reasoning":"r","tool_calls":[{"id":"1","type":"function",
     "function":{"name":"f","arguments":"{\"x\":1}"}}]},
    {"role":"tool","tool_call_id":"1","content":"2"}],
    "chat_template_kwargs":{"enable_thinking":false},"add_generation_prompt":false})";
  CHECK(server.Post(kChat, body).status == 200);
  CHECK(ToString(server.chat_template.last().messages) ==
        R"([{"role":"system","content":"a\nb"},{"role":"assistant","content":null,)"
        R"("reasoning_content":"r","tool_calls":[{"id":"1","type":"function","function":)"
        R"({"name":"f","arguments":{"x":1}}}]},{"role":"tool","tool_call_id":"1","content":"2"}])");
  CHECK(ToString(server.chat_template.last().kwargs) == R"({"enable_thinking":false})");
  CHECK_FALSE(server.chat_template.last().add_generation_prompt);
  server.chat_template.lists = true;
  CHECK(server.Post(kChat, body).status == 200);
  CHECK(server.chat_template.last().messages.as_array()[0].Find("content")->is_array());
}

TEST_CASE("the last assistant message can be continued", "[http]") {
  TestServer server;
  CHECK(server
            .Post(kChat, R"({"messages":[{"role":"user","content":"a"},{"role":"assistant",
                             "content":"b"}],"continue_final_message":true})")
            .status == 200);
  CHECK(server.chat_template.last().continue_final_message);
  CHECK_FALSE(server.chat_template.last().add_generation_prompt);
  CHECK(server.generator.last().prompts[0].back() == 'b');
}

TEST_CASE("fields reach the generator", "[http]") {
  TestServer server;
  server.Post(kChat, Ask(R"("temperature":0.25,"top_p":0.5,"top_k":7,"min_p":0.1,"n":3,"seed":-5,
    "presence_penalty":1,"frequency_penalty":-1,"repeat_penalty":1.5,"repeat_last_n":9,
    "logit_bias":{"65":-100,"66":2.5},"stop":["a","<|im_end|>"],"stop_token_ids":[3],
    "max_tokens":9,"max_completion_tokens":8.0,"min_tokens":2,"ignore_eos":true,
    "include_stop_str_in_output":true,"skip_special_tokens":false,"cache_prompt":false,
    "cache_salt":"s","timeout_ms":1500,"logprobs":true,"top_logprobs":4)"));
  const GenerationRequest last = server.generator.last();
  CHECK(last.sampling.temperature == 0.25f);
  CHECK(last.sampling.top_p == 0.5f);
  CHECK(last.sampling.top_k == 7);
  CHECK(last.sampling.min_p == 0.1f);
  CHECK(last.sampling.presence_penalty == 1);
  CHECK(last.sampling.frequency_penalty == -1);
  CHECK(last.sampling.repetition_penalty == 1.5f);
  CHECK(last.sampling.repeat_last_n == 9);
  CHECK(last.sampling.seed == static_cast<uint64_t>(-5));
  CHECK(last.sampling.top_logprobs == 4);
  CHECK(last.sampling.bias == std::vector<std::pair<int32_t, float>>{{65, -100.f}, {66, 2.5f}});
  CHECK(last.n == 3);
  CHECK(last.stops == std::vector<std::string>{"a", "<|im_end|>"});
  CHECK(last.stop_ids == std::vector<int32_t>{FakeTokenizer::kTurnEnd, 3});
  CHECK(last.end_ids == server.tokenizer.end_ids());
  CHECK(last.tokens_max == 8);
  CHECK(last.tokens_min == 2);
  CHECK(last.ignore_eos);
  CHECK(last.include_stop_text);
  CHECK_FALSE(last.skip_special);
  CHECK_FALSE(last.use_cache);
  CHECK(last.cache_salt == "s");
  CHECK(last.timeout == absl::Milliseconds(1500));
}

TEST_CASE("without fields the model's defaults and the rest of the context hold", "[http]") {
  TestServer server;
  server.Post(kChat, R"({"messages":[{"role":"user","content":"Hi"}],"max_tokens":null})");
  const GenerationRequest first = server.generator.last();
  CHECK(first.sampling.temperature == 1);
  CHECK(first.sampling.top_k == 0);
  CHECK(first.sampling.top_logprobs == -1);
  CHECK(first.tokens_max == server.generator.context);
  CHECK(first.n == 1);
  server.Post(kChat, kHello);
  CHECK(server.generator.last().sampling.seed != first.sampling.seed);
  CHECK(server.generator.last().id != first.id);
}

TEST_CASE("a stop text that is a special token stops by id and is named by its text", "[http]") {
  TestServer server;
  server.generator.script = [](const GenerationRequest&) {
    FakeScript script;
    script.batches = {{EndEvent(0, FinishReason::kStop, Json(FakeTokenizer::kTurnEnd))}};
    return script;
  };
  const Json body = server.Post(kChat, Ask(R"("stop":"<|im_end|>")")).json();
  CHECK(body.Find("choices")->as_array()[0].Find("stop_reason")->as_string() == "<|im_end|>");
}

TEST_CASE("what is ignored is named, in a header without the client's bytes", "[http][R41]") {
  const TestServer server;
  const RawResponse response =
      server.Post(kChat, Ask(R"("user":"u","a\r\nX: y":1,"metadata":{},"store":true)"));
  CHECK(response.status == 200);
  CHECK(response.Header("X-Ignored-Params") == "user, a%0d%0aX%3a%20y, metadata, store");
  CHECK(response.Header("X").empty());
}

TEST_CASE("an error after the headers is an event, then [DONE]", "[http]") {
  TestServer server;
  server.generator.script = [](const GenerationRequest&) {
    FakeScript script;
    script.batches = {{TextEvent(0, "a")}};
    script.end = absl::UnavailableError("worker_lost: A worker was lost while it answered.");
    return script;
  };
  const RawResponse streamed = server.Post(kChat, Ask(R"("stream":true)"));
  CHECK(streamed.status == 200);
  CHECK(absl::EndsWith(
      streamed.body,
      "data: {\"error\":{\"message\":\"A worker was lost while it answered.\",\"type\":"
      "\"overloaded_error\",\"param\":null,\"code\":\"worker_lost\"}}\n\ndata: [DONE]\n\n"));
  const RawResponse whole = server.Post(kChat, kHello);
  CHECK(whole.status == 503);
  CHECK(whole.json().Find("error")->Find("code")->as_string() == "worker_lost");
}

TEST_CASE("an inner error tells the request id and nothing else", "[http][R39]") {
  TestServer server;
  server.generator.script = [](const GenerationRequest&) {
    FakeScript script;
    script.end = absl::InternalError("stage 2 on host secret: /etc/passwd");
    return script;
  };
  const RawResponse response = server.Post(kChat, kHello, "X-Request-Id: r1\r\n");
  CHECK(response.status == 500);
  CHECK(response.body ==
        R"({"error":{"message":"The server had an error; request id r1.","type":"server_error",)"
        R"("param":null,"code":"internal_error"}})");
}

TEST_CASE("an exception in a handler is that request's own error", "[http]") {
  TestServer server;
  server.generator.script = [](const GenerationRequest&) -> FakeScript {
    throw std::runtime_error("secret");
  };
  const RawResponse response = server.Post(kChat, kHello);
  CHECK(response.status == 500);
  CHECK_FALSE(absl::StrContains(response.body, "secret"));
  CHECK(server.Get("/health").status == 200);
}

TEST_CASE("a deadline before the first token is 408 that is not to be retried", "[http]") {
  TestServer server;
  server.generator.script = [](const GenerationRequest&) {
    FakeScript script;
    script.end = absl::DeadlineExceededError("The request took longer than 5 ms.");
    return script;
  };
  const RawResponse response = server.Post(kChat, Ask(R"("timeout_ms":5)"));
  CHECK(response.status == 408);
  CHECK(response.Header("x-should-retry") == "false");
}

TEST_CASE("a full queue is 429 with both retry headers", "[http]") {
  TestServer server;
  server.generator.refusal = Refusal{Refusal::Kind::kQueueFull, "The queue is full: 256.", 10};
  const RawResponse response = server.Post(kChat, kHello);
  CHECK(response.status == 429);
  CHECK(response.json().Find("error")->Find("type")->as_string() == "rate_limit_error");
  CHECK(response.json().Find("error")->Find("code")->as_string() == "queue_full");
  const int64_t seconds = std::stoll(response.Header("Retry-After"));
  const int64_t ms = std::stoll(response.Header("retry-after-ms"));
  CHECK(ms >= 8000);
  CHECK(ms <= 12001);
  CHECK(seconds == (ms + 999) / 1000);
}

TEST_CASE("what cannot serve now says why with 503", "[http]") {
  TestServer server;
  const std::pair<ServingState, const char*> states[] = {
      {ServingState::kLoading, "loading"},
      {ServingState::kWaitingForWorkers, "no_workers"},
      {ServingState::kRecovering, "recovering"},
      {ServingState::kDraining, "draining"}};
  for (const auto& [state, code] : states) {
    CAPTURE(code);
    server.generator.serving_state = state;
    const RawResponse response = server.Post(kChat, kHello);
    CHECK(response.status == 503);
    CHECK(response.json().Find("error")->Find("code")->as_string() == code);
    CHECK_FALSE(response.Header("Retry-After").empty());
    CHECK(server.Get("/ready").status == 503);
  }
  server.generator.serving_state = ServingState::kReady;
  server.api->BeginDrain();
  const RawResponse response = server.Post(kChat, kHello);
  CHECK(response.status == 503);
  CHECK(response.Header("x-should-retry") == "false");
  CHECK(response.Header("Connection") == "close");
  CHECK(server.generator.started() == 0);
}

TEST_CASE("ending the server ends streams with an error event", "[http]") {
  TestServer server;
  server.generator.script = [](const GenerationRequest&) { return FakeScript{.forever = true}; };
  RawConnection connection(server.port());
  connection.Send(PostText(kChat, Ask(R"("stream":true)")));
  connection.ReadUntil("assistant");
  server.api->EndRequests();
  const std::string rest = connection.ReadToEnd();
  CHECK(absl::StrContains(rest, "\"code\":\"draining\""));
  CHECK(absl::StrContains(rest, "data: [DONE]"));
  CHECK(server.generator.running == 0);
}

TEST_CASE("a prompt beyond the context is refused with both counts", "[http]") {
  TestServer server;
  server.generator.context = 30;
  const RawResponse response =
      server.Post(kChat, R"({"messages":[{"role":"user","content":"twelve chars"}]})");
  CHECK(response.status == 400);
  CHECK(response.body ==
        R"({"error":{"message":"This model's maximum context length is 30 tokens, but the prompt )"
        R"(has 31.","type":"invalid_request_error","param":"messages",)"
        R"("code":"context_length_exceeded","prompt_tokens":31,"max_context":30}})");
  // Far too long: refused by its bytes, and not rendered at all.
  server.chat_template.Forget();
  const RawResponse huge =
      server.Post(kChat, absl::StrCat(R"({"messages":[{"role":"user","content":")",
                                      std::string(5000, 'a'), R"("}]})"));
  CHECK(huge.status == 400);
  CHECK(huge.json().Find("error")->Find("code")->as_string() == "context_length_exceeded");
  CHECK(server.chat_template.last().messages.is_null());
}

TEST_CASE("an answer needs room for one token, or for min_tokens", "[http]") {
  TestServer server;
  server.generator.context = 22;
  CHECK(server.Post(kChat, kHello).status == 200);  // 21 + 1
  CHECK(server.Post(kChat, Ask(R"("min_tokens":2)")).status == 400);
  server.generator.context = 21;
  CHECK(server.Post(kChat, kHello).status == 400);
}

TEST_CASE("a client that leaves frees its generation", "[http][R53][P1]") {
  TestServer server;
  server.generator.script = [](const GenerationRequest& request) {
    FakeScript script{.forever = true};
    const auto phase = static_cast<Generation::State>(request.n - 1);
    script.progress.state = phase;
    if (phase == Generation::State::kDecode) script.batches = {{TextEvent(0, "a")}};
    return script;
  };
  for (const char* phase : {R"("n":1)", R"("n":2)", R"("n":3)"}) {
    for (const char* mode : {"", R"(,"stream":true)"}) {
      for (const bool half : {false, true}) {
        CAPTURE(phase, mode, half);
        RawConnection connection(server.port());
        connection.Send(PostText(kChat, Ask(absl::StrCat(phase, mode))));
        CHECK(Eventually([&] { return server.generator.running == 1; }));
        half ? connection.HalfClose() : connection.Close();
        CHECK(Eventually([&] { return server.generator.running == 0; }));
      }
    }
  }
  CHECK(Eventually([&] { return server.server->requests_in_flight() == 0; }));
  const std::string metrics = server.Get("/metrics").body;
  for (const char* phase : {"queued", "prefill", "decode"}) {
    CHECK(absl::StrContains(
        metrics, absl::StrCat("neurogrid_requests_cancelled_total{phase=\"", phase, "\"} 4")));
  }
}

TEST_CASE("a client that reads nothing is cut after the stall limit", "[http][P2]") {
  HttpLimits limits;
  limits.stall_timeout_ms = 200;
  TestServer server({}, limits);
  server.generator.script = [](const GenerationRequest&) {
    FakeScript script{.forever = true};
    script.batches.assign(500, {TextEvent(0, std::string(16384, 'a'))});
    return script;
  };
  RawConnection connection(server.port());
  connection.Send(PostText(kChat, Ask(R"("stream":true)")));
  CHECK(Eventually([&] { return server.generator.started() == 1; }));
  CHECK(Eventually([&] { return server.generator.running == 0; }));
}

TEST_CASE("silence is filled with comments that say what happens", "[http]") {
  TestServer server({.sse_keepalive_ms = 20});
  server.generator.script = [](const GenerationRequest& request) {
    FakeScript script{.forever = true};
    if (request.n == 1) script.progress = {Generation::State::kQueued, 3, 2100, 0, 0};
    if (request.n == 2) script.progress = {Generation::State::kPrefill, 0, 0, 4096, 20000};
    if (request.n == 3) script.progress.state = Generation::State::kDecode;
    if (request.n == 4) script.progress.state = Generation::State::kRecovering;
    return script;
  };
  const std::pair<const char*, const char*> cases[] = {{"1", ": queued 3 eta_ms 2100\n\n"},
                                                       {"2", ": prefill 4096/20000\n\n"},
                                                       {"3", ": decoding\n\n"},
                                                       {"4", ": recovering\n\n"}};
  for (const auto& [n, comment] : cases) {
    RawConnection connection(server.port());
    connection.Send(PostText(kChat, Ask(absl::StrCat(R"("stream":true,"n":)", n))));
    CHECK(absl::StrContains(connection.ReadUntil(comment), comment));
  }
}

TEST_CASE("a client hears of a recovery however long silence may last", "[http]") {
  TestServer server({.sse_keepalive_ms = 600'000});
  server.generator.script = [](const GenerationRequest&) {
    FakeScript script{.forever = true};
    script.progress.state = Generation::State::kRecovering;
    return script;
  };
  RawConnection connection(server.port());
  connection.Send(PostText(kChat, Ask(R"("stream":true)")));
  CHECK(absl::StrContains(connection.ReadUntil(": recovering\n\n"), ": recovering\n\n"));
}

TEST_CASE("a request under which workers break is named and not to be sent again", "[http]") {
  TestServer server;
  server.generator.script = [](const GenerationRequest&) {
    FakeScript script;
    script.end = absl::AbortedError("This request was under way.");
    return script;
  };
  const RawResponse response = server.Post(kChat, kHello);
  CHECK(response.status == 422);
  CHECK(response.Header("x-should-retry") == "false");
  CHECK(response.json().Find("error")->Find("code")->as_string() == "request_quarantined");
}

TEST_CASE("the template's own refusal reaches the client", "[http]") {
  const TestServer server;
  const RawResponse response =
      server.Post(kChat, R"({"messages":[{"role":"forbidden","content":"x"}]})");
  CHECK(response.status == 400);
  CHECK(response.json().Find("error")->Find("code")->as_string() == "template_error");
  CHECK(response.json().Find("error")->Find("message")->as_string() == "roles must alternate");
}

TEST_CASE("a model without a template has no chat", "[http]") {
  const TestServer server({}, {}, /*has_template=*/false);
  const RawResponse response = server.Post(kChat, kHello);
  CHECK(response.status == 400);
  CHECK(response.json().Find("error")->Find("code")->as_string() == "unsupported_model_operation");
}

}  // namespace
}  // namespace neurogrid
