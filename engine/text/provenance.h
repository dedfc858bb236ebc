// Prompt text that knows where each byte comes from, so that user text never becomes a control
// token.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace neurogrid {

/// models.md 5.5: template literals and special tokens; assistant text; system, user and tool text.
enum class Origin : uint8_t { kTemplate, kAssistant, kInput };

struct TextSegment {
  std::string text;
  Origin origin = Origin::kInput;
  bool operator==(const TextSegment&) const = default;
};

/// Adjacent segments of one origin are merged and empty ones dropped by whoever produces them.
using PromptText = std::vector<TextSegment>;

}  // namespace neurogrid
