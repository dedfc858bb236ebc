// Reasoning through the API: what the template is told, and what answers become.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/http/talk.h"

namespace neurogrid {
namespace {

int64_t ReasoningTokens(const Talk::Response& response) {
  return response.json.Find("usage")
      ->Find("completion_tokens_details")
      ->Find("reasoning_tokens")
      ->as_integer();
}

std::string PromptEnd(Talk& talk, const std::string& fields) {
  const Json json =
      talk.Post("/apply-template",
                absl::StrCat(R"({"messages":[{"role":"user","content":"Hi"}],)", fields, "}"))
          .json;
  const std::string& prompt = json.Find("prompt")->as_string();
  const std::string inside = json.Find("starts_in_reasoning")->as_bool() ? " inside" : "";
  return prompt.substr(prompt.rfind("assistant\n") + 10) + inside;
}

TEST_CASE("reasoning stands apart from content and is counted", "[http][reasoning]") {
  Talk talk;
  talk.says = "<think>\nHm.\n</think>\n\nYes.";
  const Talk::Response response = talk.Ask("");
  CHECK(ToString(response.message()) ==
        R"({"role":"assistant","content":"Yes.","refusal":null,"reasoning_content":"Hm.\n"})");
  CHECK(ReasoningTokens(response) == 7);  // <think> \n H m . \n </think>
  const Talk::Response silent = talk.Ask(R"("include_reasoning":false)");
  CHECK(silent.message().Find("reasoning_content") == nullptr);
  CHECK(silent.message().Find("content")->as_string() == "Yes.");
  CHECK(ReasoningTokens(silent) == 7);
}

TEST_CASE("an answer that ends in reasoning has empty content", "[http][reasoning]") {
  Talk talk;
  talk.says = "<think>Hm";
  talk.finish = FinishReason::kLength;
  const Talk::Response response = talk.Ask("");
  CHECK(response.message().Find("content")->as_string().empty());
  CHECK(response.message().Find("reasoning_content")->as_string() == "Hm");
  CHECK(response.choice().Find("finish_reason")->as_string() == "length");
}

TEST_CASE("an answer to a prompt that ends in an open tag begins inside", "[http][reasoning]") {
  Talk talk;
  talk.says = "Hm.</think>Yes.";
  CHECK(PromptEnd(talk, R"("reasoning_effort":"high")") == "<think>\n inside");
  const Talk::Response response = talk.Ask(R"("reasoning_effort":"high")");
  CHECK(response.message().Find("reasoning_content")->as_string() == "Hm.");
  CHECK(response.message().Find("content")->as_string() == "Yes.");
  // Elsewhere a closing tag is text.
  CHECK(talk.Ask("").message().Find("content")->as_string() == "Hm.</think>Yes.");
}

TEST_CASE("a budget forces the end of reasoning", "[http][reasoning]") {
  Talk talk;
  talk.says = "<think>long thoughts</think>Yes.";
  const auto thoughts = [&](const char* fields) {
    const Talk::Response response = talk.Ask(fields);
    CHECK(response.message().Find("content")->as_string() == "Yes.");
    const Json* const found = response.message().Find("reasoning_content");
    const std::string text = found == nullptr ? "" : found->as_string();
    CHECK(ReasoningTokens(response) == static_cast<int64_t>(text.size()) + 2);
    return text;
  };
  CHECK(thoughts(R"("reasoning_budget":4)") == "long");
  CHECK(thoughts(R"("thinking_token_budget":1)") == "l");
  CHECK(thoughts(R"("reasoning_budget":0)").empty());
  CHECK(thoughts(R"("reasoning_budget":13)") == "long thoughts");
  CHECK(thoughts(R"("reasoning_budget":-1)") == "long thoughts");
  talk.says = "long thoughts</think>Yes.";
  const Talk::Response inside = talk.Ask(R"("reasoning_effort":"high","reasoning_budget":0)");
  CHECK(inside.message().Find("reasoning_content") == nullptr);
  CHECK(inside.message().Find("content")->as_string() == "Yes.");
  CHECK(ReasoningTokens(inside) == 1);
}

TEST_CASE("switches of reasoning reach the template", "[http][reasoning]") {
  Talk talk;
  const std::string off = "<think>\n\n</think>\n\n";
  CHECK(PromptEnd(talk, R"("n":1)").empty());
  CHECK(PromptEnd(talk, R"("enable_thinking":true)").empty());
  CHECK(PromptEnd(talk, R"("enable_thinking":false)") == off);
  CHECK(PromptEnd(talk, R"("chat_template_kwargs":{"enable_thinking":false})") == off);
  CHECK(PromptEnd(talk, R"("reasoning_effort":"none")") == off);
  CHECK(PromptEnd(talk, R"("reasoning_effort":"low")").empty());
  CHECK(PromptEnd(talk, R"("reasoning_effort":"high")") == "<think>\n inside");
  CHECK(PromptEnd(talk, R"("reasoning_effort":"none","enable_thinking":false,
                           "reasoning_budget":0)") == off);
}

TEST_CASE("switches that the template does not read are named as ignored", "[http][reasoning]") {
  const std::string plain = "{% for m in messages %}{{ m.content }}{% endfor %}";
  Talk talk(plain);
  const std::string fields =
      R"("reasoning_effort":"low","enable_thinking":true,"date_string":"2026-07-31")";
  CHECK(talk.Ask(fields).ignored == "reasoning_effort, enable_thinking, date_string");
  Talk strict(plain, {.params = ParamsMode::kStrict});
  const Talk::Response response = strict.Ask(R"("enable_thinking":true)");
  CHECK(response.status == 400);
  CHECK(response.json.Find("error")->Find("param")->as_string() == "enable_thinking");
}

TEST_CASE("date_string is the template's today", "[http]") {
  Talk talk("{{ strftime_now('%d %b %Y') }}/{{ date_string }}");
  const auto prompt = [&](const std::string& fields) {
    return talk.Post("/apply-template",
                     absl::StrCat(R"({"messages":[{"role":"user","content":"Hi"}],)", fields, "}"));
  };
  CHECK(prompt(R"("date_string":"2026-07-31")").json.Find("prompt")->as_string() ==
        "31 Jul 2026/31 Jul 2026");
  CHECK(talk.Ask(R"("date_string":"2026-07-31")").ignored.empty());
  const Talk::Response twice =
      prompt(R"("date_string":"2026-07-31","chat_template_kwargs":{"date_string":"today"})");
  CHECK(twice.status == 400);
  CHECK(twice.json.Find("error")->Find("param")->as_string() == "date_string");
}

TEST_CASE("reasoning of the history reaches the template under both names", "[http][reasoning]") {
  Talk talk;
  for (const char* name : {"reasoning_content", "reasoning"}) {
    const Json json =
        talk.Post("/apply-template",
                  absl::StrCat(R"({"messages":[{"role":"user","content":"a"},{"role":"assistant",)",
                               R"("content":"b",")", name, R"(":"why"}]})"))
            .json;
    CHECK(absl::StrContains(json.Find("prompt")->as_string(), "<think>\nwhy\n</think>\n\nb"));
  }
}

}  // namespace
}  // namespace neurogrid
