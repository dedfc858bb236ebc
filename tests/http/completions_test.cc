#include <catch2/catch_test_macros.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/http/http_client.h"

namespace neurogrid {
namespace {

constexpr const char* kCompletions = "/v1/completions";

TEST_CASE("a completion answers whole, in OpenAI's shape", "[http]") {
  const TestServer server;
  const RawResponse response = server.Post(kCompletions, R"({"prompt":"Say"})");
  REQUIRE(response.status == 200);
  Json body = response.json();
  CHECK(absl::StartsWith(body.Find("id")->as_string(), "cmpl-"));
  body.Set("id", "ID");
  body.Set("created", 1);
  CHECK(ToString(body) ==
        R"({"id":"ID","object":"text_completion","created":1,"model":"tiny/model",)"
        R"("system_fingerprint":"fp_0123456789abcdef","choices":[{"index":0,"text":"Hello",)"
        R"("logprobs":null,"finish_reason":"stop","stop_reason":null}],"usage":{"prompt_tokens":3,)"
        R"("completion_tokens":6,"total_tokens":9,"prompt_tokens_details":{"cached_tokens":0},)"
        R"("completion_tokens_details":{"reasoning_tokens":0}}})");
  CHECK(server.generator.last().tokens_max == 16);
}

TEST_CASE("prompts come as text, texts, ids or lists of ids", "[http]") {
  const TestServer server;
  const auto prompts = [&](const char* prompt) {
    const RawResponse response =
        server.Post(kCompletions, absl::StrCat(R"({"n":2,"prompt":)", prompt, "}"));
    REQUIRE(response.status == 200);
    const Json body = response.json();
    const Json::Array& choices = body.Find("choices")->as_array();
    const std::vector<std::vector<int32_t>> asked = server.generator.last().prompts;
    REQUIRE(choices.size() == asked.size() * 2);
    for (size_t i = 0; i < choices.size(); ++i) {
      CHECK(choices[i].Find("index")->as_integer() == static_cast<int64_t>(i));
    }
    return asked;
  };
  using Prompts = std::vector<std::vector<int32_t>>;
  CHECK(prompts(R"("ab")") == Prompts{{'a', 'b'}});
  CHECK(prompts(R"(["ab","c"])") == Prompts{{'a', 'b'}, {'c'}});
  CHECK(prompts("[1,2.0,3]") == Prompts{{1, 2, 3}});
  CHECK(prompts("[[1],[2,3]]") == Prompts{{1}, {2, 3}});
}

TEST_CASE("the caller of a completion owns the whole prompt", "[http]") {
  TestServer server;
  server.tokenizer.wants_bos = true;
  const auto prompt = [&](const char* fields) {
    server.Post(kCompletions, absl::StrCat(R"({"prompt":"a</s>")", fields, "}"));
    return server.generator.last().prompts[0];
  };
  CHECK(prompt("") == std::vector<int32_t>{FakeTokenizer::kBos, 'a', FakeTokenizer::kEos});
  CHECK(prompt(R"(,"add_special_tokens":false)") == std::vector<int32_t>{'a', FakeTokenizer::kEos});
  CHECK(prompt(R"(,"parse_special":false)") ==
        std::vector<int32_t>{FakeTokenizer::kBos, 'a', '<', '/', 's', '>'});
}

FakeScript Scored(const GenerationRequest& request) {
  FakeScript script;
  GenerationEvent first;
  if (request.echo_logprobs) {
    first.prompt = {{0xa9, -2.5f, {{0xa9, -2.5f}, {'x', -3}}}, {'b', -0.25f, {{'b', -0.25f}}}};
  }
  first.pieces = {{AnswerPiece::Kind::kContent, "h"}};
  first.tokens = {{'h', -0.5f, {{'i', -0.125f}, {'h', -0.5f}}}};
  script.batches = {{first}, {EndEvent(0, FinishReason::kStop)}};
  return script;
}

TEST_CASE("echoed prompts come with their logprobs, the first token without one", "[http]") {
  TestServer server;
  server.generator.script = Scored;
  const RawResponse response = server.Post(kCompletions,
                                           "{\"prompt\":\"\xc3\xa9"
                                           "b\",\"echo\":true,\"logprobs\":2}");
  REQUIRE(response.status == 200);
  CHECK(server.generator.last().echo_logprobs);
  CHECK(server.generator.last().sampling.top_logprobs == 2);
  const Json body = response.json();
  const Json& choice = body.Find("choices")->as_array()[0];
  CHECK(choice.Find("text")->as_string() ==
        "\xc3\xa9"
        "bh");
  CHECK(ToString(*choice.Find("logprobs")) ==
        R"({"tokens":["bytes:\\xc3","bytes:\\xa9","b","h","<|im_end|>"],)"
        R"("token_logprobs":[null,-2.5,-0.25,-0.5,-0.1],"top_logprobs":[null,)"
        R"({"bytes:\\xa9":-2.5,"x":-3.0},{"b":-0.25},{"h":-0.5,"i":-0.125},{"<|im_end|>":-0.1}],)"
        R"("text_offset":[0,1,1,2,3]})");
}

TEST_CASE("an echo without logprobs costs nothing and scores nothing", "[http]") {
  TestServer server;
  const Json body =
      server.Post(kCompletions, R"({"prompt":"Say ","echo":true,"max_tokens":0})").json();
  CHECK(body.Find("choices")->as_array()[0].Find("text")->as_string() == "Say Hello");
  CHECK_FALSE(server.generator.last().echo_logprobs);
  CHECK(server.generator.last().tokens_max == 0);
  const Json ids = server.Post(kCompletions, R"({"prompt":[72,105,257],"echo":true})").json();
  CHECK(ids.Find("choices")->as_array()[0].Find("text")->as_string() == "HiHello");
}

TEST_CASE("the merged stream of a completion is the whole answer", "[http]") {
  TestServer server;
  server.generator.script = Scored;
  for (const char* fields :
       {"", R"(,"echo":true)", R"(,"logprobs":1)", R"(,"echo":true,"logprobs":1)"}) {
    CAPTURE(fields);
    const std::string begin = absl::StrCat("{\"prompt\":\"abb\"", fields);
    const Json whole = server.Post(kCompletions, begin + "}").json();
    const std::string body = server.Post(kCompletions, begin + R"(,"stream":true})").body;
    std::string text;
    Json logprobs;
    Json finish;
    size_t at = 0;
    while ((at = body.find("data: {", at)) != std::string::npos) {
      const Json event = ParseJson(body.substr(at + 6, body.find('\n', at) - at - 6)).value();
      at += 6;
      CHECK(event.Find("object")->as_string() == "text_completion");
      const Json& choice = event.Find("choices")->as_array()[0];
      text += choice.Find("text")->as_string();
      finish = *choice.Find("finish_reason");
      const Json& more = *choice.Find("logprobs");
      if (more.is_null()) continue;
      if (logprobs.is_null()) {
        logprobs = more;
        continue;
      }
      for (JsonMember& member : logprobs.as_object()) {
        const Json::Array& values = more.Find(member.key)->as_array();
        Json::Array& all = member.value.as_array();
        all.insert(all.end(), values.begin(), values.end());
      }
    }
    const Json& choice = whole.Find("choices")->as_array()[0];
    CHECK(text == choice.Find("text")->as_string());
    CHECK(ToString(logprobs) == ToString(*choice.Find("logprobs")));
    CHECK(finish == *choice.Find("finish_reason"));
    CHECK(absl::EndsWith(body, "data: [DONE]\n\n"));
  }
}

TEST_CASE("token ids come back when asked for", "[http]") {
  const TestServer server;
  const Json body = server.Post(kCompletions, R"({"prompt":"ab","return_token_ids":true})").json();
  const Json& choice = body.Find("choices")->as_array()[0];
  CHECK(ToString(*choice.Find("token_ids")) == "[72,101,108,108,111,259]");
  CHECK(ToString(*choice.Find("prompt_token_ids")) == "[97,98]");
}

TEST_CASE("timings tell the seed", "[http]") {
  const TestServer server;
  const Json body = server.Post(kCompletions, R"({"prompt":"ab","timings":true,"seed":42})").json();
  CHECK(body.Find("timings")->Find("seed")->as_integer() == 42);
  CHECK(server.generator.last().sampling.seed == 42);
}

TEST_CASE("a prompt that fills the context is refused, naming prompt", "[http]") {
  TestServer server;
  server.generator.context = 4;
  CHECK(server.Post(kCompletions, R"({"prompt":"abc"})").status == 200);
  const RawResponse response = server.Post(kCompletions, R"({"prompt":["a","abcd"]})");
  CHECK(response.status == 400);
  CHECK(response.json().Find("error")->Find("param")->as_string() == "prompt");
  CHECK(absl::StrContains(
      response.body, "This model's maximum context length is 4 tokens, but the prompt has 4."));
}

}  // namespace
}  // namespace neurogrid
