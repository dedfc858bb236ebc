#include "coordinator/hub_blob.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <list>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/digest.h"
#include "coordinator/hub_partial.h"
#include "engine/model/model_list.h"

namespace neurogrid {
namespace {

constexpr int kConnections = 8;
constexpr int64_t kPieceBytesMin = int64_t{8} << 20;
constexpr int64_t kPieceBytesMax = int64_t{64} << 20;
constexpr int64_t kPiecesWanted = 64;
constexpr double kSaveEveryS = 1;  // what a killed process loses
constexpr int64_t kHashBytes = int64_t{1} << 20;
constexpr int64_t kRealProgressBytes = int64_t{1}
                                       << 20;  // a try that brought this much was no failure

double NowSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// SHA-256 or git's SHA-1, as the hub names the blob.
class BlobDigest {
 public:
  explicit BlobDigest(const HubFile& file) : sha256_(file.digest.size() == 64), git_(file.size) {}
  void Update(absl::string_view bytes) {
    sha256_ ? void(sha_.Update(bytes)) : void(git_.Update(bytes));
  }
  std::string Finish() { return sha256_ ? HexOf(sha_.Finish()) : git_.Finish(); }

 private:
  const bool sha256_;
  Sha256 sha_;
  GitBlobSha1 git_;
};

/// One run over the pieces that lack. Threads fetch, the caller's thread checks and shows.
class BlobRun {
 public:
  BlobRun(const HubJob& job, const Url& url, const HubFile& file, PartialBlob& partial)
      : job_(job), url_(url), file_(file), partial_(partial) {}

  /// `whole`: the host does not send ranges; one connection takes everything in order.
  absl::Status Run(bool whole) {
    whole_ = whole;
    const int64_t piece = std::clamp(file_.size / kPiecesWanted, kPieceBytesMin, kPieceBytesMax);
    for (const ByteRange& range : partial_.ranges().Missing(file_.size, piece)) {
      pieces_.push_back(range);
    }
    if (whole && !pieces_.empty()) pieces_ = {{pieces_.front().first, file_.size}};
    const size_t threads = std::min<size_t>(pieces_.size(), kConnections);
    running_ = threads;
    std::list<std::thread> workers;
    for (size_t i = 0; i < threads; ++i) workers.emplace_back([this] { Work(); });
    Watch();
    for (std::thread& worker : workers) worker.join();
    const absl::Status saved = partial_.Save();
    if (job_.stop) return absl::CancelledError("stopped");
    NG_RETURN_IF_ERROR(failure_);
    NG_RETURN_IF_ERROR(saved);
    return CheckDigest();
  }

  bool ranges_refused() const { return ranges_refused_; }

 private:
  void Work() {
    const std::unique_ptr<HubTransport> transport = job_.transports();
    {
      const std::lock_guard lock(mutex_);
      transports_.push_back(transport.get());
    }
    HubCaller caller(job_.settings, job_.endpoint, *transport);
    while (const std::optional<ByteRange> piece = Take()) {
      const absl::Status status = Fetch(caller, *piece);
      if (!status.ok()) Fail(status);
    }
    const std::lock_guard lock(mutex_);
    transports_.remove(transport.get());
    --running_;
    changed_.notify_all();
  }

  std::optional<ByteRange> Take() {
    const std::lock_guard lock(mutex_);
    if (ending_ || pieces_.empty()) return std::nullopt;
    const ByteRange piece = pieces_.front();
    pieces_.pop_front();
    return piece;
  }

  void Fail(const absl::Status& status) {
    const std::lock_guard lock(mutex_);
    if (failure_.ok()) failure_ = status;
    ending_ = true;
    changed_.notify_all();
  }

  /// Tries a piece until it is whole, from where the last try ended.
  absl::Status Fetch(HubCaller& caller, ByteRange piece) {
    for (int tries = 0;;) {
      const int64_t before = piece.first;
      int wait_s = 0;
      const absl::Status status = FetchOnce(caller, piece, wait_s);
      if (ending_ || piece.size() == 0 || !absl::IsUnavailable(status)) return status;
      const int64_t came = piece.first - before;
      tries = came >= kRealProgressBytes ? 0 : tries + 1;
      if (tries == kHubTriesMax) return status;
      if (!SleepUnlessStopped(RetryDelayMs(job_.settings, tries, wait_s), ending_)) return status;
    }
  }

  /// Advances piece.first over what has arrived.
  absl::Status FetchOnce(HubCaller& caller, ByteRange& piece, int& wait_s) {
    absl::Status problem;
    int64_t skip = 0;  // of a host that sends the file from its start
    HubRequest request{.url = Direct().value_or(url_), .token = "", .on_head = {}, .on_body = {}};
    const bool direct = !request.url.SameOrigin(url_);
    if (!whole_ && piece.size() < file_.size) {
      request.first = piece.first;
      request.last = piece.end - 1;
    }
    request.on_head = [&](const HubHead& head) {
      problem = CheckHead(head, piece, skip);
      return problem.ok();
    };
    request.on_body = [&](absl::string_view bytes) {
      const int64_t skipped = std::min<int64_t>(skip, static_cast<int64_t>(bytes.size()));
      skip -= skipped;
      bytes.remove_prefix(static_cast<size_t>(skipped));
      const bool more = static_cast<int64_t>(bytes.size()) > piece.size();
      bytes = bytes.substr(0, static_cast<size_t>(piece.size()));
      problem = partial_.Write(piece.first, bytes);
      if (!problem.ok()) return false;
      piece.first += static_cast<int64_t>(bytes.size());
      Arrived(static_cast<int64_t>(bytes.size()));
      return !more && !ending_;
    };
    const absl::StatusOr<HubAnswer> answer = caller.Call(std::move(request));
    NG_RETURN_IF_ERROR(problem);
    const bool good = answer.ok() && answer->head.status < 300;
    SetDirect(good ? std::optional<Url>(answer->url) : std::nullopt);
    if (piece.size() == 0) return absl::OkStatus();
    if (!answer.ok()) return answer.status();
    if (good) {
      return absl::UnavailableError(absl::StrCat(answer->url.Origin(), " sent less of ", file_.name,
                                                 " than it was asked for"));
    }
    return Refused(*answer, direct, wait_s);
  }

  absl::Status Refused(const HubAnswer& answer, bool direct, int& wait_s) {
    wait_s = RetryAfterSeconds(answer.head).value_or(0);
    const bool elsewhere = !answer.url.SameOrigin(url_);
    const HubQuestion question{.endpoint = job_.endpoint.ToString(),
                               .name = job_.name,
                               .file = file_.name,
                               .with_token = !job_.settings.token.empty()};
    if (!elsewhere) return ExplainAnswer(question, answer.head, answer.body);
    const std::string text = absl::StrCat(answer.url.Origin(), ", where the hub keeps ", file_.name,
                                          ", answers ", answer.head.status);
    // The address was signed for a time that has passed: the hub gives a new one.
    if (direct || answer.head.status >= 500 || answer.head.status == 429) {
      return absl::UnavailableError(text);
    }
    return absl::FailedPreconditionError(text);
  }

  /// Whether the body to come is the piece; how much of it stands before the piece.
  absl::Status CheckHead(const HubHead& head, const ByteRange& piece, int64_t& skip) {
    int64_t size = -1;
    if (head.status == 206) {
      const std::optional<ContentRange> range = ParseContentRange(head.Find("content-range"));
      if (!range.has_value() || range->first != piece.first) {
        return absl::FailedPreconditionError(
            absl::StrCat(file_.name, ": the host sends \"",
                         absl::CHexEscape(head.Find("content-range").substr(0, 100)),
                         "\", asked for were bytes ", piece.first, "-", piece.end - 1));
      }
      size = range->size;
    } else {
      skip = piece.first;
      if (!head.Find("content-length").empty() &&
          !absl::SimpleAtoi(head.Find("content-length"), &size)) {
        size = -1;
      }
      if (!whole_ && pieces_wanted_several()) {
        ranges_refused_ = true;
        return absl::UnimplementedError("the host sends no ranges");
      }
    }
    if (size >= 0 && size != file_.size) {
      return absl::DataLossError(absl::StrCat(file_.name, " has ", size,
                                              " bytes where it is kept, but the hub's list says ",
                                              file_.size));
    }
    return absl::OkStatus();
  }

  bool pieces_wanted_several() const { return file_.size > kPieceBytesMin; }

  std::optional<Url> Direct() {
    const std::lock_guard lock(mutex_);
    return direct_;
  }
  void SetDirect(std::optional<Url> url) {
    const std::lock_guard lock(mutex_);
    direct_ = std::move(url);
  }

  void Arrived(int64_t bytes) {
    const std::lock_guard lock(mutex_);
    arrived_ += bytes;
  }

  /// The caller's thread: hashes behind the writers, saves, shows, ends.
  void Watch() {
    int64_t unsaved = 0;
    double saved_s = NowSeconds();
    bool behind = false;
    std::unique_lock lock(mutex_);
    while (running_ > 0) {
      if (!behind) changed_.wait_for(lock, std::chrono::milliseconds(100));
      const int64_t came = std::exchange(arrived_, 0);
      if (job_.stop) ending_ = true;
      if (ending_) {
        for (HubTransport* transport : transports_) transport->Stop();
      }
      lock.unlock();
      job_.progress.Add(file_.name, came);
      const double now_s = NowSeconds();
      job_.progress.Show(now_s);
      unsaved += came;
      if (unsaved > 0 && now_s - saved_s >= kSaveEveryS) {
        if (const absl::Status saved = partial_.Save(); !saved.ok()) Fail(saved);
        unsaved = 0;
        saved_s = now_s;
      }
      behind = !ending_ && Hash(partial_.ranges().prefix());
      lock.lock();
    }
    job_.progress.Add(file_.name, std::exchange(arrived_, 0));
  }

  /// A bounded step, so that the watch goes on; true when there is more to hash.
  bool Hash(int64_t prefix) {
    for (int steps = 0; hashed_ < prefix && steps < 16; ++steps) {
      const absl::StatusOr<std::string> bytes =
          partial_.Read(hashed_, std::min(kHashBytes, prefix - hashed_));
      if (!bytes.ok()) {
        Fail(bytes.status());
        return false;
      }
      digest_.Update(*bytes);
      hashed_ += static_cast<int64_t>(bytes->size());
    }
    return hashed_ < prefix;
  }

  absl::Status CheckDigest() {
    while (hashed_ < file_.size && failure_.ok() && !job_.stop) Hash(file_.size);
    NG_RETURN_IF_ERROR(failure_);
    if (job_.stop) return absl::CancelledError("stopped");
    const std::string found = digest_.Finish();
    if (found == file_.digest) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat(file_.name, " arrived damaged: its digest is ", found,
                                            ", expected ", file_.digest));
  }

  const HubJob& job_;
  const Url& url_;
  const HubFile& file_;
  PartialBlob& partial_;
  bool whole_ = false;
  BlobDigest digest_{file_};
  int64_t hashed_ = 0;
  std::atomic<bool> ending_{false};
  std::atomic<bool> ranges_refused_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<ByteRange> pieces_;
  std::list<HubTransport*> transports_;
  std::optional<Url> direct_;  // where the hub's redirect led
  size_t running_ = 0;
  int64_t arrived_ = 0;  // since the last look
  absl::Status failure_;
};

}  // namespace

Url FileUrl(const HubJob& job, const std::string& commit, const std::string& file) {
  Url url = job.endpoint;
  absl::StrAppend(&url.target, "/", job.name.repository, "/resolve/", commit, "/",
                  EncodePath(file, /*slashes=*/true));
  return url;
}

absl::Status DownloadBlob(const HubJob& job, const std::string& commit, const HubFile& file,
                          const std::string& blob) {
  const Url url = FileUrl(job, commit, file.name);
  NG_ASSIGN_OR_RETURN(const std::unique_ptr<PartialBlob> partial,
                      PartialBlob::Open(blob, file.size));
  bool resumed = partial->ranges().total() > 0;
  bool whole = false;
  while (true) {
    BlobRun run(job, url, file, *partial);
    const absl::Status status = run.Run(whole);
    if (status.ok()) return partial->Finish();
    if (run.ranges_refused() && !whole) {
      whole = true;
      continue;
    }
    if (!absl::IsDataLoss(status)) return status;
    const int64_t dropped = partial->ranges().total();
    NG_RETURN_IF_ERROR(partial->Discard());
    if (!resumed)
      return absl::DataLossError(absl::StrCat(status.message(), "; nothing of it was kept"));
    // What an earlier run left may be the damaged part: once more, from nothing.
    job.progress.Say(absl::StrCat(status.message(), "; starting it again"));
    job.progress.Add(file.name, -dropped);
    resumed = false;
  }
}

}  // namespace neurogrid
