// How a model's chat template and tokenizer treat tools and reasoning, found out by rendering
// probes when the model is loaded (models.md 6.4, 6.5); and conversations brought into that form.
#pragma once

#include <string>
#include <vector>

#include "common/status.h"
#include "engine/text/answer_format.h"
#include "engine/text/chat_template.h"
#include "engine/text/provenance.h"
#include "engine/text/tokenizer.h"

namespace neurogrid {

struct ChatFormat {
  bool takes_tools = false;  // the prompt shows the tools that are offered
  bool reads_enable_thinking = false;
  bool reads_reasoning_effort = false;
  bool reads_date = false;  // the clock, or date_string

  // Calls in the history.
  bool prints_calls = false;       // by the template; else they are written into the content
  bool null_beside_calls = false;  // absent content is null there, not ""
  bool arguments_as_text = false;  // not as an object
  bool nine_character_ids = false;

  // Answers.
  Marker think_open;
  Marker think_close;
  std::vector<int32_t> think_close_ids;  // the closing tag as tokens
  ToolSyntax tools = ToolSyntax::kNone;
  Marker call_open;
  Marker call_close;
};

ChatFormat FindChatFormat(const ChatTemplate& chat_template, const Tokenizer& tokenizer);

/// Renders OpenAI's messages, their tool arguments still JSON text, in the form the template takes.
absl::StatusOr<PromptText> RenderChat(const ChatTemplate& chat_template, const ChatFormat& format,
                                      ChatTemplate::Input input);

/// Whether answers to this prompt begin inside reasoning.
ReasoningStart ReasoningStartOf(const PromptText& prompt, const ChatFormat& format);

/// How calls are written, for people: "tagged_json", ...; "" for kNone.
absl::string_view NameOf(ToolSyntax syntax);

}  // namespace neurogrid
