// Tool calls through the API: what reaches the model, and what its answers become.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/http/talk.h"

namespace neurogrid {
namespace {

constexpr const char* kOneCall =
    "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>";

/// Ids of calls are random.
std::string Steady(const Json& choice) {
  std::string text = ToString(choice);
  for (size_t at = 0; (at = text.find("\"call_", at)) != std::string::npos;) {
    text.replace(at, 6 + 24, "\"call_ID");
    at += 8;
  }
  return text;
}

TEST_CASE("a tool call is these bytes", "[http][tools]") {
  Talk talk;
  talk.says = kOneCall;
  const Talk::Response response = talk.Ask(Talk::kTools);
  REQUIRE(response.status == 200);
  CHECK(Steady(response.choice()) ==
        R"({"index":0,"message":{"role":"assistant","content":null,"refusal":null,"tool_calls":)"
        R"([{"id":"call_ID","type":"function","function":{"name":"get_weather","arguments":)"
        R"("{\"city\": \"Rome\"}"}}]},"logprobs":null,"finish_reason":"tool_calls",)"
        R"("stop_reason":null})");
  const std::string prompt =
      talk.Post("/apply-template",
                absl::StrCat(R"({"messages":[{"role":"user","content":"Hi"}],)", Talk::kTools, "}"))
          .json.Find("prompt")
          ->as_string();
  CHECK(absl::StrContains(prompt, "\"name\": \"get_weather\""));
}

TEST_CASE("streamed calls open with id and name, then send fragments of arguments",
          "[http][tools]") {
  Talk talk;
  talk.says = absl::StrCat("Let me see.\n", kOneCall, "\n", kOneCall);
  const Talk::Response response = talk.Ask(Talk::kTools + R"(,"stream":true)");
  std::vector<std::string> deltas;
  for (const Json& chunk : response.chunks) {
    for (const Json& choice : chunk.Find("choices")->as_array()) {
      const Json* const calls = choice.Find("delta")->Find("tool_calls");
      if (calls != nullptr) deltas.push_back(Steady(*calls));
    }
  }
  CHECK(deltas[0] == R"([{"index":0,"id":"call_ID","type":"function","function":)"
                     R"({"name":"get_weather","arguments":""}}])");
  CHECK(deltas[1] == R"([{"index":0,"function":{"arguments":"{"}}])");
  CHECK(deltas.size() == 2 * 17);  // a byte of {"city": "Rome"} at a time
  CHECK(absl::StrContains(deltas[17], R"("index":1,"id":"call_ID")"));
}

TEST_CASE("a stream with calls and reasoning merges into the whole answer", "[http][tools]") {
  Talk talk;
  talk.says = GENERATE(
      as<std::string>(), "plain", " ", "<think>\na\n</think>\n\nb",
      "<think>a</think><tool_call>{\"name\":\"now\",\"arguments\":{}}</tool_call>",
      "x <tool_call>{\"name\":\"now\"}</tool_call> y <tool_call>{\"arguments\":{\"a\":[1]},"
      "\"name\":\"get_weather\"}</tool_call>\n",
      "<tool_call>{\"name\":\"other\",\"arguments\":{}}</tool_call>", "<tool_call>broken",
      "<tool_call>{\"name\":\"now\",\"arguments\":{\"a\":", "<think>never \xf0\x9f\x97\xbc ends");
  talk.finish = GENERATE(FinishReason::kStop, FinishReason::kLength);
  CAPTURE(talk.says);
  for (const char* more : {"", R"(,"include_reasoning":false)", R"(,"stop":["e"])"}) {
    CAPTURE(more);
    const Talk::Response whole = talk.Ask(absl::StrCat(Talk::kTools, more));
    const Talk::Response streamed = talk.Ask(absl::StrCat(Talk::kTools, more, R"(,"stream":true)"));
    const std::string merged = Steady(MergedChoice(streamed.chunks));
    CHECK(ToString(ParseJson(merged).value(), {.sort_keys = true}) ==
          ToString(ParseJson(Steady(whole.choice())).value(), {.sort_keys = true}));
  }
}

TEST_CASE("tokens of calls and reasoning are all in the logprobs, streamed or not",
          "[http][tools]") {
  Talk talk;
  talk.says = absl::StrCat("<think>a</think>b", kOneCall);
  const std::string fields = Talk::kTools + R"(,"logprobs":true,"return_token_ids":true)";
  const Talk::Response whole = talk.Ask(fields);
  const Talk::Response streamed = talk.Ask(fields + R"(,"stream":true)");
  std::string bytes;
  for (const Json& entry : whole.choice().Find("logprobs")->Find("content")->as_array()) {
    bytes += entry.Find("token")->as_string();
  }
  CHECK(bytes == talk.says + "<|im_end|>");
  std::string streamed_bytes;
  size_t ids = 0;
  for (const Json& chunk : streamed.chunks) {
    const Json& choice = chunk.Find("choices")->as_array()[0];
    if (const Json* const list = choice.Find("token_ids")) ids += list->as_array().size();
    if (choice.Find("logprobs")->is_null()) continue;
    for (const Json& entry : choice.Find("logprobs")->Find("content")->as_array()) {
      streamed_bytes += entry.Find("token")->as_string();
    }
  }
  CHECK(streamed_bytes == bytes);
  CHECK(ids == whole.choice().Find("token_ids")->as_array().size());
}

TEST_CASE("a call cut by length stays, with length", "[http][tools]") {
  Talk talk;
  talk.finish = FinishReason::kLength;
  talk.says = "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Ro";
  const Talk::Response response = talk.Ask(Talk::kTools);
  CHECK(response.choice().Find("finish_reason")->as_string() == "length");
  const Json& call = response.message().Find("tool_calls")->as_array()[0];
  CHECK(call.Find("function")->Find("arguments")->as_string() == "{\"city\": \"Ro");
}

TEST_CASE("a malformed call is content", "[http][tools]") {
  Talk talk;
  talk.says = "<tool_call>\n{'name': 'now'}\n</tool_call>";
  const Talk::Response response = talk.Ask(Talk::kTools);
  CHECK(response.choice().Find("finish_reason")->as_string() == "stop");
  CHECK(response.message().Find("content")->as_string() == talk.says);
  CHECK(response.message().Find("tool_calls") == nullptr);
}

TEST_CASE("tool_choice none renders the tools, masks the marker and reads no calls",
          "[http][tools]") {
  Talk talk;
  talk.says = kOneCall;
  const Talk::Response response = talk.Ask(Talk::kTools + R"(,"tool_choice":"none")");
  CHECK(response.message().Find("content")->as_string() == kOneCall);
  CHECK(response.choice().Find("finish_reason")->as_string() == "stop");
  CHECK(talk.generator.last().sampling.bias ==
        std::vector<std::pair<int32_t, float>>{{Talk::kCall, -100.f}});
  const std::vector<int32_t> prompt = talk.generator.last().prompts[0];
  CHECK(Decode(talk.tokenizer, prompt, false).find("get_weather") != std::string::npos);
  talk.Ask(Talk::kTools);
  CHECK(talk.generator.last().prompts[0] == prompt);  // the prefix stays cached
  CHECK(talk.generator.last().sampling.bias.empty());
}

TEST_CASE("without tools nothing is read as a call", "[http][tools]") {
  Talk talk;
  talk.says = kOneCall;
  CHECK(talk.Ask("").message().Find("content")->as_string() == kOneCall);
  CHECK(talk.Ask(R"("tools":[],"tool_choice":"auto")").message().Find("tool_calls") == nullptr);
}

TEST_CASE("parallel_tool_calls false ends the answer with its first call", "[http][tools]") {
  Talk talk;
  talk.says = absl::StrCat(kOneCall, "\n", kOneCall, "\nmore");
  CHECK(talk.Ask(Talk::kTools).message().Find("tool_calls")->as_array().size() == 2);
  const Talk::Response response = talk.Ask(Talk::kTools + R"(,"parallel_tool_calls":false)");
  CHECK(response.message().Find("tool_calls")->as_array().size() == 1);
  CHECK(response.message().Find("content")->is_null());
  CHECK(response.choice().Find("finish_reason")->as_string() == "tool_calls");
}

TEST_CASE("parallel_tool_calls false keeps the first of calls that are read together",
          "[http][tools]") {
  // Lists of calls in Python are read when they end.
  Talk talk(
      "{# <|tool_list_start|> #}{{ tools | tojson if tools else '' }}"
      "{% for m in messages %}{{ m.content }}{% endfor %}");
  talk.says = GENERATE(as<std::string>(), "<|tool_call_start|>[now(), now()]<|tool_call_end|>more",
                       "<|tool_call_start|>[now(), now()]", "<|tool_call_start|>[now(), now(a=");
  talk.finish = absl::EndsWith(talk.says, "=") ? FinishReason::kLength : FinishReason::kStop;
  CAPTURE(talk.says);
  CHECK(talk.Ask(Talk::kTools).message().Find("tool_calls")->as_array().size() == 2);
  const Talk::Response response = talk.Ask(Talk::kTools + R"(,"parallel_tool_calls":false)");
  CHECK(response.message().Find("tool_calls")->as_array().size() == 1);
  CHECK(response.message().Find("content")->is_null());
  CHECK(response.choice().Find("finish_reason")->as_string() == "tool_calls");
}

TEST_CASE("a template that knows no tools refuses them and calls of the history", "[http][tools]") {
  Talk talk("{% for m in messages %}{{ m.content }}{% endfor %}");
  const Talk::Response tools = talk.Ask(Talk::kTools);
  CHECK(tools.status == 400);
  CHECK(tools.json.Find("error")->Find("code")->as_string() == "unsupported_model_operation");
  CHECK(tools.json.Find("error")->Find("param")->as_string() == "tools");
  const Talk::Response history = talk.Post(
      "/v1/chat/completions",
      R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","tool_calls":[{"id":"1",)"
      R"("type":"function","function":{"name":"f","arguments":"{}"}}]}]})");
  CHECK(history.status == 400);
  CHECK(history.json.Find("error")->Find("param")->as_string() == "messages[1].tool_calls");
}

TEST_CASE("calls of the history reach the template as objects, or as their text", "[http][tools]") {
  Talk talk;
  const auto prompt = [&](const char* arguments) {
    return talk
        .Post(
            "/apply-template",
            absl::StrCat(
                R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":null,)",
                R"("tool_calls":[{"id":"1","type":"function","function":{"name":"now",)",
                R"("arguments":)", ToString(Json(arguments)),
                R"(}}]},{"role":"tool","tool_call_id":"1","content":"b"}]})"))
        .json.Find("prompt")
        ->as_string();
  };
  CHECK(absl::StrContains(prompt(R"({"z":1,"a":"é"})"),
                          "assistant\n\n<tool_call>\n{\"name\": \"now\", \"arguments\": {\"z\": 1, "
                          "\"a\": \"é\"}}\n</tool_call><|im_end|>"));
  CHECK(absl::StrContains(prompt("no json"), "\"arguments\": \"no json\"}"));
}

TEST_CASE("what was found out about tools stands in /props", "[http][tools]") {
  Talk talk;
  CHECK(
      ToString(*talk.Get("/props").json.Find("tool_calls")) ==
      R"({"takes_tools":true,"syntax":"tagged_json","opening":{"text":"<tool_call>","token":262},)"
      R"("closing":{"text":"</tool_call>","token":263},"template_prints_calls":true,)"
      R"("content_beside_calls":"empty","arguments_as":"object","nine_character_ids":false})");
  CHECK(ToString(*talk.Get("/props").json.Find("reasoning")) ==
        R"({"opening":{"text":"<think>","token":260},"closing":{"text":"</think>","token":261},)"
        R"("reads_enable_thinking":true,"reads_reasoning_effort":true})");
  Talk plain("{% for m in messages %}{{ m.content }}{% endfor %}");
  CHECK(plain.Get("/props").json.Find("tool_calls")->is_null());
}

TEST_CASE("lenient servers name what of tool_choice they ignore", "[http][tools]") {
  Talk talk("", {.params = ParamsMode::kLenient});
  talk.says = kOneCall;
  const Talk::Response response = talk.Ask(Talk::kTools + R"(,"tool_choice":"required")");
  CHECK(response.status == 200);
  CHECK(response.ignored == "tool_choice");
}

}  // namespace
}  // namespace neurogrid
