// JSON parsing and writing against RFC 8259 and the limits of JsonLimits.
#include "common/json.h"

#include <catch2/catch_test_macros.hpp>
#include <string>

namespace neurogrid {
namespace {

std::string RoundTrip(const std::string& text) { return ToString(ParseJson(text).value()); }

TEST_CASE("ParseJson keeps the order of keys and the kind of numbers", "[json]") {
  CHECK(RoundTrip(R"({"b":1,"a":[1.0,-0,1e300,9007199254740993],"c":{}})") ==
        R"({"b":1,"a":[1.0,0,1e+300,9007199254740993],"c":{}})");
  CHECK(ParseJson("18446744073709551615")->is_double());
}

TEST_CASE("ParseJson refuses what RFC 8259 does not allow", "[json][U13]") {
  for (const char* bad : {"", "{", "[1,]", "{\"a\":1,\"a\":2}", "\"\\ud800\"", "\"\xff\"", "01",
                          "1e999", "nul", "[1] x", "\"\x01\"", "{\"a\" 1}"}) {
    CAPTURE(bad);
    CHECK_FALSE(ParseJson(bad).ok());
  }
}

TEST_CASE("ParseJson names the limit that was passed", "[json][U13]") {
  const std::string deep(100'000, '[');
  CHECK(ParseJson(deep).status().message() == "nested deeper than 64 levels");
  JsonLimits few;
  few.values_max = 3;
  CHECK(ParseJson("[1,2,3]", few).status().message() == "more than 3 values");
}

TEST_CASE("ToString escapes control characters and repairs bytes that are not UTF-8", "[json]") {
  CHECK(ToString(Json(std::string("a\"\\\n\x01\xc3\xa9\xff"))) ==
        "\"a\\\"\\\\\\n\\u0001\xc3\xa9\xef\xbf\xbd\"");
  JsonStyle ascii;
  ascii.ascii_only = true;
  CHECK(ToString(Json("\xf0\x9f\x98\x80"), ascii) == "\"\\ud83d\\ude00\"");
  CHECK(ToString(Json(0.0)) == "0.0");
}

}  // namespace
}  // namespace neurogrid
