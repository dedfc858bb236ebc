#include <catch2/catch_test_macros.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/http/http_client.h"

namespace neurogrid {
namespace {

constexpr const char* kHello = R"({"messages":[{"role":"user","content":"Hi"}]})";

TEST_CASE("a chat completion answers whole, in OpenAI's shape", "[http]") {
  const TestServer server;
  const RawResponse response = server.Post("/v1/chat/completions", kHello);
  REQUIRE(response.status == 200);
  Json body = response.json();
  CHECK(body.Find("id")->as_string().substr(0, 9) == "chatcmpl-");
  CHECK(body.Find("id")->as_string().size() == 9 + 24);
  CHECK(body.Find("created")->is_integer());
  body.Set("id", "ID");
  body.Set("created", 1);
  CHECK(ToString(body) ==
        R"({"id":"ID","object":"chat.completion","created":1,"model":"tiny/model",)"
        R"("system_fingerprint":"fp_0123456789abcdef","choices":[{"index":0,"message":)"
        R"({"role":"assistant","content":"Hello","refusal":null},"logprobs":null,)"
        R"("finish_reason":"stop","stop_reason":null}],"usage":{"prompt_tokens":21,)"
        R"("completion_tokens":6,"total_tokens":27,"prompt_tokens_details":{"cached_tokens":0},)"
        R"("completion_tokens_details":{"reasoning_tokens":0}}})");
}

}  // namespace
}  // namespace neurogrid
