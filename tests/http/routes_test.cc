#include "coordinator/routes.h"

#include <catch2/catch_test_macros.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "coordinator/info_api.h"
#include "tests/http/http_client.h"

namespace neurogrid {
namespace {

constexpr const char* kSecret = "a-secret-of-some-length";

ApiOptions Guarded() {
  ApiOptions options;
  options.api_keys = {absl::StrCat(kSecret, " infer,read"), "ng-reader-0123456789abcdef read",
                      "ng-boss-0123456789abcdef admin",
                      absl::StrCat("ng-hash-sha256:", HexOf(Sha256Of("0123456789abcdef")))};
  return options;
}

std::string PathOf(const Route& route) { return absl::StrReplaceAll(route.path, {{"*", "x"}}); }

std::string Ask(absl::string_view method, const std::string& path,
                const std::string& headers = "") {
  return absl::StrCat(method, " ", path, " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n",
                      method == "GET" || method == "HEAD" ? "" : "Content-Length: 0\r\n", headers,
                      "\r\n");
}

TEST_CASE("without a key every route and method is 401, open ones excepted", "[http][R15]") {
  const TestServer server(Guarded());
  for (const Route& route : Routes()) {
    for (const char* method : {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "FOO"}) {
      for (const char* headers : {"", "Authorization: Bearer wrong\r\n", "X-Api-Key: wrong\r\n"}) {
        CAPTURE(route.path, method, headers);
        const RawResponse response = server.Send(Ask(method, PathOf(route), headers));
        if (route.scope == Scope::kOpen) {
          CHECK((response.status == 200 || response.status == 405));
          continue;
        }
        CHECK(response.status == 401);
        CHECK(response.Header("WWW-Authenticate") == "Bearer");
        CHECK(response.Header("Connection") == "close");
      }
    }
  }
  CHECK(server.Send(Ask("GET", "/no/such/path")).status == 401);
}

TEST_CASE("a key opens what its scopes allow", "[http][P20]") {
  const TestServer server(Guarded());
  const auto get = [&](const char* path, const std::string& headers) {
    return server.Get(path, headers).status;
  };
  const std::string bearer = absl::StrCat("Authorization: Bearer ", kSecret, "\r\n");
  CHECK(get("/v1/models", bearer) == 200);
  CHECK(get("/metrics", bearer) == 200);
  CHECK(get("/v1/models", absl::StrCat("authorization: bearer ", kSecret, "\r\n")) == 200);
  CHECK(get("/v1/models", absl::StrCat("X-Api-Key: ", kSecret, "\r\n")) == 200);
  CHECK(get("/v1/models", "Authorization: Bearer ng-hash-0123456789abcdef\r\n") == 200);
  CHECK(get("/v1/models", "Authorization: Bearer ng-reader-0123456789abcdef\r\n") == 403);
  CHECK(get("/metrics", "Authorization: Bearer ng-reader-0123456789abcdef\r\n") == 200);
  CHECK(get("/v1/models", "Authorization: Bearer ng-boss-0123456789abcdef\r\n") == 200);
  CHECK(get("/v1/models", "Authorization: Bearer ng-other-0123456789abcdef\r\n") == 401);
  CHECK(get("/v1/models", "Authorization: Bearer 0123456789abcdef\r\n") == 401);
  CHECK(get("/v1/models", "Authorization: Bearer \r\n") == 401);
  CHECK(get("/health", "") == 200);
}

TEST_CASE("the id of the key is the tenant of its requests", "[http]") {
  const TestServer server(Guarded());
  const char* body = R"({"prompt":"a"})";
  server.Post("/v1/completions", body, absl::StrCat("X-Api-Key: ", kSecret, "\r\n"));
  CHECK(server.generator.last().tenant == "key-1");
  server.Post("/v1/completions", body, "X-Api-Key: ng-hash-0123456789abcdef\r\n");
  CHECK(server.generator.last().tenant == "hash");
}

TEST_CASE("a request without a key is refused before its body is read", "[http]") {
  const TestServer server(Guarded());
  RawConnection connection(server.port());
  connection.Send("POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
  CHECK(absl::StartsWith(connection.ReadUntil("}}"), "HTTP/1.1 401"));
}

TEST_CASE("malformed keys are named by their line, not by their text", "[http]") {
  for (const char* line : {"tiny", "ng-a-tiny", "ng-a-sha256:12", "a-secret-of-some-length odd"}) {
    CAPTURE(line);
    const auto keys = ApiKeys::Parse({"a-good-secret-of-length", line});
    REQUIRE_FALSE(keys.ok());
    CHECK(absl::StrContains(keys.status().message(), "key 2"));
    CHECK_FALSE(absl::StrContains(keys.status().message(), line));
  }
  CHECK_FALSE(ApiKeys::Parse({"ng-a-0123456789abcdef", "ng-a-0123456789abcdeg"}).ok());
}

TEST_CASE("an API beyond loopback needs keys", "[http][R16][P23]") {
  const std::vector<std::string> keys = {"a-secret-of-some-length"};
  for (const char* host : {"127.0.0.1", "127.1.2.3", "localhost", "::1"}) {
    CHECK(CheckExposure(host, {}, {}).ok());
  }
  for (const char* host : {"0.0.0.0", "::", "192.168.1.2", "example.org"}) {
    const absl::Status status = CheckExposure(host, {}, {});
    REQUIRE_FALSE(status.ok());
    CHECK(absl::StrContains(status.message(), "api_keys"));
    CHECK(absl::StrContains(status.message(), "127.0.0.1"));
    CHECK(CheckExposure(host, keys, {}).ok());
  }
  CHECK_FALSE(CheckExposure("127.0.0.1", keys, {"*"}).ok());
  CHECK(CheckExposure("127.0.0.1", {}, {"*"}).ok());
}

TEST_CASE("known paths answer other methods with 405, unknown ones with 404", "[http]") {
  const TestServer server;
  for (const Route& route : Routes()) {
    CAPTURE(route.path);
    const RawResponse response =
        server.Send(Ask(route.method == "GET" ? "DELETE" : "GET", PathOf(route)));
    CHECK(response.status == 405);
    CHECK(absl::StrContains(response.Header("Allow"), route.method));
    CHECK(response.json().Find("error")->Find("code")->as_string() == "method_not_allowed");
    const RawResponse options = server.Send(Ask("OPTIONS", PathOf(route)));
    CHECK(options.status == 204);
    CHECK(absl::StrContains(options.Header("Allow"), route.method));
  }
  for (const char* path : {"/", "/v1", "/v1/", "/v1/audio/speech", "/api/tags", "/v1/models/",
                           "/v1/v1/models", "/v2/models", "/Health", "/health/", "/%00"}) {
    CAPTURE(path);
    const RawResponse response = server.Get(path);
    CHECK(response.status == 404);
    CHECK(response.json().Find("error")->Find("code")->as_string() == "unknown_url");
  }
}

TEST_CASE("OpenAI's routes also answer without /v1", "[http]") {
  const TestServer server;
  CHECK(server.Get("/models").status == 200);
  CHECK(server.Post("/completions", R"({"prompt":"a"})").status == 200);
  CHECK(
      server.Post("/chat/completions", R"({"messages":[{"role":"user","content":"Hi"}]})").status ==
      200);
}

TEST_CASE("models are listed and found by ids with slashes", "[http]") {
  const TestServer server;
  const char* entry =
      R"({"id":"tiny/model","object":"model","created":1700000000,"owned_by":"neurogrid",)"
      R"("max_model_len":4096,"status":"ready"})";
  CHECK(server.Get("/v1/models").body == absl::StrCat(R"({"object":"list","data":[)", entry, "]}"));
  CHECK(server.Get("/v1/models/tiny/model").body == entry);
  CHECK(server.Get("/v1/models/tiny%2Fmodel").body == entry);
  const RawResponse missing = server.Get("/v1/models/other");
  CHECK(missing.status == 404);
  CHECK(missing.json().Find("error")->Find("code")->as_string() == "model_not_found");
}

TEST_CASE("an unknown model name is 404, or served and echoed when all names are", "[http]") {
  const char* body = R"({"prompt":"a","model":"gpt-9"})";
  const TestServer server;
  const RawResponse refused = server.Post("/v1/completions", body);
  CHECK(refused.status == 404);
  CHECK(refused.json().Find("error")->Find("code")->as_string() == "model_not_found");
  CHECK(refused.json().Find("error")->Find("param")->as_string() == "model");
  const TestServer any({.any_model_name = true});
  CHECK(any.Post("/v1/completions", body).json().Find("model")->as_string() == "gpt-9");
}

TEST_CASE("health, readiness, metrics and cluster answer", "[http]") {
  TestServer server;
  CHECK(server.Get("/health").body == R"({"status":"ok"})");
  server.generator.is_alive = false;
  CHECK(server.Get("/health").status == 503);
  CHECK(server.Get("/ready").body == R"({"status":"ready","epoch":7,"canary_age_ms":5.0})");
  server.generator.serving_state = ServingState::kWaitingForWorkers;
  const Json waiting = server.Get("/ready").json();
  CHECK(waiting.Find("status")->as_string() == "waiting_for_workers");
  CHECK(ToString(*waiting.Find("missing")) == R"(["2 workers"])");
  const RawResponse metrics = server.Get("/metrics");
  CHECK(absl::StartsWith(metrics.Header("Content-Type"), "text/plain"));
  CHECK(server.Get("/v1/cluster").body == R"({"epoch":7})");
  CHECK(server.Get("/v1/cluster/info").status == 200);
  CHECK(server.Get("/v1/requests").status == 200);
  CHECK(server.Get("/props").json().Find("chat_template")->as_string() == "{{ messages }}");
}

TEST_CASE("metrics have vLLM's names and edges under our prefix", "[http]") {
  TestServer server;
  server.metrics.SetRunning(3);
  server.metrics.AddFinished("stop");
  server.metrics.ObserveFirstToken(0.03);
  server.metrics.ObserveInterToken(0.03);
  server.metrics.SetWorkers({{"serving", 2}, {"suspect", 1}});
  server.metrics.SetEpoch(9);
  server.metrics.SetKvPages(/*used=*/3, /*cached=*/4, /*free=*/5);
  server.metrics.AddRefused("queue_full");
  server.metrics.AddRefused("made up by somebody");
  const std::string text = server.Get("/metrics").body;
  for (const char* line :
       {"neurogrid_num_requests_running 3", "neurogrid_cluster_workers{state=\"serving\"} 2",
        "neurogrid_cluster_workers{state=\"suspect\"} 1", "neurogrid_cluster_epoch 9",
        "neurogrid_kv_pages{state=\"used\"} 3", "neurogrid_kv_pages{state=\"cached\"} 4",
        "neurogrid_kv_pages{state=\"free\"} 5",
        "neurogrid_request_success_total{finished_reason=\"stop\"} 1",
        "neurogrid_time_to_first_token_seconds_bucket{le=\"0.02\"} 0",
        "neurogrid_time_to_first_token_seconds_bucket{le=\"0.04\"} 1",
        "neurogrid_inter_token_latency_seconds_bucket{le=\"0.025\"} 0",
        "neurogrid_requests_refused_total{code=\"queue_full\"} 1",
        "neurogrid_requests_refused_total{code=\"other\"} 1", "neurogrid_kv_cache_usage_perc 0",
        "neurogrid_e2e_request_latency_seconds_count 0"}) {
    CAPTURE(line);
    CHECK(absl::StrContains(text, line));
  }
  size_t explained = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ');
    if (words.size() < 3 || words[1] != "TYPE") continue;
    CAPTURE(words[2]);
    CHECK(absl::StrContains(text, absl::StrCat("# HELP ", words[2], " ")));
    ++explained;
  }
  CHECK(explained > 10);
}

TEST_CASE("metrics show how the devices of those nodes are that are there", "[http]") {
  TestServer server;
  const DeviceFigures a = {.node = "a", .temperature_c = 41, .power_w = 136.5};
  DeviceFigures b = {.node = "b", .temperature_c = 60, .utilization = 0.75};
  server.metrics.SetDevices({a, b});
  std::string text = server.Get("/metrics").body;
  CHECK(absl::StrContains(text, "neurogrid_device_temperature_celsius{node=\"a\"} 41"));
  CHECK(absl::StrContains(text, "neurogrid_device_temperature_celsius{node=\"b\"} 60"));
  CHECK(absl::StrContains(text, "neurogrid_device_power_watts{node=\"a\"} 136.5"));
  CHECK(absl::StrContains(text, "neurogrid_device_utilization_ratio{node=\"b\"} 0.75"));
  CHECK_FALSE(absl::StrContains(text, "neurogrid_device_power_watts{node=\"b\"}"));
  CHECK_FALSE(absl::StrContains(text, "neurogrid_device_memory_used_bytes{"));

  b.temperature_c = 61;
  b.memory_used_bytes = 5e9;
  server.metrics.SetDevices({b});
  text = server.Get("/metrics").body;
  CHECK_FALSE(absl::StrContains(text, "{node=\"a\"}"));
  CHECK(absl::StrContains(text, "neurogrid_device_temperature_celsius{node=\"b\"} 61"));
  CHECK(absl::StrContains(text, "neurogrid_device_memory_used_bytes{node=\"b\"} 5"));
}

TEST_CASE("whoever is turned away is counted, wherever that happened", "[http]") {
  const TestServer server({.max_body_bytes = 100});
  server.Get("/no/such/path");
  server.Send("BROKEN\r\n\r\n");
  server.Post("/tokenize", std::string(200, 'x'));
  server.Post("/tokenize", "{");
  server.Post("/v1/completions", "{}");
  const std::string text = server.Get("/metrics").body;
  for (const char* code : {"unknown_url", "invalid_value", "request_too_large", "invalid_json",
                           "missing_required_parameter"}) {
    CAPTURE(code);
    CHECK(absl::StrContains(
        text, absl::StrCat("neurogrid_requests_refused_total{code=\"", code, "\"} 1")));
  }
}

TEST_CASE("embeddings are refused as an operation, not as a path", "[http]") {
  const TestServer server;
  const RawResponse response = server.Post("/v1/embeddings", R"({"input":"a"})");
  CHECK(response.status == 400);
  CHECK(response.json().Find("error")->Find("code")->as_string() == "unsupported_model_operation");
  CHECK(response.json().Find("error")->Find("param")->as_string() == "model");
}

TEST_CASE("the OpenAPI document covers every route and every body", "[http]") {
  const TestServer server;
  const Json document = server.Get("/openapi.json").json();
  CHECK(document.Find("openapi")->as_string() == "3.1.0");
  for (const Route& route : Routes()) {
    CAPTURE(route.path);
    const Json* path =
        document.Find("paths")->Find(absl::StrReplaceAll(route.path, {{"*", "{id}"}}));
    REQUIRE(path != nullptr);
    const Json* operation = path->Find(absl::AsciiStrToLower(route.method));
    REQUIRE(operation != nullptr);
    CHECK((operation->Find("responses")->Find("401") != nullptr) == (route.scope != Scope::kOpen));
    CHECK((operation->Find("requestBody") != nullptr) == (route.body_kind != 0));
  }
  const Json* chat = document.Find("components")->Find("schemas")->Find("ChatRequest");
  REQUIRE(chat != nullptr);
  CHECK(chat->Find("properties")->Find("temperature")->Find("maximum")->as_number() == 2);
  CHECK(chat->Find("properties")->Find("tools")->Find("maxItems")->as_integer() == 128);
  CHECK(chat->Find("properties")->Find("response_format") == nullptr);
  CHECK(ToString(*chat->Find("required")) == R"(["messages"])");
}

TEST_CASE("browsers hear of the origins that were configured, and of no other", "[http]") {
  const TestServer closed;
  CHECK(closed.Get("/health", "Origin: https://a.example\r\n")
            .Header("Access-Control-Allow-Origin")
            .empty());
  const TestServer open({.cors_origins = {"https://a.example"}});
  CHECK(
      open.Get("/health", "Origin: https://a.example\r\n").Header("Access-Control-Allow-Origin") ==
      "https://a.example");
  CHECK(open.Get("/health", "Origin: https://b.example\r\n")
            .Header("Access-Control-Allow-Origin")
            .empty());
  const RawResponse preflight =
      open.Send(Ask("OPTIONS", "/v1/completions", "Origin: https://a.example\r\n"));
  CHECK(preflight.status == 204);
  CHECK(preflight.Header("Access-Control-Allow-Methods") == "POST, OPTIONS");
  CHECK(absl::StrContains(preflight.Header("Access-Control-Allow-Headers"), "Authorization"));
}

TEST_CASE("text becomes tokens and tokens text", "[http]") {
  TestServer server;
  server.tokenizer.wants_bos = true;
  const auto tokenize = [&](const char* body) { return server.Post("/tokenize", body).body; };
  CHECK(tokenize(R"({"content":"a</s>"})") ==
        R"({"tokens":[97,257],"count":2,"max_model_len":4096})");
  CHECK(tokenize(R"({"prompt":"a"})") == R"({"tokens":[256,97],"count":2,"max_model_len":4096})");
  CHECK(tokenize(R"({"prompt":"a","add_special_tokens":false})") ==
        R"({"tokens":[97],"count":1,"max_model_len":4096})");
  CHECK(tokenize(R"({"content":"a","add_special":true,"return_token_strs":true})") ==
        R"({"tokens":[256,97],"count":2,"max_model_len":4096,"token_strs":["<s>","a"]})");
  CHECK(tokenize("{\"content\":\"\xc3\xa9\",\"with_pieces\":true}") ==
        R"({"tokens":[{"id":195,"piece":[195]},{"id":169,"piece":[169]}],"count":2,)"
        R"("max_model_len":4096})");
  CHECK(absl::StrContains(tokenize(R"({"messages":[{"role":"user","content":"Hi"}]})"),
                          "\"tokens\":[256,258,"));
  CHECK(server.Post("/detokenize", R"({"tokens":[72,105,257]})").body ==
        R"({"content":"Hi</s>","prompt":"Hi</s>"})");
}

TEST_CASE("a rendered conversation shows where each byte comes from", "[http]") {
  const TestServer server;
  const Json body =
      server.Post("/apply-template", R"({"messages":[{"role":"user","content":"Hi"}]})").json();
  CHECK(body.Find("prompt")->as_string() ==
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  CHECK(ToString(*body.Find("segments")) ==
        R"([{"begin":0,"end":17,"origin":"template"},{"begin":17,"end":19,"origin":"input"},)"
        R"({"begin":19,"end":52,"origin":"template"}])");
  CHECK(body.Find("tokens")->as_array().size() == 21);
}

TEST_CASE("tokenizer_info has what evaluation tools look for", "[http]") {
  const TestServer server;
  CHECK(server.Get("/tokenizer_info").body ==
        R"({"tokenizer_class":"FakeTokenizer","bos_token":"<s>","eos_token":"</s>",)"
        R"("pad_token":null,"chat_template":"{{ messages }}"})");
}

}  // namespace
}  // namespace neurogrid
