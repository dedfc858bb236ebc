// The environment that all tools of the hub share.
#include "common/hub_settings.h"

#include <catch2/catch_test_macros.hpp>
#include <map>

#include "absl/strings/match.h"
#include "tests/support/golden.h"

namespace neurogrid {
namespace {

absl::StatusOr<HubSettings> Read(const std::map<std::string, std::string>& variables) {
  return ReadHubSettings([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

TEST_CASE("the cache is where every tool of the hub looks for it", "[hub]") {
  CHECK(Read({{"HOME", "/h"}})->cache == "/h/.cache/huggingface/hub");
  CHECK(Read({{"HOME", "/h"}, {"XDG_CACHE_HOME", "/x"}})->cache == "/x/huggingface/hub");
  CHECK(Read({{"HOME", "/h"}, {"HF_HOME", "~/f"}, {"XDG_CACHE_HOME", "/x"}})->cache == "/h/f/hub");
  CHECK(Read({{"HF_HOME", "/f"}, {"HF_HUB_CACHE", "/c"}})->cache == "/c");
  CHECK(Read({})->endpoint == "https://huggingface.co");
  CHECK(Read({{"HF_ENDPOINT", ""}})->endpoint == "https://huggingface.co");
  CHECK(Read({{"HF_ENDPOINT", "https://m"}})->endpoint == "https://m");
}

TEST_CASE("the token comes from the environment, else from the login's file", "[hub]") {
  const TemporaryFolder home;
  home.Write("token", " hf_file\n");
  CHECK(Read({{"HF_HOME", home.path()}})->token == "hf_file");
  CHECK(Read({{"HF_HOME", home.path()}, {"HF_TOKEN", "hf_env\n"}})->token == "hf_env");
  CHECK(Read({{"HF_TOKEN_PATH", home.path() + "/token"}})->token == "hf_file");
  CHECK(Read({})->token.empty());
  const absl::Status bad = Read({{"HF_TOKEN", "a b\r\nX: y"}}).status();
  CHECK(absl::StrContains(bad.message(), "HF_TOKEN"));
  CHECK_FALSE(absl::StrContains(bad.message(), "X: y"));
}

TEST_CASE("switches and numbers of the hub are read strictly", "[hub]") {
  for (const char* yes : {"1", "true", "YES", "On"})
    CHECK(Read({{"HF_HUB_OFFLINE", yes}})->offline);
  for (const char* no : {"", "0", "false", "no"}) {
    CHECK_FALSE(Read({{"HF_HUB_OFFLINE", no}})->offline);
  }
  CHECK(Read({{"HF_HUB_DOWNLOAD_TIMEOUT", "7"}})->stall_timeout_ms == 7000);
  CHECK_FALSE(Read({{"HF_HUB_DOWNLOAD_TIMEOUT", "soon"}}).ok());
  CHECK_FALSE(Read({{"NEUROGRID_HUB_RETRY_MS", "-1"}}).ok());
}

}  // namespace
}  // namespace neurogrid
