// How a model marks reasoning and tool calls in its answers (models.md 6.5).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace neurogrid {

/// A text that structures an answer. Where a token is exactly this text, only the token counts, not
/// other tokens that spell it.
struct Marker {
  std::string text;  // "": there is none
  int32_t id = -1;   // -1: spelled
  bool operator==(const Marker&) const = default;
};

enum class ToolSyntax : uint8_t {
  kNone,
  kTagged,    // <tool_call>{"name":.., "arguments":{..}}</tool_call>, repeated (Qwen, Hermes)
  kBareJson,  // {"name":.., "parameters":{..}} as the answer, or after <|python_tag|> (Llama 3.1+)
  kJsonList,  // [TOOL_CALLS][{"name":.., "arguments":{..}}, ..] (Mistral)
  kPython,    // <|tool_call_start|>[f(a=1)]<|tool_call_end|> (LFM2)
};

/// Where an answer begins, by how its prompt ends.
enum class ReasoningStart : uint8_t {
  kOutside,       // the answer may open reasoning itself
  kAfterOpenTag,  // inside; one newline still belongs to the tag
  kInside,
  kAfterCloseTag,  // outside; newlines still belong to the tag
};

/// What the answers of one request are read by.
struct AnswerFormat {
  Marker think_open;
  Marker think_close;
  ReasoningStart start = ReasoningStart::kOutside;
  ToolSyntax tools = ToolSyntax::kNone;  // kNone: calls are not looked for
  Marker call_open;                      // of kBareJson: may be missing from the answer
  Marker call_close;                     // "" where the syntax has none
  std::vector<std::string> tool_names;
};

}  // namespace neurogrid
