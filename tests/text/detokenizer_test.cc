// Text as it arrives: code points and stop strings, however the bytes are cut.
#include "engine/text/detokenizer.h"

#include <catch2/catch_test_macros.hpp>
#include <random>

namespace neurogrid {
namespace {

/// `bytes` pushed in pieces of at most `piece_max`, cut at places drawn from `seed`.
template <typename Push>
void InPieces(const std::string& bytes, unsigned seed, size_t piece_max, Push push) {
  std::mt19937 random(seed);
  for (size_t at = 0; at < bytes.size();) {
    const size_t size = 1 + random() % piece_max;
    push(bytes.substr(at, size));
    at += size;
  }
}

struct Stopped {
  std::string text;
  int matched = -1;
  bool operator==(const Stopped&) const = default;
};

Stopped RunStops(const std::vector<std::string>& stops, bool include, const std::string& text,
                 unsigned seed = 0, size_t piece_max = 1000) {
  StopMatcher matcher(stops, include);
  Stopped out;
  InPieces(text, seed, piece_max, [&](const std::string& piece) {
    const StopMatcher::Result result = matcher.Push(piece);
    out.text += result.text;
    if (result.matched >= 0) out.matched = result.matched;
  });
  if (out.matched < 0) out.text += matcher.Finish();
  return out;
}

}  // namespace

TEST_CASE("a code point is shown when its last byte arrives", "[detokenizer]") {
  Utf8Stream stream;
  CHECK(stream.Push("a\xf0\x9f").empty() == false);
  CHECK(stream.Push("\x98").empty());
  CHECK(stream.Push("\x80z") == "\xf0\x9f\x98\x80z");
  CHECK(stream.Finish().empty());
}

TEST_CASE("each maximal invalid subpart becomes one U+FFFD, at the latest at the end",
          "[detokenizer]") {
  Utf8Stream stream;
  CHECK(stream.Push("\xe1\x80\xe2") == "\xef\xbf\xbd");
  CHECK(stream.Push("A") ==
        "\xef\xbf\xbd"
        "A");
  CHECK(stream.Push("\xf0\x9f\x98").empty());
  CHECK(stream.Finish() == "\xef\xbf\xbd");
  CHECK(stream.Finish().empty());
}

TEST_CASE("a stream gives the same text however its bytes are cut", "[detokenizer]") {
  std::mt19937 random(1);
  for (unsigned seed = 0; seed < 300; ++seed) {
    std::string bytes;
    const char* parts[] = {"a",    "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80",
                           "\x80", "\xe2\x82", "\xf0\x9f",     "\xff"};
    for (int i = 0; i < 30; ++i) bytes += parts[random() % std::size(parts)];
    Utf8Stream whole;
    std::string expected = whole.Push(bytes);
    expected += whole.Finish();
    Utf8Stream stream;
    std::string text;
    InPieces(bytes, seed, 4, [&](const std::string& piece) { text += stream.Push(piece); });
    REQUIRE(text + stream.Finish() == expected);
  }
}

TEST_CASE("a stop string ends the text before itself", "[detokenizer]") {
  CHECK(RunStops({"END"}, false, "one END two") == Stopped{"one ", 0});
  CHECK(RunStops({"END"}, true, "one END two") == Stopped{"one END", 0});
  CHECK(RunStops({"END"}, false, "one EN two") == Stopped{"one EN two", -1});
  CHECK(RunStops({}, false, "anything") == Stopped{"anything", -1});
  CHECK(RunStops({"x", "two"}, false, "one two") == Stopped{"one ", 1});
}

TEST_CASE("of several stop strings the one that is complete first ends the text", "[detokenizer]") {
  CHECK(RunStops({"abcd", "bc"}, false, "xabcd") == Stopped{"xa", 1});
  CHECK(RunStops({"bc", "abc"}, false, "xabc") == Stopped{"x", 1});  // the longer of two
  CHECK(RunStops({"aab"}, false, "aaaab") == Stopped{"aa", 0});
  CHECK(RunStops({"\n\n", "\n\nUser:"}, false, "a\n\nUser:") == Stopped{"a", 0});
}

TEST_CASE("text that may begin a stop string waits, and only that", "[detokenizer]") {
  StopMatcher matcher({"</s>"}, false);
  CHECK(matcher.Push("hello <").text == "hello ");
  CHECK(matcher.Push("/").text.empty());
  CHECK(matcher.Push("b> <").text == "</b> ");
  CHECK(matcher.Finish() == "<");
}

TEST_CASE("stop strings are found however the text is cut", "[detokenizer]") {
  std::mt19937 random(2);
  const std::vector<std::string> stops = {"aba", "bb", "caca", "cacb"};
  for (unsigned seed = 0; seed < 500; ++seed) {
    std::string text;
    for (int i = 0; i < 12; ++i) text += "abc"[random() % 3];
    REQUIRE(RunStops(stops, false, text, seed, 3) == RunStops(stops, false, text));
    REQUIRE(RunStops(stops, true, text, seed, 3) == RunStops(stops, true, text));
  }
}

}  // namespace neurogrid
