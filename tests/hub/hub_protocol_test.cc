// What a hub's answers mean: listings, picks, errors.
#include "coordinator/hub_protocol.h"

#include <catch2/catch_test_macros.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace neurogrid {
namespace {

const std::string kCommit(40, 'c');
const std::string kGit(40, '1');
const std::string kSha(64, '2');

std::string ListingText(const std::string& siblings) {
  return absl::StrCat(R"({"sha":")", kCommit, R"(","siblings":[)", siblings, "]}");
}

HubListing ListingOf(const std::vector<std::string>& names) {
  HubListing listing{.commit = kCommit, .files = {}};
  for (const std::string& name : names) {
    listing.files.push_back({.name = name, .size = 2'500'000, .digest = kSha});
  }
  return listing;
}

std::vector<std::string> NamesOf(const std::vector<HubFile>& files) {
  std::vector<std::string> names;
  for (const HubFile& file : files) names.push_back(file.name);
  return names;
}

HubName Named(const std::string& text) { return ParseHubName(text).value(); }

TEST_CASE("a listing gives sizes, and SHA-256 for large files but git's SHA-1 for others",
          "[hub]") {
  const HubListing listing =
      ParseListing(
          ListingText(absl::StrCat(
              R"({"rfilename":"a.json","size":7,"blobId":")", kGit, R"("},)",
              R"({"rfilename":"b/c.gguf","size":134,"blobId":")", kGit, R"(","lfs":{"sha256":")",
              kSha, R"(","size":9000000000,"pointerSize":134}},)", R"({"rfilename":"bare"})")))
          .value();
  CHECK(listing.commit == kCommit);
  REQUIRE(listing.files.size() == 3);
  CHECK(listing.files[0].size == 7);
  CHECK(listing.files[0].digest == kGit);
  CHECK(listing.files[1].size == 9'000'000'000);
  CHECK(listing.files[1].digest == kSha);
  CHECK(listing.files[2].size == -1);
  CHECK(listing.files[2].digest.empty());
}

TEST_CASE("a listing that could lead out of the cache or lie is refused", "[hub][P15]") {
  for (const char* name : {"../x", "a/../b", "/x", "a//b", "a/", ".", "a/./b", "a\\\\b",
                           "a\\u0000b", "a\\nb", "", "a\\u007f"}) {
    CAPTURE(name);
    CHECK_FALSE(ParseListing(ListingText(absl::StrCat(R"({"rfilename":")", name, R"("})"))).ok());
  }
  for (const char* entry :
       {R"({"rfilename":1})", R"({})", "1", R"({"rfilename":"a","size":-1})",
        R"({"rfilename":"a","size":"1"})", R"({"rfilename":"a","size":1e300})",
        R"({"rfilename":"a","blobId":"../../x"})", R"({"rfilename":"a","lfs":{}})",
        R"({"rfilename":"a","lfs":{"sha256":"zz","size":1}})",
        R"({"rfilename":"a"},{"rfilename":"a"})"}) {
    CAPTURE(entry);
    CHECK_FALSE(ParseListing(ListingText(entry)).ok());
  }
  CHECK_FALSE(ParseListing(R"({"sha":"main","siblings":[]})").ok());
  std::string many = R"({"rfilename":"f0"})";
  for (int i = 1; i <= kHubFilesMax; ++i) absl::StrAppend(&many, R"(,{"rfilename":"f)", i, "\"}");
  CHECK(absl::StrContains(ParseListing(ListingText(many)).status().message(), "4097 files"));
}

TEST_CASE("PickFiles takes what a safetensors model needs and nothing else", "[hub]") {
  const HubPick pick =
      PickFiles(ListingOf({"README.md", "config.json", "consolidated.safetensors",
                           "generation_config.json", "model.safetensors", "onnx/model.onnx",
                           "onnx/config.json", "original/consolidated.00.pth", "pytorch_model.bin",
                           "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
                           "chat_template.jinja", "additional_chat_templates/tool_use.jinja",
                           "additional_chat_templates/x.py", "model.safetensors.index.json"}),
                Named("o/n"))
          .value();
  CHECK(NamesOf(pick.files) ==
        std::vector<std::string>{"config.json", "generation_config.json", "tokenizer.json",
                                 "tokenizer_config.json", "chat_template.jinja",
                                 "additional_chat_templates/tool_use.jinja", "model.safetensors"});
  CHECK_FALSE(pick.sharded);
  CHECK(pick.gguf.empty());
  const HubPick sharded =
      PickFiles(ListingOf({"config.json", "model.safetensors.index.json", "a.safetensors"}),
                Named("o/n"))
          .value();
  CHECK(sharded.sharded);
  CHECK(NamesOf(sharded.files).back() == "model.safetensors.index.json");
}

TEST_CASE("PickShards refuses an index that names what is not there", "[hub]") {
  const HubListing listing = ListingOf({"a.safetensors", "b.safetensors"});
  CHECK(NamesOf(PickShards(listing, {"b.safetensors"}).value()) ==
        std::vector<std::string>{"b.safetensors"});
  CHECK(absl::IsNotFound(PickShards(listing, {"../x"}).status()));
}

TEST_CASE("of several GGUF files one must be named", "[hub]") {
  const HubListing listing =
      ListingOf({"m-Q4_0.gguf", "m-Q4_0_4_4.gguf", "m-Q4_K_M.gguf", "mmproj-m.gguf", "imatrix.gguf",
                 "big/m-F16-00001-of-00002.gguf", "big/m-F16-00002-of-00002.gguf"});
  const absl::Status several = PickFiles(listing, Named("o/n")).status();
  CHECK(several.code() == absl::StatusCode::kInvalidArgument);
  CHECK(several.message() ==
        "4 models are in o/n; name one of them:\n  o/n:m-Q4_0.gguf  2.5 MB\n"
        "  o/n:m-Q4_0_4_4.gguf  2.5 MB\n  o/n:m-Q4_K_M.gguf  2.5 MB\n"
        "  o/n:big/m-F16-00001-of-00002.gguf  5.0 MB");
  CHECK(PickFiles(listing, Named("o/n:Q4_0")).value().gguf == "m-Q4_0.gguf");
  CHECK(PickFiles(listing, Named("o/n:q4_k_m")).value().gguf == "m-Q4_K_M.gguf");
  CHECK(PickFiles(listing, Named("o/n:*4_4*")).value().gguf == "m-Q4_0_4_4.gguf");
  CHECK_FALSE(PickFiles(listing, Named("o/n:Q4")).ok());
  CHECK(NamesOf(PickFiles(listing, Named("o/n:F16")).value().files) ==
        std::vector<std::string>{"big/m-F16-00001-of-00002.gguf", "big/m-F16-00002-of-00002.gguf"});
  const absl::Status none = PickFiles(listing, Named("o/n:Q9")).status();
  CHECK(absl::IsNotFound(none));
  CHECK(absl::StrContains(none.message(), "m-Q4_K_M.gguf"));
}

TEST_CASE("a GGUF in parts needs all of them", "[hub]") {
  const absl::Status status =
      PickFiles(ListingOf({"m-00001-of-00003.gguf", "m-00003-of-00003.gguf"}), Named("o/n"))
          .status();
  CHECK(absl::StrContains(status.message(), "m-00002-of-00003.gguf is missing"));
}

TEST_CASE("errors say what the user can do", "[hub][P15]") {
  HubQuestion question{
      .endpoint = "https://h", .name = Named("o/n@v1"), .file = "f", .with_token = false};
  const auto explain = [&](int status, const char* code) {
    return ExplainAnswer(question, {.status = status, .headers = {{"x-error-code", code}}},
                         R"({"error":"the \u0007 words"})");
  };
  CHECK(explain(401, "").message() ==
        "the hub knows no o/n: check the name; if it is private or gated, set HF_TOKEN to a token "
        "with access [401 (\"the \\x07 words\")]");
  CHECK(absl::StrContains(explain(403, "GatedRepo").message(), "ask for access at https://h/o/n"));
  CHECK(absl::StrContains(explain(404, "RevisionNotFound").message(), "no revision v1"));
  CHECK(absl::StrContains(explain(404, "EntryNotFound").message(), "no file f"));
  CHECK(absl::IsUnavailable(explain(429, "")));
  CHECK(absl::IsUnavailable(explain(502, "")));
  CHECK_FALSE(absl::IsUnavailable(explain(403, "")));
  CHECK_FALSE(absl::IsUnavailable(explain(400, "")));
  question.with_token = true;
  CHECK(absl::StrContains(explain(401, "RepoNotFound").message(), "that HF_TOKEN is valid"));
}

TEST_CASE("a file's head gives the digest of the linked file", "[hub]") {
  HubHead head{.status = 302,
               .headers = {{"etag", "\"x\""},
                           {"x-linked-etag", "\"" + kSha + "\""},
                           {"x-linked-size", "12"},
                           {"content-length", "5"}}};
  CHECK(ParseFileHead("f", head).value().digest == kSha);
  CHECK(ParseFileHead("f", head).value().size == 12);
  head = {.status = 200, .headers = {{"etag", "W/\"" + kGit + "\""}, {"content-length", "5"}}};
  CHECK(ParseFileHead("f", head).value().digest == kGit);
  CHECK(ParseFileHead("f", head).value().size == 5);
  head.status = 302;
  CHECK_FALSE(ParseFileHead("f", head).ok());
  head = {.status = 200, .headers = {{"etag", "../../x"}, {"content-length", "5"}}};
  CHECK_FALSE(ParseFileHead("f", head).ok());
}

TEST_CASE("Content-Range and Retry-After are read strictly", "[hub]") {
  CHECK(ParseContentRange("bytes 5-9/10")->last == 9);
  CHECK(ParseContentRange("bytes 5-9/*")->size == -1);
  for (const char* bad :
       {"", "bytes */10", "bytes 5-4/10", "bytes 5-10/10", "bytes -5-9/10", "5-9/10"}) {
    CAPTURE(bad);
    CHECK_FALSE(ParseContentRange(bad).has_value());
  }
  CHECK(RetryAfterSeconds({.status = 429, .headers = {{"retry-after", "7"}}}) == 7);
  CHECK(RetryAfterSeconds({.status = 429, .headers = {{"retry-after", "99999"}}}) == 60);
  CHECK_FALSE(RetryAfterSeconds({.status = 429, .headers = {{"retry-after", "soon"}}}).has_value());
}

}  // namespace
}  // namespace neurogrid
