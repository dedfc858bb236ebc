// A serving side without a model: byte tokens, a plain template, scripted generations.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/generator.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"

namespace neurogrid {

/// Ids 0..255 are bytes; then <s>, </s>, <|im_start|>, <|im_end|>, and more words that are not
/// special. Only template text makes ids of words.
class FakeTokenizer final : public Tokenizer {
 public:
  explicit FakeTokenizer(const std::vector<std::string>& words = {});

  static constexpr int32_t kBos = 256, kEos = 257, kTurn = 258, kTurnEnd = 259, kVocab = 260;
  bool wants_bos = false;

  absl::StatusOr<std::vector<int32_t>> Encode(const PromptText& text,
                                              const EncodeOptions& options) const override;
  int32_t vocab_size() const override { return static_cast<int32_t>(texts_.size()); }
  absl::string_view Bytes(int32_t id) const override { return texts_[static_cast<size_t>(id)]; }
  bool IsSpecial(int32_t id) const override { return id >= kBos && id < kVocab; }
  int32_t Find(absl::string_view token) const override;
  int32_t bos_id() const override { return kBos; }
  int32_t eos_id() const override { return kEos; }
  const std::vector<int32_t>& end_ids() const override { return end_ids_; }
  bool adds_bos() const override { return wants_bos; }
  bool strips_leading_space() const override { return false; }
  void AddControlText(absl::string_view) override {}
  const std::string& class_name() const override { return class_name_; }

 private:
  std::vector<std::string> texts_;
  std::vector<int32_t> end_ids_ = {kEos, kTurnEnd};
  std::string class_name_ = "FakeTokenizer";
};

/// <|im_start|>ROLE\nCONTENT<|im_end|>\n for each message, tools and calls as JSON; refuses the
/// role "forbidden".
class FakeTemplate final : public ChatTemplate {
 public:
  bool lists = false;
  absl::StatusOr<PromptText> Render(const Input& input) const override;
  const std::string& source() const override { return sources_[0].source; }
  const std::vector<ChatTemplateSources::Named>& sources() const override { return sources_; }
  bool takes_content_lists() const override { return lists; }
  bool reads_clock() const override { return false; }
  /// What was rendered last, or nothing since Forget().
  Input last() const;
  void Forget();

 private:
  mutable std::mutex mutex_;
  mutable Input last_;
  std::vector<ChatTemplateSources::Named> sources_ = {{"default", "{{ messages }}"}};
};

/// What a generation gives, batch by batch, one for each Next.
struct FakeScript {
  std::vector<std::vector<GenerationEvent>> batches = {};
  absl::Status end = absl::OkStatus();  // after the batches
  bool forever = false;                 // nothing more comes and it is never done
  GenerationUsage usage = {};
  Generation::Progress progress = {};
};

class FakeGenerator final : public Generator {
 public:
  FakeGenerator();
  std::function<FakeScript(const GenerationRequest&)> script;
  std::optional<Refusal> refusal;
  std::atomic<ServingState> serving_state{ServingState::kReady};
  std::atomic<bool> is_alive{true};
  std::atomic<int> running{0};  // generations that exist
  int64_t context = 4096;

  GenerationRequest last() const;
  int started() const { return started_; }

  std::unique_ptr<Generation> Start(GenerationRequest request, Refusal* refused) override;
  ServingState state() const override { return serving_state; }
  std::vector<std::string> missing() const override { return {"2 workers"}; }
  bool alive() const override { return is_alive; }
  double canary_age_ms() const override { return 5; }
  int64_t context_tokens_max() const override { return context; }
  Json DescribeCluster() const override { return Json::Object{{"epoch", 7}}; }
  Json DescribeRequests() const override { return Json::Object{{"running", Json::Array{}}}; }
  std::string fingerprint() const override { return "fp_0123456789abcdef"; }

 private:
  mutable std::mutex mutex_;
  GenerationRequest last_;
  std::atomic<int> started_{0};
};

/// What the serving side makes of a model that says `text`, a token at a time: words of the
/// tokenizer as their tokens, the rest byte by byte. Tokens that are forced come in between; behind
/// a forced end of reasoning the text goes on after its own.
FakeScript Speech(const Tokenizer& tokenizer, const GenerationRequest& request,
                  const std::string& text, FinishReason finish = FinishReason::kStop);

/// An event of plain text: one token a byte, log-probability -0.5 each, when `text` is not empty.
GenerationEvent TextEvent(int choice, const std::string& text);
/// The end: the end token, and `reason`.
GenerationEvent EndEvent(int choice, FinishReason finish, Json stop_reason = nullptr);

}  // namespace neurogrid
