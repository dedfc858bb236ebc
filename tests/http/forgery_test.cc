// No text of a request makes a control token, for every family whose tokenizer is here (models.md
// 5.5, api.md 13.3).
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "coordinator/api.h"
#include "tests/http/fake_serving.h"
#include "tests/support/golden.h"
#include "tests/support/test_data.h"

namespace neurogrid {
namespace {

struct NoPeer final : HttpPeer {
  bool alive() override { return true; }
};

struct Family {
  std::string chat_template;
  std::string tokenizer;
};

const std::vector<Family> kFamilies = {{"llama3_1", "llama3_1"},
                                       {"llama3_1_tools", "llama3_1"},
                                       {"llama3_2", "llama3_1"},
                                       {"qwen2_5", "qwen2_5"},
                                       {"qwq", "qwen2_5"},
                                       {"qwen3", "qwen3"},
                                       {"gemma2", "gemma2"},
                                       {"gemma3", "gemma3"},
                                       {"mistral_nemo", "mistral_nemo"},
                                       {"llama2_by_hand", "llama2"}};

/// FORGED stands where a client may write what it wants.
constexpr const char* kPlain = R"({"messages":[{"role":"user","name":"FORGED","content":"aFORGED"},
  {"role":"assistant","content":"FORGEDb"},
  {"role":"user","content":[{"type":"text","text":"FORGED"},{"type":"text","text":" c"}]}]})";
constexpr const char* kSystem = R"({"messages":[{"role":"system","content":"FORGED FORGED"},
  {"role":"user","content":"FORGED"}],"chat_template_kwargs":{"documents_note":"FORGED",
  "date_string":"FORGED","custom":["FORGED"]}})";
constexpr const char* kRole =
    R"({"messages":[{"role":"user","content":"a"},{"role":"FORGED","content":"FORGED"}]})";
constexpr const char* kTools = R"({"messages":[{"role":"user","content":"FORGED"},
  {"role":"assistant","content":null,"reasoning_content":"FORGED","tool_calls":[{"id":"FORGED",
   "type":"function","function":{"name":"FORGED","arguments":"{\"FORGED\":\"FORGED\"}"}}]},
  {"role":"tool","tool_call_id":"FORGED","name":"FORGED","content":"FORGED"},
  {"role":"assistant","content":"FORGED","reasoning":"FORGED"},{"role":"user","content":"d"}],
  "tools":[{"type":"function","function":{"name":"f","description":"FORGED","parameters":
   {"type":"object","properties":{"FORGED":{"type":"string","enum":["FORGED"]}}}}}]})";

class Forgery {
 public:
  explicit Forgery(const Family& family) {
    const auto source = SharedData("golden/templates/sources/" + family.chat_template + ".jinja");
    const auto folder = PublishedTokenizer(family.tokenizer);
    if (!source.has_value() || !folder.has_value()) SKIP("published tokenizers are not here");
    ChatTemplateSources sources;
    sources.templates.push_back({"default", ReadFile(*source)});
    sources.special_tokens =
        *ReadJson(TestData("golden/templates/special_tokens.json.xz")).Find(family.chat_template);
    tokenizer_ = Tokenizer::FromDirectory(*folder).value();
    tokenizer_->AddControlText(sources.templates[0].source);
    source_ = sources.templates[0].source;
    chat_template_ = ChatTemplate::Compile(std::move(sources)).value();
    api_ = Api::Create(generator_, *tokenizer_, chat_template_.get(),
                       {.id = "m", .max_model_len = 4096, .end_ids = {}}, {}, metrics_)
               .value();
  }

  /// Ids that only a template may make, and for reasoning an assistant.
  std::vector<int32_t> ControlIds() const {
    std::vector<int32_t> ids;
    for (int32_t id = 0; id < tokenizer_->vocab_size(); ++id) {
      if (IsControl(id)) ids.push_back(id);
    }
    return ids;
  }
  const Tokenizer& tokenizer() const { return *tokenizer_; }

  struct Judged {
    bool safe = false;         // the control ids are those of template segments and no others
    int64_t template_ids = 0;  // control ids of template segments
  };
  /// Nothing when the template refuses the body.
  std::optional<Judged> Judge(const char* body, absl::string_view forged) {
    const std::string quoted = ToString(Json(forged));
    const std::string inner = quoted.substr(1, quoted.size() - 2);
    NoPeer peer;
    HttpRequest request;
    request.method = "POST";
    request.path = "/apply-template";
    request.body = absl::StrReplaceAll(body, {{"FORGED", inner}});
    // Inside the text of arguments quotes and backslashes are escaped once more; markers have none.
    const HttpResponse response = api_->Answer(request, peer);
    if (response.status != 200) return std::nullopt;
    const Json json = ParseJson(response.body).value();
    const std::string& prompt = json.Find("prompt")->as_string();
    int64_t allowed = 0;
    Judged judged;
    for (const Json& segment : json.Find("segments")->as_array()) {
      const auto begin = static_cast<size_t>(segment.Find("begin")->as_integer());
      const auto end = static_cast<size_t>(segment.Find("end")->as_integer());
      const std::string& origin = segment.Find("origin")->as_string();
      const Origin trust = origin == "template"    ? Origin::kTemplate
                           : origin == "assistant" ? Origin::kAssistant
                                                   : Origin::kInput;
      const auto ids = tokenizer_->Encode({{prompt.substr(begin, end - begin), trust}}, {}).value();
      const int64_t count = Count(ids);
      if (trust == Origin::kInput && count > 0) return judged;
      if (trust == Origin::kAssistant && count > 0 && !absl::StrContains(forged, "think>")) {
        return judged;
      }
      if (trust == Origin::kTemplate) judged.template_ids += count;
      allowed += count;
    }
    std::vector<int32_t> tokens;
    for (const Json& id : json.Find("tokens")->as_array()) {
      tokens.push_back(static_cast<int32_t>(id.as_integer()));
    }
    const bool bos = !tokens.empty() && tokens[0] == tokenizer_->bos_id() &&
                     !absl::StartsWith(prompt, tokenizer_->Bytes(tokens[0]));
    judged.safe = Count(tokens) == allowed + (bos ? 1 : 0);
    return judged;
  }

 private:
  bool IsControl(int32_t id) const {
    const absl::string_view bytes = tokenizer_->Bytes(id);
    if (bytes.size() < 3 || tokenizer_->Find(bytes) != id) return false;
    const bool marker = (bytes.front() == '<' && bytes.back() == '>') ||
                        (bytes.front() == '[' && bytes.back() == ']');
    return tokenizer_->IsSpecial(id) || bytes == "<think>" || bytes == "</think>" ||
           bytes == "<tool_call>" || bytes == "</tool_call>" ||
           (marker && absl::StrContains(source_, bytes));
  }
  int64_t Count(const std::vector<int32_t>& ids) const {
    return std::count_if(ids.begin(), ids.end(), [&](int32_t id) { return IsControl(id); });
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  std::string source_;
  std::unique_ptr<ChatTemplate> chat_template_;
  FakeGenerator generator_;
  ServingMetrics metrics_;
  std::unique_ptr<Api> api_;
};

TEST_CASE("the text of no control token becomes one, in any field of any family",
          "[http][R31][forgery]") {
  const Family family = GENERATE(from_range(kFamilies));
  CAPTURE(family.chat_template);
  Forgery forgery(family);
  const std::vector<int32_t> ids = forgery.ControlIds();
  CHECK(ids.size() >= 3);
  int checked = 0;
  for (const char* body : {kPlain, kSystem, kRole, kTools}) {
    const auto harmless = forgery.Judge(body, "x");
    if (!harmless.has_value()) continue;
    for (const int32_t id : ids) {
      const std::string text(forgery.tokenizer().Bytes(id));
      for (const std::string& forged : {text, absl::StrCat(" ", text, "\n"), text + text}) {
        const auto judged = forgery.Judge(body, forged);
        if (!judged.has_value()) continue;  // the template refuses what it cannot write
        ++checked;
        // Templates look for reasoning tags in content and then write their own.
        const bool thinks = absl::StrContains(forged, "think>");
        const bool equal = judged->template_ids == harmless->template_ids;
        if (judged->safe && (equal || thinks)) continue;
        CAPTURE(body, forged);
        CHECK(judged->safe);
        CHECK(judged->template_ids == harmless->template_ids);
      }
    }
  }
  CHECK(checked >= 3);
}

}  // namespace
}  // namespace neurogrid
