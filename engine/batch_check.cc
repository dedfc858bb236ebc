// Refuses a batch that would read or write outside what its stage holds.
#include "engine/batch_check.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace neurogrid {
namespace {

template <typename... Parts>
absl::Status Bad(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("batch: ", parts...));
}

/// Arrays whose length the others or the limits fix.
absl::Status CheckLengths(const Batch& batch, const BatchLimits& limits) {
  const size_t rows = batch.tokens.size();
  if (rows == 0) return Bad("tokens is empty");
  if (rows > static_cast<size_t>(limits.rows_max)) {
    return Bad("tokens has ", rows, " rows but the stage takes ", limits.rows_max);
  }
  if (batch.positions.size() != rows) {
    return Bad("positions has ", batch.positions.size(), " entries for ", rows, " rows");
  }
  if (batch.sequence_offsets.size() < 2) return Bad("sequence_offsets names no sequence");
  const size_t sequences = batch.sequence_offsets.size() - 1;
  if (sequences > static_cast<size_t>(limits.sequences_max)) {
    return Bad("sequence_offsets names ", sequences, " sequences but the stage takes ",
               limits.sequences_max);
  }
  if (batch.page_offsets.size() != sequences + 1) {
    return Bad("page_offsets has ", batch.page_offsets.size(), " entries for ", sequences,
               " sequences, expected ", sequences + 1);
  }
  const size_t windowed = limits.window > 0 ? batch.pages.size() : 0;
  if (batch.window_pages.size() != windowed) {
    return Bad("window_pages has ", batch.window_pages.size(), " entries, expected ", windowed);
  }
  if (batch.state_slots.size() != sequences) {
    return Bad("state_slots has ", batch.state_slots.size(), " entries for ", sequences,
               " sequences");
  }
  if (batch.state_sources.size() != sequences) {
    return Bad("state_sources has ", batch.state_sources.size(), " entries for ", sequences,
               " sequences");
  }
  if (batch.sampled_rows.size() > static_cast<size_t>(limits.samples_max)) {
    return Bad("sampled_rows has ", batch.sampled_rows.size(), " entries but the stage takes ",
               limits.samples_max);
  }
  if (batch.sampling.size() != batch.sampled_rows.size()) {
    return Bad("sampling has ", batch.sampling.size(), " entries for ", batch.sampled_rows.size(),
               " sampled_rows");
  }
  return absl::OkStatus();
}

/// Offsets that start at 0, never fall (with `strict`: always rise) and end at `end`.
absl::Status CheckOffsets(const char* name, const std::vector<int32_t>& offsets, size_t end,
                          bool strict) {
  if (offsets.front() != 0) return Bad(name, "[0] is ", offsets.front(), ", expected 0");
  for (size_t i = 1; i < offsets.size(); ++i) {
    if (offsets[i] < offsets[i - 1] || (strict && offsets[i] == offsets[i - 1])) {
      return Bad(name, "[", i, "] is ", offsets[i], " after ", offsets[i - 1]);
    }
  }
  if (static_cast<size_t>(offsets.back()) != end) {
    return Bad(name, " ends at ", offsets.back(), ", expected ", end);
  }
  return absl::OkStatus();
}

absl::Status CheckIds(const char* name, const std::vector<int32_t>& ids, int32_t bound,
                      int32_t least = 0) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < least || ids[i] >= bound) {
      return Bad(name, "[", i, "] is ", ids[i], ", outside [", least, ", ", bound, ")");
    }
  }
  return absl::OkStatus();
}

/// Every page that the layers with a window read or write for sequence s is there.
absl::Status CheckWindow(const Batch& batch, const BatchLimits& limits, size_t s) {
  if (limits.window == 0) return absl::OkStatus();
  const auto begin = static_cast<size_t>(batch.sequence_offsets[s]);
  const auto end = static_cast<size_t>(batch.sequence_offsets[s + 1]);
  const int64_t last = batch.positions[end - 1] / kPageTokens;
  for (int64_t i = FirstWindowPage(batch.positions[begin], limits.window); i <= last; ++i) {
    const auto at = static_cast<size_t>(batch.page_offsets[s] + i);
    if (batch.window_pages[at] < 0) {
      return Bad("window_pages[", at, "] is ", batch.window_pages[at], " but position ",
                 batch.positions[begin], " sees ", limits.window, " tokens");
    }
  }
  return absl::OkStatus();
}

/// Positions of one sequence are consecutive, below the bound, and its pages reach the last of
/// them.
absl::Status CheckSequence(const Batch& batch, const BatchLimits& limits, size_t s) {
  const auto begin = static_cast<size_t>(batch.sequence_offsets[s]);
  const auto end = static_cast<size_t>(batch.sequence_offsets[s + 1]);
  for (size_t row = begin; row < end; ++row) {
    const int32_t position = batch.positions[row];
    if (position < 0 || position >= limits.positions_max) {
      return Bad("positions[", row, "] is ", position, ", outside [0, ", limits.positions_max, ")");
    }
    if (row > begin && position != batch.positions[row - 1] + 1) {
      return Bad("positions[", row, "] is ", position, " after ", batch.positions[row - 1],
                 " in the same sequence");
    }
  }
  const int needed = batch.positions[end - 1] / kPageTokens + 1;
  const int held = batch.page_offsets[s + 1] - batch.page_offsets[s];
  if (held < needed) {
    return Bad("page_offsets gives sequence ", s, " ", held, " pages but position ",
               batch.positions[end - 1], " needs ", needed);
  }
  const int held_max = (limits.positions_max + kPageTokens - 1) / kPageTokens;
  if (held > held_max) {
    return Bad("page_offsets gives sequence ", s, " ", held, " pages but ", limits.positions_max,
               " positions fill ", held_max);
  }
  return CheckWindow(batch, limits, s);
}

/// A page that one sequence writes in this step belongs to nobody else in it: prefixes are shared
/// by whole pages, and what is shared is only read.
absl::Status CheckPageSharing(const char* name, const Batch& batch,
                              const std::vector<int32_t>& pages, int pages_max) {
  if (pages_max == 0) return absl::OkStatus();
  std::vector<bool> written(static_cast<size_t>(pages_max));
  const auto page_written = [&](size_t s, int32_t i) {
    const auto begin = static_cast<size_t>(batch.sequence_offsets[s]);
    const auto end = static_cast<size_t>(batch.sequence_offsets[s + 1]);
    const int32_t index = i - batch.page_offsets[s];
    return index >= batch.positions[begin] / kPageTokens &&
           index <= batch.positions[end - 1] / kPageTokens;
  };
  for (const bool writers : {true, false}) {
    for (size_t s = 0; s + 1 < batch.page_offsets.size(); ++s) {
      for (int32_t i = batch.page_offsets[s]; i < batch.page_offsets[s + 1]; ++i) {
        if (page_written(s, i) != writers) continue;
        const int32_t page = pages[static_cast<size_t>(i)];
        if (page < 0) continue;
        if (written[static_cast<size_t>(page)]) {
          return Bad(name, "[", i, "] is ", page,
                     ", a page that another entry writes in this step");
        }
        if (writers) written[static_cast<size_t>(page)] = true;
      }
    }
  }
  return absl::OkStatus();
}

/// A slot that one sequence writes is nobody else's slot, and nobody else's source.
absl::Status CheckSlotSharing(const Batch& batch, const BatchLimits& limits) {
  std::vector<int> writer(static_cast<size_t>(limits.slots), -1);
  for (size_t s = 0; s < batch.state_slots.size(); ++s) {
    if (batch.state_slots[s] < 0) continue;
    int& taken = writer[static_cast<size_t>(batch.state_slots[s])];
    if (taken >= 0) {
      return Bad("state_slots[", s, "] is ", batch.state_slots[s], ", taken by another sequence");
    }
    taken = static_cast<int>(s);
  }
  for (size_t s = 0; s < batch.state_sources.size(); ++s) {
    if (batch.state_sources[s] < 0) continue;
    const int other = writer[static_cast<size_t>(batch.state_sources[s])];
    if (other >= 0 && other != static_cast<int>(s)) {
      return Bad("state_sources[", s, "] is ", batch.state_sources[s],
                 ", a slot that another sequence writes in this step");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckRange(size_t i, const char* field, double value, double low, double high) {
  if (value >= low && value <= high) return absl::OkStatus();  // false for NaN
  return Bad("sampling[", i, "].", field, " is ", value, ", outside [", low, ", ", high, "]");
}

absl::Status CheckSampling(size_t i, const SamplingRow& row, const BatchLimits& limits) {
  constexpr double kFloatMax = 3.4e38;
  NG_RETURN_IF_ERROR(CheckRange(i, "position", row.position, 0, limits.positions_max));
  NG_RETURN_IF_ERROR(CheckRange(i, "temperature", row.temperature, 0, kFloatMax));
  NG_RETURN_IF_ERROR(CheckRange(i, "top_p", row.top_p, 0, 1));
  NG_RETURN_IF_ERROR(CheckRange(i, "min_p", row.min_p, 0, 1));
  NG_RETURN_IF_ERROR(CheckRange(i, "repetition_penalty", row.repetition_penalty, 1e-6, 1e6));
  NG_RETURN_IF_ERROR(CheckRange(i, "presence_penalty", row.presence_penalty, -1e6, 1e6));
  NG_RETURN_IF_ERROR(CheckRange(i, "frequency_penalty", row.frequency_penalty, -1e6, 1e6));
  NG_RETURN_IF_ERROR(CheckRange(i, "top_logprobs", row.top_logprobs, -1, 20));
  NG_RETURN_IF_ERROR(CheckRange(i, "target", row.target, -1, limits.vocab_size - 1));
  const auto vocab = static_cast<size_t>(limits.vocab_size);
  if (row.counts.size() > vocab || row.bias.size() > vocab || row.banned.size() > vocab) {
    return Bad("sampling[", i, "] lists more than the ", vocab, " ids there are");
  }
  for (const SamplingRow::Count& count : row.counts) {
    NG_RETURN_IF_ERROR(CheckRange(i, "counts.id", count.id, 0, limits.vocab_size - 1));
    NG_RETURN_IF_ERROR(CheckRange(i, "counts.generated", count.generated, 0, limits.positions_max));
  }
  for (const auto& [id, bias] : row.bias) {
    NG_RETURN_IF_ERROR(CheckRange(i, "bias.id", id, 0, limits.vocab_size - 1));
    NG_RETURN_IF_ERROR(CheckRange(i, "bias", bias, -kFloatMax, kFloatMax));
  }
  for (const int32_t id : row.banned) {
    NG_RETURN_IF_ERROR(CheckRange(i, "banned", id, 0, limits.vocab_size - 1));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckBatch(const Batch& batch, const BatchLimits& limits) {
  NG_RETURN_IF_ERROR(CheckLengths(batch, limits));
  NG_RETURN_IF_ERROR(
      CheckOffsets("sequence_offsets", batch.sequence_offsets, batch.tokens.size(), true));
  NG_RETURN_IF_ERROR(CheckOffsets("page_offsets", batch.page_offsets, batch.pages.size(), false));
  NG_RETURN_IF_ERROR(
      CheckIds("tokens", batch.tokens, limits.vocab_size, DrawnBefore(limits.samples_max - 1)));
  const int32_t no_page = -1;
  NG_RETURN_IF_ERROR(CheckIds("pages", batch.pages, limits.pages, limits.pages == 0 ? no_page : 0));
  NG_RETURN_IF_ERROR(CheckIds("window_pages", batch.window_pages, limits.window_pages, no_page));
  NG_RETURN_IF_ERROR(CheckIds("state_slots", batch.state_slots, limits.slots, -1));
  NG_RETURN_IF_ERROR(CheckIds("state_sources", batch.state_sources, limits.slots, -1));
  for (size_t s = 0; s + 1 < batch.sequence_offsets.size(); ++s) {
    NG_RETURN_IF_ERROR(CheckSequence(batch, limits, s));
  }
  NG_RETURN_IF_ERROR(CheckPageSharing("pages", batch, batch.pages, limits.pages));
  NG_RETURN_IF_ERROR(
      CheckPageSharing("window_pages", batch, batch.window_pages, limits.window_pages));
  NG_RETURN_IF_ERROR(CheckSlotSharing(batch, limits));
  NG_RETURN_IF_ERROR(CheckIds("sampled_rows", batch.sampled_rows, batch.rows()));
  for (size_t i = 1; i < batch.sampled_rows.size(); ++i) {
    if (batch.sampled_rows[i] <= batch.sampled_rows[i - 1]) {
      return Bad("sampled_rows[", i, "] is ", batch.sampled_rows[i], " after ",
                 batch.sampled_rows[i - 1]);
    }
  }
  for (size_t i = 0; i < batch.sampling.size(); ++i) {
    NG_RETURN_IF_ERROR(CheckSampling(i, batch.sampling[i], limits));
  }
  return absl::OkStatus();
}

}  // namespace neurogrid
