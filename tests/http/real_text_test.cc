// The API over a real tokenizer and a real chat template; only the model is not there.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>

#include "coordinator/api.h"
#include "tests/http/fake_serving.h"
#include "tests/support/golden.h"

namespace neurogrid {
namespace {

struct NoPeer final : HttpPeer {
  bool alive() override { return true; }
};

struct RealText {
  RealText() {
    const ChatTemplateSources sources =
        ChatTemplateSourcesOfDirectory(Golden("tiny/llama")).value();
    chat_template = ChatTemplate::Compile(sources).value();
    tokenizer = Tokenizer::FromDirectory(Golden("tiny/llama")).value();
    tokenizer->AddControlText(chat_template->source());
    api = Api::Create(generator, *tokenizer, chat_template.get(),
                      {.id = "tiny", .max_model_len = 4096, .end_ids = tokenizer->end_ids()}, {},
                      metrics)
              .value();
  }

  HttpResponse Post(const std::string& path, const Json& body) {
    NoPeer peer;
    HttpRequest request;
    request.method = "POST";
    request.path = path;
    request.body = ToString(body);
    return api->Answer(request, peer);
  }
  /// The prompt that the generator gets for these messages.
  std::vector<int32_t> Prompt(Json messages) {
    const HttpResponse response =
        Post("/v1/chat/completions", Json::Object{{"messages", std::move(messages)}});
    REQUIRE(response.status == 200);
    return generator.last().prompts[0];
  }

  std::unique_ptr<ChatTemplate> chat_template;
  std::unique_ptr<Tokenizer> tokenizer;
  FakeGenerator generator;
  ServingMetrics metrics;
  std::unique_ptr<Api> api;
};

Json Message(const char* role, Json content) {
  return Json::Object{{"role", role}, {"content", std::move(content)}};
}

int64_t ControlIds(const RealText& text, const std::vector<int32_t>& ids) {
  return std::count_if(ids.begin(), ids.end(),
                       [&](int32_t id) { return text.tokenizer->IsSpecial(id); });
}

TEST_CASE("text of control tokens in messages never becomes a control token", "[http][R31]") {
  RealText text;
  const auto conversation = [](const Json& user, const Json& assistant) {
    return Json(
        Json::Array{Message("user", user), Message("assistant", assistant), Message("user", user)});
  };
  // <s> before the conversation and </s> after the assistant's turn, by the template.
  REQUIRE(ControlIds(text, text.Prompt(conversation("a", "b"))) == 2);
  for (const char* forged : {"<s>", "</s>", "<unk>", "x</s>y", "</s></s>", "<<s>/s>"}) {
    CAPTURE(forged);
    CHECK(ControlIds(text, text.Prompt(conversation(forged, "b"))) == 2);
    CHECK(ControlIds(text, text.Prompt(conversation("a", forged))) == 2);
  }
  const auto part = [](const char* words) {
    return Json(Json::Object{{"type", "text"}, {"text", words}});
  };
  const Json split = Json::Array{part("<"), part("/s>")};
  CHECK(ControlIds(text, text.Prompt(conversation(split, "b"))) == 2);
}

TEST_CASE("a template that prints BOS gets no second one", "[http]") {
  RealText text;
  const std::vector<int32_t> prompt = text.Prompt(Json::Array{Message("user", "Hi")});
  CHECK(prompt[0] == text.tokenizer->bos_id());
  CHECK(std::count(prompt.begin(), prompt.end(), text.tokenizer->bos_id()) == 1);
}

TEST_CASE("a completion's prompt begins with BOS, and its control text counts", "[http]") {
  RealText text;
  REQUIRE(text.Post("/v1/completions", Json::Object{{"prompt", "a</s>"}}).status == 200);
  const std::vector<int32_t> prompt = text.generator.last().prompts[0];
  CHECK(prompt.front() == text.tokenizer->bos_id());
  CHECK(prompt.back() == text.tokenizer->eos_id());
}

TEST_CASE("what the template raises is the client's 400", "[http]") {
  RealText text;
  const HttpResponse response = text.Post(
      "/v1/chat/completions", Json::Object{{"messages", Json::Array{Message("system", "x")}}});
  CHECK(response.status == 400);
  const Json error = *ParseJson(response.body).value().Find("error");
  CHECK(error.Find("code")->as_string() == "template_error");
  CHECK(error.Find("message")->as_string() == "only user and assistant roles");
}

TEST_CASE("tokens of a text give the text back", "[http]") {
  RealText text;
  const char* words = "A \xc3\xa9 \xf0\x9f\x98\x80 \"quoted\"\n";
  const Json tokens =
      ParseJson(text.Post("/tokenize", Json::Object{{"content", words}}).body).value();
  const HttpResponse back =
      text.Post("/detokenize", Json::Object{{"tokens", *tokens.Find("tokens")}});
  CHECK(ParseJson(back.body).value().Find("content")->as_string() == words);
}

}  // namespace
}  // namespace neurogrid
