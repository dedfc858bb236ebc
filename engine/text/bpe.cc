#include "engine/text/bpe.h"

#include <algorithm>
#include <functional>

#include "engine/text/unicode.h"

namespace neurogrid {
namespace {

constexpr uint32_t kNoRank = 0xffffffff;
// Longer pieces hardly come twice.
constexpr size_t kRememberedBytesMax = 64;
// Up to here a heap stays in the first-level cache.
constexpr size_t kHeapSymbolsMax = 1024;

uint64_t PairKey(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

/// Rank of each id's score: equal scores share a rank, the highest score has rank 0.
std::vector<uint32_t> RanksOf(const std::vector<float>& scores) {
  std::vector<float> sorted = scores;
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  std::vector<uint32_t> ranks;
  for (const float score : scores) {
    const auto place = std::lower_bound(sorted.begin(), sorted.end(), score, std::greater<>());
    ranks.push_back(static_cast<uint32_t>(place - sorted.begin()));
  }
  return ranks;
}

}  // namespace

/// What is encoded: bytes, where they come from, and who may form which token.
struct BpeModel::Piece {
  absl::string_view bytes;
  const MarkedText* text = nullptr;  // null: everything is allowed
  uint32_t offset = 0;               // of bytes in text
  const std::vector<ControlKind>* control = nullptr;
};

BpeModel::BpeModel(BpeParts parts) : parts_(std::move(parts)) {
  byte_units_.fill(-1);
  by_unit_.reserve(parts_.units.size());
  for (size_t id = 0; id < parts_.units.size(); ++id) {
    const std::string& unit = parts_.units[id];
    if (unit.empty()) continue;
    by_unit_.emplace(unit, static_cast<int32_t>(id));
    unit_bytes_max_ = std::max(unit_bytes_max_, unit.size());
    if (unit.size() == 1)
      byte_units_[static_cast<unsigned char>(unit[0])] = static_cast<int32_t>(id);
  }
  if (parts_.by_score) score_ranks_ = RanksOf(parts_.scores);
  pairs_.reserve(parts_.merges.size());
  for (size_t rank = 0; rank < parts_.merges.size(); ++rank) {
    const BpeMerge& merge = parts_.merges[rank];
    // A pair that is listed twice has its last rank, as in the reference.
    pairs_[PairKey(merge.left, merge.right)] = {static_cast<uint32_t>(rank), merge.result};
  }
  if (parts_.ignore_merges || parts_.short_pieces) {
    direct_ = std::vector<std::atomic<Direct>>(parts_.units.size());
  }
}

bool BpeModel::IsDirect(int32_t id, Scratch& scratch) const {
  if (parts_.ignore_merges) return true;
  std::atomic<Direct>& direct = direct_[static_cast<size_t>(id)];
  Direct known = direct.load(std::memory_order_relaxed);
  if (known == kNotAskedYet) {
    std::vector<int32_t> ids;
    EncodeAfresh({parts_.units[static_cast<size_t>(id)]}, scratch, ids);
    known = ids.size() == 1 && ids[0] == id ? kDirect : kMerged;
    direct.store(known, std::memory_order_relaxed);
  }
  return known == kDirect;
}

int32_t BpeModel::FindUnit(absl::string_view unit) const {
  if (unit.size() > unit_bytes_max_) return -1;
  const auto found = by_unit_.find(unit);
  return found == by_unit_.end() ? -1 : found->second;
}

bool BpeModel::Allowed(const Piece& piece, int32_t id, uint32_t begin, uint32_t end,
                       Scratch& scratch) const {
  if (piece.control == nullptr) return true;
  const ControlKind kind = (*piece.control)[static_cast<size_t>(id)];
  if (kind == ControlKind::kNone) return true;
  scratch.provenance_matters = true;
  return MayBecome(kind, piece.text->WorstOrigin({piece.offset + begin, piece.offset + end}));
}

void BpeModel::Encode(const MarkedText& text, ByteRange range,
                      const std::vector<ControlKind>& control, Scratch& scratch,
                      std::vector<int32_t>& ids) const {
  const Piece piece = {text.View(range), &text, range.begin, &control};
  const uint32_t size = range.size();
  scratch.provenance_matters = false;
  if (!direct_.empty()) {
    const int32_t id = FindUnit(piece.bytes);
    if (id >= 0 && IsDirect(id, scratch) && Allowed(piece, id, 0, size, scratch)) {
      ids.push_back(id);
      return;
    }
  }
  const bool remembered = size <= kRememberedBytesMax;
  if (remembered) {
    const auto seen = scratch.seen.find(piece.bytes);
    if (seen != scratch.seen.end()) {
      for (uint32_t i = seen->second.first; i < seen->second.second; ++i) {
        ids.push_back(int32_t{ids[i]});
      }
      return;
    }
  }
  const uint32_t begin = static_cast<uint32_t>(ids.size());
  EncodeAfresh(piece, scratch, ids);
  if (remembered && !scratch.provenance_matters) {
    scratch.seen.emplace(piece.bytes, std::pair(begin, static_cast<uint32_t>(ids.size())));
  }
}

void BpeModel::EncodeAfresh(const Piece& piece, Scratch& scratch, std::vector<int32_t>& ids) const {
  BuildSymbols(piece, scratch);
  if (scratch.symbols.empty()) return;
  if (scratch.symbols.size() <= kHeapSymbolsMax) {
    MergeAll(piece, scratch, scratch.queue);
  } else {
    BucketMergeQueue queue;
    MergeAll(piece, scratch, queue);
  }
  bool unknown = false;  // an unk that waits: later unknowns join it, byte tokens overtake it
  for (int32_t at = 0; at >= 0; at = scratch.symbols[static_cast<size_t>(at)].next) {
    const Scratch::Symbol& symbol = scratch.symbols[static_cast<size_t>(at)];
    if (symbol.id < 0) {  // by score only: a code point that nothing took in
      unknown =
          !AppendBytes(piece.bytes.substr(symbol.begin, symbol.end - symbol.begin), ids) || unknown;
      continue;
    }
    if (unknown && parts_.unk_id >= 0) ids.push_back(parts_.unk_id);
    unknown = false;
    ids.push_back(symbol.id);
  }
  if (unknown && parts_.unk_id >= 0) ids.push_back(parts_.unk_id);
}

/// Appends the byte tokens of `bytes`; false and nothing when one of them does not exist.
bool BpeModel::AppendBytes(absl::string_view bytes, std::vector<int32_t>& ids) const {
  const size_t before = ids.size();
  for (const char byte : bytes) {
    const int32_t id = parts_.byte_tokens[static_cast<unsigned char>(byte)];
    if (id < 0) {
      ids.resize(before);
      return false;
    }
    ids.push_back(id);
  }
  return true;
}

/// Appends the byte tokens of [begin, end); false when one of them does not exist.
bool BpeModel::PushBytes(const Piece& piece, uint32_t begin, uint32_t end, Scratch& scratch) const {
  const auto token = [&](uint32_t i) {
    return parts_.byte_tokens[static_cast<unsigned char>(piece.bytes[i])];
  };
  for (uint32_t i = begin; i < end; ++i) {
    if (token(i) < 0) return false;
  }
  for (uint32_t i = begin; i < end; ++i) {
    scratch.symbols.push_back({token(i), i, i + 1, -1, -1, kNoRank, -1});
  }
  return true;
}

void BpeModel::BuildSymbols(const Piece& piece, Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  symbols.clear();
  uint32_t unknown_begin = 0, unknown_end = 0;  // an unk that waits: later unknowns may join it
  const auto flush_unknown = [&] {
    if (unknown_begin == unknown_end) return;
    symbols.push_back({parts_.unk_id, unknown_begin, unknown_end, -1, -1, kNoRank, -1});
    unknown_begin = unknown_end = 0;
  };
  for (size_t at = 0; at < piece.bytes.size();) {
    const uint32_t begin = static_cast<uint32_t>(at);
    if (parts_.byte_units) {
      ++at;
    } else {
      NextCodePoint(piece.bytes, at);
    }
    const uint32_t end = static_cast<uint32_t>(at);
    int32_t id = end - begin == 1 ? byte_units_[static_cast<unsigned char>(piece.bytes[begin])]
                                  : FindUnit(piece.bytes.substr(begin, end - begin));
    if (id >= 0 && !Allowed(piece, id, begin, end, scratch)) id = -1;
    if (id >= 0 || parts_.by_score) {
      flush_unknown();
      symbols.push_back({id, begin, end, -1, -1, kNoRank, -1});
      continue;
    }
    // As in the reference, byte tokens overtake an unk that waits.
    if (parts_.byte_fallback && PushBytes(piece, begin, end, scratch)) continue;
    if (parts_.unk_id < 0) continue;
    if (!parts_.fuse_unk || unknown_begin == unknown_end) {
      flush_unknown();
      unknown_begin = begin;
    }
    unknown_end = end;
  }
  flush_unknown();
  const int32_t count = static_cast<int32_t>(symbols.size());
  for (int32_t i = 0; i < count; ++i) {
    symbols[static_cast<size_t>(i)].previous = i - 1;
    symbols[static_cast<size_t>(i)].next = i + 1 < count ? i + 1 : -1;
  }
}

BpeModel::Candidate BpeModel::CandidateFor(const Piece& piece, const Scratch::Symbol& left,
                                           const Scratch::Symbol& right) const {
  if (!parts_.by_score) {
    const auto found = pairs_.find(PairKey(left.id, right.id));
    return found == pairs_.end() ? Candidate{kNoRank, -1} : found->second;
  }
  const int32_t id = FindUnit(piece.bytes.substr(left.begin, right.end - left.begin));
  if (id < 0) return {kNoRank, -1};
  return {score_ranks_[static_cast<size_t>(id)], id};
}

/// Notes what merging the symbol at `at` with the next one would give; false when it gives nothing.
bool BpeModel::Consider(const Piece& piece, uint32_t at, Scratch& scratch) const {
  Scratch::Symbol& left = scratch.symbols[at];
  left.rank = kNoRank;
  if (left.next < 0) return false;
  const Scratch::Symbol& right = scratch.symbols[static_cast<size_t>(left.next)];
  const Candidate candidate = CandidateFor(piece, left, right);
  if (candidate.rank == kNoRank) return false;
  const uint32_t begin = std::min(left.begin, right.begin);
  const uint32_t end = std::max(left.end, right.end);
  if (!Allowed(piece, candidate.id, begin, end, scratch)) return false;
  left.rank = candidate.rank;
  left.merged = candidate.id;
  return true;
}

template <typename Queue>
void BpeModel::MergeAll(const Piece& piece, Scratch& scratch, Queue& queue) const {
  auto& symbols = scratch.symbols;
  const auto consider = [&](uint32_t at) {
    if (Consider(piece, at, scratch)) queue.Push({symbols[at].rank, at});
  };
  for (uint32_t at = 0; at < symbols.size(); ++at) consider(at);
  while (!queue.empty()) {
    const MergePlace place = queue.Pop();
    Scratch::Symbol& left = symbols[place.at];
    if (left.rank != place.rank) continue;  // merged meanwhile, or beside something new
    Scratch::Symbol& right = symbols[static_cast<size_t>(left.next)];
    left.id = left.merged;
    left.begin = std::min(left.begin, right.begin);
    left.end = std::max(left.end, right.end);
    left.next = right.next;
    right.rank = kNoRank;
    if (left.next >= 0) {
      symbols[static_cast<size_t>(left.next)].previous = static_cast<int32_t>(place.at);
    }
    consider(place.at);
    if (left.previous >= 0) consider(static_cast<uint32_t>(left.previous));
  }
}

}  // namespace neurogrid
