// What both kinds of tokenizer files say, and the tokenizer that is made of it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/status.h"
#include "engine/text/added_tokens.h"
#include "engine/text/bpe.h"
#include "engine/text/normalizer.h"
#include "engine/text/pre_tokenizer.h"
#include "engine/text/tokenizer.h"

namespace neurogrid {

inline constexpr int64_t kVocabularyMax = int64_t{1} << 20;
inline constexpr int64_t kMergesMax = int64_t{4} << 20;
inline constexpr int64_t kAddedTokensMax = int64_t{64} << 10;
/// Tables are as long as the largest id, so ids have a bound of their own.
inline constexpr int64_t kTokenIdMax = int64_t{4} << 20;

/// Takes up to so many `content` from the ends of a token.
struct TokenStrip {
  std::string content;
  int64_t start = 0, stop = 0;
};

/// How the spelling of a token becomes bytes again.
struct TokenDecoder {
  bool byte_level = false;     // the byte alphabet
  bool byte_fallback = false;  // <0xNN> is a byte
  bool strips_left = false;    // one leading space of the whole text goes
  std::vector<std::variant<ReplaceStep, TokenStrip>> steps;  // on each token by itself
};

struct TokenizerParts {
  std::vector<std::string> spellings;  // [ids] of the model's vocabulary, "" for a hole
  BpeParts bpe;  // units are filled by whoever knows which spellings text may form
  std::vector<AddedToken> added;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  TokenDecoder decoder;
  std::vector<int32_t> prefix, suffix;  // what add_special adds
  int32_t bos_id = -1;
  int32_t eos_id = -1;
  std::vector<int32_t> end_ids;
  std::string class_name;
};

/// InvalidArgument for added tokens whose ids or spellings contradict the vocabulary.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(TokenizerParts parts);

using SpellingIds = absl::flat_hash_map<absl::string_view, int32_t>;

/// Ids of a merge "left right"; InvalidArgument when one of the three has no token.
absl::StatusOr<BpeMerge> MergeOf(const SpellingIds& ids, absl::string_view left,
                                 absl::string_view right);

/// The ids of <0x00> ... <0xFF>, -1 for those without token.
std::array<int32_t, 256> ByteTokensOf(const SpellingIds& ids);

}  // namespace neurogrid
