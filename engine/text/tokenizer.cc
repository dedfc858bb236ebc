#include "engine/text/tokenizer.h"

#include <algorithm>
#include <deque>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/detokenizer.h"
#include "engine/text/tokenizer_parts.h"
#include "engine/text/unicode.h"

namespace neurogrid {
namespace {

/// Offsets are 32 bits wide and inserted text may triple a section.
constexpr size_t kTextBytesMax = size_t{1} << 30;

/// Markers of reasoning (first two) and tool calls that belong to the control set even where a file
/// does not call them special (models.md 6.5).
constexpr absl::string_view kReasoningMarkers[] = {"<think>", "</think>"};
constexpr absl::string_view kToolMarkers[] = {
    "<tool_call>",          "</tool_call>",          "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",       "<|tool_call_start|>",   "<|tool_call_end|>",
    "<|python_tag|>",       "[TOOL_CALLS]",          "[ARGS]",
};

bool IsBlank(absl::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const char32_t code = NextCodePoint(text, at);
    if (code != 0x2581 && !CharClasses::Get().IsSpace(code)) return false;
  }
  return true;
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/// The byte that <0xNN> stands for, or -1.
int ByteOfSpelling(absl::string_view spelling) {
  if (spelling.size() != 6 || spelling.substr(0, 3) != "<0x" || spelling[5] != '>') return -1;
  const int high = HexDigit(spelling[3]);
  const int low = HexDigit(spelling[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

void Strip(std::string& text, const TokenStrip& strip) {
  const std::string& content = strip.content;
  if (content.empty()) return;
  for (int64_t i = 0; i < strip.start && text.starts_with(content); ++i) {
    text.erase(0, content.size());
  }
  for (int64_t i = 0; i < strip.stop && text.ends_with(content); ++i) {
    text.resize(text.size() - content.size());
  }
}

absl::StatusOr<std::string> DecodedSpelling(const TokenDecoder& decoder,
                                            const std::string& spelling, bool added) {
  if (decoder.byte_level) {
    if (added) return spelling;
    return BytesOfSpelling(spelling).value_or(spelling);
  }
  if (decoder.byte_fallback) {
    const int byte = ByteOfSpelling(spelling);
    if (byte >= 0) return std::string(1, static_cast<char>(byte));
  }
  MarkedText text;
  text.Append(spelling, Origin::kTemplate);
  for (const auto& step : decoder.steps) {
    if (const auto* strip = std::get_if<TokenStrip>(&step)) {
      Strip(text.bytes, *strip);
      text.origins.resize(text.bytes.size());
      continue;
    }
    const auto& replace = std::get<ReplaceStep>(step);
    if (replace.regex == nullptr) {
      text = Replaced(text, replace.literal, replace.to);
    } else {
      NG_ASSIGN_OR_RETURN(text, Replaced(text, *replace.regex, replace.to));
    }
  }
  return text.bytes;
}

class BpeTokenizer final : public Tokenizer {
 public:
  BpeTokenizer(TokenizerParts parts, std::vector<std::string> bytes, AddedTokenMatcher raw,
               AddedTokenMatcher normalized)
      : added_(std::move(parts.added)),
        raw_added_(std::move(raw)),
        normalizer_(std::move(parts.normalizer)),
        normalized_added_(std::move(normalized)),
        pre_tokenizer_(std::move(parts.pre_tokenizer)),
        byte_level_(parts.bpe.byte_units),
        model_(std::move(parts.bpe)),
        bytes_(std::move(bytes)),
        special_(bytes_.size(), false),
        control_(bytes_.size(), ControlKind::kNone),
        strips_left_(parts.decoder.strips_left),
        prefix_(std::move(parts.prefix)),
        suffix_(std::move(parts.suffix)),
        bos_id_(parts.bos_id),
        eos_id_(parts.eos_id),
        end_ids_(std::move(parts.end_ids)),
        class_name_(std::move(parts.class_name)) {
    for (const AddedToken& token : added_) {
      const size_t id = static_cast<size_t>(token.id);
      added_ids_.emplace(token.content, token.id);
      special_[id] = token.special;
      if (token.special) control_[id] = ControlKind::kTemplate;
    }
    const auto mark = [&](absl::string_view marker, ControlKind kind) {
      const auto found = added_ids_.find(marker);
      if (found != added_ids_.end()) control_[static_cast<size_t>(found->second)] = kind;
    };
    for (const absl::string_view marker : kReasoningMarkers) mark(marker, ControlKind::kReasoning);
    for (const absl::string_view marker : kToolMarkers) mark(marker, ControlKind::kTemplate);
  }

  absl::StatusOr<std::vector<int32_t>> Encode(const PromptText& text,
                                              const EncodeOptions& options) const override;

  int32_t vocab_size() const override { return static_cast<int32_t>(bytes_.size()); }
  absl::string_view Bytes(int32_t id) const override {
    if (!Known(id)) return "";
    return bytes_[Index(id)];
  }
  bool IsSpecial(int32_t id) const override { return Known(id) && special_[Index(id)]; }
  int32_t Find(absl::string_view token) const override {
    const auto added = added_ids_.find(token);
    if (added != added_ids_.end()) return added->second;
    if (!byte_level_) return model_.FindUnit(token);
    if (FirstInvalidUtf8(token) != token.size()) return -1;
    const std::optional<std::string> unit = BytesOfSpelling(token);
    return unit.has_value() ? model_.FindUnit(*unit) : -1;
  }
  int32_t bos_id() const override { return bos_id_; }
  int32_t eos_id() const override { return eos_id_; }
  const std::vector<int32_t>& end_ids() const override { return end_ids_; }
  bool adds_bos() const override { return !prefix_.empty() && prefix_[0] == bos_id_; }
  bool strips_leading_space() const override { return strips_left_; }
  void AddControlText(absl::string_view template_source) override {
    for (const AddedToken& token : added_) {
      ControlKind& kind = control_[Index(token.id)];
      // Runs of newlines or spaces occur in every source; no template means them as markers.
      if (kind != ControlKind::kNone || IsBlank(token.content)) continue;
      if (template_source.find(token.content) == absl::string_view::npos) continue;
      kind = ControlKind::kTemplate;
    }
  }
  const std::string& class_name() const override { return class_name_; }

 private:
  /// One call of Encode.
  struct Run {
    const EncodeOptions& options;
    std::vector<int32_t> ids;
    std::deque<MarkedText> sections =
        {};  // alive as long as scratch, which remembers pieces of them
    BpeModel::Scratch scratch = {};
    absl::Status CheckCount() const;
  };

  static size_t Index(int32_t id) { return static_cast<size_t>(id); }
  bool Known(int32_t id) const { return id >= 0 && id < vocab_size(); }
  std::vector<TextPart> SplitAt(const AddedTokenMatcher& matcher, const MarkedText& text,
                                const EncodeOptions& options) const;
  absl::Status EncodeSection(MarkedText section, bool at_start, Run& run) const;
  absl::Status EncodePieces(MarkedText section, bool at_start, Run& run) const;

  std::vector<AddedToken> added_;
  absl::flat_hash_map<std::string, int32_t> added_ids_;
  AddedTokenMatcher raw_added_;
  Normalizer normalizer_;
  AddedTokenMatcher normalized_added_;
  PreTokenizer pre_tokenizer_;
  bool byte_level_;
  BpeModel model_;
  std::vector<std::string> bytes_;    // [ids]
  std::vector<bool> special_;         // [ids]
  std::vector<ControlKind> control_;  // [ids]
  bool strips_left_;
  std::vector<int32_t> prefix_, suffix_;
  int32_t bos_id_, eos_id_;
  std::vector<int32_t> end_ids_;
  std::string class_name_;
};

absl::Status BpeTokenizer::Run::CheckCount() const {
  if (options.tokens_max < 0 || static_cast<int64_t>(ids.size()) <= options.tokens_max) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("the text has more than ", options.tokens_max, " tokens"));
}

std::vector<TextPart> BpeTokenizer::SplitAt(const AddedTokenMatcher& matcher,
                                            const MarkedText& text,
                                            const EncodeOptions& options) const {
  const auto allowed = [&](int32_t id, ByteRange place) {
    const ControlKind kind = control_[Index(id)];
    if (kind == ControlKind::kNone) return true;
    return options.parse_special && MayBecome(kind, text.WorstOrigin(place));
  };
  return matcher.Split(text.bytes, allowed);
}

absl::StatusOr<std::vector<int32_t>> BpeTokenizer::Encode(const PromptText& text,
                                                          const EncodeOptions& options) const {
  MarkedText joined;
  for (const TextSegment& segment : text) {
    if (segment.text.size() > kTextBytesMax - joined.bytes.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the text is longer than ", kTextBytesMax, " bytes"));
    }
    joined.Append(segment.text, segment.origin);
  }
  const size_t invalid = FirstInvalidUtf8(joined.bytes);
  if (invalid != joined.bytes.size()) {
    return absl::InvalidArgumentError(absl::StrCat("the text is not UTF-8 at byte ", invalid));
  }
  Run run = {options, {}};
  if (!options.parse_special) {
    // Then no text is trusted to spell a control token, and merges may not form one either.
    joined.origins.assign(joined.bytes.size(), static_cast<char>(Origin::kInput));
  }
  if (options.add_special) run.ids = prefix_;
  for (const TextPart& part : SplitAt(raw_added_, joined, options)) {
    if (part.id >= 0) {
      run.ids.push_back(part.id);
    } else {
      MarkedText section;
      section.Append(joined, part.range);
      NG_RETURN_IF_ERROR(EncodeSection(std::move(section), part.range.begin == 0, run));
    }
    NG_RETURN_IF_ERROR(run.CheckCount());
  }
  if (options.add_special) run.ids.insert(run.ids.end(), suffix_.begin(), suffix_.end());
  NG_RETURN_IF_ERROR(run.CheckCount());
  return std::move(run.ids);
}

/// A section is what lies between added tokens of the raw text.
absl::Status BpeTokenizer::EncodeSection(MarkedText section, bool at_start, Run& run) const {
  NG_ASSIGN_OR_RETURN(section, normalizer_.Apply(std::move(section)));
  if (normalized_added_.empty()) return EncodePieces(std::move(section), at_start, run);
  for (const TextPart& part : SplitAt(normalized_added_, section, run.options)) {
    if (part.id >= 0) {
      run.ids.push_back(part.id);
      continue;
    }
    MarkedText rest;
    rest.Append(section, part.range);
    NG_RETURN_IF_ERROR(EncodePieces(std::move(rest), at_start && part.range.begin == 0, run));
  }
  return absl::OkStatus();
}

absl::Status BpeTokenizer::EncodePieces(MarkedText section, bool at_start, Run& run) const {
  run.sections.push_back(std::move(section));
  MarkedText& text = run.sections.back();
  NG_ASSIGN_OR_RETURN(const std::vector<ByteRange> pieces, pre_tokenizer_.Apply(text, at_start));
  for (const ByteRange piece : pieces) {
    model_.Encode(text, piece, control_, run.scratch, run.ids);
    NG_RETURN_IF_ERROR(run.CheckCount());
  }
  return absl::OkStatus();
}

/// Refuses what would make one id two tokens or one spelling two ids.
absl::Status CheckAdded(const TokenizerParts& parts) {
  SpellingIds ids;
  for (size_t id = 0; id < parts.spellings.size(); ++id) {
    if (!parts.spellings[id].empty()) ids.emplace(parts.spellings[id], static_cast<int32_t>(id));
  }
  absl::flat_hash_map<int32_t, absl::string_view> taken;
  for (const AddedToken& token : parts.added) {
    const auto found = ids.find(token.content);
    if (found != ids.end() && found->second != token.id) {
      return absl::InvalidArgumentError(absl::StrCat("added token \"", token.content, "\" has id ",
                                                     token.id, " but the vocabulary gives it ",
                                                     found->second));
    }
    const size_t id = static_cast<size_t>(token.id);
    if (found == ids.end() && id < parts.spellings.size() && !parts.spellings[id].empty()) {
      return absl::InvalidArgumentError(absl::StrCat("added token \"", token.content, "\" has id ",
                                                     token.id, ", which is \"", parts.spellings[id],
                                                     "\" in the vocabulary"));
    }
    const auto [place, fresh] = taken.emplace(token.id, token.content);
    if (!fresh) {
      return absl::InvalidArgumentError(absl::StrCat("added tokens \"", place->second, "\" and \"",
                                                     token.content, "\" share the id ", token.id));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(TokenizerParts parts) {
  NG_RETURN_IF_ERROR(CheckAdded(parts));
  std::vector<std::string> bytes;
  for (const std::string& spelling : parts.spellings) {
    bytes.emplace_back();
    if (spelling.empty()) continue;
    NG_ASSIGN_OR_RETURN(bytes.back(), DecodedSpelling(parts.decoder, spelling, false));
  }
  std::vector<AddedTokenMatcher::Pattern> raw, normalized;
  for (const AddedToken& token : parts.added) {
    bytes.resize(std::max(bytes.size(), static_cast<size_t>(token.id) + 1));
    NG_ASSIGN_OR_RETURN(bytes[static_cast<size_t>(token.id)],
                        DecodedSpelling(parts.decoder, token.content, true));
    if (!token.normalized) {
      raw.push_back({token.content, token});
      continue;
    }
    MarkedText content;
    content.Append(token.content, Origin::kTemplate);
    NG_ASSIGN_OR_RETURN(content, parts.normalizer.Apply(std::move(content)));
    normalized.push_back({content.bytes, token});
  }
  for (const std::vector<int32_t>* ids : {&parts.prefix, &parts.suffix}) {
    for (const int32_t id : *ids) {
      if (static_cast<size_t>(id) < bytes.size() && !bytes[static_cast<size_t>(id)].empty())
        continue;
      return absl::InvalidArgumentError(
          absl::StrCat("the post-processor adds id ", id, ", which has no token"));
    }
  }
  parts.bpe.units.resize(bytes.size());
  parts.bpe.scores.resize(bytes.size());
  return std::unique_ptr<Tokenizer>(new BpeTokenizer(std::move(parts), std::move(bytes),
                                                     AddedTokenMatcher(std::move(raw)),
                                                     AddedTokenMatcher(std::move(normalized))));
}

absl::StatusOr<BpeMerge> MergeOf(const SpellingIds& ids, absl::string_view left,
                                 absl::string_view right) {
  const std::string result = absl::StrCat(left, right);
  const auto left_id = ids.find(left), right_id = ids.find(right), result_id = ids.find(result);
  for (const auto& [spelling, found] : {std::pair(left, left_id), std::pair(right, right_id),
                                        std::pair(absl::string_view(result), result_id)}) {
    if (found != ids.end()) continue;
    return absl::InvalidArgumentError(absl::StrCat("the merge of \"", left, "\" and \"", right,
                                                   "\" needs the token \"", spelling,
                                                   "\", which is not in the vocabulary"));
  }
  return BpeMerge{left_id->second, right_id->second, result_id->second};
}

std::array<int32_t, 256> ByteTokensOf(const SpellingIds& ids) {
  std::array<int32_t, 256> tokens;
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = ids.find(absl::StrFormat("<0x%02X>", byte));
    tokens[static_cast<size_t>(byte)] = found == ids.end() ? -1 : found->second;
  }
  return tokens;
}

std::string Decode(const Tokenizer& tokenizer, absl::Span<const int32_t> ids, bool skip_special) {
  std::string bytes;
  for (const int32_t id : ids) {
    if (!skip_special || !tokenizer.IsSpecial(id)) absl::StrAppend(&bytes, tokenizer.Bytes(id));
  }
  if (tokenizer.strips_leading_space() && !bytes.empty() && bytes[0] == ' ') bytes.erase(0, 1);
  Utf8Stream stream;
  std::string text = stream.Push(bytes);
  return text + stream.Finish();
}

}  // namespace neurogrid
