// The API over a chat template with tools and reasoning, and a model that says what a test wants.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "coordinator/api.h"
#include "tests/http/fake_serving.h"

namespace neurogrid {

/// Tagged calls and <think> tags that are tokens, as Qwen3 has them.
class Talk {
 public:
  /// `source`: of the chat template; "" for one that knows tools and reasoning.
  explicit Talk(std::string source = "", ApiOptions options = {});

  std::string says;  // the model, to every request
  FinishReason finish = FinishReason::kStop;

  struct Response {
    int status = 0;
    Json json;                 // of an answer in one piece, and of errors
    std::vector<Json> chunks;  // of a stream
    std::string ignored;       // X-Ignored-Params
    const Json& choice() const { return json.Find("choices")->as_array()[0]; }
    const Json& message() const { return *choice().Find("message"); }
  };
  /// A body about one user message, with more fields.
  Response Ask(const std::string& fields);
  Response Post(const std::string& path, const std::string& body);
  Response Get(const std::string& path);

  FakeTokenizer tokenizer;
  std::unique_ptr<ChatTemplate> chat_template;
  FakeGenerator generator;
  ServingMetrics metrics;
  std::unique_ptr<Api> api;

  static constexpr int32_t kThink = 260, kThinkEnd = 261, kCall = 262, kCallEnd = 263;
  static const std::string kTools;  // "tools":[...] with get_weather and now
};

/// The message that a client puts together from the chunks of a stream, and what ended it.
Json MergedChoice(const std::vector<Json>& chunks);

}  // namespace neurogrid
