#include "coordinator/token_json.h"

#include <algorithm>
#include <charconv>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "engine/text/unicode.h"

namespace neurogrid {
namespace {

/// Keys must tell tokens apart, so bytes that are no text are spelled out.
std::string CompletionKey(absl::string_view bytes) {
  if (FirstInvalidUtf8(bytes) == bytes.size()) return std::string(bytes);
  std::string key = "bytes:";
  for (const char c : bytes) {
    absl::StrAppend(&key, "\\x", absl::Hex(static_cast<unsigned char>(c), absl::kZeroPad2));
  }
  return key;
}

Json BytesJson(absl::string_view bytes) {
  Json::Array array;
  for (const char c : bytes) array.push_back(static_cast<int>(static_cast<unsigned char>(c)));
  return array;
}

Json::Object ChatEntry(const Tokenizer& tokenizer, int32_t id, float logprob) {
  const absl::string_view bytes = tokenizer.Bytes(id);
  return {{"token", bytes}, {"logprob", LogprobJson(logprob)}, {"bytes", BytesJson(bytes)}};
}

int64_t CodePoints(absl::string_view bytes) {
  return std::count_if(bytes.begin(), bytes.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
}

}  // namespace

Json LogprobJson(float logprob) {
  const float value = logprob >= -9999.0f ? logprob : -9999.0f;  // NaN too
  char digits[32];
  const char* end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  double same = 0;
  std::from_chars(digits, end, same);
  return same;
}

Json ChatLogprobs(const Tokenizer& tokenizer, absl::Span<const GeneratedToken> tokens) {
  Json::Array content;
  for (const GeneratedToken& token : tokens) {
    Json::Object entry = ChatEntry(tokenizer, token.id, token.logprob);
    Json::Array top;
    for (const TokenLogprob& other : token.top) {
      top.push_back(ChatEntry(tokenizer, other.id, other.logprob));
    }
    entry.push_back({"top_logprobs", std::move(top)});
    content.push_back(std::move(entry));
  }
  return Json::Object{{"content", std::move(content)}, {"refusal", nullptr}};
}

Json CompletionLogprobs(const Tokenizer& tokenizer, absl::Span<const CompletionToken> tokens,
                        bool skip_special, int64_t* offset) {
  Json::Array texts;
  Json::Array logprobs;
  Json::Array tops;
  Json::Array offsets;
  for (const auto& [token, has_logprob] : tokens) {
    const absl::string_view bytes = tokenizer.Bytes(token.id);
    const std::string key = CompletionKey(bytes);
    texts.push_back(key);
    offsets.push_back(*offset);
    if (!skip_special || !tokenizer.IsSpecial(token.id)) *offset += CodePoints(bytes);
    if (!has_logprob) {
      logprobs.push_back(nullptr);
      tops.push_back(nullptr);
      continue;
    }
    logprobs.push_back(LogprobJson(token.logprob));
    // The token itself is always there, with the very same value.
    Json top = Json::Object{{key, LogprobJson(token.logprob)}};
    for (const TokenLogprob& other : token.top) {
      const std::string other_key = CompletionKey(tokenizer.Bytes(other.id));
      if (top.Find(other_key) == nullptr) top.Set(other_key, LogprobJson(other.logprob));
    }
    tops.push_back(std::move(top));
  }
  return Json::Object{{"tokens", std::move(texts)},
                      {"token_logprobs", std::move(logprobs)},
                      {"top_logprobs", std::move(tops)},
                      {"text_offset", std::move(offsets)}};
}

}  // namespace neurogrid
