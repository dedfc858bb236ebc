// Chat templates: messages to prompt text, as jinja2 in transformers renders them (models.md 6).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/json.h"
#include "common/status.h"
#include "engine/model/gguf.h"
#include "engine/text/provenance.h"

namespace neurogrid {

/// The template sources a model carries (models.md 6.1) and its special tokens.
struct ChatTemplateSources {
  struct Named {
    std::string name;  // "default", "tool_use", ...
    std::string source;
  };
  std::vector<Named> templates;                // empty: this model has no chat template
  Json special_tokens = Json(Json::Object());  // bos_token, eos_token, ...; only those that are set
};
absl::StatusOr<ChatTemplateSources> ChatTemplateSourcesOfDirectory(const std::string& directory);
absl::StatusOr<ChatTemplateSources> ChatTemplateSourcesOfGguf(const Gguf& gguf);

class ChatTemplate {
 public:
  /// Compiles; the error names line and cause.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Compile(ChatTemplateSources sources);
  virtual ~ChatTemplate() = default;

  struct Input {
    Json messages;   // array of objects, order and unknown keys kept; the caller has dropped null
                     // keys (6.4)
    Json tools;      // array or null
    Json documents;  // array or null
    Json kwargs = Json(Json::Object());  // chat_template_kwargs
    bool add_generation_prompt = true;
    bool continue_final_message = false;
    absl::Time now;  // strftime_now, in UTC
  };
  /// InvalidArgument with the text of raise_exception, or naming the limit that was passed.
  virtual absl::StatusOr<PromptText> Render(const Input& input) const = 0;

  /// Source of the template used without tools.
  virtual const std::string& source() const = 0;
  /// All of them.
  virtual const std::vector<ChatTemplateSources::Named>& sources() const = 0;
  /// Probed at load: the template iterates over content parts (lists stay lists).
  virtual bool takes_content_lists() const = 0;
  /// Probed at load: rendered prompts depend on the date.
  virtual bool reads_clock() const = 0;
};

/// Whether an error of Render is the template's own word (raise_exception) and not a fault of it.
bool IsRaisedByTemplate(const absl::Status& status);

}  // namespace neurogrid
