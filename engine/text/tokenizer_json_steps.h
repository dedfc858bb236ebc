// The pipeline around the model in a tokenizer.json: normalizer, pre_tokenizer, decoder.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "common/json.h"
#include "engine/text/tokenizer_parts.h"

namespace neurogrid {

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

/// `where` names the object in messages: "decoder", "model" ...
absl::StatusOr<std::string> StringAt(const Json& object, absl::string_view key,
                                     absl::string_view where);
absl::StatusOr<bool> BoolAt(const Json& object, absl::string_view key, bool absent,
                            absl::string_view where);

/// "normalizer \"X\" is not supported, only A, B": what is there and what is known.
absl::Status UnknownType(absl::string_view where, absl::string_view type,
                         absl::Span<const absl::string_view> known);

/// The parts of a tokenizer.json member: itself, or the members of nested Sequences. Null gives
/// none.
absl::StatusOr<std::vector<const Json*>> Flatten(const Json* member, absl::string_view list_key,
                                                 absl::string_view where);

absl::StatusOr<Normalizer> ParseNormalizer(const Json* member);

struct PreTokenizerParts {
  PreTokenizer pre_tokenizer;
  bool byte_level = false;     // pieces are bytes
  bool byte_alphabet = false;  // pieces are spelled in the byte alphabet
  bool splits = false;
};
absl::StatusOr<PreTokenizerParts> ParsePreTokenizer(const Json* member);

absl::StatusOr<TokenDecoder> ParseDecoder(const Json* member);

}  // namespace neurogrid
