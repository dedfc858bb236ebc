// The tokenizer.ggml.* keys of a GGUF file (models.md 3.6).
#include <algorithm>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/tokenizer_parts.h"
#include "engine/text/unicode.h"

namespace neurogrid {
namespace {

enum TokenType : int64_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

/// Control tokens with these spellings end a turn, whether or not a key names them.
constexpr absl::string_view kEndSpellings[] = {
    "<|eot_id|>", "<|im_end|>",      "<|end|>", "<end_of_turn>", "<|endoftext|>",
    "<|eom_id|>", "<|end_of_text|>", "</s>",    "<eos>",         "<｜end▁of▁sentence｜>"};

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

struct Vocabulary {
  const std::vector<std::string>* tokens;
  const std::vector<int64_t>* types;
};

absl::StatusOr<Vocabulary> ReadVocabulary(const Gguf& gguf) {
  Vocabulary vocabulary;
  NG_ASSIGN_OR_RETURN(vocabulary.tokens, gguf.Strings("tokenizer.ggml.tokens"));
  NG_ASSIGN_OR_RETURN(vocabulary.types, gguf.Integers("tokenizer.ggml.token_type"));
  const size_t count = vocabulary.tokens->size();
  if (static_cast<int64_t>(count) > kVocabularyMax) {
    return Invalid("tokenizer.ggml.tokens has ", count, " tokens, more than ", kVocabularyMax);
  }
  if (vocabulary.types->size() != count) {
    return Invalid("tokenizer.ggml.token_type has ", vocabulary.types->size(),
                   " entries but there are ", count, " tokens");
  }
  for (size_t id = 0; id < count; ++id) {
    const int64_t type = (*vocabulary.types)[id];
    if (type < kNormal || type > kByte) {
      return Invalid("tokenizer.ggml.token_type[", id, "] is ", type, ", expected 1 to 6");
    }
    const std::string& token = (*vocabulary.tokens)[id];
    if (FirstInvalidUtf8(token) != token.size()) {
      return Invalid("tokenizer.ggml.tokens[", id, "] is not UTF-8");
    }
  }
  return vocabulary;
}

/// Ids of the spellings that text or merges may mean. Normal tokens win over others of the same
/// spelling.
absl::StatusOr<SpellingIds> SpellingsOf(const Vocabulary& vocabulary) {
  SpellingIds ids;
  const auto& tokens = *vocabulary.tokens;
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (tokens[id].empty() || (*vocabulary.types)[id] == kUnused) continue;
    const auto [place, fresh] = ids.emplace(tokens[id], static_cast<int32_t>(id));
    if (!fresh) {
      return Invalid("tokenizer.ggml.tokens has \"", tokens[id], "\" twice, at ", place->second,
                     " and ", id);
    }
  }
  return ids;
}

/// The id that a key names, -1 when the key is absent.
absl::StatusOr<int32_t> IdAt(const Gguf& gguf, absl::string_view key, int32_t absent,
                             size_t count) {
  if (gguf.Find(key) == nullptr) return absent < static_cast<int32_t>(count) ? absent : -1;
  NG_ASSIGN_OR_RETURN(const int64_t id, gguf.Integer(key));
  // Writers without such a token say -1, as a u32.
  if (id == -1 || id == 0xffffffff) return -1;
  if (id >= 0 && id < static_cast<int64_t>(count)) return static_cast<int32_t>(id);
  return Invalid(key, " is ", id, " but there are ", count, " tokens");
}

absl::StatusOr<bool> BoolAt(const Gguf& gguf, absl::string_view key, bool absent) {
  if (gguf.Find(key) == nullptr) return absent;
  return gguf.Bool(key);
}

/// What "pre" stands for: the steps before the bytes, and the flags that go with them. NFC is what
/// the tokenizer.json of those families says; a GGUF file does not.
struct PreKind {
  absl::string_view name;
  const absl::string_view* pattern;
  bool nfc = false;
  bool single_digits = false;
  bool ignore_merges = false;
  bool adds_bos = false;
};
constexpr PreKind kPreKinds[] = {
    {.name = "smollm", .pattern = &kGpt2Pattern, .single_digits = true},
    {.name = "gpt-2", .pattern = &kGpt2Pattern},
    {.name = "qwen2", .pattern = &kQwen2Pattern, .nfc = true},
    {.name = "deepseek-r1-qwen", .pattern = &kQwen2Pattern, .nfc = true},
    {.name = "llama-bpe", .pattern = &kLlama3Pattern, .ignore_merges = true, .adds_bos = true},
    {.name = "llama3", .pattern = &kLlama3Pattern, .ignore_merges = true, .adds_bos = true},
    {.name = "llama-v3", .pattern = &kLlama3Pattern, .ignore_merges = true, .adds_bos = true},
    {.name = "lfm2", .pattern = &kLlama3Pattern, .ignore_merges = true, .adds_bos = true},
    {.name = "tekken", .pattern = &kTekkenPattern, .ignore_merges = true, .adds_bos = true},
};

absl::StatusOr<const PreKind*> PreKindOf(const Gguf& gguf) {
  NG_ASSIGN_OR_RETURN(const std::string name, gguf.String("tokenizer.ggml.pre"));
  std::vector<absl::string_view> known;
  for (const PreKind& kind : kPreKinds) {
    if (kind.name == name) return &kind;
    known.push_back(kind.name);
  }
  return Invalid("tokenizer.ggml.pre \"", name, "\" is not supported, only ",
                 absl::StrJoin(known, ", "));
}

absl::Status ReadMerges(const Gguf& gguf, const SpellingIds& ids, std::vector<BpeMerge>& out) {
  NG_ASSIGN_OR_RETURN(const auto* merges, gguf.Strings("tokenizer.ggml.merges"));
  if (static_cast<int64_t>(merges->size()) > kMergesMax) {
    return Invalid("tokenizer.ggml.merges has ", merges->size(), " entries, more than ",
                   kMergesMax);
  }
  out.reserve(merges->size());
  for (const absl::string_view merge : *merges) {
    const size_t space = merge.find(' ', 1);
    if (space == absl::string_view::npos || space + 1 == merge.size()) {
      return Invalid("tokenizer.ggml.merges[", out.size(), "] is \"", merge.substr(0, 100),
                     "\", expected two tokens");
    }
    NG_ASSIGN_OR_RETURN(out.emplace_back(),
                        MergeOf(ids, merge.substr(0, space), merge.substr(space + 1)));
  }
  return absl::OkStatus();
}

/// Byte-level BPE by merges. Returns whether BOS is added when the file does not say.
absl::StatusOr<bool> ReadByteLevel(const Gguf& gguf, const Vocabulary& vocabulary,
                                   const SpellingIds& ids, TokenizerParts& out) {
  NG_ASSIGN_OR_RETURN(const PreKind* kind, PreKindOf(gguf));
  if (kind->nfc) out.normalizer = Normalizer({NormalForm::kNfc});
  std::vector<PreTokenizerStep> steps;
  if (kind->single_digits) steps.emplace_back(SetStep{SetStep::kDigits, SplitBehavior::kIsolated});
  steps.emplace_back(IsolatedBy(*kind->pattern));
  out.pre_tokenizer = PreTokenizer(std::move(steps));
  NG_RETURN_IF_ERROR(ReadMerges(gguf, ids, out.bpe.merges));
  out.bpe.byte_units = true;
  out.bpe.short_pieces = true;
  out.bpe.ignore_merges = kind->ignore_merges;
  out.bpe.byte_tokens.fill(-1);
  out.decoder.byte_level = true;
  out.class_name = "PreTrainedTokenizerFast";
  for (size_t id = 0; id < vocabulary.tokens->size(); ++id) {
    const bool formed = (*vocabulary.types)[id] == kNormal;
    out.bpe.units.push_back(formed ? BytesOfSpelling((*vocabulary.tokens)[id]).value_or("") : "");
  }
  return kind->adds_bos;
}

/// Writers spell the space runs of Gemma as spaces, the tokenizer.json of the same model as U+2581.
std::string SpacedRun(const std::string& token) {
  if (token.find_first_not_of(' ') != std::string::npos) return token;
  return absl::StrReplaceAll(token, {{" ", "▁"}});
}

/// SentencePiece BPE by scores.
absl::Status ReadByScore(const Gguf& gguf, const Vocabulary& vocabulary, const SpellingIds& ids,
                         TokenizerParts& out) {
  NG_ASSIGN_OR_RETURN(const auto* scores, gguf.Numbers("tokenizer.ggml.scores"));
  if (scores->size() != vocabulary.tokens->size()) {
    return Invalid("tokenizer.ggml.scores has ", scores->size(), " entries but there are ",
                   vocabulary.tokens->size(), " tokens");
  }
  NG_ASSIGN_OR_RETURN(const bool space, BoolAt(gguf, "tokenizer.ggml.add_space_prefix", true));
  std::vector<NormalizerStep> steps;
  if (space) steps.emplace_back(PrependStep{"▁"});
  steps.emplace_back(ReplaceStep{" ", nullptr, "▁"});
  out.normalizer = Normalizer(std::move(steps));
  out.bpe.by_score = true;
  out.bpe.byte_tokens = ByteTokensOf(ids);
  out.decoder.byte_fallback = true;
  out.decoder.strips_left = space;
  out.decoder.steps.emplace_back(ReplaceStep{"▁", nullptr, " "});
  out.class_name = "LlamaTokenizerFast";
  for (size_t id = 0; id < vocabulary.tokens->size(); ++id) {
    const double score = (*scores)[id];
    if (!(score == score)) return Invalid("tokenizer.ggml.scores[", id, "] is not a number");
    // Gemma's runs of spaces and line ends are user defined, and what merging gives.
    const int64_t type = (*vocabulary.types)[id];
    const bool formed = type == kNormal || type == kUserDefined;
    // SentencePiece takes user-defined pieces before all others, whatever score a writer notes; of
    // two the left one grows first, as by the merges of Gemma's tokenizer.json.
    const float infinity = std::numeric_limits<float>::infinity();
    out.bpe.scores.push_back(type == kUserDefined ? infinity : static_cast<float>(score));
    out.bpe.units.push_back(formed ? SpacedRun((*vocabulary.tokens)[id]) : "");
  }
  return absl::OkStatus();
}

void AddEnd(std::vector<int32_t>& ends, int32_t id) {
  if (id >= 0 && std::find(ends.begin(), ends.end(), id) == ends.end()) ends.push_back(id);
}

void ReadAdded(const Vocabulary& vocabulary, bool by_score, TokenizerParts& out) {
  for (size_t id = 0; id < vocabulary.tokens->size(); ++id) {
    const int64_t type = (*vocabulary.types)[id];
    const std::string& token = (*vocabulary.tokens)[id];
    if (token.empty() || (type != kControl && type != kUserDefined && type != kUnknown)) continue;
    AddedToken added;
    added.id = static_cast<int32_t>(id);
    added.content = token;
    added.special = type != kUserDefined;
    if (by_score && type == kUserDefined) {
      added.content = out.spellings[id] = SpacedRun(token);
    }
    out.added.push_back(added);
    const bool ends = std::find(std::begin(kEndSpellings), std::end(kEndSpellings), token) !=
                      std::end(kEndSpellings);
    if (type == kControl && ends) AddEnd(out.end_ids, added.id);
  }
}

absl::StatusOr<TokenizerParts> ReadParts(const Gguf& gguf) {
  TokenizerParts out;
  NG_ASSIGN_OR_RETURN(const std::string model, gguf.String("tokenizer.ggml.model"));
  const bool by_score = model == "llama";
  if (!by_score && model != "gpt2") {
    return Invalid("tokenizer.ggml.model \"", model, "\" is not supported, only gpt2 and llama");
  }
  NG_ASSIGN_OR_RETURN(const Vocabulary vocabulary, ReadVocabulary(gguf));
  NG_ASSIGN_OR_RETURN(const SpellingIds ids, SpellingsOf(vocabulary));
  bool adds_bos = true;
  if (by_score) {
    NG_RETURN_IF_ERROR(ReadByScore(gguf, vocabulary, ids, out));
  } else {
    NG_ASSIGN_OR_RETURN(adds_bos, ReadByteLevel(gguf, vocabulary, ids, out));
  }
  out.spellings = *vocabulary.tokens;
  const size_t count = out.spellings.size();
  const auto id_at = [&](absl::string_view name, int32_t absent) {
    return IdAt(gguf, absl::StrCat("tokenizer.ggml.", name, "_token_id"), absent, count);
  };
  NG_ASSIGN_OR_RETURN(out.bos_id, id_at("bos", by_score ? 1 : -1));
  NG_ASSIGN_OR_RETURN(out.eos_id, id_at("eos", by_score ? 2 : -1));
  // Byte-level vocabularies name an unknown token but never use it: bytes without token vanish.
  NG_ASSIGN_OR_RETURN(const int32_t unk, id_at("unknown", by_score ? 0 : -1));
  if (by_score) out.bpe.unk_id = unk;
  NG_ASSIGN_OR_RETURN(const int32_t eot, id_at("eot", -1));
  NG_ASSIGN_OR_RETURN(const int32_t eom, id_at("eom", -1));
  for (const int32_t id : {out.eos_id, eot, eom}) AddEnd(out.end_ids, id);
  ReadAdded(vocabulary, by_score, out);
  NG_ASSIGN_OR_RETURN(adds_bos, BoolAt(gguf, "tokenizer.ggml.add_bos_token", adds_bos));
  NG_ASSIGN_OR_RETURN(const bool adds_eos, BoolAt(gguf, "tokenizer.ggml.add_eos_token", false));
  if (adds_bos && out.bos_id >= 0) out.prefix.push_back(out.bos_id);
  if (adds_eos && out.eos_id >= 0) out.suffix.push_back(out.eos_id);
  return out;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromGguf(const Gguf& gguf) {
  absl::StatusOr<TokenizerParts> parts = ReadParts(gguf);
  if (parts.ok()) {
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = MakeTokenizer(*std::move(parts));
    if (tokenizer.ok()) return tokenizer;
    parts = tokenizer.status();
  }
  const absl::string_view message = parts.status().message();
  if (absl::StartsWith(message, gguf.path())) return parts.status();  // names the file already
  return absl::InvalidArgumentError(absl::StrCat(gguf.path(), ": ", message));
}

}  // namespace neurogrid
