// Filters over text, and the table of all filters.
#include "engine/text/jinja_filters.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "engine/text/jinja_string_methods.h"

namespace neurogrid::jinja {
namespace {

/// A filter of one value that first becomes a string.
template <absl::StatusOr<Value> (*kFilter)(Runtime&, const Value&)>
absl::StatusOr<Value> OfString(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("filter", arguments, {"s"}, 1));
  NG_ASSIGN_OR_RETURN(const Value string, ToStringValue(runtime, *bound[0]));
  return kFilter(runtime, string);
}

absl::StatusOr<Value> Upper(Runtime& runtime, const Value& string) {
  return StringToCase(runtime, string, Case::kUpper);
}
absl::StatusOr<Value> Lower(Runtime& runtime, const Value& string) {
  return StringToCase(runtime, string, Case::kLower);
}
absl::StatusOr<Value> Same(Runtime&, const Value& string) { return string; }
absl::StatusOr<Value> Safe(Runtime& runtime, const Value& string) {
  return runtime.NewString(string.text(), /*markup=*/true);
}
absl::StatusOr<Value> Escape(Runtime& runtime, const Value& string) {
  if (string.str().markup) return string;
  NG_ASSIGN_OR_RETURN(Text escaped, EscapeHtml(runtime, string.text()));
  return runtime.NewString(std::move(escaped), /*markup=*/true);
}

/// Capital letters after white space and ( { [ < -, small ones elsewhere.
absl::StatusOr<Value> Title(Runtime& runtime, const Value& string) {
  const Text& text = string.text();
  Text out;
  const auto separates = [&](int32_t code) {
    return IsSpace(code) || code == '-' || code == '(' || code == '{' || code == '[' || code == '<';
  };
  for (size_t i = 0; i < text.size();) {
    const CodePoint first = DecodeAt(text.bytes(), i);
    size_t end = i + static_cast<size_t>(first.length);
    const size_t rest = end;
    while (!separates(first.code) && end < text.size()) {
      const CodePoint point = DecodeAt(text.bytes(), end);
      if (separates(point.code)) break;
      end += static_cast<size_t>(point.length);
    }
    NG_ASSIGN_OR_RETURN(const Value head, runtime.NewString(text.Slice(i, rest)));
    NG_ASSIGN_OR_RETURN(const Value tail, runtime.NewString(text.Slice(rest, end)));
    NG_ASSIGN_OR_RETURN(const Value capital, StringToCase(runtime, head, Case::kUpper));
    NG_ASSIGN_OR_RETURN(const Value small, StringToCase(runtime, tail, Case::kLower));
    out.Append(capital.text());
    out.Append(small.text());
    i = end;
  }
  return runtime.NewString(std::move(out));
}

absl::StatusOr<Value> WordCount(Runtime& runtime, const Value& string) {
  const std::string& bytes = string.bytes();
  NG_RETURN_IF_ERROR(runtime.ChargeBytes(bytes.size() * 8));
  int64_t words = 0;
  bool inside = false;
  for (size_t i = 0; i < bytes.size();) {
    const CodePoint point = DecodeAt(bytes, i);
    const bool word = IsAlnum(point.code) || point.code == '_';
    if (word && !inside) ++words;
    inside = word;
    i += static_cast<size_t>(point.length);
  }
  return Value::Int(words);
}

absl::StatusOr<Value> FilterDefault(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound,
                      Bind("default", arguments, {"value", "default_value", "boolean"}, 1));
  const bool falsy_too = bound[2] != nullptr && Truth(*bound[2]);
  if (!bound[0]->is_undefined() && (!falsy_too || Truth(*bound[0]))) return *bound[0];
  if (bound[1] != nullptr) return *bound[1];
  return runtime.NewString("");
}

absl::StatusOr<Value> FilterTrim(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("trim", arguments, {"value", "chars"}, 1));
  NG_ASSIGN_OR_RETURN(const Value string, ToStringValue(runtime, *bound[0]));
  return StringStrip(runtime, string, bound[1], true, true);
}

absl::StatusOr<Value> FilterReplace(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound,
                      Bind("replace", arguments, {"s", "old", "new", "count"}, 3));
  const Value* const given = bound[3] != nullptr && bound[3]->is_none() ? nullptr : bound[3];
  NG_ASSIGN_OR_RETURN(const int64_t most, IntegerArgument(given, -1));
  NG_ASSIGN_OR_RETURN(const Value string, ToStringValue(runtime, *bound[0]));
  NG_ASSIGN_OR_RETURN(const Value from, ToStringValue(runtime, *bound[1]));
  NG_ASSIGN_OR_RETURN(const Value to, ToStringValue(runtime, *bound[2]));
  return StringReplace(runtime, string, from, to, most);
}

absl::StatusOr<Value> FilterCenter(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("center", arguments, {"value", "width"}, 1));
  NG_ASSIGN_OR_RETURN(const int64_t width, IntegerArgument(bound[1], 80));
  NG_ASSIGN_OR_RETURN(const Value string, ToStringValue(runtime, *bound[0]));
  return StringPad(runtime, string, width, Text(" ", Origin::kTemplate), Align::kCenter);
}

absl::StatusOr<Value> FilterIndent(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound,
                      Bind("indent", arguments, {"s", "width", "first", "blank"}, 1));
  if (bound[0]->is_undefined()) return UndefinedError(*bound[0]);
  if (!bound[0]->is_string()) return TypeError("indent needs a string");
  Text indent;
  if (bound[1] != nullptr && bound[1]->is_string()) {
    indent = bound[1]->text();
  } else {
    NG_ASSIGN_OR_RETURN(const int64_t width, IntegerArgument(bound[1], 4));
    NG_RETURN_IF_ERROR(runtime.Reserve(static_cast<double>(width)));
    indent =
        Text(std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' '), Origin::kTemplate);
  }
  const bool first = bound[2] != nullptr && Truth(*bound[2]);
  const bool blank = bound[3] != nullptr && Truth(*bound[3]);
  // jinja2 adds a line break before splitting, so that a trailing one keeps its empty line.
  Text text = bound[0]->text();
  text.Append("\n", text.LeastTrusted());
  const std::vector<ByteRange> lines = SplitLines(text.bytes(), false);
  NG_RETURN_IF_ERROR(runtime.ChargeBytes(text.size() * 4));
  NG_RETURN_IF_ERROR(
      runtime.Reserve(static_cast<double>(text.size()) +
                      static_cast<double>(lines.size()) * static_cast<double>(indent.size())));
  Text out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.Append("\n", text.OriginAt(lines[i].first - 1));
    const bool empty = lines[i].first == lines[i].second;
    if (i == 0 ? first : blank || !empty) out.Append(indent);
    out.Append(text, lines[i].first, lines[i].second);
  }
  return runtime.NewString(std::move(out));
}

absl::StatusOr<Value> FilterTruncate(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("truncate", arguments,
                                              {"s", "length", "killwords", "end", "leeway"}, 1));
  NG_ASSIGN_OR_RETURN(const int64_t length, IntegerArgument(bound[1], 255));
  NG_ASSIGN_OR_RETURN(
      const int64_t leeway,
      IntegerArgument(bound[4] != nullptr && bound[4]->is_none() ? nullptr : bound[4], 5));
  if (bound[3] != nullptr && !bound[3]->is_string()) return TypeError("truncate: end must be str");
  const Text end = bound[3] == nullptr ? Text("...", Origin::kTemplate) : bound[3]->text();
  const int64_t kept = length - CountCodePoints(end.bytes());
  if (kept < 0 || leeway < 0) return absl::InvalidArgumentError("truncate: length is too small");
  NG_ASSIGN_OR_RETURN(const int64_t whole, Length(runtime, *bound[0]));
  if (whole <= length + leeway) return *bound[0];
  if (!bound[0]->is_string()) return TypeError("truncate needs a string");
  const Text& text = bound[0]->text();
  Text out = text.Slice(0, OffsetOf(text.bytes(), kept));
  if (bound[2] == nullptr || !Truth(*bound[2])) {
    const size_t space = out.bytes().rfind(' ');
    if (space != std::string::npos) out = out.Slice(0, space);
  }
  out.Append(end);
  return runtime.NewString(std::move(out));
}

absl::StatusOr<Value> FilterFormat(Runtime& runtime, const Arguments& arguments) {
  if (arguments.positional.empty()) return TypeError("format needs a value");
  std::vector<Value> rest(arguments.positional.begin() + 1, arguments.positional.end());
  if (!rest.empty() && !arguments.keyword.empty()) {
    return absl::InvalidArgumentError(
        "can't handle positional and keyword arguments at the same time");
  }
  NG_ASSIGN_OR_RETURN(const Value format, ToStringValue(runtime, arguments.positional[0]));
  if (arguments.keyword.empty()) {
    NG_ASSIGN_OR_RETURN(const Value values, runtime.NewTuple(std::move(rest)));
    return FormatPercent(runtime, format, values);
  }
  auto dict = std::make_shared<Dict>();
  for (const Arguments::Keyword& keyword : arguments.keyword) {
    NG_RETURN_IF_ERROR(dict->Set(keyword.name, keyword.value));
  }
  NG_ASSIGN_OR_RETURN(const Value values, runtime.NewDict(std::move(dict)));
  return FormatPercent(runtime, format, values);
}

absl::StatusOr<Value> FilterAttr(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("attr", arguments, {"obj", "name"}, 2));
  NG_ASSIGN_OR_RETURN(const Value name, ToStringValue(runtime, *bound[1]));
  if (bound[0]->is_undefined()) return UndefinedError(*bound[0]);
  NG_ASSIGN_OR_RETURN(const std::optional<Value> found,
                      bound[0]->is_object() ? bound[0]->object().Attribute(runtime, name.bytes())
                                            : FindMethod(runtime, *bound[0], name.bytes()));
  if (found.has_value()) return *found;
  return runtime.NewUndefined(absl::StrCat(
      "'", bound[0]->type_name(), " object' has no attribute '", name.bytes().substr(0, 100), "'"));
}

/// What jinja2 has and no chat template needs: an error that says so.
constexpr absl::string_view kUnsupported[] = {"filesizeformat", "forceescape", "pprint",
                                              "random",         "striptags",   "urlencode",
                                              "urlize",         "wordwrap",    "xmlattr"};
template <size_t kIndex>
absl::StatusOr<Value> Unsupported(Runtime&, const Arguments&) {
  return absl::InvalidArgumentError(
      absl::StrCat("the filter ", kUnsupported[kIndex], " is not supported in chat templates"));
}

struct FilterRow {
  absl::string_view name;
  Builtin body;
};
constexpr FilterRow kFilters[] = {
    {"abs", FilterAbs},
    {"attr", FilterAttr},
    {"batch", FilterBatch},
    {"capitalize", OfString<StringCapitalize>},
    {"center", FilterCenter},
    {"count", FilterLength},
    {"d", FilterDefault},
    {"default", FilterDefault},
    {"dictsort", FilterDictSort},
    {"e", OfString<Escape>},
    {"escape", OfString<Escape>},
    {"first", FilterFirst},
    {"float", FilterFloat},
    {"format", FilterFormat},
    {"groupby", FilterGroupBy},
    {"indent", FilterIndent},
    {"int", FilterInt},
    {"items", FilterItems},
    {"join", FilterJoin},
    {"last", FilterLast},
    {"length", FilterLength},
    {"list", FilterList},
    {"lower", OfString<Lower>},
    {"map", FilterMap},
    {"max", FilterMax},
    {"min", FilterMin},
    {"reject", FilterReject},
    {"rejectattr", FilterRejectAttr},
    {"replace", FilterReplace},
    {"reverse", FilterReverse},
    {"round", FilterRound},
    {"safe", OfString<Safe>},
    {"select", FilterSelect},
    {"selectattr", FilterSelectAttr},
    {"slice", FilterSlice},
    {"sort", FilterSort},
    {"string", OfString<Same>},
    {"sum", FilterSum},
    {"title", OfString<Title>},
    {"tojson", ToJson},
    {"trim", FilterTrim},
    {"truncate", FilterTruncate},
    {"unique", FilterUnique},
    {"upper", OfString<Upper>},
    {"wordcount", OfString<WordCount>},
    {kUnsupported[0], Unsupported<0>},
    {kUnsupported[1], Unsupported<1>},
    {kUnsupported[2], Unsupported<2>},
    {kUnsupported[3], Unsupported<3>},
    {kUnsupported[4], Unsupported<4>},
    {kUnsupported[5], Unsupported<5>},
    {kUnsupported[6], Unsupported<6>},
    {kUnsupported[7], Unsupported<7>},
    {kUnsupported[8], Unsupported<8>},
};

}  // namespace

Builtin FindFilter(absl::string_view name) {
  for (const FilterRow& row : kFilters) {
    if (row.name == name) return row.body;
  }
  return nullptr;
}

}  // namespace neurogrid::jinja
