// The order of BPE merges: least rank first, leftmost among equal ranks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace neurogrid {

/// A place where a merge of this rank was possible when it was pushed.
struct MergePlace {
  uint32_t rank = 0;
  uint32_t at = 0;
};

/// A binary heap: no set-up, for pieces as words are.
class HeapMergeQueue {
 public:
  bool empty() const { return heap_.empty(); }
  void Push(MergePlace place) {
    heap_.push_back((uint64_t{place.rank} << 32) | place.at);
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
  }
  MergePlace Pop() {
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    const uint64_t least = heap_.back();
    heap_.pop_back();
    return {static_cast<uint32_t>(least >> 32), static_cast<uint32_t>(least)};
  }

 private:
  std::vector<uint64_t> heap_;  // rank << 32 | at
};

/// One list a rank, for sections handed over whole: nearly all places of a rank are known before
/// the first of them is merged, so one sort does for them what a heap of millions does slowly.
class BucketMergeQueue {
 public:
  bool empty() const { return ranks_.empty(); }
  void Push(MergePlace place) {
    Bucket& bucket = buckets_[place.rank];
    if (bucket.empty()) {
      bucket = {};
      ranks_.push_back(place.rank);
      std::push_heap(ranks_.begin(), ranks_.end(), std::greater<>());
    }
    std::vector<uint32_t>& places = bucket.started ? bucket.late : bucket.places;
    places.push_back(place.at);
    if (bucket.started) std::push_heap(places.begin(), places.end(), std::greater<>());
  }
  MergePlace Pop() {
    const uint32_t rank = ranks_.front();
    Bucket& bucket = buckets_[rank];
    const MergePlace place = {rank, bucket.Pop()};
    if (bucket.empty()) {
      std::pop_heap(ranks_.begin(), ranks_.end(), std::greater<>());
      ranks_.pop_back();
    }
    return place;
  }

 private:
  struct Bucket {
    std::vector<uint32_t> places;  // sorted once the first is taken
    size_t next = 0;
    bool started = false;
    std::vector<uint32_t> late;  // heap of those that came after that
    bool empty() const { return next == places.size() && late.empty(); }
    uint32_t Pop() {
      if (!started) std::sort(places.begin(), places.end());
      started = true;
      if (next < places.size() && (late.empty() || places[next] <= late.front())) {
        return places[next++];
      }
      std::pop_heap(late.begin(), late.end(), std::greater<>());
      const uint32_t at = late.back();
      late.pop_back();
      return at;
    }
  };
  absl::flat_hash_map<uint32_t, Bucket> buckets_;
  std::vector<uint32_t> ranks_;  // heap of the ranks whose bucket is not empty
};

}  // namespace neurogrid
