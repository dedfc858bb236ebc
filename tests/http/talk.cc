#include "tests/http/talk.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/check.h"

namespace neurogrid {
namespace {

constexpr const char* kSource =
    R"({%- if tools %}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif %}
{%- for m in messages %}<|im_start|>{{ m.role }}
{% if m.reasoning_content %}<think>
{{ m.reasoning_content }}
</think>

{% endif %}{{ m.content }}
{%- for call in m.tool_calls %}

<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{% if reasoning_effort == 'high' %}<think>
{% endif %}{% endif %})";

struct NoPeer final : HttpPeer {
  bool alive() override { return true; }
};

struct Collected final : HttpSink {
  std::string bytes;
  bool alive() override { return true; }
  bool Write(absl::string_view more) override {
    bytes.append(more.data(), more.size());
    return true;
  }
};

Talk::Response Read(const HttpResponse& http) {
  Talk::Response response;
  response.status = http.status;
  for (const auto& [name, value] : http.headers) {
    if (name == "X-Ignored-Params") response.ignored = value;
  }
  if (!http.stream) {
    response.json = ParseJson(http.body).value();
    return response;
  }
  Collected sink;
  http.stream(sink);
  for (absl::string_view block : absl::StrSplit(sink.bytes, "\n\n")) {
    if (absl::ConsumePrefix(&block, "data: ") && block != "[DONE]") {
      response.chunks.push_back(ParseJson(block).value());
    }
  }
  return response;
}

void Append(Json& to, absl::string_view key, const Json& more) {
  const Json* const before = to.Find(key);
  const bool none = before == nullptr || before->is_null();
  to.Set(key, none ? more : Json(before->as_string() + more.as_string()));
}

void MergeCalls(Json& message, const Json& calls) {
  if (message.Find("tool_calls") == nullptr) message.Set("tool_calls", Json::Array{});
  Json::Array& all = message.Find("tool_calls")->as_array();
  for (const Json& call : calls.as_array()) {
    const auto index = static_cast<size_t>(call.Find("index")->as_integer());
    if (index == all.size()) {
      Json begun = Json::Object{};
      for (const char* key : {"id", "type", "function"}) begun.Set(key, *call.Find(key));
      all.push_back(std::move(begun));
      continue;
    }
    NG_CHECK(index + 1 == all.size());
    NG_CHECK(call.Find("id") == nullptr && call.Find("function")->Find("name") == nullptr);
    Append(*all[index].Find("function"), "arguments", *call.Find("function")->Find("arguments"));
  }
}

}  // namespace

const std::string Talk::kTools =
    R"("tools":[{"type":"function","function":{"name":"get_weather","parameters":)"
    R"({"type":"object","properties":{"city":{"type":"string"}}}}},)"
    R"({"type":"function","function":{"name":"now"}}])";

Talk::Talk(std::string source, ApiOptions options)
    : tokenizer({"<think>", "</think>", "<tool_call>", "</tool_call>"}) {
  ChatTemplateSources sources;
  sources.templates.push_back({"default", source.empty() ? kSource : std::move(source)});
  chat_template = ChatTemplate::Compile(std::move(sources)).value();
  generator.script = [this](const GenerationRequest& request) {
    return Speech(tokenizer, request, says, finish);
  };
  api = Api::Create(generator, tokenizer, chat_template.get(),
                    {.id = "tiny", .max_model_len = 4096, .end_ids = tokenizer.end_ids()},
                    std::move(options), metrics)
            .value();
}

Talk::Response Talk::Post(const std::string& path, const std::string& body) {
  NoPeer peer;
  HttpRequest request;
  request.method = "POST";
  request.path = path;
  request.body = body;
  return Read(api->Answer(request, peer));
}

Talk::Response Talk::Get(const std::string& path) {
  NoPeer peer;
  HttpRequest request;
  request.method = "GET";
  request.path = path;
  return Read(api->Answer(request, peer));
}

Talk::Response Talk::Ask(const std::string& fields) {
  return Post("/v1/chat/completions",
              absl::StrCat(R"({"messages":[{"role":"user","content":"Hi"}])",
                           fields.empty() ? "" : ",", fields, "}"));
}

Json MergedChoice(const std::vector<Json>& chunks) {
  Json message = Json::Object{{"role", "assistant"}, {"content", nullptr}, {"refusal", nullptr}};
  Json choice = Json::Object{{"index", 0}, {"message", nullptr}, {"logprobs", nullptr}};
  bool begun = false;
  for (const Json& chunk : chunks) {
    for (const Json& part : chunk.Find("choices")->as_array()) {
      const Json& delta = *part.Find("delta");
      if (!std::exchange(begun, true)) continue;  // the role
      NG_CHECK(delta.as_object().size() <= 1);    // never two kinds in one delta
      if (const Json* content = delta.Find("content")) Append(message, "content", *content);
      if (const Json* more = delta.Find("reasoning_content")) {
        Append(message, "reasoning_content", *more);
      }
      if (const Json* calls = delta.Find("tool_calls")) MergeCalls(message, *calls);
      if (part.Find("finish_reason")->is_null()) continue;
      choice.Set("finish_reason", *part.Find("finish_reason"));
      choice.Set("stop_reason", *part.Find("stop_reason"));
    }
  }
  if (message.Find("content")->is_null() && message.Find("tool_calls") == nullptr) {
    message.Set("content", "");
  }
  choice.Set("message", std::move(message));
  return choice;
}

}  // namespace neurogrid
