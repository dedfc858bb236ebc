#include "engine/text/normalizer.h"

namespace neurogrid {

MarkedText Replaced(const MarkedText& text, absl::string_view from, absl::string_view to) {
  MarkedText out;
  out.bytes.reserve(text.bytes.size());
  out.origins.reserve(text.bytes.size());
  size_t done = 0;
  while (true) {
    const size_t found = text.bytes.find(from.data(), done, from.size());
    const size_t stop = found == std::string::npos ? text.bytes.size() : found;
    out.Append(text, {static_cast<uint32_t>(done), static_cast<uint32_t>(stop)});
    if (found == std::string::npos) return out;
    done = found + from.size();
    out.Append(to, text.WorstOrigin({static_cast<uint32_t>(found), static_cast<uint32_t>(done)}));
  }
}

MarkedText Normalizer::Apply(MarkedText section) const {
  for (const Step& step : steps_) {
    if (section.bytes.empty()) break;
    if (step.kind == Step::kReplace) {
      section = Replaced(section, step.from, step.to);
      continue;
    }
    section.origins.insert(0, step.to.size(), section.origins[0]);
    section.bytes.insert(0, step.to);
  }
  return section;
}

}  // namespace neurogrid
