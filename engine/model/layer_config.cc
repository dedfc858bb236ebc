#include "engine/model/layer_config.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/limits.h"
#include "engine/model/config_fields.h"
#include "engine/model/config_json.h"

namespace neurogrid {
namespace {

constexpr absl::string_view kFull = "full_attention";
constexpr absl::string_view kSliding = "sliding_attention";
constexpr absl::string_view kConv = "conv";

/// The layer types that a family has.
std::vector<absl::string_view> TypesOf(const Architecture& row) {
  std::vector<absl::string_view> types = {kFull};
  if (row.windows != WindowRule::kNever) types.push_back(kSliding);
  if (!row.tensors.conv_in.empty()) types.push_back(kConv);
  return types;
}

/// sliding_window, 0 for none: null and a missing key differ.
int ReadWindow(const Json& root, ConfigFields& fields, const Architecture& row) {
  if (row.windows == WindowRule::kNever) return 0;
  if (row.windows == WindowRule::kUpper && !fields.Bool("use_sliding_window", false)) return 0;
  const Json* value = root.Find("sliding_window");
  if (value == nullptr) return row.defaults.window;
  if (value->is_null()) return 0;
  return static_cast<int>(fields.Integer("sliding_window", 1, kPositionsMax, 0));
}

/// layer_types as it stands, each name one that the family has; empty when absent.
absl::StatusOr<std::vector<absl::string_view>> ReadTypes(const Json& root, const std::string& file,
                                                         const Architecture& row, size_t layers) {
  std::vector<absl::string_view> types;
  const Json* list = root.Find("layer_types");
  if (list == nullptr || list->is_null()) return types;
  if (!list->is_array() || list->as_array().size() != layers) {
    return absl::InvalidArgumentError(absl::StrCat(
        file, ": layer_types must be a list with a name for each of the ", layers, " layers"));
  }
  const std::vector<absl::string_view> known = TypesOf(row);
  for (const Json& type : list->as_array()) {
    const auto found =
        type.is_string() ? std::find(known.begin(), known.end(), type.as_string()) : known.end();
    if (found == known.end()) {
      return absl::UnimplementedError(
          absl::StrCat(file, ": layer_types holds ", ToString(type).substr(0, 60), "; layers of a ",
                       row.name, " model are ", absl::StrJoin(known, " or ")));
    }
    types.push_back(*found);
  }
  return types;
}

/// The older way of LFM2: full_attn_idxs names the layers of attention; without it all are.
absl::Status ReadAttentionIndices(const Json& root, const std::string& file,
                                  std::vector<absl::string_view>* types) {
  const Json* indices = root.Find("full_attn_idxs");
  if (indices == nullptr || indices->is_null()) return absl::OkStatus();
  if (!indices->is_array()) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": full_attn_idxs must be a list"));
  }
  std::fill(types->begin(), types->end(), kConv);
  for (const Json& index : indices->as_array()) {
    if (!index.is_integer() || index.as_integer() < 0 ||
        index.as_integer() >= static_cast<int64_t>(types->size())) {
      return absl::InvalidArgumentError(
          absl::StrCat(file, ": full_attn_idxs holds ", ToString(index).substr(0, 60),
                       " but must hold numbers of the ", types->size(), " layers"));
    }
    (*types)[static_cast<size_t>(index.as_integer())] = kFull;
  }
  return absl::OkStatus();
}

/// The types that follow from the other keys.
absl::StatusOr<std::vector<absl::string_view>> TypesByRule(const Json& root,
                                                           const std::string& file,
                                                           ConfigFields& fields,
                                                           const Architecture& row, int window,
                                                           size_t layers) {
  std::vector<absl::string_view> types(layers, kFull);
  switch (row.windows) {
    case WindowRule::kNever:
      if (!row.tensors.conv_in.empty()) {
        NG_RETURN_IF_ERROR(ReadAttentionIndices(root, file, &types));
      }
      break;
    case WindowRule::kEvery:
      if (window > 0) std::fill(types.begin(), types.end(), kSliding);
      break;
    case WindowRule::kUpper: {
      constexpr int kFirstDefault = 28;
      const int64_t first = fields.Integer("max_window_layers", 0, kPositionsMax, kFirstDefault);
      for (size_t i = 0; window > 0 && i < layers; ++i) {
        if (static_cast<int64_t>(i) >= first) types[i] = kSliding;
      }
      break;
    }
    case WindowRule::kPattern: {
      const int pattern = row.HasKey("sliding_window_pattern")
                              ? static_cast<int>(fields.Integer("sliding_window_pattern", 1,
                                                                kLayersMax, row.window_pattern))
                              : row.window_pattern;
      for (size_t i = 0; i < layers; ++i) {
        if (SlidesByPattern(static_cast<int>(i), pattern)) types[i] = kSliding;
      }
      break;
    }
  }
  return types;
}

}  // namespace

bool SlidesByPattern(int layer, int pattern) { return (layer + 1) % pattern != 0; }

void AssignRopes(const RopeParameters& full, const RopeParameters& sliding, ModelConfig* config) {
  const auto attends = [](const LayerConfig& layer) { return layer.kind == BlockKind::kAttention; };
  const bool any_full =
      std::any_of(config->layers.begin(), config->layers.end(),
                  [&](const LayerConfig& layer) { return attends(layer) && layer.window == 0; });
  const bool any_sliding = std::any_of(config->layers.begin(), config->layers.end(),
                                       [](const LayerConfig& layer) { return layer.window > 0; });
  config->ropes.clear();
  if (any_full || !any_sliding) config->ropes.push_back(full);
  if (any_sliding && (!any_full || sliding != full)) config->ropes.push_back(sliding);
  const int last = static_cast<int>(config->ropes.size()) - 1;
  for (LayerConfig& layer : config->layers) layer.rope = layer.window > 0 ? last : 0;
}

absl::Status ReadLayers(const Json& root, const std::string& file, const Architecture& row,
                        ModelConfig* config, std::vector<std::string>* warnings) {
  ConfigFields fields(root, file);
  const int window = ReadWindow(root, fields, row);
  const size_t layers = config->layers.size();
  NG_ASSIGN_OR_RETURN(const std::vector<absl::string_view> told,
                      ReadTypes(root, file, row, layers));
  const bool by_rule = told.empty() || row.windows == WindowRule::kEvery;
  std::vector<absl::string_view> types = told;
  if (by_rule) {
    NG_ASSIGN_OR_RETURN(types, TypesByRule(root, file, fields, row, window, layers));
  }
  NG_RETURN_IF_ERROR(fields.status());
  if (!told.empty() && told != types) {
    warnings->push_back(absl::StrCat(file, ": layer_types has no effect in a ", row.name,
                                     " model: sliding_window alone says which layers slide"));
  }
  bool full = false, sliding = false;
  for (size_t i = 0; i < layers; ++i) {
    config->layers[i] = LayerConfig();
    if (types[i] == kConv) config->layers[i].kind = BlockKind::kShortConvolution;
    if (types[i] == kSliding) config->layers[i].window = window;
    full = full || types[i] == kFull;
    sliding = sliding || types[i] == kSliding;
  }
  if (sliding && window == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        file, ": there are layers of ", kSliding, " but no sliding_window",
        row.windows == WindowRule::kUpper ? " (or use_sliding_window is not true)" : ""));
  }
  RopeParameters of_full, of_sliding;
  if (full || !sliding) {
    NG_ASSIGN_OR_RETURN(of_full,
                        ParseRope(root, file, kFull, row, config->max_positions, warnings));
  }
  if (sliding) {
    NG_ASSIGN_OR_RETURN(of_sliding,
                        ParseRope(root, file, kSliding, row, config->max_positions, warnings));
  }
  AssignRopes(of_full, of_sliding, config);
  return absl::OkStatus();
}

}  // namespace neurogrid
