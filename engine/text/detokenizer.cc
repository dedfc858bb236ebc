#include "engine/text/detokenizer.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/text/unicode.h"

namespace neurogrid {
namespace {
constexpr absl::string_view kReplacement = "\xef\xbf\xbd";
}  // namespace

std::string Utf8Stream::Push(absl::string_view bytes) {
  std::string joined;
  if (!tail_.empty()) {
    joined = absl::StrCat(tail_, bytes);
    bytes = joined;
    tail_.clear();
  }
  std::string text;
  text.reserve(bytes.size());
  while (!bytes.empty()) {
    const Utf8Step step = StepUtf8(bytes);
    const absl::string_view sequence = bytes.substr(0, static_cast<size_t>(step.length));
    if (step.kind == Utf8Step::kTruncated) {
      tail_ = std::string(sequence);
      break;
    }
    absl::StrAppend(&text, step.kind == Utf8Step::kValid ? sequence : kReplacement);
    bytes.remove_prefix(sequence.size());
  }
  return text;
}

std::string Utf8Stream::Finish() {
  const bool waited = !tail_.empty();
  tail_.clear();
  return std::string(waited ? kReplacement : "");
}

StopMatcher::StopMatcher(std::vector<std::string> stops, bool include_stop_text)
    : stops_(std::move(stops)), include_stop_text_(include_stop_text) {
  nodes_.emplace_back();
  std::fill(std::begin(nodes_[0].next), std::end(nodes_[0].next), -1);
  for (size_t i = 0; i < stops_.size(); ++i) {
    if (stops_[i].empty()) continue;  // would end every text before it begins
    int at = 0;
    for (const char c : stops_[i]) {
      const auto byte = static_cast<unsigned char>(c);
      if (nodes_[static_cast<size_t>(at)].next[byte] < 0) {
        Node node;
        std::fill(std::begin(node.next), std::end(node.next), -1);
        node.depth = nodes_[static_cast<size_t>(at)].depth + 1;
        nodes_[static_cast<size_t>(at)].next[byte] = static_cast<int>(nodes_.size());
        nodes_.push_back(node);
      }
      at = nodes_[static_cast<size_t>(at)].next[byte];
    }
    int& match = nodes_[static_cast<size_t>(at)].match;
    if (match < 0) match = static_cast<int>(i);
  }
  // Breadth first: links to the longest proper suffix that also begins a stop string, and from
  // there on a complete transition table.
  std::deque<int> queue = {0};
  while (!queue.empty()) {
    const size_t at = static_cast<size_t>(queue.front());
    queue.pop_front();
    const size_t fail = static_cast<size_t>(nodes_[at].fail);
    if (nodes_[at].match < 0) nodes_[at].match = nodes_[fail].match;
    for (size_t byte = 0; byte < 256; ++byte) {
      const int beyond = at == 0 ? 0 : nodes_[fail].next[byte];
      int& next = nodes_[at].next[byte];
      if (next < 0) {
        next = beyond;
      } else {
        nodes_[static_cast<size_t>(next)].fail = beyond;
        queue.push_back(next);
      }
    }
  }
}

StopMatcher::Result StopMatcher::Push(absl::string_view text) {
  Result result;
  if (ended_) return result;
  for (const char c : text) {
    held_ += c;
    state_ = nodes_[static_cast<size_t>(state_)].next[static_cast<unsigned char>(c)];
    const Node& node = nodes_[static_cast<size_t>(state_)];
    if (node.match >= 0) {
      ended_ = true;
      result.matched = node.match;
      const size_t stop_bytes = stops_[static_cast<size_t>(node.match)].size();
      if (!include_stop_text_) held_.resize(held_.size() - stop_bytes);
      result.text += held_;
      held_.clear();
      return result;
    }
  }
  const size_t kept = static_cast<size_t>(nodes_[static_cast<size_t>(state_)].depth);
  result.text = held_.substr(0, held_.size() - kept);
  held_.erase(0, held_.size() - kept);
  return result;
}

std::string StopMatcher::Release() {
  state_ = 0;
  return std::exchange(held_, {});
}

std::string StopMatcher::Finish() {
  ended_ = true;
  return Release();
}

}  // namespace neurogrid
