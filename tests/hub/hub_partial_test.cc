// Ranges that arrived, partial blobs on disk, and how progress reads.
#include "coordinator/hub_partial.h"

#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "common/digest.h"
#include "coordinator/hub_progress.h"
#include "tests/support/golden.h"

namespace neurogrid {
namespace {

TEST_CASE("ByteRanges join in any order", "[hub]") {
  ByteRanges ranges;
  ranges.Add({10, 20});
  ranges.Add({30, 40});
  ranges.Add({0, 0});
  CHECK(ranges.prefix() == 0);
  CHECK(ranges.total() == 20);
  CHECK(ranges.Missing(45, 8) ==
        std::vector<ByteRange>{{0, 8}, {8, 10}, {20, 28}, {28, 30}, {40, 45}});
  ranges.Add({20, 30});
  ranges.Add({0, 11});
  CHECK(ranges.prefix() == 40);
  CHECK(ranges.Missing(40, 8).empty());
}

TEST_CASE("ByteRanges equal a plain set of bytes", "[hub]") {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    ByteRanges ranges;
    std::vector<bool> bytes(64, false);
    for (int i = 0; i < 12; ++i) {
      const int64_t first = random() % 64;
      const int64_t end = std::min<int64_t>(64, first + random() % 9);
      ranges.Add({first, end});
      for (int64_t at = first; at < end; ++at) bytes[static_cast<size_t>(at)] = true;
    }
    CHECK(ranges.total() == std::count(bytes.begin(), bytes.end(), true));
    CHECK(ranges.prefix() == std::find(bytes.begin(), bytes.end(), false) - bytes.begin());
    for (const ByteRange& gap : ranges.Missing(64, 5)) {
      CHECK(gap.size() <= 5);
      for (int64_t at = gap.first; at < gap.end; ++at) bytes[static_cast<size_t>(at)] = true;
    }
    CHECK(std::count(bytes.begin(), bytes.end(), false) == 0);
    CHECK(ByteRanges::FromText(ranges.ToText(64), 64)->Missing(64, 64) == ranges.Missing(64, 64));
  }
}

TEST_CASE("a map that was not written for this blob is no map", "[hub]") {
  for (const char* bad :
       {"", "neurogrid 1 99\n0 5\n", "neurogrid 1 100\n0 5", "neurogrid 1 100\n0 101\n",
        "neurogrid 1 100\n5 5\n", "neurogrid 1 100\n0 9\n9 12\n", "neurogrid 1 100\n8 9\n0 2\n",
        "neurogrid 1 100\n-4 2\n", "neurogrid 1 100\nx y\n"}) {
    CAPTURE(bad);
    CHECK_FALSE(ByteRanges::FromText(bad, 100).has_value());
  }
}

TEST_CASE("a partial blob is found again and gets its name when it is whole", "[hub]") {
  const TemporaryFolder folder;
  const std::string blob = folder.path() + "/b";
  {
    const auto partial = PartialBlob::Open(blob, 6).value();
    REQUIRE(partial->Write(4, "ef").ok());
    REQUIRE(partial->Write(0, "ab").ok());
    REQUIRE(partial->Save().ok());
  }
  CHECK(PartialBlob::BytesThere(blob, 6) == 4);
  CHECK(PartialBlob::BytesThere(blob, 7) == 0);
  const auto partial = PartialBlob::Open(blob, 6).value();
  CHECK(partial->ranges().Missing(6, 6) == std::vector<ByteRange>{{2, 4}});
  REQUIRE(partial->Write(2, "cd").ok());
  CHECK(partial->Read(1, 5).value() == "bcdef");
  REQUIRE(partial->Finish().ok());
  CHECK(std::filesystem::file_size(blob) == 6);
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 1);
}

TEST_CASE("a map that claims more than the file has is not believed", "[hub]") {
  const TemporaryFolder folder;
  const std::string blob = folder.path() + "/b";
  folder.Write("b.neurogrid.map", "neurogrid 1 100\n0 10\n50 60\n");
  folder.Write("b.neurogrid.incomplete", std::string(59, 'x'));
  CHECK(PartialBlob::BytesThere(blob, 100) == 0);
  folder.Write("b.neurogrid.incomplete", std::string(60, 'x'));
  CHECK(PartialBlob::BytesThere(blob, 100) == 20);
}

TEST_CASE("a full disk is ResourceExhausted", "[hub][P16]") {
  const TemporaryFolder folder;
  std::filesystem::create_symlink("/dev/full", folder.path() + "/b.neurogrid.incomplete");
  const auto partial = PartialBlob::Open(folder.path() + "/b", 6).value();
  CHECK(absl::IsResourceExhausted(partial->Write(0, "ab")));
  CHECK(partial->ranges().total() == 0);
}

TEST_CASE("git names a blob by the SHA-1 of its head and bytes", "[hub]") {
  // As `printf 'hello\n' | git hash-object --stdin` and `git hash-object /dev/null` print them.
  CHECK(GitBlobSha1(6).Update("hello\n").Finish() == "ce013625030ba8dba906f756967f9e9ca394464a");
  CHECK(GitBlobSha1(0).Finish() == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
}

TEST_CASE("the rate is that of the last ten seconds", "[hub]") {
  RateMeter meter;
  CHECK(meter.BytesPerSecond() == 0);
  meter.Add(0, 0);
  CHECK(meter.BytesPerSecond() == 0);
  for (int second = 1; second <= 20; ++second) meter.Add(second, second * 1000);
  CHECK(meter.BytesPerSecond() == 1000);
  for (int second = 21; second <= 40; ++second) meter.Add(second, 20'000);
  CHECK(meter.BytesPerSecond() == 0);
}

TEST_CASE("progress shows share, sizes, rate and time left", "[hub]") {
  const DownloadState state{
      .file = "m.gguf", .done = 2'500'000'000, .total = 10'000'000'000, .bytes_per_second = 2e6};
  CHECK(ProgressBarText(state, 200) ==
        "[###.........]  25 %  2.50 GB of 10.00 GB  2.0 MB/s  1:02:30 left  m.gguf");
  CHECK(ProgressBarText(state, 40).size() == 39);
  CHECK(ProgressLineText(state) == "25 %: 2.50 GB of 10.00 GB, 2.0 MB/s, 1:02:30 left");
  CHECK(ProgressLineText({.file = "m", .done = 5, .total = 5, .bytes_per_second = 0}) ==
        "100 %: 5 B of 5 B, -");
  CHECK(ProgressLineText({.file = "m", .done = 0, .total = 0, .bytes_per_second = 0}) ==
        "100 %: 0 B of 0 B, -");
}

}  // namespace
}  // namespace neurogrid
