// Text to token ids and token ids to bytes, equal to the reference tokenizers (models.md 5).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/status.h"
#include "engine/model/gguf.h"
#include "engine/text/provenance.h"

namespace neurogrid {

class Tokenizer {
 public:
  /// From DIRECTORY/tokenizer.json (+ tokenizer_config.json). Unknown parts are errors naming them.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromDirectory(const std::string& directory);
  /// From the tokenizer.ggml.* keys.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromGguf(const Gguf& gguf);
  virtual ~Tokenizer() = default;

  struct EncodeOptions {
    bool add_special = false;   // BOS and EOS as the post-processor says
    bool parse_special = true;  // control tokens in template text become their ids
    int64_t tokens_max = -1;    // stop with ResourceExhausted one token past it; -1: no limit
  };
  /// InvalidArgument for text that is not UTF-8.
  virtual absl::StatusOr<std::vector<int32_t>> Encode(const PromptText& text,
                                                      const EncodeOptions& options) const = 0;

  /// One past the largest id that has a token.
  virtual int32_t vocab_size() const = 0;
  /// The bytes a token stands for, "" for an id without a token. Special tokens give their content.
  virtual absl::string_view Bytes(int32_t id) const = 0;
  /// Special tokens are left out of generated text unless asked for.
  virtual bool IsSpecial(int32_t id) const = 0;
  /// The id whose token is exactly this text (an added token first), or -1.
  virtual int32_t Find(absl::string_view token) const = 0;

  virtual int32_t bos_id() const = 0;  // -1: none
  virtual int32_t eos_id() const = 0;  // -1: none
  /// Ids that end a turn by this tokenizer's own word (models.md 1.4, 3.6).
  virtual const std::vector<int32_t>& end_ids() const = 0;
  /// True when BOS would be added by add_special.
  virtual bool adds_bos() const = 0;
  /// Decoding drops one leading space of the whole text (Strip left, Metaspace).
  virtual bool strips_leading_space() const = 0;
  /// Tells the tokenizer the chat template's source: added tokens whose text occurs in it join the
  /// control set (models.md 5.5). Call before the first Encode.
  virtual void AddControlText(absl::string_view template_source) = 0;
  /// "PreTrainedTokenizerFast", "LlamaTokenizerFast", ... for /tokenizer_info.
  virtual const std::string& class_name() const = 0;
};

/// Decodes whole: Bytes() of every id, special ones only when asked, invalid UTF-8 as U+FFFD.
std::string Decode(const Tokenizer& tokenizer, absl::Span<const int32_t> ids, bool skip_special);

}  // namespace neurogrid
