#include "engine/text/tokenizer_json_steps.h"

#include "absl/strings/str_join.h"

namespace neurogrid {
namespace {

constexpr absl::string_view kNormalizers[] = {"Sequence", "NFC",         "NFD",     "NFKC",
                                              "NFKD",     "Prepend",     "Replace", "Lowercase",
                                              "Strip",    "StripAccents"};
constexpr absl::string_view kPreTokenizers[] = {"Sequence",        "Split",      "ByteLevel",
                                                "Digits",          "Metaspace",  "Whitespace",
                                                "WhitespaceSplit", "Punctuation"};
constexpr absl::string_view kDecoders[] = {"Sequence", "ByteLevel", "ByteFallback", "Fuse",
                                           "Replace",  "Strip",     "Metaspace"};
constexpr absl::string_view kBehaviors[] = {"Isolated", "Removed", "MergedWithPrevious",
                                            "MergedWithNext", "Contiguous"};
constexpr absl::string_view kSchemes[] = {"always", "first", "never"};

/// {"String": text} or {"Regex": text}.
struct Pattern {
  std::string literal;
  std::string regex;  // one of the two is empty
};

absl::StatusOr<Pattern> ParsePattern(const Json& part, absl::string_view where) {
  const Json* pattern = part.Find("pattern");
  if (pattern == nullptr || !pattern->is_object()) {
    return Invalid(where, " has no \"pattern\" {\"String\": ...} or {\"Regex\": ...}");
  }
  Pattern out;
  if (pattern->Find("String") != nullptr) {
    NG_ASSIGN_OR_RETURN(out.literal, StringAt(*pattern, "String", where));
  } else {
    NG_ASSIGN_OR_RETURN(out.regex, StringAt(*pattern, "Regex", where));
  }
  if (out.literal.empty() && out.regex.empty()) return Invalid(where, " has an empty pattern");
  return out;
}

absl::StatusOr<ReplaceStep> ParseReplace(const Json& part, absl::string_view where) {
  ReplaceStep step;
  NG_ASSIGN_OR_RETURN(Pattern pattern, ParsePattern(part, where));
  step.literal = std::move(pattern.literal);
  if (!pattern.regex.empty()) {
    NG_ASSIGN_OR_RETURN(step.regex, SplitPattern::Compile(pattern.regex));
  }
  NG_ASSIGN_OR_RETURN(step.to, StringAt(part, "content", where));
  return step;
}

absl::StatusOr<NormalizerStep> ParseNormalizerStep(const Json& part) {
  NG_ASSIGN_OR_RETURN(const std::string type, StringAt(part, "type", "normalizer"));
  if (type == "NFC") return NormalForm::kNfc;
  if (type == "NFD") return NormalForm::kNfd;
  if (type == "NFKC") return NormalForm::kNfkc;
  if (type == "NFKD") return NormalForm::kNfkd;
  if (type == "Lowercase") return LowercaseStep();
  if (type == "StripAccents") return StripAccentsStep();
  if (type == "Prepend") {
    NG_ASSIGN_OR_RETURN(std::string text, StringAt(part, "prepend", "normalizer Prepend"));
    return PrependStep{std::move(text)};
  }
  if (type == "Replace") return ParseReplace(part, "normalizer Replace");
  if (type == "Strip") {
    StripStep step;
    NG_ASSIGN_OR_RETURN(step.left, BoolAt(part, "strip_left", true, "normalizer Strip"));
    NG_ASSIGN_OR_RETURN(step.right, BoolAt(part, "strip_right", true, "normalizer Strip"));
    return step;
  }
  return UnknownType("normalizer", type, kNormalizers);
}

absl::StatusOr<SplitBehavior> ParseBehavior(const Json& part, absl::string_view where) {
  NG_ASSIGN_OR_RETURN(const std::string name, StringAt(part, "behavior", where));
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return UnknownType(absl::StrCat(where, " behavior"), name, kBehaviors);
}

absl::StatusOr<SplitStep> ParseSplit(const Json& part) {
  constexpr absl::string_view kWhere = "pre_tokenizer Split";
  SplitStep step;
  NG_ASSIGN_OR_RETURN(step.behavior, ParseBehavior(part, kWhere));
  NG_ASSIGN_OR_RETURN(step.invert, BoolAt(part, "invert", false, kWhere));
  NG_ASSIGN_OR_RETURN(Pattern pattern, ParsePattern(part, kWhere));
  step.literal = std::move(pattern.literal);
  if (!step.literal.empty()) return step;
  step.scanner = ScannerFor(pattern.regex);
  if (step.scanner == nullptr) {
    NG_ASSIGN_OR_RETURN(step.regex, SplitPattern::Compile(pattern.regex));
  }
  return step;
}

absl::StatusOr<MetaspaceStep> ParseMetaspace(const Json& part, absl::string_view where) {
  MetaspaceStep step;
  NG_ASSIGN_OR_RETURN(step.replacement, StringAt(part, "replacement", where));
  if (step.replacement.empty()) return Invalid(where, " has an empty replacement");
  NG_ASSIGN_OR_RETURN(step.split, BoolAt(part, "split", true, where));
  // Files of before 2024 say add_prefix_space instead of a scheme.
  NG_ASSIGN_OR_RETURN(const bool adds, BoolAt(part, "add_prefix_space", true, where));
  std::string scheme = adds ? "always" : "never";
  if (part.Find("prepend_scheme") != nullptr) {
    NG_ASSIGN_OR_RETURN(scheme, StringAt(part, "prepend_scheme", where));
  }
  if (scheme == "always") {
    step.prepend = MetaspaceStep::kAlways;
  } else if (scheme == "first") {
    step.prepend = MetaspaceStep::kFirst;
  } else if (scheme == "never") {
    step.prepend = MetaspaceStep::kNever;
  } else {
    return UnknownType(absl::StrCat(where, " prepend_scheme"), scheme, kSchemes);
  }
  return step;
}

/// ByteLevel: bytes for the model at once where it comes last, spelled out where steps follow.
absl::Status ParseByteLevel(const Json& part, bool last, PreTokenizerParts& out,
                            std::vector<PreTokenizerStep>& steps) {
  constexpr absl::string_view kWhere = "pre_tokenizer ByteLevel";
  NG_ASSIGN_OR_RETURN(const bool prefix, BoolAt(part, "add_prefix_space", true, kWhere));
  NG_ASSIGN_OR_RETURN(const bool regex, BoolAt(part, "use_regex", true, kWhere));
  out.splits = out.splits || regex;
  if (prefix) steps.emplace_back(PrefixSpaceStep{});
  if (regex) steps.emplace_back(IsolatedBy(kGpt2Pattern));
  if (last && !out.byte_alphabet) {
    out.byte_level = true;
  } else {
    steps.emplace_back(ByteAlphabetStep{});
    out.byte_alphabet = true;
  }
  return absl::OkStatus();
}

absl::Status ParsePreTokenizerStep(const Json& part, bool last, PreTokenizerParts& out,
                                   std::vector<PreTokenizerStep>& steps) {
  NG_ASSIGN_OR_RETURN(const std::string type, StringAt(part, "type", "pre_tokenizer"));
  if (type == "ByteLevel") return ParseByteLevel(part, last, out, steps);
  if (type == "Metaspace") {
    NG_ASSIGN_OR_RETURN(MetaspaceStep step, ParseMetaspace(part, "pre_tokenizer Metaspace"));
    out.splits = out.splits || step.split;
    steps.emplace_back(std::move(step));
    return absl::OkStatus();
  }
  out.splits = true;
  if (type == "Split") {
    NG_ASSIGN_OR_RETURN(SplitStep step, ParseSplit(part));
    steps.emplace_back(std::move(step));
  } else if (type == "Digits") {
    NG_ASSIGN_OR_RETURN(const bool individual,
                        BoolAt(part, "individual_digits", false, "pre_tokenizer Digits"));
    steps.emplace_back(SetStep{SetStep::kDigits,
                               individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous});
  } else if (type == "Punctuation") {
    SetStep step{SetStep::kPunctuation, SplitBehavior::kIsolated};
    if (part.Find("behavior") != nullptr) {
      NG_ASSIGN_OR_RETURN(step.behavior, ParseBehavior(part, "pre_tokenizer Punctuation"));
    }
    steps.emplace_back(step);
  } else if (type == "Whitespace") {
    steps.emplace_back(WordsStep{});
  } else if (type == "WhitespaceSplit") {
    steps.emplace_back(SetStep{SetStep::kSpace, SplitBehavior::kRemoved});
  } else {
    return UnknownType("pre_tokenizer", type, kPreTokenizers);
  }
  return absl::OkStatus();
}

/// How many of `key` a Strip decoder takes.
absl::StatusOr<int64_t> CountAt(const Json& part, absl::string_view key) {
  const Json* value = part.Find(key);
  if (value != nullptr && value->is_integer() && value->as_integer() >= 0) {
    return value->as_integer();
  }
  return Invalid("decoder Strip.", key, " is ", value == nullptr ? "absent" : ToString(*value),
                 ", expected a count");
}

/// Before Fuse each token is stripped; after it the whole text, of which only one space on the left
/// can go while the text is still arriving.
absl::Status ParseStrip(const Json& part, bool fused, TokenDecoder& decoder) {
  TokenStrip strip;
  NG_ASSIGN_OR_RETURN(strip.content, StringAt(part, "content", "decoder Strip"));
  NG_ASSIGN_OR_RETURN(strip.start, CountAt(part, "start"));
  NG_ASSIGN_OR_RETURN(strip.stop, CountAt(part, "stop"));
  if (!fused) {
    decoder.steps.emplace_back(std::move(strip));
    return absl::OkStatus();
  }
  if (strip.content != " " || strip.start > 1 || strip.stop > 0) {
    return Invalid("decoder Strip of \"", strip.content, "\", ", strip.start, " on the left and ",
                   strip.stop, " on the right, after Fuse is not supported, only of one space on ",
                   "the left");
  }
  decoder.strips_left = strip.start == 1;
  return absl::OkStatus();
}

}  // namespace

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

absl::Status UnknownType(absl::string_view where, absl::string_view type,
                         absl::Span<const absl::string_view> known) {
  return Invalid(where, " \"", type.substr(0, 100), "\" is not supported, only ",
                 absl::StrJoin(known, ", "));
}

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

absl::StatusOr<Normalizer> ParseNormalizer(const Json* member) {
  NG_ASSIGN_OR_RETURN(const auto parts, Flatten(member, "normalizers", "normalizer"));
  std::vector<NormalizerStep> steps;
  for (const Json* part : parts) {
    NG_ASSIGN_OR_RETURN(NormalizerStep step, ParseNormalizerStep(*part));
    steps.push_back(std::move(step));
  }
  return Normalizer(std::move(steps));
}

absl::StatusOr<PreTokenizerParts> ParsePreTokenizer(const Json* member) {
  NG_ASSIGN_OR_RETURN(const auto parts, Flatten(member, "pretokenizers", "pre_tokenizer"));
  std::vector<PreTokenizerStep> steps;
  PreTokenizerParts out;
  for (const Json* part : parts) {
    NG_RETURN_IF_ERROR(ParsePreTokenizerStep(*part, part == parts.back(), out, steps));
  }
  out.pre_tokenizer = PreTokenizer(std::move(steps));
  return out;
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
      NG_ASSIGN_OR_RETURN(ReplaceStep step, ParseReplace(*part, "decoder Replace"));
      decoder.steps.emplace_back(std::move(step));
    } else if (type == "Strip") {
      NG_RETURN_IF_ERROR(ParseStrip(*part, fused, decoder));
    } else if (type == "Metaspace") {
      NG_ASSIGN_OR_RETURN(MetaspaceStep step, ParseMetaspace(*part, "decoder Metaspace"));
      decoder.steps.emplace_back(ReplaceStep{std::move(step.replacement), nullptr, " "});
      decoder.strips_left = step.prepend != MetaspaceStep::kNever;
    } else {
      return UnknownType("decoder", type, kDecoders);
    }
  }
  return decoder;
}

}  // namespace neurogrid
