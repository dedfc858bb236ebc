// tokenizer.json and tokenizer_config.json, as the tokenizers library writes them (models.md 5.1).
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/mapped_file.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/tokenizer_json_steps.h"

namespace neurogrid {
namespace {

constexpr size_t kFileBytesMax = size_t{64} << 20;

constexpr absl::string_view kPostProcessors[] = {"Sequence", "TemplateProcessing", "ByteLevel"};

absl::StatusOr<int32_t> IdOf(const Json& value, absl::string_view token) {
  if (value.is_integer() && value.as_integer() >= 0 && value.as_integer() < kTokenIdMax) {
    return static_cast<int32_t>(value.as_integer());
  }
  return Invalid("the id of token \"", token.substr(0, 100), "\" is ",
                 ToString(value).substr(0, 40), ", expected an integer from 0 to ",
                 kTokenIdMax - 1);
}

/// One TemplateProcessing wraps what earlier processors left.
absl::Status ParseTemplate(const Json& part, TokenizerParts& out) {
  const Json* single = part.Find("single");
  const Json* specials = part.Find("special_tokens");
  if (single == nullptr || !single->is_array()) {
    return Invalid("post_processor TemplateProcessing has no list \"single\"");
  }
  std::vector<int32_t> before, after;
  int sequences = 0;
  for (const Json& item : single->as_array()) {
    if (item.Find("Sequence") != nullptr) {
      ++sequences;
      continue;
    }
    const Json* special = item.Find("SpecialToken");
    if (special == nullptr) return Invalid("post_processor TemplateProcessing has an unknown item");
    NG_ASSIGN_OR_RETURN(const std::string name, StringAt(*special, "id", "post_processor"));
    const Json* entry = specials == nullptr ? nullptr : specials->Find(name);
    const Json* ids = entry == nullptr ? nullptr : entry->Find("ids");
    if (ids == nullptr || !ids->is_array()) {
      return Invalid("post_processor TemplateProcessing lists no ids for \"", name, "\"");
    }
    for (const Json& value : ids->as_array()) {
      NG_ASSIGN_OR_RETURN(const int32_t id, IdOf(value, name));
      (sequences == 0 ? before : after).push_back(id);
    }
  }
  if (sequences != 1) {
    return Invalid("post_processor TemplateProcessing has ", sequences,
                   " sequences in \"single\", expected 1");
  }
  out.prefix.insert(out.prefix.begin(), before.begin(), before.end());
  out.suffix.insert(out.suffix.end(), after.begin(), after.end());
  return absl::OkStatus();
}

absl::Status ParsePostProcessor(const Json* member, TokenizerParts& out) {
  NG_ASSIGN_OR_RETURN(const auto parts, Flatten(member, "processors", "post_processor"));
  for (const Json* part : parts) {
    NG_ASSIGN_OR_RETURN(const std::string type, StringAt(*part, "type", "post_processor"));
    if (type == "ByteLevel") continue;  // moves offsets, never ids
    if (type != "TemplateProcessing") return UnknownType("post_processor", type, kPostProcessors);
    NG_RETURN_IF_ERROR(ParseTemplate(*part, out));
  }
  return absl::OkStatus();
}

absl::Status ParseVocabulary(const Json& model, TokenizerParts& out, SpellingIds& ids) {
  const Json* vocab = model.Find("vocab");
  if (vocab == nullptr || !vocab->is_object()) return Invalid("model has no object \"vocab\"");
  const Json::Object& entries = vocab->as_object();
  if (static_cast<int64_t>(entries.size()) > kVocabularyMax) {
    return Invalid("the vocabulary has ", entries.size(), " entries, more than ", kVocabularyMax);
  }
  for (const JsonMember& entry : entries) {
    NG_ASSIGN_OR_RETURN(const int32_t id, IdOf(entry.value, entry.key));
    const size_t index = static_cast<size_t>(id);
    if (index >= out.spellings.size()) out.spellings.resize(index + 1);
    if (!out.spellings[index].empty()) {
      return Invalid("tokens \"", out.spellings[index], "\" and \"", entry.key, "\" share the id ",
                     id);
    }
    out.spellings[index] = entry.key;
    ids.emplace(entry.key, id);
  }
  return absl::OkStatus();
}

absl::Status ParseMerges(const Json& model, const SpellingIds& ids, std::vector<BpeMerge>& out) {
  const Json* merges = model.Find("merges");
  if (merges == nullptr || !merges->is_array()) return Invalid("model has no list \"merges\"");
  if (static_cast<int64_t>(merges->as_array().size()) > kMergesMax) {
    return Invalid("there are ", merges->as_array().size(), " merges, more than ", kMergesMax);
  }
  out.reserve(merges->as_array().size());
  for (const Json& merge : merges->as_array()) {
    absl::string_view left, right;
    if (merge.is_string()) {
      const absl::string_view text = merge.as_string();
      const size_t space = text.find(' ');
      if (space != absl::string_view::npos &&
          text.find(' ', space + 1) == absl::string_view::npos) {
        left = text.substr(0, space);
        right = text.substr(space + 1);
      }
    } else if (merge.is_array() && merge.as_array().size() == 2 &&
               merge.as_array()[0].is_string() && merge.as_array()[1].is_string()) {
      left = merge.as_array()[0].as_string();
      right = merge.as_array()[1].as_string();
    }
    if (left.empty() || right.empty()) {
      return Invalid("merge ", out.size(), " is ", ToString(merge).substr(0, 100),
                     ", expected two tokens");
    }
    NG_ASSIGN_OR_RETURN(out.emplace_back(), MergeOf(ids, left, right));
  }
  return absl::OkStatus();
}

/// Parts of BPE that no supported family uses, and that would change ids.
absl::Status RefuseUnknownModel(const Json& model) {
  const Json* type = model.Find("type");
  if (type != nullptr && !(*type == Json("BPE"))) {
    return Invalid("model type ", ToString(*type).substr(0, 40), " is not supported, only BPE");
  }
  for (const absl::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const Json* value = model.Find(key);
    if (value == nullptr || value->is_null() || *value == Json("")) continue;
    return Invalid("model.", key, " is not supported");
  }
  const Json* dropout = model.Find("dropout");
  if (dropout != nullptr && !dropout->is_null() && !(*dropout == Json(0))) {
    return Invalid("model.dropout is not supported");
  }
  return absl::OkStatus();
}

absl::Status ParseModel(const Json* model, TokenizerParts& out) {
  if (model == nullptr || !model->is_object()) return Invalid("there is no object \"model\"");
  NG_RETURN_IF_ERROR(RefuseUnknownModel(*model));
  SpellingIds ids;
  NG_RETURN_IF_ERROR(ParseVocabulary(*model, out, ids));
  NG_RETURN_IF_ERROR(ParseMerges(*model, ids, out.bpe.merges));
  NG_ASSIGN_OR_RETURN(out.bpe.byte_fallback, BoolAt(*model, "byte_fallback", false, "model"));
  NG_ASSIGN_OR_RETURN(out.bpe.fuse_unk, BoolAt(*model, "fuse_unk", false, "model"));
  NG_ASSIGN_OR_RETURN(out.bpe.ignore_merges, BoolAt(*model, "ignore_merges", false, "model"));
  out.bpe.byte_tokens = ByteTokensOf(ids);
  const Json* unk = model->Find("unk_token");
  if (unk != nullptr && !unk->is_null()) {
    NG_ASSIGN_OR_RETURN(const std::string spelling, StringAt(*model, "unk_token", "model"));
    const auto found = ids.find(spelling);
    if (found == ids.end()) {
      return Invalid("model.unk_token \"", spelling, "\" is not in the vocabulary");
    }
    out.bpe.unk_id = found->second;
  }
  for (const std::string& spelling : out.spellings) {
    out.bpe.units.push_back(out.bpe.byte_units ? BytesOfSpelling(spelling).value_or("") : spelling);
  }
  return absl::OkStatus();
}

absl::Status ParseAdded(const Json* member, std::vector<AddedToken>& out) {
  if (member == nullptr || member->is_null()) return absl::OkStatus();
  if (!member->is_array()) return Invalid("added_tokens is a ", member->kind_name());
  if (static_cast<int64_t>(member->as_array().size()) > kAddedTokensMax) {
    return Invalid("there are ", member->as_array().size(), " added tokens, more than ",
                   kAddedTokensMax);
  }
  for (const Json& item : member->as_array()) {
    AddedToken token;
    NG_ASSIGN_OR_RETURN(token.content, StringAt(item, "content", "added_tokens"));
    const Json* id = item.Find("id");
    NG_ASSIGN_OR_RETURN(token.id, IdOf(id == nullptr ? Json() : *id, token.content));
    NG_ASSIGN_OR_RETURN(token.special, BoolAt(item, "special", false, "added_tokens"));
    NG_ASSIGN_OR_RETURN(token.normalized, BoolAt(item, "normalized", true, "added_tokens"));
    NG_ASSIGN_OR_RETURN(token.single_word, BoolAt(item, "single_word", false, "added_tokens"));
    NG_ASSIGN_OR_RETURN(token.lstrip, BoolAt(item, "lstrip", false, "added_tokens"));
    NG_ASSIGN_OR_RETURN(token.rstrip, BoolAt(item, "rstrip", false, "added_tokens"));
    if (!token.content.empty()) out.push_back(std::move(token));
  }
  return absl::OkStatus();
}

absl::StatusOr<TokenizerParts> ParseTokenizer(const Json& file) {
  TokenizerParts out;
  if (!file.is_object()) return Invalid("the file is a ", file.kind_name(), ", expected an object");
  NG_ASSIGN_OR_RETURN(PreTokenizerParts pre, ParsePreTokenizer(file.Find("pre_tokenizer")));
  out.pre_tokenizer = std::move(pre.pre_tokenizer);
  out.bpe.byte_units = pre.byte_level;
  out.bpe.short_pieces = pre.splits;
  NG_ASSIGN_OR_RETURN(out.normalizer, ParseNormalizer(file.Find("normalizer")));
  NG_ASSIGN_OR_RETURN(out.decoder, ParseDecoder(file.Find("decoder")));
  NG_RETURN_IF_ERROR(ParseModel(file.Find("model"), out));
  NG_RETURN_IF_ERROR(ParseAdded(file.Find("added_tokens"), out.added));
  NG_RETURN_IF_ERROR(ParsePostProcessor(file.Find("post_processor"), out));
  return out;
}

/// A special token of tokenizer_config.json: its text, or an object with "content". "" when unset.
std::string TokenText(const Json& config, absl::string_view key) {
  const Json* value = config.Find(key);
  if (value != nullptr && value->is_object()) value = value->Find("content");
  return value != nullptr && value->is_string() ? value->as_string() : "";
}

int32_t IdOfSpelling(const TokenizerParts& parts, absl::string_view spelling) {
  if (spelling.empty()) return -1;
  for (const AddedToken& token : parts.added) {
    if (token.content == spelling) return token.id;
  }
  for (size_t id = 0; id < parts.spellings.size(); ++id) {
    if (parts.spellings[id] == spelling) return static_cast<int32_t>(id);
  }
  return -1;
}

/// tokenizer_config.json names BOS and EOS; for the Llama and Gemma classes it also decides whether
/// they are added, whatever the post-processor says.
absl::Status ApplyConfig(const Json& config, TokenizerParts& out) {
  if (!config.is_object()) return Invalid("the file is a ", config.kind_name());
  const std::string class_name = TokenText(config, "tokenizer_class");
  if (!class_name.empty()) out.class_name = class_name;
  const bool llama = absl::StartsWith(class_name, "Llama");
  const bool gemma = absl::StartsWith(class_name, "Gemma");
  std::string bos = TokenText(config, "bos_token");
  std::string eos = TokenText(config, "eos_token");
  // The defaults of the two classes.
  if (config.Find("bos_token") == nullptr && (llama || gemma)) bos = llama ? "<s>" : "<bos>";
  if (config.Find("eos_token") == nullptr && (llama || gemma)) eos = llama ? "</s>" : "<eos>";
  out.bos_id = IdOfSpelling(out, bos);
  out.eos_id = IdOfSpelling(out, eos);
  if (!llama && !gemma) return absl::OkStatus();
  NG_ASSIGN_OR_RETURN(const bool add_bos, BoolAt(config, "add_bos_token", true, "config"));
  NG_ASSIGN_OR_RETURN(const bool add_eos, BoolAt(config, "add_eos_token", false, "config"));
  if (add_bos && out.bos_id < 0) {
    return Invalid("add_bos_token is true but bos_token \"", bos, "\" is no token");
  }
  if (add_eos && out.eos_id < 0) {
    return Invalid("add_eos_token is true but eos_token \"", eos, "\" is no token");
  }
  out.prefix.clear();
  out.suffix.clear();
  if (add_bos) out.prefix.push_back(out.bos_id);
  if (add_eos) out.suffix.push_back(out.eos_id);
  return absl::OkStatus();
}

absl::StatusOr<Json> ReadJsonFile(const std::string& path) {
  NG_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kFileBytesMax));
  absl::StatusOr<Json> json = ParseJson(text, kModelFileJsonLimits);
  if (!json.ok()) return Invalid(path, ": ", json.status().message());
  return json;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromDirectory(const std::string& directory) {
  const std::string path = directory + "/tokenizer.json";
  NG_ASSIGN_OR_RETURN(const Json file, ReadJsonFile(path));
  absl::StatusOr<TokenizerParts> parts = ParseTokenizer(file);
  if (!parts.ok()) return Invalid(path, ": ", parts.status().message());
  parts->class_name = "PreTrainedTokenizerFast";
  const std::string config_path = directory + "/tokenizer_config.json";
  if (std::filesystem::exists(config_path)) {
    NG_ASSIGN_OR_RETURN(const Json config, ReadJsonFile(config_path));
    const absl::Status applied = ApplyConfig(config, *parts);
    if (!applied.ok()) return Invalid(config_path, ": ", applied.message());
  }
  if (parts->eos_id >= 0) parts->end_ids.push_back(parts->eos_id);
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = MakeTokenizer(*std::move(parts));
  if (!tokenizer.ok()) return Invalid(path, ": ", tokenizer.status().message());
  return tokenizer;
}

}  // namespace neurogrid
