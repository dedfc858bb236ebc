// 220 small templates as jinja2 3.1.6 renders them in the environment of transformers.
#include <catch2/catch_test_macros.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "engine/text/jinja.h"
#include "tests/support/test_data.h"

namespace neurogrid::jinja {
namespace {

/// The reference's strftime_now is pinned to this time (golden info.json).
const absl::Time kNow =
    absl::FromCivil(absl::CivilSecond(2024, 7, 26, 13, 5, 9), absl::UTCTimeZone());

struct Refused {
  std::string source;
  std::string message;  // how our error begins
};

/// What the reference renders and we refuse, each by an error that says why.
const std::vector<Refused>& RefusedSnippets() {
  static const auto* const refused = new std::vector<Refused>{
      {"{{ [1e16, 1e22, 1.5e-7, 0.1, 100.0, -0.0, 12345678901234567890, 1e100] | tojson }}",
       "line 1: integer beyond 64 bits"},
      {"{% autoescape true %}{{ '<' }}{% endautoescape %}",
       "line 1: the tag 'autoescape' is not supported"},
  };
  return *refused;
}

std::vector<Json> Lines(const std::string& name) {
  std::vector<Json> lines;
  std::istringstream in(ReadFile(TestData("golden/templates/" + name)));
  for (std::string line; std::getline(in, line);) lines.push_back(ParseJson(line).value());
  return lines;
}

Rendering RenderSnippet(const std::string& source, const Json& context) {
  Rendering rendering;
  absl::StatusOr<std::unique_ptr<Template>> compiled = Template::Compile(source);
  if (!compiled.ok()) {
    rendering.status = compiled.status();
    return rendering;
  }
  std::vector<Variable> variables;
  for (const JsonMember& member : context.as_object()) {
    variables.push_back({member.key, &member.value, Origin::kInput, false});
  }
  return (*compiled)->Render(variables, kNow);
}

TEST_CASE("every snippet renders as in the reference or is refused by name", "[jinja]") {
  const std::vector<Json> snippets = Lines("snippets.jsonl.xz");
  REQUIRE(snippets.size() == 220);
  size_t refused = 0;
  for (const Json& snippet : snippets) {
    const std::string& source = snippet.Find("template")->as_string();
    CAPTURE(source);
    const Rendering rendering = RenderSnippet(source, *snippet.Find("context"));
    CAPTURE(rendering.status.message());
    const Refused* row = nullptr;
    for (const Refused& one : RefusedSnippets()) {
      if (one.source == source) row = &one;
    }
    if (row != nullptr) {
      ++refused;
      CHECK(absl::StartsWith(rendering.status.message(), row->message));
    } else if (const Json* const error = snippet.Find("error")) {
      CHECK_FALSE(rendering.status.ok());
      const bool raised = error->as_string() == "raise_exception";
      CHECK(rendering.raised == raised);
      if (raised) CHECK(rendering.status.message() == snippet.Find("message")->as_string());
    } else {
      CHECK(rendering.status.ok());
      CHECK(rendering.text.bytes() == snippet.Find("text")->as_string());
    }
  }
  CHECK(refused == RefusedSnippets().size());
}

}  // namespace
}  // namespace neurogrid::jinja
