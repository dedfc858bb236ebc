#include "engine/cuda/weight_upload.h"

#include <algorithm>
#include <cstring>

namespace neurogrid {
namespace {

// Long against the time in which threads wake up, short against a load. Pinning takes 0.35 ms a
// MiB.
constexpr int64_t kPieceBytes = int64_t{16} << 20;

}  // namespace

PackingThreads::PackingThreads(int threads) {
  for (int i = 1; i < threads; ++i) helpers_.emplace_back([this] { Loop(); });
}

PackingThreads::~PackingThreads() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

absl::Status PackingThreads::Run(int64_t count, Job job) {
  {
    const std::lock_guard lock(mutex_);
    job_ = &job;
    count_ = count;
    next_ = 0;
    status_ = absl::OkStatus();
    busy_ = helpers_.size();
    ++runs_;
  }
  changed_.notify_all();
  Work();
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return busy_ == 0; });
  return status_;
}

void PackingThreads::Work() {
  for (int64_t i = next_++; i < count_; i = next_++) {
    const absl::Status done = (*job_)(i);
    if (done.ok()) continue;
    const std::lock_guard lock(mutex_);
    status_.Update(done);
    next_ = count_;
  }
}

void PackingThreads::Loop() {
  uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || runs_ != seen; });
    if (stopping_) return;
    seen = runs_;
    lock.unlock();
    Work();
    lock.lock();
    if (--busy_ == 0) changed_.notify_all();
  }
}

WeightUpload::WeightUpload(const CudaHeap& heap, cudaStream_t stream)
    : heap_(heap),
      stream_(stream),
      threads_(static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))) {}

WeightUpload::~WeightUpload() { cudaStreamSynchronize(stream_); }

absl::Status WeightUpload::SendTiles(const CudaBuffer& to, int64_t tile_bytes, TilePacker pack) {
  const int64_t tiles = to.bytes() / tile_bytes;
  const auto fill = [&](uint8_t* out, int64_t first, int64_t count) {
    return threads_.Run(count, [&](int64_t i) {
      uint8_t* tile = out + i * tile_bytes;
      std::memset(tile, 0, static_cast<size_t>(tile_bytes));
      return pack(first + i, tile);
    });
  };
  if (to.on_host()) return fill(to.as<uint8_t>(), 0, tiles);
  const int64_t at_once = std::clamp<int64_t>(kPieceBytes / tile_bytes, 1, tiles);
  for (int64_t first = 0; first < tiles; first += at_once) {
    const int64_t count = std::min(at_once, tiles - first);
    NG_ASSIGN_OR_RETURN(uint8_t * piece, pieces_.Next(count * tile_bytes));
    NG_RETURN_IF_ERROR(fill(piece, first, count));
    NG_RETURN_IF_ERROR(
        pieces_.Send(to.as<uint8_t>() + first * tile_bytes, count * tile_bytes, stream_));
  }
  return absl::OkStatus();
}

absl::Status WeightUpload::Send(const CudaBuffer& to, absl::Span<const float> values) {
  const auto bytes = static_cast<int64_t>(values.size() * sizeof(float));
  NG_CHECK(bytes <= to.bytes());
  if (bytes == 0) return absl::OkStatus();
  if (to.on_host()) {
    std::memcpy(to.data(), values.data(), static_cast<size_t>(bytes));
    return absl::OkStatus();
  }
  NG_ASSIGN_OR_RETURN(uint8_t * piece, pieces_.Next(bytes));
  std::memcpy(piece, values.data(), static_cast<size_t>(bytes));
  return pieces_.Send(to.data(), bytes, stream_);
}

}  // namespace neurogrid
