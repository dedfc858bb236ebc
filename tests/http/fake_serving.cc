#include "tests/http/fake_serving.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "coordinator/answer_reader.h"

namespace neurogrid {
namespace {

class FakeGeneration final : public Generation {
 public:
  FakeGeneration(FakeScript script, std::atomic<int>& running)
      : script_(std::move(script)), running_(running) {
    ++running_;
  }
  ~FakeGeneration() override { --running_; }

  absl::StatusOr<std::vector<GenerationEvent>> Next(absl::Duration timeout) override {
    if (at_ < script_.batches.size()) return script_.batches[at_++];
    if (!script_.end.ok()) return script_.end;
    if (script_.forever) absl::SleepFor(timeout);
    return std::vector<GenerationEvent>{};
  }
  bool done() const override { return !script_.forever && at_ == script_.batches.size(); }
  Progress progress() const override { return script_.progress; }
  GenerationUsage usage() const override { return script_.usage; }

 private:
  const FakeScript script_;
  std::atomic<int>& running_;
  size_t at_ = 0;
};

}  // namespace

FakeTokenizer::FakeTokenizer(const std::vector<std::string>& words) {
  for (int byte = 0; byte < 256; ++byte) texts_.push_back(std::string(1, static_cast<char>(byte)));
  for (const char* text : {"<s>", "</s>", "<|im_start|>", "<|im_end|>"}) texts_.push_back(text);
  texts_.insert(texts_.end(), words.begin(), words.end());
}

absl::StatusOr<std::vector<int32_t>> FakeTokenizer::Encode(const PromptText& text,
                                                           const EncodeOptions& options) const {
  std::vector<int32_t> ids;
  if (options.add_special && wants_bos) ids.push_back(kBos);
  for (const TextSegment& segment : text) {
    absl::string_view rest = segment.text;
    while (!rest.empty()) {
      int32_t id = static_cast<unsigned char>(rest[0]);
      if (segment.origin == Origin::kTemplate && options.parse_special) {
        for (int32_t special = kBos; special < vocab_size(); ++special) {
          if (absl::StartsWith(rest, Bytes(special))) id = special;
        }
      }
      ids.push_back(id);
      rest.remove_prefix(Bytes(id).size());
      if (options.tokens_max >= 0 && static_cast<int64_t>(ids.size()) > options.tokens_max) {
        return absl::ResourceExhaustedError("too many tokens");
      }
    }
  }
  return ids;
}

int32_t FakeTokenizer::Find(absl::string_view token) const {
  for (int32_t id = vocab_size() - 1; id >= 0; --id) {
    if (Bytes(id) == token) return id;
  }
  return -1;
}

absl::StatusOr<PromptText> FakeTemplate::Render(const Input& input) const {
  {
    const std::lock_guard lock(mutex_);
    last_ = input;
  }
  PromptText text;
  if (!input.tools.is_null()) text.push_back({ToString(input.tools), Origin::kInput});
  for (const Json& message : input.messages.as_array()) {
    const std::string role = message.Find("role")->as_string();
    if (role == "forbidden") return absl::InvalidArgumentError("roles must alternate");
    const Json& content = *message.Find("content");
    text.push_back({absl::StrCat("<|im_start|>", role, "\n"), Origin::kTemplate});
    const Origin origin = role == "assistant" ? Origin::kAssistant : Origin::kInput;
    if (!content.is_null()) {
      text.push_back({content.is_string() ? content.as_string() : ToString(content), origin});
    }
    if (const Json* calls = message.Find("tool_calls")) text.push_back({ToString(*calls), origin});
    if (input.continue_final_message && &message == &input.messages.as_array().back()) return text;
    text.push_back({"<|im_end|>\n", Origin::kTemplate});
  }
  if (input.add_generation_prompt) {
    text.back().text += "<|im_start|>assistant\n";
  }
  return text;
}

ChatTemplate::Input FakeTemplate::last() const {
  const std::lock_guard lock(mutex_);
  return last_;
}

void FakeTemplate::Forget() {
  const std::lock_guard lock(mutex_);
  last_ = {};
}

FakeGenerator::FakeGenerator() {
  script = [](const GenerationRequest& request) {
    FakeScript hello;
    hello.usage = {.prompt_tokens = static_cast<int64_t>(request.prompts[0].size()),
                   .completion_tokens = 0};
    const int choices = static_cast<int>(request.prompts.size()) * request.n;
    for (int choice = 0; choice < choices; ++choice) {
      hello.batches.push_back({TextEvent(choice, "Hel")});
      hello.batches.push_back({TextEvent(choice, "lo")});
      hello.batches.push_back({EndEvent(choice, FinishReason::kStop)});
      hello.usage.completion_tokens += 6;
    }
    return hello;
  };
}

GenerationRequest FakeGenerator::last() const {
  const std::lock_guard lock(mutex_);
  return last_;
}

std::unique_ptr<Generation> FakeGenerator::Start(GenerationRequest request, Refusal* refused) {
  if (refusal) {
    *refused = *refusal;
    return nullptr;
  }
  ++started_;
  auto generation = std::make_unique<FakeGeneration>(script(request), running);
  const std::lock_guard lock(mutex_);
  last_ = std::move(request);
  return generation;
}

FakeScript Speech(const Tokenizer& tokenizer, const GenerationRequest& request,
                  const std::string& text, FinishReason finish) {
  FakeScript script;
  script.usage.prompt_tokens = static_cast<int64_t>(request.prompts[0].size());
  AnswerReader reader(tokenizer, request);
  for (int choice = 0; choice < reader.choices(); ++choice) {
    std::vector<int32_t> said = tokenizer.Encode({{text, Origin::kTemplate}}, {}).value();
    if (finish == FinishReason::kStop) said.push_back(tokenizer.end_ids().back());
    std::vector<int32_t> forced = reader.FirstTokens(choice);
    for (size_t at = 0; at < said.size() && !reader.ended(choice);) {
      SchedulerEvent event;
      event.choice = choice;
      if (!forced.empty()) {
        event.token = GeneratedToken{forced.front()};
        forced.erase(forced.begin());
        const auto own = std::find(said.begin(), said.end(), event.token->id);
        if (own != said.end()) at = static_cast<size_t>(own - said.begin()) + 1;
      } else {
        event.token = GeneratedToken{said[at++]};
        if (at == said.size()) event.finish = finish;
      }
      if (event.finish == FinishReason::kLength) event.stop_reason = "max_tokens";
      ++script.usage.completion_tokens;
      AnswerReader::Reading reading = reader.Take(std::move(event));
      if (!reading.forced.empty()) forced = reading.forced;
      script.batches.push_back({std::move(reading.event)});
    }
  }
  script.usage.reasoning_tokens = reader.reasoning_tokens();
  return script;
}

GenerationEvent TextEvent(int choice, const std::string& text) {
  GenerationEvent event;
  event.choice = choice;
  AddText(event.pieces, AnswerPiece::Kind::kContent, text);
  for (const char c : text) {
    const int32_t id = static_cast<unsigned char>(c);
    event.tokens.push_back({id, -0.5f, {{id, -0.5f}, {id + 1, -1.25f}}});
  }
  return event;
}

GenerationEvent EndEvent(int choice, FinishReason finish, Json stop_reason) {
  GenerationEvent event;
  event.choice = choice;
  if (finish == FinishReason::kStop) event.tokens.push_back({FakeTokenizer::kTurnEnd, -0.1f, {}});
  event.finish = finish;
  event.stop_reason = std::move(stop_reason);
  return event;
}

}  // namespace neurogrid
