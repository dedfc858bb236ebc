#include "common/yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <sstream>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace neurogrid {
namespace {

constexpr size_t kBytesMax = 1 << 20;
constexpr size_t kDepthMax = 16;
constexpr int kNodesMax = 10'000;

/// Thrown out of the handler, caught in ParseYaml.
struct Refused {
  YAML::Mark mark;
  std::string what;
};

class TreeBuilder final : public YAML::EventHandler {
 public:
  YamlNode root;

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    Place(mark, "", anchor, YamlNode::Kind::kNull);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    throw Refused{mark, "aliases (*name) are not allowed"};
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    const bool null = tag == "?" && (value.empty() || value == "~" || value == "null");
    Place(mark, tag, anchor, null ? YamlNode::Kind::kNull : YamlNode::Kind::kScalar).scalar = value;
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Open(mark, Place(mark, tag, anchor, YamlNode::Kind::kSequence));
  }
  void OnSequenceEnd() override { open_.pop_back(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Open(mark, Place(mark, tag, anchor, YamlNode::Kind::kMap));
  }
  void OnMapEnd() override {
    const YamlNode& map = *open_.back();
    absl::flat_hash_set<std::string> keys;
    for (size_t i = 0; i < map.items.size(); i += 2) {
      const YamlNode& key = map.items[i];
      const YAML::Mark mark = MarkOf(key);
      if (key.kind != YamlNode::Kind::kScalar) throw Refused{mark, "a key must be a plain word"};
      if (!keys.insert(key.scalar).second) {
        throw Refused{mark, absl::StrCat("the key \"", key.scalar, "\" stands twice")};
      }
    }
    open_.pop_back();
  }

 private:
  static YAML::Mark MarkOf(const YamlNode& node) {
    YAML::Mark mark;
    mark.line = node.line - 1;
    mark.column = node.column - 1;
    return mark;
  }

  YamlNode& Place(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YamlNode::Kind kind) {
    if (anchor != YAML::NullAnchor) throw Refused{mark, "anchors (&name) are not allowed"};
    if (!tag.empty() && tag != "?" && tag != "!")
      throw Refused{mark, "tags (!name) are not allowed"};
    if (++nodes_ > kNodesMax) throw Refused{mark, absl::StrCat("more than ", kNodesMax, " nodes")};
    YamlNode* node = &root;
    if (!open_.empty()) node = &open_.back()->items.emplace_back();
    node->kind = kind;
    node->line = mark.line + 1;
    node->column = mark.column + 1;
    return *node;
  }

  void Open(const YAML::Mark& mark, YamlNode& node) {
    if (open_.size() >= kDepthMax) {
      throw Refused{mark, absl::StrCat("nested deeper than ", kDepthMax, " levels")};
    }
    open_.push_back(&node);
  }

  // Pointers stay valid: a container grows only while it is the innermost one.
  std::vector<YamlNode*> open_;
  int nodes_ = 0;
};

absl::Status ErrorAt(absl::string_view file, const YAML::Mark& mark, absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat(file, ":", mark.line + 1, ":", mark.column + 1, ": ", what));
}

}  // namespace

std::string YamlNode::At(absl::string_view file) const {
  if (line == 0) return std::string(file);
  return absl::StrCat(file, ":", line, ":", column);
}

absl::StatusOr<YamlNode> ParseYaml(absl::string_view text, absl::string_view file) {
  if (text.size() > kBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": has ", text.size(), " bytes; at most ", kBytesMax, " are read"));
  }
  int line = 0;
  for (const absl::string_view row : absl::StrSplit(text, '\n')) {
    ++line;
    const size_t tab = row.find_first_not_of(' ');
    if (tab != absl::string_view::npos && row[tab] == '\t') {
      return absl::InvalidArgumentError(absl::StrCat(file, ":", line, ":", tab + 1,
                                                     ": a tab where only spaces may indent"));
    }
  }
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    TreeBuilder builder;
    if (!parser.HandleNextDocument(builder)) return YamlNode();
    TreeBuilder second;
    if (parser.HandleNextDocument(second)) {
      return absl::InvalidArgumentError(absl::StrCat(file, ": holds more than one document"));
    }
    return std::move(builder.root);
  } catch (const Refused& refused) {
    return ErrorAt(file, refused.mark, refused.what);
  } catch (const YAML::Exception& exception) {
    return ErrorAt(file, exception.mark, exception.msg);
  }
}

}  // namespace neurogrid
