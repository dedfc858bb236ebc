#include "tests/text/golden_tokenizer.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "common/check.h"
#include "common/json.h"
#include "engine/model/gguf.h"
#include "engine/text/detokenizer.h"
#include "tests/support/golden.h"
#include "tests/support/test_data.h"

namespace neurogrid {
namespace {

std::vector<Json> Lines(const std::string& text) {
  std::vector<Json> lines;
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    lines.push_back(ParseJson(line, kModelFileJsonLimits).value());
  }
  return lines;
}

const std::vector<Json>& Corpus() {
  static const std::vector<Json> corpus =
      Lines(ReadFile(TestData("golden/tokenizers/corpus.jsonl.xz")));
  return corpus;
}

/// The bytes of a corpus line: text, a repeated one, or hex.
std::string TextOf(const Json& line) {
  if (const Json* text = line.Find("text")) return text->as_string();
  if (const Json* bytes = line.Find("bytes")) return absl::HexStringToBytes(bytes->as_string());
  std::string out;
  const Json::Array& repeat = line.Find("repeat")->as_array();
  for (int64_t i = 0; i < repeat[1].as_integer(); ++i) out += repeat[0].as_string();
  return out;
}

std::vector<int32_t> Integers(const Json& list) {
  std::vector<int32_t> out;
  for (const Json& value : list.as_array()) out.push_back(static_cast<int32_t>(value.as_integer()));
  return out;
}

/// [[id, how often], ...] written out.
std::vector<int32_t> Runs(const Json& list) {
  std::vector<int32_t> out;
  for (const Json& run : list.as_array()) {
    out.insert(out.end(), static_cast<size_t>(run.as_array()[1].as_integer()),
               static_cast<int32_t>(run.as_array()[0].as_integer()));
  }
  return out;
}

std::string Shown(const std::vector<int32_t>& ids) {
  return absl::StrJoin(ids, " ").substr(0, 200);
}

struct Compare {
  std::vector<std::string> mismatches;
  std::string where;

  void Ids(absl::string_view what, const std::vector<int32_t>& got,
           const std::vector<int32_t>& expected) {
    if (got == expected) return;
    mismatches.push_back(
        absl::StrCat(where, " ", what, ": ", Shown(got), " instead of ", Shown(expected)));
  }
  void Text(absl::string_view what, const std::string& got, const std::string& expected) {
    if (got == expected) return;
    mismatches.push_back(absl::StrCat(where, " ", what, ": \"", absl::CEscape(got.substr(0, 100)),
                                      "\" instead of \"", absl::CEscape(expected.substr(0, 100)),
                                      "\""));
  }
};

void CompareLine(const Tokenizer& tokenizer, const std::string& text, const Json& line,
                 Compare& compare) {
  const std::vector<int32_t> ids = IdsOf(tokenizer, text);
  const std::vector<int32_t> special = IdsOf(tokenizer, text, Origin::kTemplate, true);
  if (line.Find("runs") != nullptr) {
    compare.Ids("ids", ids, Runs(*line.Find("runs")));
    compare.Ids("ids with special", special, Runs(*line.Find("runs_special")));
    if (line.Find("decodes_to_text")->as_bool()) {
      compare.Text("decoded", Decode(tokenizer, ids, false), text);
    }
    return;
  }
  compare.Ids("ids", ids, Integers(*line.Find("ids")));
  compare.Ids("ids with special", special, Integers(*line.Find("ids_special")));
  compare.Text("decoded", Decode(tokenizer, ids, false), line.Find("decoded")->as_string());
  compare.Text("decoded without special", Decode(tokenizer, special, true),
               line.Find("decoded_skip")->as_string());
}

}  // namespace

std::vector<std::string> TinyNames() {
  return {"llama", "llama3-rope", "mistral-window", "nemo",   "qwen2",     "qwen3",
          "lfm2",  "lfm2-bias",   "gemma2",         "gemma3", "qwen3-yarn"};
}

GoldenTokenizer OpenGoldenTokenizer(const std::string& name) {
  const std::string folder = Golden("tiny/" + name);
  return {Tokenizer::FromDirectory(folder).value(), ReadFile(folder + "/tokenizer_ids.jsonl.xz")};
}

std::vector<std::string> PublishedNames() {
  return {"llama2", "llama3_1", "mistral_nemo", "qwen2_5", "qwen3", "gemma2", "gemma3"};
}

std::optional<GoldenTokenizer> OpenPublishedTokenizer(const std::string& name) {
  const std::optional<std::string> folder = PublishedTokenizer(name);
  const std::optional<std::string> references = SharedData("golden/tokenizers");
  if (!folder.has_value() || !references.has_value()) return std::nullopt;
  return GoldenTokenizer{Tokenizer::FromDirectory(*folder).value(),
                         ReadFile(*references + "/" + name + ".jsonl.xz"),
                         ReadFile(*references + "/" + name + ".added.jsonl.xz")};
}

std::optional<GoldenTokenizer> OpenSmolLm2Tokenizer() {
  const std::optional<std::string> path = SmolLm2();
  if (!path.has_value()) return std::nullopt;
  const auto gguf = Gguf::Open(*path).value();
  return GoldenTokenizer{Tokenizer::FromGguf(*gguf).value(),
                         ReadFile(TestData("golden/tokenizers/smollm2.jsonl.xz")),
                         ReadFile(TestData("golden/tokenizers/smollm2.added.jsonl.xz"))};
}

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerOf(const std::string& json,
                                                       const std::string& config) {
  const TemporaryFolder folder;
  folder.Write("tokenizer.json", json);
  if (!config.empty()) folder.Write("tokenizer_config.json", config);
  return Tokenizer::FromDirectory(folder.path());
}

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerOfGguf(const std::string& bytes) {
  const TemporaryFolder folder;
  NG_ASSIGN_OR_RETURN(const auto gguf, Gguf::Open(folder.Write("model.gguf", bytes)));
  return Tokenizer::FromGguf(*gguf);
}

std::vector<std::string> CorpusMismatches(const Tokenizer& tokenizer,
                                          const std::string& reference) {
  Compare compare;
  for (const Json& line : Lines(reference)) {
    const int64_t index = line.Find("i")->as_integer();
    const Json& asked = Corpus()[static_cast<size_t>(index)];
    compare.where = absl::StrCat("line ", index, " (", asked.Find("kind")->as_string(), ")");
    CompareLine(tokenizer, TextOf(asked), line, compare);
  }
  return compare.mismatches;
}

std::vector<std::string> AddedTokenMismatches(const Tokenizer& tokenizer,
                                              const std::string& reference) {
  Compare compare;
  for (const Json& line : Lines(reference)) {
    const std::string content = line.Find("content")->as_string();
    compare.where = content;
    const Json::Array& ids = line.Find("ids")->as_array();
    const char* patterns[] = {"{}", "{}{}", " {} ", "a{}b", "{} \n{}"};
    NG_CHECK(ids.size() == std::size(patterns));
    for (size_t i = 0; i < ids.size(); ++i) {
      const std::string text = absl::StrReplaceAll(patterns[i], {{"{}", content}});
      compare.Ids(patterns[i], IdsOf(tokenizer, text), Integers(ids[i]));
    }
  }
  return compare.mismatches;
}

std::vector<std::string> StreamMismatches(const Tokenizer& tokenizer) {
  std::vector<std::string> mismatches;
  for (const std::string& text : CorpusTexts()) {
    const std::vector<int32_t> ids = IdsOf(tokenizer, text, Origin::kInput, true);
    const std::string whole = Decode(tokenizer, ids, true);
    std::vector<absl::string_view> pieces;
    for (const int32_t id : ids) {
      if (!tokenizer.IsSpecial(id)) pieces.push_back(tokenizer.Bytes(id));
    }
    // Long texts are cut at their first and last places alone: every place would be n squared.
    const size_t cuts_max = pieces.size() > 500 ? 20 : pieces.size();
    bool equal = true;
    for (size_t cut = 0; cut <= cuts_max; ++cut) {
      for (const size_t place : {cut, pieces.size() - cut}) {
        Utf8Stream stream;
        std::string streamed =
            stream.Push(absl::StrJoin(pieces.begin(), pieces.begin() + place, ""));
        streamed += stream.Push(absl::StrJoin(pieces.begin() + place, pieces.end(), ""));
        streamed += stream.Finish();
        if (tokenizer.strips_leading_space() && streamed.starts_with(" ")) streamed.erase(0, 1);
        equal = equal && streamed == whole;
      }
    }
    Utf8Stream stream;
    std::string streamed;
    for (const absl::string_view piece : pieces) streamed += stream.Push(piece);
    streamed += stream.Finish();
    if (tokenizer.strips_leading_space() && streamed.starts_with(" ")) streamed.erase(0, 1);
    if (!equal || streamed != whole) mismatches.push_back(text.substr(0, 100));
  }
  return mismatches;
}

std::vector<std::string> VariantMismatches(const std::string& variants) {
  Compare compare;
  const std::vector<Json> lines = Lines(variants);
  const Json::Array& texts = lines[0].Find("texts")->as_array();
  for (size_t i = 1; i < lines.size(); ++i) {
    const auto tokenizer = TokenizerOf(ToString(*lines[i].Find("tokenizer"))).value();
    const Json::Array& ids = lines[i].Find("ids")->as_array();
    for (size_t text = 0; text < texts.size(); ++text) {
      compare.where = absl::StrCat(lines[i].Find("name")->as_string(), " text ", text);
      compare.Ids("ids", IdsOf(*tokenizer, texts[text].as_string()), Integers(ids[text]));
    }
  }
  return compare.mismatches;
}

std::vector<std::string> ComponentMismatches(const std::string& components) {
  Compare compare;
  const std::vector<Json> lines = Lines(components);
  const Json::Array& texts = lines[0].Find("texts")->as_array();
  for (size_t i = 1; i < lines.size(); ++i) {
    const std::string name = lines[i].Find("name")->as_string();
    Json file = *lines[i].Find("file");
    file.Set("model", *lines[0].Find("models")->Find(lines[i].Find("model")->as_string()));
    const auto tokenizer = TokenizerOf(ToString(file));
    if (!tokenizer.ok()) {
      compare.mismatches.push_back(absl::StrCat(name, ": ", tokenizer.status().message()));
      continue;
    }
    for (size_t text = 0; text < texts.size(); ++text) {
      compare.where = absl::StrCat(name, " text ", text);
      const auto ids = Integers(lines[i].Find("ids")->as_array()[text]);
      compare.Ids("ids", IdsOf(**tokenizer, texts[text].as_string()), ids);
      compare.Text("decoded", Decode(**tokenizer, ids, true),
                   lines[i].Find("decoded")->as_array()[text].as_string());
    }
  }
  return compare.mismatches;
}

std::vector<int32_t> IdsOf(const Tokenizer& tokenizer, absl::string_view text, Origin origin,
                           bool add_special) {
  Tokenizer::EncodeOptions options;
  options.add_special = add_special;
  return tokenizer.Encode({{std::string(text), origin}}, options).value();
}

std::vector<std::string> CorpusTexts() {
  std::vector<std::string> texts;
  for (const Json& line : Corpus()) {
    if (line.Find("bytes") == nullptr) texts.push_back(TextOf(line));
  }
  return texts;
}

}  // namespace neurogrid
