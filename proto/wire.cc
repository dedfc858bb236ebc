#include "proto/wire.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"

namespace neurogrid {
namespace {

template <typename Repeated, typename T>
void Fill(const std::vector<T>& from, Repeated* to) {
  to->Assign(from.begin(), from.end());
}

template <typename Repeated>
auto VectorOf(const Repeated& from) {
  return std::vector<typename Repeated::value_type>(from.begin(), from.end());
}

void ToMessage(const SamplingRow& row, wire::Sampling* message) {
  message->set_seed(row.seed);
  message->set_position(row.position);
  message->set_temperature(row.temperature);
  message->set_top_p(row.top_p);
  message->set_min_p(row.min_p);
  message->set_top_k(row.top_k);
  message->set_repetition_penalty(row.repetition_penalty);
  message->set_presence_penalty(row.presence_penalty);
  message->set_frequency_penalty(row.frequency_penalty);
  message->set_top_logprobs(row.top_logprobs);
  message->set_target(row.target);
  for (const SamplingRow::Count& count : row.counts) {
    message->add_count_ids(count.id);
    message->add_count_generated(count.generated);
    message->add_count_in_window(count.in_window);
  }
  for (const auto& [id, value] : row.bias) {
    message->add_bias_ids(id);
    message->add_bias(value);
  }
  Fill(row.banned, message->mutable_banned());
}

absl::StatusOr<SamplingRow> FromMessage(const wire::Sampling& message) {
  if (message.count_generated_size() != message.count_ids_size() ||
      message.count_in_window_size() != message.count_ids_size()) {
    return absl::InvalidArgumentError("sampling: the arrays of counts differ in length");
  }
  if (message.bias_size() != message.bias_ids_size()) {
    return absl::InvalidArgumentError("sampling: bias and bias_ids differ in length");
  }
  SamplingRow row;
  row.seed = message.seed();
  row.position = message.position();
  row.temperature = message.temperature();
  row.top_p = message.top_p();
  row.min_p = message.min_p();
  row.top_k = message.top_k();
  row.repetition_penalty = message.repetition_penalty();
  row.presence_penalty = message.presence_penalty();
  row.frequency_penalty = message.frequency_penalty();
  row.top_logprobs = message.top_logprobs();
  row.target = message.target();
  for (int i = 0; i < message.count_ids_size(); ++i) {
    row.counts.push_back({.id = message.count_ids(i),
                          .generated = message.count_generated(i),
                          .in_window = message.count_in_window(i)});
  }
  for (int i = 0; i < message.bias_size(); ++i) {
    row.bias.emplace_back(message.bias_ids(i), message.bias(i));
  }
  row.banned = VectorOf(message.banned());
  return row;
}

void ToMessage(const Batch& batch, wire::BatchMessage* message) {
  Fill(batch.tokens, message->mutable_tokens());
  Fill(batch.positions, message->mutable_positions());
  Fill(batch.sequence_offsets, message->mutable_sequence_offsets());
  Fill(batch.pages, message->mutable_pages());
  Fill(batch.page_offsets, message->mutable_page_offsets());
  Fill(batch.window_pages, message->mutable_window_pages());
  Fill(batch.state_slots, message->mutable_state_slots());
  Fill(batch.state_sources, message->mutable_state_sources());
  Fill(batch.sampled_rows, message->mutable_sampled_rows());
  for (const SamplingRow& row : batch.sampling) ToMessage(row, message->add_sampling());
}

absl::StatusOr<Batch> FromMessage(const wire::BatchMessage& message) {
  Batch batch;
  batch.tokens = VectorOf(message.tokens());
  batch.positions = VectorOf(message.positions());
  batch.sequence_offsets = VectorOf(message.sequence_offsets());
  batch.pages = VectorOf(message.pages());
  batch.page_offsets = VectorOf(message.page_offsets());
  batch.window_pages = VectorOf(message.window_pages());
  batch.state_slots = VectorOf(message.state_slots());
  batch.state_sources = VectorOf(message.state_sources());
  batch.sampled_rows = VectorOf(message.sampled_rows());
  batch.sampling.reserve(static_cast<size_t>(message.sampling_size()));
  for (const wire::Sampling& row : message.sampling()) {
    NG_ASSIGN_OR_RETURN(SamplingRow plain, FromMessage(row));
    batch.sampling.push_back(std::move(plain));
  }
  return batch;
}

absl::StatusOr<SampledToken> FromMessage(const wire::Sampled& message) {
  if (message.top_ids_size() != message.top_logprobs_size() || message.top_ids_size() > 20) {
    return absl::InvalidArgumentError("sampled: top_ids and top_logprobs contradict each other");
  }
  SampledToken token;
  token.token = message.token();
  token.logprob = message.logprob();
  token.failed = message.failed();
  for (int i = 0; i < message.top_ids_size(); ++i) {
    token.top.push_back({.id = message.top_ids(i), .logprob = message.top_logprobs(i)});
  }
  return token;
}

absl::StatusOr<int> BoundedInt(absl::string_view name, uint32_t value, uint32_t minimum) {
  if (value < minimum || value > static_cast<uint32_t>(std::numeric_limits<int>::max())) {
    return absl::InvalidArgumentError(absl::StrCat("limits.", name, " is ", value, ", expected ",
                                                   minimum, " or more, below 2^31"));
  }
  return static_cast<int>(value);
}

}  // namespace

void ToMessage(Step step, wire::StepMessage* message) {
  message->set_step(step.number);
  message->set_attempt(step.attempt);
  ToMessage(step.batch, message->mutable_batch());
  message->set_activations(std::move(step.activations));
  for (const SampledToken& token : step.sampled) {
    wire::Sampled* out = message->add_sampled();
    out->set_token(token.token);
    out->set_logprob(token.logprob);
    out->set_failed(token.failed);
    for (const TokenLogprob& top : token.top) {
      out->add_top_ids(top.id);
      out->add_top_logprobs(top.logprob);
    }
  }
  for (const StageTime& time : step.times) {
    wire::StageTime* out = message->add_times();
    out->set_queue_us(time.queue_us);
    out->set_compute_us(time.compute_us);
  }
  if (!step.status.ok()) {
    message->mutable_error()->set_code(static_cast<uint32_t>(step.status.raw_code()));
    message->mutable_error()->set_message(
        std::string(step.status.message().substr(0, kWireStringBytesMax)));
  }
}

absl::StatusOr<Step> FromMessage(wire::StepMessage* message) {
  Step step;
  step.arrived = std::chrono::steady_clock::now();
  step.epoch = message->header().epoch();
  step.number = message->step();
  step.attempt = message->attempt();
  NG_ASSIGN_OR_RETURN(step.batch, FromMessage(message->batch()));
  step.activations = std::move(*message->mutable_activations());
  for (const wire::Sampled& sampled : message->sampled()) {
    NG_ASSIGN_OR_RETURN(SampledToken token, FromMessage(sampled));
    step.sampled.push_back(std::move(token));
  }
  if (message->times_size() > kStagesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("times has ", message->times_size(), " entries, at most ", kStagesMax));
  }
  for (const wire::StageTime& time : message->times()) {
    step.times.push_back({.queue_us = time.queue_us(), .compute_us = time.compute_us()});
  }
  if (message->has_error()) {
    const uint32_t code = message->error().code();
    if (code == 0 || code > static_cast<uint32_t>(absl::StatusCode::kUnauthenticated)) {
      return absl::InvalidArgumentError(
          absl::StrCat("error.code is ", code, ", which is no error"));
    }
    NG_RETURN_IF_ERROR(CheckText("error.message", message->error().message()));
    step.status = absl::Status(static_cast<absl::StatusCode>(code), message->error().message());
  }
  return step;
}

void ToMessage(const BatchLimits& limits, wire::Limits* message) {
  message->set_rows_max(static_cast<uint32_t>(limits.rows_max));
  message->set_sequences_max(static_cast<uint32_t>(limits.sequences_max));
  message->set_samples_max(static_cast<uint32_t>(limits.samples_max));
  message->set_pages(static_cast<uint32_t>(limits.pages));
  message->set_window_pages(static_cast<uint32_t>(limits.window_pages));
  message->set_window(static_cast<uint32_t>(limits.window));
  message->set_slots(static_cast<uint32_t>(limits.slots));
  message->set_positions_max(static_cast<uint32_t>(limits.positions_max));
  message->set_vocab_size(static_cast<uint32_t>(limits.vocab_size));
}

absl::StatusOr<BatchLimits> FromMessage(const wire::Limits& message) {
  BatchLimits limits;
  NG_ASSIGN_OR_RETURN(limits.rows_max, BoundedInt("rows_max", message.rows_max(), 1));
  NG_ASSIGN_OR_RETURN(limits.sequences_max,
                      BoundedInt("sequences_max", message.sequences_max(), 1));
  NG_ASSIGN_OR_RETURN(limits.samples_max, BoundedInt("samples_max", message.samples_max(), 1));
  NG_ASSIGN_OR_RETURN(limits.pages, BoundedInt("pages", message.pages(), 0));
  NG_ASSIGN_OR_RETURN(limits.window_pages, BoundedInt("window_pages", message.window_pages(), 0));
  NG_ASSIGN_OR_RETURN(limits.window, BoundedInt("window", message.window(), 0));
  NG_ASSIGN_OR_RETURN(limits.slots, BoundedInt("slots", message.slots(), 0));
  NG_ASSIGN_OR_RETURN(limits.positions_max,
                      BoundedInt("positions_max", message.positions_max(), 1));
  NG_ASSIGN_OR_RETURN(limits.vocab_size, BoundedInt("vocab_size", message.vocab_size(), 1));
  if (limits.pages == 0 && limits.window_pages == 0) {
    return absl::InvalidArgumentError("limits.pages and limits.window_pages are both 0");
  }
  return limits;
}

absl::Status CheckText(absl::string_view name, absl::string_view text, size_t bytes_max) {
  if (text.size() <= bytes_max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, " is ", text.size(), " bytes long, at most ", bytes_max));
}

}  // namespace neurogrid
