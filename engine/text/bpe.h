// Byte-pair encoding of one piece, by merge rank or by token score (models.md 5.3).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "engine/text/marked_text.h"
#include "engine/text/merge_queue.h"

namespace neurogrid {

/// Whose bytes may become a token: the control set of models.md 5.5.
enum class ControlKind : uint8_t {
  kNone,       // anyone's
  kTemplate,   // the template's alone
  kReasoning,  // the template's and the assistant's
};

inline bool MayBecome(ControlKind kind, Origin worst) {
  if (kind == ControlKind::kNone || worst == Origin::kTemplate) return true;
  return kind == ControlKind::kReasoning && worst == Origin::kAssistant;
}

struct BpeMerge {
  int32_t left = 0, right = 0, result = 0;
};

struct BpeParts {
  /// [ids] the text of a token as pieces spell it; "" for ids that no text forms.
  std::vector<std::string> units;
  std::vector<BpeMerge> merges;            // the first is done first
  std::vector<float> scores;               // [ids]; used instead of merges when by_score
  std::array<int32_t, 256> byte_tokens{};  // token of a byte that stands alone, -1: none
  int32_t unk_id = -1;                     // -1: what has no token vanishes
  bool by_score = false;
  bool byte_units = false;  // symbols are bytes, else code points
  bool byte_fallback =
      false;              // a symbol without token becomes the tokens of its bytes, if all exist
  bool fuse_unk = false;  // neighbouring unknown symbols become one unk
  bool ignore_merges = false;  // a piece that is a token is that token, whatever the merges say
  bool short_pieces = false;  // pieces are words: worth a table of tokens that encode to themselves
};

class BpeModel {
 public:
  explicit BpeModel(BpeParts parts);

  /// Working memory of one call of Tokenizer::Encode; remembers pieces while it lives. The texts
  /// that were encoded with it must outlive it, and all ids must go to the same vector.
  struct Scratch {
    struct Symbol {
      int32_t id;
      uint32_t begin, end;  // bytes of the piece
      int32_t previous, next;
      uint32_t rank;   // of merging with the next symbol, kNoRank: never
      int32_t merged;  // the token that merging gives
    };
    std::vector<Symbol> symbols;
    HeapMergeQueue queue;
    absl::flat_hash_map<absl::string_view, std::pair<uint32_t, uint32_t>> seen;  // place in ids
    bool provenance_matters = false;
  };

  /// Appends the ids of the bytes `range` of `text`. control: [ids]. O(n log n) in the piece.
  void Encode(const MarkedText& text, ByteRange range, const std::vector<ControlKind>& control,
              Scratch& scratch, std::vector<int32_t>& ids) const;

  /// The token of exactly this unit text, or -1.
  int32_t FindUnit(absl::string_view unit) const;

 private:
  struct Piece;
  struct Candidate {
    uint32_t rank;
    int32_t id;
  };

  void EncodeAfresh(const Piece& piece, Scratch& scratch, std::vector<int32_t>& ids) const;
  void BuildSymbols(const Piece& piece, Scratch& scratch) const;
  template <typename Queue>
  void MergeAll(const Piece& piece, Scratch& scratch, Queue& queue) const;
  bool Consider(const Piece& piece, uint32_t at, Scratch& scratch) const;
  Candidate CandidateFor(const Piece& piece, const Scratch::Symbol& left,
                         const Scratch::Symbol& right) const;
  bool Allowed(const Piece& piece, int32_t id, uint32_t begin, uint32_t end,
               Scratch& scratch) const;
  bool AppendBytes(absl::string_view bytes, std::vector<int32_t>& ids) const;
  bool PushBytes(const Piece& piece, uint32_t begin, uint32_t end, Scratch& scratch) const;
  bool IsDirect(int32_t id, Scratch& scratch) const;

  BpeParts parts_;
  absl::flat_hash_map<absl::string_view, int32_t> by_unit_;  // views of parts_.units
  size_t unit_bytes_max_ = 0;
  std::array<int32_t, 256> byte_units_{};           // byte_units: token of a byte, -1: none
  absl::flat_hash_map<uint64_t, Candidate> pairs_;  // left << 32 | right
  std::vector<uint32_t> score_ranks_;               // [ids] 0 for the highest score
  enum Direct : uint8_t { kNotAskedYet, kDirect, kMerged };
  /// [ids] whether a piece of this text is this token; empty when unused. Found out when first
  /// asked: the answer is always the same, so threads may write it at once.
  mutable std::vector<std::atomic<Direct>> direct_;
};

}  // namespace neurogrid
