// Who runs which layers: the planner's answer, the pipeline's map.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "engine/model/layer_range.h"

namespace neurogrid {

struct PlannedStage {
  std::string node;  // node id
  LayerRange layers;
  int64_t fixed_bytes = 0;        // weights, workspace, states
  int64_t page_bytes = 0;         // one page over those of these layers that see everything
  int64_t window_page_bytes = 0;  // and over those with a window
  int64_t budget_bytes = 0;
  double busy_ms = 0;     // predicted per round
  bool measured = false;  // false: from the roofline fallback
};

struct Plan {
  std::vector<PlannedStage> stages;  // in order of layers; contiguous, covering all of them
  int64_t pages = 0;                 // one pool for the whole chain, counted as if every layer saw
                                     // everything
  int64_t window_pages = 0;          // beside them, of the layers with a window
  int rows_max = 0;                  // rows of a step every stage is built for
  int decode_groups = 1;  // groups of decoding sequences that follow each other down the chain
  double single_stream_tokens_per_s = 0;
  double tokens_per_s = 0;  // at the declared concurrency
  double first_token_ms = 0;
  std::vector<std::string> survives_loss_of;  // without this node another plan fits
  std::vector<std::string> not_loss_of;       // without this one nothing does
  std::string explanation;                    // for people: the table and the reasons
};

/// Whether a device of this determinism class is a GPU. That of a chain is its stages' classes,
/// each once, joined by '+'.
inline bool IsGpu(absl::string_view one_class) { return absl::StartsWith(one_class, "cuda/"); }

/// Whether a GPU computes in a chain of this class.
inline bool HasGpu(absl::string_view chain_class) {
  const std::vector<absl::string_view> classes = absl::StrSplit(chain_class, '+');
  return std::any_of(classes.begin(), classes.end(), IsGpu);
}

/// Whether no processor does.
inline bool GpusAlone(absl::string_view chain_class) {
  const std::vector<absl::string_view> classes = absl::StrSplit(chain_class, '+');
  return std::all_of(classes.begin(), classes.end(), IsGpu);
}

}  // namespace neurogrid
