// tokenizer.json and tokenizer_config.json, as the tokenizers library writes them (models.md 5.1).
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/json.h"
#include "common/mapped_file.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/tokenizer_parts.h"

namespace neurogrid {
namespace {

constexpr size_t kFileBytesMax = size_t{64} << 20;

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

/// `where` names the object in messages: "decoder", "model" ...
absl::StatusOr<std::string> StringAt(const Json& object, absl::string_view key,
                                     absl::string_view where) {
  const Json* value = object.Find(key);
  if (value == nullptr) return Invalid(where, " has no \"", key, "\"");
  if (value->is_string()) return value->as_string();
  return Invalid(where, ".", key, " is a ", value->kind_name(), ", expected a string");
}

absl::StatusOr<bool> BoolAt(const Json& object, absl::string_view key, bool absent,
                            absl::string_view where) {
  const Json* value = object.Find(key);
  if (value == nullptr || value->is_null()) return absent;
  if (value->is_bool()) return value->as_bool();
  return Invalid(where, ".", key, " is a ", value->kind_name(), ", expected true or false");
}

absl::StatusOr<int32_t> IdOf(const Json& value, absl::string_view token) {
  if (value.is_integer() && value.as_integer() >= 0 && value.as_integer() < kTokenIdMax) {
    return static_cast<int32_t>(value.as_integer());
  }
  return Invalid("the id of token \"", token.substr(0, 100), "\" is ",
                 ToString(value).substr(0, 40), ", expected an integer from 0 to ",
                 kTokenIdMax - 1);
}

/// The parts of a tokenizer.json member: itself, or the members of nested Sequences. Null gives
/// none.
absl::StatusOr<std::vector<const Json*>> Flatten(const Json* member, absl::string_view list_key,
                                                 absl::string_view where) {
  std::vector<const Json*> flat;
  if (member == nullptr || member->is_null()) return flat;
  if (!member->is_object()) return Invalid(where, " is a ", member->kind_name());
  NG_ASSIGN_OR_RETURN(const std::string type, StringAt(*member, "type", where));
  if (type != "Sequence") return std::vector<const Json*>{member};
  const Json* list = member->Find(list_key);
  if (list == nullptr || !list->is_array())
    return Invalid(where, " has no list \"", list_key, "\"");
  for (const Json& item : list->as_array()) {
    NG_ASSIGN_OR_RETURN(const std::vector<const Json*> inner, Flatten(&item, list_key, where));
    flat.insert(flat.end(), inner.begin(), inner.end());
  }
  return flat;
}

/// The text of {"String": text}; {"Regex": ...} is refused here.
absl::StatusOr<std::string> LiteralPattern(const Json& part, absl::string_view where) {
  const Json* pattern = part.Find("pattern");
  const Json* text = pattern == nullptr ? nullptr : pattern->Find("String");
  if (text == nullptr || !text->is_string()) {
    return Invalid(where, " Replace needs a pattern {\"String\": ...}; others are not supported");
  }
  if (text->as_string().empty()) return Invalid(where, " Replace has an empty pattern");
  return text->as_string();
}

absl::StatusOr<Normalizer> ParseNormalizer(const Json* member) {
  NG_ASSIGN_OR_RETURN(const auto parts, Flatten(member, "normalizers", "normalizer"));
  std::vector<Normalizer::Step> steps;
  for (const Json* part : parts) {
    NG_ASSIGN_OR_RETURN(const std::string type, StringAt(*part, "type", "normalizer"));
    Normalizer::Step step;
    if (type == "Prepend") {
      step.kind = Normalizer::Step::kPrepend;
      NG_ASSIGN_OR_RETURN(step.to, StringAt(*part, "prepend", "normalizer"));
    } else if (type == "Replace") {
      step.kind = Normalizer::Step::kReplace;
      NG_ASSIGN_OR_RETURN(step.from, LiteralPattern(*part, "normalizer"));
      NG_ASSIGN_OR_RETURN(step.to, StringAt(*part, "content", "normalizer"));
    } else {
      return Invalid("normalizer \"", type, "\" is not supported");
    }
    steps.emplace_back(std::move(step));
  }
  return Normalizer(std::move(steps));
}

absl::StatusOr<SplitBehavior> ParseBehavior(const std::string& name) {
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return Invalid("pre_tokenizer Split behavior \"", name, "\" is not supported");
}

absl::StatusOr<SplitStep> ParseSplit(const Json& part) {
  SplitStep step;
  NG_ASSIGN_OR_RETURN(const std::string behavior, StringAt(part, "behavior", "pre_tokenizer"));
  NG_ASSIGN_OR_RETURN(step.behavior, ParseBehavior(behavior));
  NG_ASSIGN_OR_RETURN(step.invert, BoolAt(part, "invert", false, "pre_tokenizer"));
  const Json* pattern = part.Find("pattern");
  if (pattern == nullptr) return Invalid("pre_tokenizer Split has no \"pattern\"");
  if (pattern->Find("String") != nullptr) {
    NG_ASSIGN_OR_RETURN(step.literal, StringAt(*pattern, "String", "pre_tokenizer"));
    if (step.literal.empty()) return Invalid("pre_tokenizer Split has an empty pattern");
    return step;
  }
  NG_ASSIGN_OR_RETURN(const std::string regex, StringAt(*pattern, "Regex", "pre_tokenizer"));
  step.scanner = ScannerFor(regex);
  if (step.scanner == nullptr) {
    NG_ASSIGN_OR_RETURN(step.regex, SplitPattern::Compile(regex));
  }
  return step;
}

absl::StatusOr<MetaspaceStep> ParseMetaspace(const Json& part) {
  MetaspaceStep step;
  NG_ASSIGN_OR_RETURN(step.replacement, StringAt(part, "replacement", "pre_tokenizer"));
  if (step.replacement.empty()) return Invalid("pre_tokenizer Metaspace has an empty replacement");
  NG_ASSIGN_OR_RETURN(step.split, BoolAt(part, "split", true, "pre_tokenizer"));
  // Files of before 2024 say add_prefix_space instead of a scheme.
  NG_ASSIGN_OR_RETURN(const bool adds, BoolAt(part, "add_prefix_space", true, "pre_tokenizer"));
  std::string scheme = adds ? "always" : "never";
  if (part.Find("prepend_scheme") != nullptr) {
    NG_ASSIGN_OR_RETURN(scheme, StringAt(part, "prepend_scheme", "pre_tokenizer"));
  }
  if (scheme == "always") {
    step.prepend = MetaspaceStep::kAlways;
  } else if (scheme == "first") {
    step.prepend = MetaspaceStep::kFirst;
  } else if (scheme == "never") {
    step.prepend = MetaspaceStep::kNever;
  } else {
    return Invalid("pre_tokenizer Metaspace prepend_scheme \"", scheme, "\" is not supported");
  }
  return step;
}

struct PreTokenizerParts {
  PreTokenizer pre_tokenizer;
  bool byte_level = false;
  bool splits = false;
};

absl::StatusOr<PreTokenizerParts> ParsePreTokenizer(const Json* member) {
  NG_ASSIGN_OR_RETURN(const auto parts, Flatten(member, "pretokenizers", "pre_tokenizer"));
  std::vector<PreTokenizerStep> steps;
  PreTokenizerParts out;
  for (const Json* part : parts) {
    NG_ASSIGN_OR_RETURN(const std::string type, StringAt(*part, "type", "pre_tokenizer"));
    if (out.byte_level)
      return Invalid("pre_tokenizer \"", type, "\" after ByteLevel is not supported");
    if (type == "Split") {
      NG_ASSIGN_OR_RETURN(SplitStep step, ParseSplit(*part));
      steps.emplace_back(std::move(step));
      out.splits = true;
    } else if (type == "Digits") {
      DigitsStep step;
      NG_ASSIGN_OR_RETURN(step.individual,
                          BoolAt(*part, "individual_digits", false, "pre_tokenizer"));
      steps.emplace_back(step);
      out.splits = true;
    } else if (type == "Metaspace") {
      NG_ASSIGN_OR_RETURN(MetaspaceStep step, ParseMetaspace(*part));
      out.splits = out.splits || step.split;
      steps.emplace_back(std::move(step));
    } else if (type == "ByteLevel") {
      NG_ASSIGN_OR_RETURN(const bool prefix, BoolAt(*part, "add_prefix_space", true, "ByteLevel"));
      NG_ASSIGN_OR_RETURN(const bool regex, BoolAt(*part, "use_regex", true, "ByteLevel"));
      out.byte_level = true;
      out.splits = out.splits || regex;
      if (prefix) steps.emplace_back(PrefixSpaceStep{});
      if (regex) steps.emplace_back(IsolatedBy(kGpt2Pattern));
    } else {
      return Invalid("pre_tokenizer \"", type, "\" is not supported");
    }
  }
  out.pre_tokenizer = PreTokenizer(std::move(steps));
  return out;
}

/// Strip as decoders of SPM kind have it: one space, on the left, of the whole text.
absl::Status ParseStrip(const Json& part, bool fused, TokenDecoder& decoder) {
  const Json* start = part.Find("start");
  const Json* stop = part.Find("stop");
  const Json* content = part.Find("content");
  if (start == nullptr || stop == nullptr || content == nullptr || !(*stop == Json(0)) ||
      !(*content == Json(" ")) || !(*start == Json(0) || *start == Json(1))) {
    return Invalid("decoder Strip other than of one space on the left is not supported");
  }
  if (*start == Json(0)) return absl::OkStatus();
  if (!fused) return Invalid("decoder Strip without Fuse before it is not supported");
  decoder.strips_left = true;
  return absl::OkStatus();
}

absl::StatusOr<TokenDecoder> ParseDecoder(const Json* member) {
  NG_ASSIGN_OR_RETURN(const auto parts, Flatten(member, "decoders", "decoder"));
  if (parts.empty()) return Invalid("there is no decoder");
  TokenDecoder decoder;
  bool fused = false;
  for (const Json* part : parts) {
    NG_ASSIGN_OR_RETURN(const std::string type, StringAt(*part, "type", "decoder"));
    if (type == "ByteLevel") {
      decoder.byte_level = true;
    } else if (type == "ByteFallback") {
      decoder.byte_fallback = true;
    } else if (type == "Fuse") {
      fused = true;
    } else if (type == "Replace") {
      if (fused) return Invalid("decoder Replace after Fuse is not supported");
      NG_ASSIGN_OR_RETURN(const std::string from, LiteralPattern(*part, "decoder"));
      NG_ASSIGN_OR_RETURN(const std::string to, StringAt(*part, "content", "decoder"));
      decoder.replacements.emplace_back(from, to);
    } else if (type == "Strip") {
      NG_RETURN_IF_ERROR(ParseStrip(*part, fused, decoder));
    } else if (type == "Metaspace") {
      NG_ASSIGN_OR_RETURN(const MetaspaceStep metaspace, ParseMetaspace(*part));
      decoder.replacements.emplace_back(metaspace.replacement, " ");
      decoder.strips_left = metaspace.prepend != MetaspaceStep::kNever;
    } else {
      return Invalid("decoder \"", type, "\" is not supported");
    }
  }
  return decoder;
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
    if (type != "TemplateProcessing") {
      return Invalid("post_processor \"", type, "\" is not supported");
    }
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
