#include <catch2/catch_test_macros.hpp>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "coordinator/request_fields.h"
#include "tests/http/http_client.h"

namespace neurogrid {
namespace {

constexpr const char* kChat = "/v1/chat/completions";
constexpr const char* kCompletions = "/v1/completions";

struct Body {
  BodyKind kind;
  const char* path;
  const char* begin;  // required fields
};
constexpr Body kBodies[] = {
    {kChatBody, kChat, R"({"messages":[{"role":"user","content":"Hi"}])"},
    {kCompletionBody, kCompletions, R"({"prompt":"Hi")"},
};

std::string With(const Body& body, absl::string_view field, absl::string_view value) {
  return absl::StrCat(body.begin, ",\"", field, "\":", value, "}");
}

std::string CodeOf(const RawResponse& response) {
  return response.json().Find("error")->Find("code")->as_string();
}
std::string ParamOf(const RawResponse& response) {
  const Json param = *response.json().Find("error")->Find("param");
  return param.is_null() ? "" : param.as_string();
}

TEST_CASE("every numeric field is bounded on both sides and takes numbers only",
          "[http][R35][U14]") {
  const TestServer server;
  for (const Body& body : kBodies) {
    for (const Field& field : RequestFields()) {
      const bool integer = field.type == FieldType::kInteger;
      if (!integer && field.type != FieldType::kNumber) continue;
      if ((field.bodies & body.kind) == 0) continue;
      CAPTURE(body.path, field.name);
      const auto code = [&](absl::string_view value) {
        const RawResponse response = server.Post(body.path, With(body, field.name, value));
        if (response.status == 200) return std::string("200");
        CHECK(response.status == 400);
        if (CodeOf(response) != "invalid_json") CHECK(ParamOf(response) == field.name);
        return CodeOf(response);
      };
      for (const char* wrong : {"\"1\"", "\"NaN\"", "true", "[]", "{}"}) {
        CHECK(code(wrong) == "invalid_type");
      }
      if (integer) CHECK(code("1.5") == "invalid_type");
      for (const char* no_json : {"NaN", "Infinity", "-Infinity", "1e999", "-", "0x1"}) {
        CHECK(code(no_json) == "invalid_json");
      }
      for (const char* huge : {"1e308", "-99999999999999999999"}) {
        CHECK(code(huge) == "invalid_value");
      }
      CHECK(code("null") == "200");
      if (field.name == "seed") continue;  // every 64-bit integer is a seed
      const auto low = static_cast<int64_t>(field.minimum);
      const auto high = static_cast<int64_t>(field.maximum);
      CHECK(code(absl::StrCat(low - 1)) == "invalid_value");
      CHECK(code(absl::StrCat(high + 1)) == "invalid_value");
      if (static_cast<double>(low) < field.minimum) {
        CHECK(code(absl::StrCat(low)) == "invalid_value");
        CHECK(code("1e-30") == "invalid_value");
      }
    }
  }
  CHECK(server.generator.running == 0);
}

TEST_CASE("both ends of a range are inside it, and 5.0 is an integer", "[http]") {
  const TestServer server;
  for (const Field& field : RequestFields()) {
    const bool numeric = field.type == FieldType::kInteger || field.type == FieldType::kNumber;
    if (!numeric || (field.bodies & kChatBody) == 0 || field.name == "seed") continue;
    if (field.name == "top_logprobs" || field.name == "min_tokens") continue;  // need another field
    CAPTURE(field.name);
    const std::string top = absl::StrCat(static_cast<int64_t>(field.maximum));
    CHECK(server.Post(kChat, With(kBodies[0], field.name, top)).status == 200);
    CHECK(server.Post(kChat, With(kBodies[0], field.name, absl::StrCat(top, ".0"))).status == 200);
    const std::string bottom = field.type == FieldType::kInteger
                                   ? absl::StrCat(static_cast<int64_t>(field.minimum))
                                   : absl::StrCat(field.minimum);
    CHECK(server.Post(kChat, With(kBodies[0], field.name, bottom)).status == 200);
  }
}

TEST_CASE("every field of another type than its own is refused by name", "[http]") {
  const TestServer server;
  for (const Body& body : kBodies) {
    for (const Field& field : RequestFields()) {
      if ((field.bodies & body.kind) == 0 || field.standing != FieldStanding::kHonoured) continue;
      if (field.type == FieldType::kAny || field.name == "messages") continue;
      CAPTURE(body.path, field.name);
      const char* wrong = field.type == FieldType::kString ? "1" : "\"x\"";
      const RawResponse response = server.Post(body.path, With(body, field.name, wrong));
      CHECK(response.status == 400);
      CHECK(CodeOf(response) == "invalid_type");
      CHECK(ParamOf(response) == field.name);
    }
  }
}

TEST_CASE("refused fields are refused by name unless they ask for nothing", "[http]") {
  const TestServer server;
  const TestServer lenient({.params = ParamsMode::kLenient});
  for (const Body& body : kBodies) {
    for (const Field& field : RequestFields()) {
      if ((field.bodies & body.kind) == 0 || field.standing != FieldStanding::kRefused) continue;
      const std::string name = absl::EndsWith(field.name, "*")
                                   ? absl::StrCat(field.name.substr(0, field.name.size() - 1), "x")
                                   : std::string(field.name);
      CAPTURE(body.path, name);
      const std::string odd = With(body, name, R"({"some":"thing"})");
      const RawResponse response = server.Post(body.path, odd);
      CHECK(response.status == 400);
      CHECK(CodeOf(response) == "unsupported_parameter");
      CHECK(ParamOf(response) == name);
      CHECK(server.Post(body.path, With(body, name, "null")).status == 200);
      const Json neutral = ParseJson(field.neutral).value();
      for (const Json& value : neutral.as_array()) {
        const RawResponse fine = server.Post(body.path, With(body, name, ToString(value)));
        CHECK(fine.status == 200);
        CHECK(fine.Header("X-Ignored-Params").empty());
      }
      const RawResponse ignored = lenient.Post(body.path, odd);
      CHECK(ignored.status == 200);
      CHECK(ignored.Header("X-Ignored-Params") == name);
    }
  }
}

TEST_CASE("harmless and unknown fields are named, or refused when strict", "[http]") {
  const TestServer server;
  const TestServer strict({.params = ParamsMode::kStrict});
  std::set<std::string> names = {"no_such_field"};
  for (const Field& field : RequestFields()) {
    if (field.standing == FieldStanding::kHarmless) names.insert(std::string(field.name));
  }
  for (const std::string& name : names) {
    CAPTURE(name);
    const RawResponse response = server.Post(kChat, With(kBodies[0], name, "1"));
    CHECK(response.status == 200);
    CHECK(response.Header("X-Ignored-Params") == name);
    const RawResponse refused = strict.Post(kChat, With(kBodies[0], name, "1"));
    CHECK(refused.status == 400);
    CHECK(CodeOf(refused) == "unsupported_parameter");
  }
}

TEST_CASE("a field stands once for each body in the table", "[http]") {
  std::set<std::pair<absl::string_view, unsigned>> seen;
  for (const Field& field : RequestFields()) {
    CAPTURE(field.name);
    for (const unsigned kind : {kChatBody, kCompletionBody, kTokenizeBody, kDetokenizeBody}) {
      if ((field.bodies & kind) != 0) CHECK(seen.emplace(field.name, kind).second);
    }
    CHECK(ParseJson(field.neutral).ok());
    if (!field.schema.empty()) CHECK(ParseJson(field.schema).ok());
  }
}

struct Malformed {
  const char* path;
  std::string body;
  const char* code;
  const char* param;
};

std::string Repeated(const char* begin, const char* unit, int count, const char* end) {
  std::string text = begin;
  for (int i = 0; i < count; ++i) absl::StrAppend(&text, i == 0 ? "" : ",", unit);
  return text + end;
}

constexpr const char* kUser = R"({"role":"user","content":"x"})";

std::string Ask(const char* fields) { return absl::StrCat(kBodies[0].begin, ",", fields, "}"); }
std::string Messages(const char* list) { return absl::StrCat(R"({"messages":)", list, "}"); }

const std::vector<Malformed> kMalformedBodies = {
    {kChat, "", "invalid_json", ""},
    {kChat, "{", "invalid_json", ""},
    {kChat, "{} x", "invalid_json", ""},
    {kChat, "[]", "invalid_type", ""},
    {kChat, "null", "invalid_type", ""},
    {kChat, "{}", "missing_required_parameter", "messages"},
    {kChat, R"({"messages":null})", "missing_required_parameter", "messages"},
    {kChat, Messages("[]"), "invalid_value", "messages"},
    {kChat, Messages("\"Hi\""), "invalid_type", "messages"},
    {kChat, Messages("[1]"), "invalid_type", "messages[0]"},
    {kChat, Messages("[{}]"), "missing_required_parameter", "messages[0].role"},
    {kChat, Messages(R"([{"role":1,"content":"x"}])"), "invalid_type", "messages[0].role"},
    {kChat, Messages(R"([{"role":"user"}])"), "missing_required_parameter", "messages[0].content"},
    {kChat, Messages(R"([{"role":"assistant","content":null}])"), "missing_required_parameter",
     "messages[0].content"},
    {kChat, Messages(R"([{"role":"user","content":5}])"), "invalid_type", "messages[0].content"},
    {kChat, Messages(R"([{"role":"user","content":["x"]}])"), "invalid_type",
     "messages[0].content[0]"},
    {kChat, Messages(R"([{"role":"user","content":[{"text":"x"}]}])"), "missing_required_parameter",
     "messages[0].content[0].type"},
    {kChat, Messages(R"([{"role":"user","content":[{"type":"text"}]}])"),
     "missing_required_parameter", "messages[0].content[0].text"},
    {kChat, Messages(R"([{"role":"user","content":[{"type":"text","text":"x"},
                {"type":"image_url","image_url":{"url":"http://127.0.0.1/x"}}]}])"),
     "unsupported_parameter", "messages[0].content[1].type"},
    {kChat, Messages(R"([{"role":"user","content":[{"type":"odd","text":"x"}]}])"), "invalid_value",
     "messages[0].content[0].type"},
    {kChat, Messages(R"([{"role":"user","content":"x","name":5}])"), "invalid_type",
     "messages[0].name"},
    {kChat, Messages(R"([{"role":"assistant","content":"x","tool_calls":{}}])"), "invalid_type",
     "messages[0].tool_calls"},
    {kChat, Messages(R"([{"role":"assistant","tool_calls":[{"function":{"name":"f"}}]}])"),
     "missing_required_parameter", "messages[0].tool_calls[0].function.arguments"},
    {kChat, Repeated(R"({"messages":[)", kUser, 4097, "]}"), "limit_exceeded", "messages"},
    {kChat,
     Repeated(R"({"messages":[{"role":"user","content":[)", R"({"type":"text","text":"x"})", 1025,
              "]}]}"),
     "limit_exceeded", "messages[0].content"},
    {kChat, R"({"messages":[],"messages":[]})", "invalid_json", ""},
    {kChat, Messages("[{\"role\":\"user\",\"content\":\"\xff\"}]"), "invalid_json", ""},
    {kChat, Messages(R"([{"role":"user","content":"\ud800"}])"), "invalid_json", ""},
    {kChat, std::string(1'000'000, '['), "invalid_json", ""},
    {kChat, Ask(R"("x":1e999)"), "invalid_json", ""},
    {kChat, absl::StrCat(kBodies[0].begin, ",\"seed\":", std::string(100, '9'), "}"),
     "invalid_json", ""},
    {kChat, Ask(R"("model":5)"), "invalid_type", "model"},
    {kChat, Ask(R"("n":1000000000)"), "invalid_value", "n"},
    {kChat, Ask(R"("top_logprobs":3)"), "invalid_value", "top_logprobs"},
    {kChat, Ask(R"("stream_options":{"include_usage":true})"), "invalid_value", "stream_options"},
    {kChat, Ask(R"("stream":true,"stream_options":{"include_usage":1})"), "invalid_type",
     "stream_options.include_usage"},
    {kChat, Ask(R"("stop":5)"), "invalid_type", "stop"},
    {kChat, Ask(R"("stop":"")"), "invalid_value", "stop"},
    {kChat, Ask(R"("stop":["a",5])"), "invalid_type", "stop[1]"},
    {kChat, Ask(R"("stop":["a",""])"), "invalid_value", "stop[1]"},
    {kChat, Repeated((std::string(kBodies[0].begin) + ",\"stop\":[").c_str(), "\"a\"", 17, "]}"),
     "limit_exceeded", "stop"},
    {kChat, Ask(R"("stop_token_ids":[1,"2"])"), "invalid_type", "stop_token_ids[1]"},
    {kChat, Ask(R"("stop_token_ids":[260])"), "invalid_value", "stop_token_ids[0]"},
    {kChat, Ask(R"("logit_bias":{"x":1})"), "invalid_value", "logit_bias.x"},
    {kChat, Ask(R"("logit_bias":{"-1":1})"), "invalid_value", "logit_bias.-1"},
    {kChat, Ask(R"("logit_bias":{"260":1})"), "invalid_value", "logit_bias.260"},
    {kChat, Ask(R"("logit_bias":{"5":101})"), "invalid_value", "logit_bias.5"},
    {kChat, Ask(R"("logit_bias":{"5":"1"})"), "invalid_type", "logit_bias.5"},
    {kChat, Ask(R"("min_tokens":5,"max_tokens":4)"), "invalid_value", "min_tokens"},
    {kChat, Ask(R"("repetition_penalty":1.5,"repeat_penalty":1.6)"), "invalid_value",
     "repeat_penalty"},
    {kChat, Ask(R"("cache_salt":"")"), "invalid_value", "cache_salt"},
    {kChat, Ask(R"("tool_choice":"required")"), "invalid_value", "tool_choice"},
    {kCompletions, R"({"prompt":"Hi","tools":[{}]})", "unsupported_parameter", "tools"},
    {kChat, Ask(R"("tools":[1])"), "invalid_type", "tools[0]"},
    {kChat, Ask(R"("tools":[{"function":{"name":"f"}}])"), "missing_required_parameter",
     "tools[0].type"},
    {kChat, Ask(R"("tools":[{"type":"custom","custom":{"name":"f"}}])"), "unsupported_parameter",
     "tools[0].type"},
    {kChat, Ask(R"("tools":[{"type":"function"}])"), "missing_required_parameter",
     "tools[0].function"},
    {kChat, Ask(R"("tools":[{"type":"function","function":{}}])"), "missing_required_parameter",
     "tools[0].function.name"},
    {kChat, Ask(R"("tools":[{"type":"function","function":{"name":"f g"}}])"), "invalid_value",
     "tools[0].function.name"},
    {kChat,
     Ask(R"("tools":[{"type":"function","function":{"name":"f"}},{"type":"function","function":{"name":"f"}}])"),
     "invalid_value", "tools[1].function.name"},
    {kChat, Ask(R"("tools":[{"type":"function","function":{"name":"f","parameters":[]}}])"),
     "invalid_type", "tools[0].function.parameters"},
    {kChat, Ask(R"("tools":[{"type":"function","function":{"name":"f","description":1}}])"),
     "invalid_type", "tools[0].function.description"},
    {kChat,
     Ask(R"("tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"required")"),
     "unsupported_parameter", "tool_choice"},
    {kChat,
     Ask(R"("tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"function","function":{"name":"f"}})"),
     "unsupported_parameter", "tool_choice"},
    {kChat, Ask(R"("tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"any")"),
     "invalid_value", "tool_choice"},
    {kChat, Ask(R"("reasoning_effort":"huge")"), "invalid_value", "reasoning_effort"},
    {kChat, Ask(R"("reasoning_effort":"none","enable_thinking":true)"), "invalid_value",
     "reasoning_effort"},
    {kChat, Ask(R"("enable_thinking":true,"chat_template_kwargs":{"enable_thinking":false})"),
     "invalid_value", "enable_thinking"},
    {kChat, Ask(R"("enable_thinking":false,"reasoning_budget":5)"), "invalid_value",
     "reasoning_budget"},
    {kChat, Ask(R"("reasoning_budget":4,"thinking_token_budget":5)"), "invalid_value",
     "thinking_token_budget"},
    {kChat, Ask(R"("date_string":"2026-02-30")"), "invalid_value", "date_string"},
    {kChat, Ask(R"("date_string":"31 Jul 2026")"), "invalid_value", "date_string"},
    {kChat, Ask(R"("response_format":{"type":"json_object"})"), "unsupported_parameter",
     "response_format"},
    {kChat, Ask(R"("continue_final_message":true)"), "invalid_value", "continue_final_message"},
    {kChat, Ask(R"("continue_final_message":true,"add_generation_prompt":true)"), "invalid_value",
     "continue_final_message"},
    {kChat, Ask(R"("chat_template_kwargs":{"messages":[]})"), "invalid_value",
     "chat_template_kwargs.messages"},
    {kChat, Ask(R"("chat_template_kwargs":{"bos_token":"x"})"), "invalid_value",
     "chat_template_kwargs.bos_token"},
    {kChat, Ask(R"("chat_template_kwargs":{"a":[[[[[[[[1]]]]]]]]})"), "limit_exceeded",
     "chat_template_kwargs"},
    {kCompletions, "{}", "missing_required_parameter", "prompt"},
    {kCompletions, R"({"prompt":5})", "invalid_type", "prompt"},
    {kCompletions, R"({"prompt":""})", "invalid_value", "prompt"},
    {kCompletions, R"({"prompt":[]})", "invalid_value", "prompt"},
    {kCompletions, R"({"prompt":[[]]})", "invalid_value", "prompt[0]"},
    {kCompletions, R"({"prompt":["a",5]})", "invalid_type", "prompt[1]"},
    {kCompletions, R"({"prompt":[1,"a"]})", "invalid_type", "prompt[1]"},
    {kCompletions, R"({"prompt":[1,-1]})", "invalid_value", "prompt[1]"},
    {kCompletions, R"({"prompt":[[1],[260]]})", "invalid_value", "prompt[1][0]"},
    {kCompletions, R"({"prompt":[[1.5]]})", "invalid_type", "prompt[0][0]"},
    {kCompletions, Repeated(R"({"prompt":[)", "\"a\"", 129, "]}"), "limit_exceeded", "prompt"},
    {kCompletions, Repeated(R"({"n":2,"prompt":[)", "\"a\"", 65, "]}"), "limit_exceeded", "prompt"},
    {kCompletions, R"({"prompt":"a","logprobs":true})", "invalid_type", "logprobs"},
    {kCompletions, R"({"prompt":"a","suffix":"b"})", "unsupported_parameter", "suffix"},
    {kCompletions, R"({"prompt":"a","best_of":2})", "unsupported_parameter", "best_of"},
    {"/tokenize", "{}", "missing_required_parameter", "prompt"},
    {"/tokenize", R"({"prompt":"a","content":"b"})", "invalid_value", "prompt"},
    {"/detokenize", "{}", "missing_required_parameter", "tokens"},
    {"/detokenize", R"({"tokens":[1,1000000]})", "invalid_value", "tokens[1]"},
    {"/apply-template", R"({"prompt":"x"})", "missing_required_parameter", "messages"},
};

TEST_CASE("malformed requests get 400 with a code and the path of the fault", "[http][U13][U15]") {
  const TestServer server;
  for (const Malformed& malformed : kMalformedBodies) {
    CAPTURE(malformed.path, malformed.body.substr(0, 200), malformed.code);
    const RawResponse response = server.Post(malformed.path, malformed.body);
    CHECK(response.status == 400);
    const Json body = response.json();
    const Json& error = *body.Find("error");
    for (const char* key : {"message", "type", "param", "code"})
      REQUIRE(error.Find(key) != nullptr);
    CHECK(error.Find("code")->as_string() == malformed.code);
    CHECK(ParamOf(response) == malformed.param);
    CHECK_FALSE(error.Find("message")->as_string().empty());
    CHECK_FALSE(
        absl::StrContains(absl::AsciiStrToLower(error.Find("message")->as_string()), "rate limit"));
  }
  CHECK(server.generator.started() == 0);
}

TEST_CASE("a refusal says what was wanted and what was found", "[http]") {
  const TestServer server;
  const auto message = [&](const char* path, const std::string& body) {
    const Json answer = server.Post(path, body).json();
    return answer.Find("error")->Find("message")->as_string();
  };
  CHECK(message(kChat, "") == "The body is empty: send a JSON object.");
  CHECK(message(kChat, With(kBodies[0], "n", "\"2\"")) ==
        "'n' must be an integer from 1 to 16, but is a string.");
  CHECK(message(kChat, With(kBodies[0], "n", "99999999999999999999")) ==
        "'n' must be an integer from 1 to 16, but is 1e+20.");
  CHECK(message(kChat, With(kBodies[0], "priority", "1")) == "'priority' must be 0, but is 1.");
  CHECK(message(kChat, R"({"messages":[{"role":"user","content":5}]})") ==
        "'messages[0].content' must be a string or an array of parts, but is an integer.");
  CHECK(message(kCompletions, R"({"prompt":5})") ==
        "'prompt' must be a string or an array of token ids, but is an integer.");
}

TEST_CASE("lenient mode names mismatched pairs and odd bias keys instead of refusing", "[http]") {
  const TestServer server({.params = ParamsMode::kLenient});
  const auto ignored = [&](const char* fields) {
    const RawResponse response =
        server.Post(kChat, absl::StrCat(kBodies[0].begin, ",", fields, "}"));
    CHECK(response.status == 200);
    return response.Header("X-Ignored-Params");
  };
  CHECK(ignored(R"("top_logprobs":3)") == "top_logprobs");
  CHECK(ignored(R"("stream_options":{"include_usage":true})") == "stream_options");
  CHECK(ignored(R"("logit_bias":{"foo":1})") == "logit_bias.foo");
}

}  // namespace
}  // namespace neurogrid
