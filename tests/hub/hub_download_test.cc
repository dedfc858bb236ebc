// Whole downloads from a hub in memory, whose connections break where a test says.
#include "coordinator/hub_download.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <filesystem>
#include <map>
#include <mutex>
#include <random>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/digest.h"
#include "common/mapped_file.h"
#include "engine/model/hub_cache.h"
#include "tests/support/golden.h"

namespace neurogrid {
namespace {

const std::string kCommit(40, 'c');
constexpr absl::string_view kListing = "/api/models/o/n/revision/main?blobs=true";

/// Files of o/n, and what was asked. `allow` gives the bytes that a request may get of its body.
struct FakeHub {
  std::map<std::string, std::string> files;
  std::function<int64_t(const HubRequest&, int number)> allow = [](const HubRequest&, int) {
    return int64_t{1} << 40;
  };
  std::atomic<bool>* stop = nullptr;  // set when a connection is cut

  std::mutex mutex;
  std::vector<std::string> asked;
  int64_t bytes_sent = 0;

  std::string Listing() const {
    std::string text = absl::StrCat(R"({"sha":")", kCommit, R"(","siblings":[)");
    for (const auto& [name, bytes] : files) {
      absl::StrAppend(&text, text.back() == '[' ? "" : ",", R"({"rfilename":")", name,
                      R"(","lfs":{"size":)", bytes.size(), R"(,"sha256":")", HexOf(Sha256Of(bytes)),
                      R"("}})");
    }
    return text + "]}";
  }
};

class FakeTransport final : public HubTransport {
 public:
  explicit FakeTransport(FakeHub& hub) : hub_(hub) {}
  void Stop() override { stopped_ = true; }

  absl::StatusOr<HubHead> Send(const HubRequest& request) override {
    if (stopped_) return absl::AbortedError("stopped");
    const std::string& target = request.url.target;
    std::string body = target == kListing ? hub_.Listing() : "";
    if (body.empty()) body = hub_.files.at(target.substr(target.rfind('/') + 1));
    HubHead head{.status = 200, .headers = {}};
    if (request.first >= 0) {
      head = {.status = 206,
              .headers = {{"content-range", absl::StrCat("bytes ", request.first, "-", request.last,
                                                         "/", body.size())}}};
      body = body.substr(static_cast<size_t>(request.first),
                         static_cast<size_t>(request.last - request.first + 1));
    }
    int64_t allowed = 0;
    {
      const std::lock_guard lock(hub_.mutex);
      hub_.asked.push_back(target);
      allowed = std::min(static_cast<int64_t>(body.size()),
                         hub_.allow(request, static_cast<int>(hub_.asked.size())));
      hub_.bytes_sent += allowed;
    }
    if (request.on_head && !request.on_head(head)) return absl::AbortedError("head");
    for (int64_t at = 0; at < allowed; at += 100'000) {
      const int64_t size = std::min<int64_t>(100'000, allowed - at);
      if (!request.on_body(
              absl::string_view(body).substr(static_cast<size_t>(at), static_cast<size_t>(size)))) {
        return absl::AbortedError("body");
      }
    }
    if (allowed == static_cast<int64_t>(body.size())) return head;
    if (hub_.stop != nullptr) *hub_.stop = true;
    return absl::UnavailableError("cut");
  }

 private:
  FakeHub& hub_;
  std::atomic<bool> stopped_ = false;
};

struct World {
  World() {
    std::mt19937 random(3);
    std::string weights(20'000'000, '\0');
    for (char& c : weights) c = static_cast<char>(random());
    hub.files = {{"config.json", "{}"}, {"tokenizer.json", "{ }"}, {"model.safetensors", weights}};
    settings.cache = folder.path();
    settings.retry_delay_ms = 0;
  }

  absl::StatusOr<HubDownload> Download() {
    DownloadProgress progress(stderr, DownloadProgress::Style::kSilent);
    hub.asked.clear();
    hub.bytes_sent = 0;
    const MakeHubTransport transports = [this] { return std::make_unique<FakeTransport>(hub); };
    return DownloadModel(settings, ParseHubName("o/n").value(), transports, progress, stop);
  }
  /// Of the large file, once it has its name.
  std::string Blob() const {
    return absl::StrCat(folder.path(), "/models--o--n/blobs/",
                        HexOf(Sha256Of(hub.files.at("model.safetensors"))));
  }
  std::string InSnapshot(const std::string& name) const {
    return absl::StrCat(folder.path(), "/models--o--n/snapshots/", kCommit, "/", name);
  }

  TemporaryFolder folder;
  FakeHub hub;
  HubSettings settings;
  std::atomic<bool> stop = false;
};

bool AsksForWeights(const HubRequest& request) {
  return absl::EndsWith(request.url.target, "/model.safetensors");
}

TEST_CASE("a download brings every byte once, and the next one asks for the listing alone",
          "[hub][threads]") {
  World world;
  const HubDownload done = world.Download().value();
  CHECK(done.path == world.InSnapshot("").substr(0, done.path.size()));
  CHECK(done.files == 3);
  CHECK(done.bytes_downloaded == done.bytes);
  CHECK(ReadSmallFile(world.InSnapshot("model.safetensors"), 1 << 25).value() ==
        world.hub.files.at("model.safetensors"));
  CHECK(world.hub.bytes_sent == done.bytes + static_cast<int64_t>(world.hub.Listing().size()));
  CHECK(world.Download().value().bytes_downloaded == 0);
  CHECK(world.hub.asked == std::vector<std::string>{std::string(kListing)});
}

TEST_CASE("connections that break after every megabyte still bring every byte once",
          "[hub][threads]") {
  World world;
  world.hub.allow = [](const HubRequest& request, int) {
    return AsksForWeights(request) ? int64_t{1} << 20 : int64_t{1} << 40;
  };
  const HubDownload done = world.Download().value();
  CHECK(std::filesystem::file_size(world.Blob()) == 20'000'000);
  CHECK(world.hub.bytes_sent == done.bytes + static_cast<int64_t>(world.hub.Listing().size()));
}

TEST_CASE("a connection that brings nothing is tried a bounded number of times", "[hub][threads]") {
  World world;
  world.hub.allow = [](const HubRequest& request, int) {
    return AsksForWeights(request) ? 0 : int64_t{1} << 40;
  };
  CHECK(absl::IsUnavailable(world.Download().status()));
  CHECK(world.hub.asked.size() <= 3 + 3 * 6);  // three pieces, six tries
  CHECK_FALSE(std::filesystem::exists(world.Blob()));
}

TEST_CASE("what came before a stop is not fetched again", "[hub][threads]") {
  World world;
  world.hub.stop = &world.stop;
  world.hub.allow = [](const HubRequest& request, int) {
    return AsksForWeights(request) && request.first == 0 ? 5'000'000 : int64_t{1} << 40;
  };
  CHECK(absl::IsCancelled(world.Download().status()));
  CHECK_FALSE(std::filesystem::exists(world.Blob()));
  CHECK_FALSE(std::filesystem::exists(world.InSnapshot("model.safetensors")));
  const int64_t came = world.hub.bytes_sent;
  world.stop = false;
  world.hub.stop = nullptr;
  world.hub.allow = [](const HubRequest&, int) { return int64_t{1} << 40; };
  const HubDownload done = world.Download().value();
  CHECK(done.bytes_downloaded < 15'000'001);
  CHECK(done.bytes_downloaded >= 20'000'000 - came);
  CHECK(std::filesystem::file_size(world.Blob()) == 20'000'000);
}

TEST_CASE("a revision that moved brings only what changed, and the reference follows", "[hub]") {
  World world;
  REQUIRE(world.Download().ok());
  world.hub.files["config.json"] = "{\"a\": 1}";
  CHECK(world.Download().value().bytes_downloaded == 8);
  CHECK(ReadSmallFile(world.InSnapshot("config.json"), 100).value() == "{\"a\": 1}");
  CHECK(ReadSmallFile(world.folder.path() + "/models--o--n/refs/main", 100).value() == kCommit);
}

TEST_CASE("a whole model in a cache that may not be written is used", "[hub]") {
  World world;
  REQUIRE(world.Download().ok());
  std::filesystem::remove_all(world.folder.path() + "/.locks");
  world.folder.Write(".locks", "no folder can be made here");
  CHECK(world.Download().ok());
}

}  // namespace
}  // namespace neurogrid
