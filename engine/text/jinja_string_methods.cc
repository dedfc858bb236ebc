#include "engine/text/jinja_string_methods.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace neurogrid::jinja {
namespace {

absl::Status NeedsString(absl::string_view method, const Value& value) {
  return TypeError(absl::StrCat(method, ": must be str, not ", value.type_name()));
}

template <Case kTo>
absl::StatusOr<Value> ToCaseMethod(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("case", arguments, {"/self"}, 1));
  return StringToCase(runtime, *bound[0], kTo);
}

absl::StatusOr<Value> Title(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("title", arguments, {"/self"}, 1));
  return StringTitle(runtime, *bound[0]);
}

absl::StatusOr<Value> Capitalize(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("capitalize", arguments, {"/self"}, 1));
  return StringCapitalize(runtime, *bound[0]);
}

absl::StatusOr<Value> SwapCase(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("swapcase", arguments, {"/self"}, 1));
  return StringSwapCase(runtime, *bound[0]);
}

template <bool kLeft, bool kRight>
absl::StatusOr<Value> StripMethod(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("strip", arguments, {"/self", "/chars"}, 1));
  return StringStrip(runtime, *bound[0], bound[1], kLeft, kRight);
}

template <Align kAlign>
absl::StatusOr<Value> PadMethod(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound,
                      Bind("justify", arguments, {"/self", "/width", "/fillchar"}, 2));
  NG_ASSIGN_OR_RETURN(const int64_t width, IntegerArgument(bound[1], 0));
  if (bound[2] != nullptr && !bound[2]->is_string()) return NeedsString("fillchar", *bound[2]);
  const Text fill = bound[2] == nullptr ? Text(" ", Origin::kTemplate) : bound[2]->text();
  return StringPad(runtime, *bound[0], width, fill, kAlign);
}

absl::StatusOr<Value> ZeroFill(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("zfill", arguments, {"/self", "/width"}, 2));
  NG_ASSIGN_OR_RETURN(const int64_t width, IntegerArgument(bound[1], 0));
  const Value& self = *bound[0];
  const bool sign = !self.bytes().empty() && (self.bytes()[0] == '-' || self.bytes()[0] == '+');
  const size_t head = sign ? 1 : 0;
  NG_ASSIGN_OR_RETURN(const Value digits,
                      runtime.NewString(self.text().Slice(head, self.bytes().size())));
  NG_ASSIGN_OR_RETURN(const Value padded,
                      StringPad(runtime, digits, width - static_cast<int64_t>(head),
                                Text("0", Origin::kTemplate), Align::kRight));
  Text out = self.text().Slice(0, head);
  out.Append(padded.text());
  return runtime.NewString(std::move(out));
}

absl::StatusOr<Value> ExpandTabs(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("expandtabs", arguments, {"/self", "tabsize"}, 1));
  NG_ASSIGN_OR_RETURN(const int64_t size, IntegerArgument(bound[1], 8));
  const Text& text = bound[0]->text();
  Text out;
  int64_t column = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t next = i + static_cast<size_t>(DecodeAt(text.bytes(), i).length);
    const char c = text.bytes()[i];
    if (c == '\t') {
      const int64_t spaces = size > 0 ? size - column % size : 0;
      NG_RETURN_IF_ERROR(
          runtime.Reserve(static_cast<double>(spaces) + static_cast<double>(out.size())));
      out.Append(std::string(static_cast<size_t>(spaces), ' '), text.OriginAt(i));
      column += spaces;
    } else {
      out.Append(text, i, next);
      column = c == '\n' || c == '\r' ? 0 : column + 1;
    }
    i = next;
  }
  return runtime.NewString(std::move(out));
}

absl::StatusOr<Value> Pieces(Runtime& runtime, const Text& text,
                             const std::vector<ByteRange>& ranges) {
  std::vector<Value> pieces;
  for (const ByteRange& range : ranges) {
    NG_ASSIGN_OR_RETURN(Value piece, runtime.NewString(text.Slice(range.first, range.second)));
    pieces.push_back(std::move(piece));
  }
  return runtime.NewList(std::move(pieces));
}

template <bool kFromRight>
absl::StatusOr<Value> SplitMethod(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("split", arguments, {"/self", "sep", "maxsplit"}, 1));
  NG_ASSIGN_OR_RETURN(const int64_t most, IntegerArgument(bound[2], -1));
  const Text& text = bound[0]->text();
  NG_RETURN_IF_ERROR(runtime.ChargeBytes(text.size() * 4));
  if (bound[1] == nullptr || bound[1]->is_none()) {
    return Pieces(
        runtime, text,
        kFromRight ? SplitSpaceFromRight(text.bytes(), most) : SplitSpace(text.bytes(), most));
  }
  if (!bound[1]->is_string()) return NeedsString("split", *bound[1]);
  const std::string& separator = bound[1]->bytes();
  if (separator.empty()) return absl::InvalidArgumentError("empty separator");
  return Pieces(runtime, text,
                kFromRight ? SplitFromRight(text.bytes(), separator, most)
                           : Split(text.bytes(), separator, most));
}

absl::StatusOr<Value> SplitLinesMethod(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("splitlines", arguments, {"/self", "keepends"}, 1));
  NG_RETURN_IF_ERROR(runtime.ChargeBytes(bound[0]->bytes().size() * 4));
  const bool keep = bound[1] != nullptr && Truth(*bound[1]);
  return Pieces(runtime, bound[0]->text(), SplitLines(bound[0]->bytes(), keep));
}

template <bool kFromRight>
absl::StatusOr<Value> Partition(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("partition", arguments, {"/self", "/sep"}, 2));
  if (!bound[1]->is_string()) return NeedsString("partition", *bound[1]);
  const Text& text = bound[0]->text();
  const std::string& separator = bound[1]->bytes();
  if (separator.empty()) return absl::InvalidArgumentError("empty separator");
  NG_RETURN_IF_ERROR(runtime.ChargeBytes(text.size()));
  const size_t place =
      kFromRight ? FindLast(text.bytes(), separator) : Find(text.bytes(), separator);
  Text parts[3];
  if (place == absl::string_view::npos) {
    parts[kFromRight ? 2 : 0] = text;
  } else {
    parts[0] = text.Slice(0, place);
    parts[1] = bound[1]->text();
    parts[2] = text.Slice(place + separator.size(), text.size());
  }
  std::vector<Value> values;
  for (Text& part : parts) {
    NG_ASSIGN_OR_RETURN(Value value, runtime.NewString(std::move(part)));
    values.push_back(std::move(value));
  }
  return runtime.NewTuple(std::move(values));
}

/// The bytes that [start, end) of find, count, startswith ... select; nothing when start is past
/// the end.
absl::StatusOr<std::optional<ByteRange>> Window(Runtime& runtime, const Value& self,
                                                const Value* start, const Value* end) {
  NG_ASSIGN_OR_RETURN(const int64_t length, Length(runtime, self));
  const Value none = Value::None();
  NG_ASSIGN_OR_RETURN(int64_t first,
                      IntegerArgument(start != nullptr && start->is_none() ? nullptr : start, 0));
  NG_ASSIGN_OR_RETURN(int64_t last,
                      IntegerArgument(end != nullptr && end->is_none() ? nullptr : end, length));
  if (first < 0) first = std::max<int64_t>(first + length, 0);
  if (last < 0) last = std::max<int64_t>(last + length, 0);
  last = std::min(last, length);
  if (first > last) return std::nullopt;
  return ByteRange{OffsetOf(self.bytes(), first), OffsetOf(self.bytes(), last)};
}

enum class Want { kFind, kIndex };

template <bool kFromRight, Want kWant>
absl::StatusOr<Value> FindMethodOfString(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound,
                      Bind("find", arguments, {"/self", "/sub", "/start", "/end"}, 2));
  if (!bound[1]->is_string()) return NeedsString("find", *bound[1]);
  NG_RETURN_IF_ERROR(runtime.ChargeBytes(bound[0]->bytes().size()));
  NG_ASSIGN_OR_RETURN(const auto window, Window(runtime, *bound[0], bound[2], bound[3]));
  if (window.has_value()) {
    const absl::string_view all = bound[0]->bytes();
    const absl::string_view part = all.substr(window->first, window->second - window->first);
    const size_t place =
        kFromRight ? FindLast(part, bound[1]->bytes()) : Find(part, bound[1]->bytes());
    if (place != absl::string_view::npos) {
      return Value::Int(CountCodePoints(all.substr(0, window->first + place)));
    }
  }
  if (kWant == Want::kIndex) return absl::InvalidArgumentError("substring not found");
  return Value::Int(-1);
}

absl::StatusOr<Value> Count(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound,
                      Bind("count", arguments, {"/self", "/sub", "/start", "/end"}, 2));
  if (!bound[1]->is_string()) return NeedsString("count", *bound[1]);
  NG_RETURN_IF_ERROR(runtime.ChargeBytes(bound[0]->bytes().size()));
  NG_ASSIGN_OR_RETURN(const auto window, Window(runtime, *bound[0], bound[2], bound[3]));
  if (!window.has_value()) return Value::Int(0);
  const absl::string_view part =
      absl::string_view(bound[0]->bytes()).substr(window->first, window->second - window->first);
  if (bound[1]->bytes().empty()) return Value::Int(CountCodePoints(part) + 1);
  return Value::Int(static_cast<int64_t>(Split(part, bound[1]->bytes(), -1).size()) - 1);
}

template <bool kAtEnd>
absl::StatusOr<Value> StartsWith(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound,
                      Bind("startswith", arguments, {"/self", "/prefix", "/start", "/end"}, 2));
  NG_ASSIGN_OR_RETURN(const auto window, Window(runtime, *bound[0], bound[2], bound[3]));
  std::vector<Value> affixes = {*bound[1]};
  if (bound[1]->is_tuple()) affixes = bound[1]->items();
  for (const Value& affix : affixes) {
    if (!affix.is_string()) return NeedsString("startswith", affix);
    NG_RETURN_IF_ERROR(runtime.ChargeBytes(affix.bytes().size()));
    if (!window.has_value()) continue;
    const absl::string_view part =
        absl::string_view(bound[0]->bytes()).substr(window->first, window->second - window->first);
    if (kAtEnd ? absl::EndsWith(part, affix.bytes()) : absl::StartsWith(part, affix.bytes())) {
      return Value::Bool(true);
    }
  }
  return Value::Bool(false);
}

template <bool kAtEnd>
absl::StatusOr<Value> RemoveAffix(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("removeprefix", arguments, {"/self", "/affix"}, 2));
  if (!bound[1]->is_string()) return NeedsString("removeprefix", *bound[1]);
  const Text& text = bound[0]->text();
  const std::string& affix = bound[1]->bytes();
  const size_t rest = text.size() - affix.size();
  if (kAtEnd && absl::EndsWith(text.bytes(), affix)) {
    return runtime.NewString(text.Slice(0, rest));
  }
  if (!kAtEnd && absl::StartsWith(text.bytes(), affix)) {
    return runtime.NewString(text.Slice(affix.size(), text.size()));
  }
  return *bound[0];
}

absl::StatusOr<Value> Replace(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound,
                      Bind("replace", arguments, {"/self", "/old", "/new", "/count"}, 3));
  NG_ASSIGN_OR_RETURN(const int64_t most, IntegerArgument(bound[3], -1));
  if (!bound[1]->is_string()) return NeedsString("replace", *bound[1]);
  if (!bound[2]->is_string()) return NeedsString("replace", *bound[2]);
  return StringReplace(runtime, *bound[0], *bound[1], *bound[2], most);
}

absl::StatusOr<Value> Join(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("join", arguments, {"/self", "/iterable"}, 2));
  NG_ASSIGN_OR_RETURN(const std::vector<Value> items, Collect(runtime, *bound[1]));
  for (size_t i = 0; i < items.size(); ++i) {
    if (items[i].is_string()) continue;
    return TypeError(absl::StrCat("sequence item ", i, ": expected str instance, ",
                                  items[i].type_name(), " found"));
  }
  return StringJoin(runtime, bound[0]->text(), items);
}

absl::StatusOr<Value> Format(Runtime& runtime, const Arguments& arguments) {
  Arguments rest = arguments;
  rest.positional.erase(rest.positional.begin());
  return FormatBraces(runtime, arguments.positional[0], rest);
}

template <bool (*kIs)(int32_t)>
absl::StatusOr<Value> AllAre(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("is", arguments, {"/self"}, 1));
  const std::string& bytes = bound[0]->bytes();
  NG_RETURN_IF_ERROR(runtime.ChargeBytes(bytes.size() * 8));
  for (size_t i = 0; i < bytes.size();) {
    const CodePoint point = DecodeAt(bytes, i);
    if (!kIs(point.code)) return Value::Bool(false);
    i += static_cast<size_t>(point.length);
  }
  return Value::Bool(!bytes.empty());
}

template <bool (*kIs)(absl::string_view)>
absl::StatusOr<Value> WholeIs(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("is", arguments, {"/self"}, 1));
  NG_RETURN_IF_ERROR(runtime.ChargeBytes(bound[0]->bytes().size() * 8));
  return Value::Bool(kIs(bound[0]->bytes()));
}

/// str.istitle: capitals begin words and only they do.
bool StringIsTitle(absl::string_view text) {
  bool any = false;
  bool after_cased = false;
  for (size_t i = 0; i < text.size();) {
    const CodePoint point = DecodeAt(text, i);
    const bool capital = IsUpper(point.code) || IsTitle(point.code);
    if (capital && after_cased) return false;
    if (!capital && IsLower(point.code) && !after_cased) return false;
    after_cased = capital || IsLower(point.code);
    any = any || after_cased;
    i += static_cast<size_t>(point.length);
  }
  return any;
}

bool StringIsAscii(absl::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<signed char>(c) >= 0; });
}

struct MethodRow {
  absl::string_view name;
  Builtin body;
};
constexpr MethodRow kMethods[] = {
    {"capitalize", Capitalize},
    {"center", PadMethod<Align::kCenter>},
    {"count", Count},
    {"endswith", StartsWith<true>},
    {"expandtabs", ExpandTabs},
    {"find", FindMethodOfString<false, Want::kFind>},
    {"format", Format},
    {"index", FindMethodOfString<false, Want::kIndex>},
    {"isalnum", AllAre<IsAlnum>},
    {"isalpha", AllAre<IsAlpha>},
    {"isascii", WholeIs<StringIsAscii>},
    {"isdecimal", AllAre<IsDecimal>},
    {"isdigit", AllAre<IsDigit>},
    {"islower", WholeIs<StringIsLower>},
    {"isnumeric", AllAre<IsNumeric>},
    {"isspace", AllAre<IsSpace>},
    {"istitle", WholeIs<StringIsTitle>},
    {"isupper", WholeIs<StringIsUpper>},
    {"join", Join},
    {"ljust", PadMethod<Align::kLeft>},
    {"lower", ToCaseMethod<Case::kLower>},
    {"lstrip", StripMethod<true, false>},
    {"partition", Partition<false>},
    {"removeprefix", RemoveAffix<false>},
    {"removesuffix", RemoveAffix<true>},
    {"replace", Replace},
    {"rfind", FindMethodOfString<true, Want::kFind>},
    {"rindex", FindMethodOfString<true, Want::kIndex>},
    {"rjust", PadMethod<Align::kRight>},
    {"rpartition", Partition<true>},
    {"rsplit", SplitMethod<true>},
    {"rstrip", StripMethod<false, true>},
    {"split", SplitMethod<false>},
    {"splitlines", SplitLinesMethod},
    {"startswith", StartsWith<false>},
    {"strip", StripMethod<true, true>},
    {"swapcase", SwapCase},
    {"title", Title},
    {"upper", ToCaseMethod<Case::kUpper>},
    {"zfill", ZeroFill},
};

}  // namespace

Builtin FindStringMethod(absl::string_view name) {
  for (const MethodRow& row : kMethods) {
    if (row.name == name) return row.body;
  }
  return nullptr;
}

}  // namespace neurogrid::jinja
