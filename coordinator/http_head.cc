#include "coordinator/http_head.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace neurogrid {
namespace {

ApiError Malformed(std::string what) {
  return {.code = "invalid_value", .message = absl::StrCat("Malformed HTTP request: ", what, ".")};
}

/// RFC 9110 5.6.2.
bool IsToken(absl::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
           absl::StrContains("!#$%&'*+-.^_`|~", c);
  });
}

/// Visible characters, blanks and bytes above ASCII: RFC 9110 5.5.
bool IsFieldValue(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte == '\t' || (byte >= 0x20 && byte != 0x7f);
  });
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = absl::ascii_tolower(static_cast<unsigned char>(c));
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

ApiError LineTooLong(bool request_line) {
  if (request_line) {
    return {
        .status = 414,
        .code = "uri_too_long",
        .message = absl::StrCat("The request line is longer than ", kHttpLineBytesMax, " bytes.")};
  }
  return Malformed(absl::StrCat("a header line is longer than ", kHttpLineBytesMax, " bytes"));
}

MaybeError ParseRequestLine(absl::string_view line, HttpHead* head) {
  const std::vector<absl::string_view> words = absl::StrSplit(line, ' ');
  if (words.size() != 3) return Malformed("the request line is not METHOD TARGET VERSION");
  if (!IsToken(words[0]) || words[0].size() > 32) return Malformed("the method is no token");
  head->method = std::string(words[0]);
  if (words[2] != "HTTP/1.1" && words[2] != "HTTP/1.0") {
    return Malformed("the version is neither HTTP/1.1 nor HTTP/1.0");
  }
  head->http_1_0 = words[2] == "HTTP/1.0";
  absl::string_view target = words[1];
  if (std::any_of(target.begin(), target.end(), [](char c) { return c <= 0x20 || c >= 0x7f; })) {
    return Malformed("the target holds bytes that must be percent-encoded");
  }
  // Absolute form, which every server must accept (RFC 9112 3.2.2); its host is not used.
  if (absl::StartsWithIgnoreCase(target, "http://")) {
    const size_t slash = target.find('/', 7);
    target = slash == absl::string_view::npos ? absl::string_view("/") : target.substr(slash);
  }
  if (!absl::StartsWith(target, "/") && target != "*") return Malformed("the target is no path");
  target = target.substr(0, target.find('#'));
  const size_t question = target.find('?');
  head->path = PercentDecode(target.substr(0, question));
  if (question != absl::string_view::npos) head->query = std::string(target.substr(question + 1));
  return std::nullopt;
}

MaybeError ParseHeaderLine(absl::string_view line, HttpHead* head) {
  if (line[0] == ' ' || line[0] == '\t') return Malformed("a header is folded over two lines");
  const size_t colon = line.find(':');
  if (colon == absl::string_view::npos) return Malformed("a header has no colon");
  const absl::string_view name = line.substr(0, colon);
  if (!IsToken(name)) return Malformed("a header name is no token");
  absl::string_view value = line.substr(colon + 1);
  while (!value.empty() && (value.front() == ' ' || value.front() == '\t')) value.remove_prefix(1);
  while (!value.empty() && (value.back() == ' ' || value.back() == '\t')) value.remove_suffix(1);
  if (!IsFieldValue(value)) return Malformed("a header value holds control bytes");
  head->headers.emplace_back(absl::AsciiStrToLower(name), std::string(value));
  return std::nullopt;
}

/// The values of one header, in the order sent.
std::vector<absl::string_view> Values(const HttpHead& head, absl::string_view name) {
  std::vector<absl::string_view> values;
  for (const auto& [key, value] : head.headers) {
    if (key == name) values.push_back(value);
  }
  return values;
}

MaybeError CheckFraming(HttpHead* head) {
  const auto lengths = Values(*head, "content-length");
  const auto encodings = Values(*head, "transfer-encoding");
  if (lengths.size() > 1) return Malformed("Content-Length stands twice");
  if (!lengths.empty() && !encodings.empty()) {
    return Malformed("Content-Length stands beside Transfer-Encoding");
  }
  if (!lengths.empty()) {
    const absl::string_view digits = lengths[0];
    const bool clean = !digits.empty() && digits.size() <= 18 &&
                       std::all_of(digits.begin(), digits.end(), absl::ascii_isdigit);
    if (!clean || !absl::SimpleAtoi(digits, &head->content_length)) {
      return Malformed("Content-Length is not a number");
    }
  }
  if (!encodings.empty()) {
    if (encodings.size() > 1 || !absl::EqualsIgnoreCase(encodings[0], "chunked")) {
      return Malformed("Transfer-Encoding is not chunked");
    }
    if (head->http_1_0) return Malformed("HTTP/1.0 has no Transfer-Encoding");
    head->chunked = true;
  }
  const bool has_body = head->chunked || head->content_length > 0;
  if (has_body && (head->method == "GET" || head->method == "HEAD" || head->method == "OPTIONS")) {
    return Malformed(absl::StrCat(head->method, " has no body"));
  }
  if (head->method == "POST" && lengths.empty() && !head->chunked) {
    return Malformed("POST needs Content-Length or chunks");
  }
  return std::nullopt;
}

MaybeError CheckHost(const HttpHead& head) {
  const auto hosts = Values(head, "host");
  if (hosts.size() > 1) return Malformed("Host stands twice");
  if (hosts.empty()) {
    if (head.http_1_0) return std::nullopt;
    return Malformed("Host is missing");
  }
  const bool clean = std::all_of(hosts[0].begin(), hosts[0].end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains(".-_~:[]%", c);
  });
  if (!clean) return Malformed("Host is no host");
  return std::nullopt;
}

MaybeError CheckBodyKind(const HttpHead& head) {
  const ApiError unsupported = {.status = 415, .code = "unsupported_media_type"};
  if (!Values(head, "content-encoding").empty()) {
    ApiError error = unsupported;
    error.message = "Content-Encoding is not supported: send the body as it is.";
    return error;
  }
  if (!head.chunked && head.content_length == 0) return std::nullopt;
  const auto types = Values(head, "content-type");
  if (types.empty()) return std::nullopt;  // read as JSON
  absl::string_view type = types[0].substr(0, types[0].find(';'));
  type = absl::StripTrailingAsciiWhitespace(type);
  if (absl::EqualsIgnoreCase(type, "application/json")) return std::nullopt;
  ApiError error = unsupported;
  error.message = "The body must be JSON: send Content-Type: application/json.";
  return error;
}

MaybeError CheckHeaders(HttpHead* head) {
  for (const char* name : {"authorization", "x-api-key", "content-type", "expect"}) {
    if (Values(*head, name).size() > 1) return Malformed(absl::StrCat(name, " stands twice"));
  }
  for (const char* name : {"trailer", "te", "upgrade", "range"}) {
    if (!Values(*head, name).empty()) {
      return Malformed(absl::StrCat("the header ", name, " is not supported"));
    }
  }
  NG_RETURN_IF_REFUSED(CheckHost(*head));
  NG_RETURN_IF_REFUSED(CheckFraming(head));
  NG_RETURN_IF_REFUSED(CheckBodyKind(*head));
  if (const auto expect = Values(*head, "expect"); !expect.empty()) {
    if (!absl::EqualsIgnoreCase(expect[0], "100-continue")) {
      return Malformed("Expect is not 100-continue");
    }
    head->expects_continue = !head->http_1_0;
  }
  head->keep_alive = !head->http_1_0;
  for (const absl::string_view line : Values(*head, "connection")) {
    for (absl::string_view option : absl::StrSplit(line, ',')) {
      option = absl::StripAsciiWhitespace(option);
      if (absl::EqualsIgnoreCase(option, "close")) {
        head->keep_alive = false;
        return std::nullopt;
      }
      if (absl::EqualsIgnoreCase(option, "keep-alive")) head->keep_alive = true;
    }
  }
  return std::nullopt;
}

}  // namespace

std::string PercentDecode(absl::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      const int high = HexDigit(text[i + 1]);
      const int low = HexDigit(text[i + 2]);
      if (high >= 0 && low >= 0) {
        out += static_cast<char>(high * 16 + low);
        i += 2;
        continue;
      }
    }
    out += text[i];
  }
  return out;
}

MaybeError CheckPartialHttpHead(absl::string_view bytes) {
  size_t lines = 0;
  while (true) {
    const size_t end = bytes.find('\n');
    const size_t length = end == absl::string_view::npos ? bytes.size() : end;
    if (length > kHttpLineBytesMax + 1) return LineTooLong(lines == 0);
    if (end == absl::string_view::npos) return std::nullopt;
    if (end == 0 || bytes[end - 1] != '\r') return Malformed("a line ends without CR LF");
    if (++lines > kHttpHeadersMax + 1 && end > 1) {
      return Malformed(absl::StrCat("more than ", kHttpHeadersMax, " headers"));
    }
    bytes.remove_prefix(end + 1);
  }
}

MaybeError ParseHttpHead(absl::string_view bytes, HttpHead* head) {
  NG_RETURN_IF_REFUSED(CheckPartialHttpHead(bytes));
  bool request_line = true;
  while (true) {
    const size_t end = bytes.find("\r\n");
    if (end == absl::string_view::npos) return Malformed("the head has no end");
    const absl::string_view line = bytes.substr(0, end);
    bytes.remove_prefix(end + 2);
    if (line.find('\r') != absl::string_view::npos) return Malformed("a line holds a bare CR");
    if (request_line) {
      NG_RETURN_IF_REFUSED(ParseRequestLine(line, head));
      request_line = false;
    } else if (line.empty()) {
      return CheckHeaders(head);
    } else {
      NG_RETURN_IF_REFUSED(ParseHeaderLine(line, head));
    }
  }
}

}  // namespace neurogrid
