// Messages: what goes out comes in unchanged, and what contradicts itself does not come in.
#include "proto/wire.h"

#include <catch2/catch_test_macros.hpp>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "coordinator/cluster_service.h"
#include "worker/assignment.h"

namespace neurogrid {
namespace {

Step FullStep() {
  Step step;
  step.number = 7;
  step.attempt = 1;
  step.batch.tokens = {1, 2, 3};
  step.batch.positions = {4, 5, 0};
  step.batch.sequence_offsets = {0, 2, 3};
  step.batch.pages = {9, 8};
  step.batch.page_offsets = {0, 1, 2};
  step.batch.window_pages = {-1, 7};
  step.batch.state_slots = {-1, 3};
  step.batch.state_sources = {2, -1};
  step.batch.sampled_rows = {2};
  SamplingRow row;
  row.seed = 0xfedcba9876543210;
  row.position = 1;
  row.temperature = 0.5f;
  row.top_p = 0.9f;
  row.min_p = 0.1f;
  row.top_k = 40;
  row.repetition_penalty = 1.1f;
  row.presence_penalty = -0.2f;
  row.frequency_penalty = 0.3f;
  row.top_logprobs = -1;
  row.target = -1;
  row.counts = {{.id = 5, .generated = 2, .in_window = true}};
  row.bias = {{6, -100.0f}};
  row.banned = {0, 1};
  step.batch.sampling = {row};
  step.activations = std::string("\x00\xff\x7f", 3);
  SampledToken token;
  token.token = 42;
  token.logprob = -0.25f;
  token.top = {{.id = 42, .logprob = -0.25f}, {.id = 1, .logprob = -2.0f}};
  token.failed = true;
  step.sampled = {token};
  step.times = {{.queue_us = 1, .compute_us = 2}};
  return step;
}

TEST_CASE("a step crosses the wire unchanged", "[wire]") {
  const Step sent = FullStep();
  wire::StepMessage message;
  ToMessage(sent, &message);
  message.mutable_header()->set_epoch(5);
  wire::StepMessage parsed;
  REQUIRE(parsed.ParseFromString(message.SerializeAsString()));
  const Step got = FromMessage(&parsed).value();
  CHECK(got.epoch == 5);
  CHECK(got.number == 7);
  CHECK(got.attempt == 1);
  CHECK(got.batch.tokens == sent.batch.tokens);
  CHECK(got.batch.positions == sent.batch.positions);
  CHECK(got.batch.sequence_offsets == sent.batch.sequence_offsets);
  CHECK(got.batch.pages == sent.batch.pages);
  CHECK(got.batch.page_offsets == sent.batch.page_offsets);
  CHECK(got.batch.window_pages == sent.batch.window_pages);
  CHECK(got.batch.state_slots == sent.batch.state_slots);
  CHECK(got.batch.state_sources == sent.batch.state_sources);
  CHECK(got.batch.sampled_rows == sent.batch.sampled_rows);
  CHECK(got.activations == sent.activations);
  const SamplingRow& a = got.batch.sampling.at(0);
  const SamplingRow& b = sent.batch.sampling.at(0);
  CHECK(a.seed == b.seed);
  CHECK(a.position == b.position);
  CHECK(a.temperature == b.temperature);
  CHECK(a.top_p == b.top_p);
  CHECK(a.min_p == b.min_p);
  CHECK(a.top_k == b.top_k);
  CHECK(a.repetition_penalty == b.repetition_penalty);
  CHECK(a.presence_penalty == b.presence_penalty);
  CHECK(a.frequency_penalty == b.frequency_penalty);
  CHECK(a.top_logprobs == b.top_logprobs);
  CHECK(a.target == b.target);
  REQUIRE(a.counts.size() == 1);
  CHECK(a.counts[0].id == 5);
  CHECK(a.counts[0].generated == 2);
  CHECK(a.counts[0].in_window);
  CHECK(a.bias == b.bias);
  CHECK(a.banned == b.banned);
  REQUIRE(got.sampled.size() == 1);
  CHECK(got.sampled[0].token == 42);
  CHECK(got.sampled[0].logprob == -0.25f);
  CHECK(got.sampled[0].failed);
  CHECK(got.sampled[0].top.at(1).id == 1);
  CHECK(got.times.at(0).compute_us == 2);
  CHECK(got.status.ok());
}

TEST_CASE("the reason of a failed step crosses the wire, cut to its limit", "[wire]") {
  Step step;
  step.status = absl::ResourceExhaustedError(std::string(1000, 'x'));
  wire::StepMessage message;
  ToMessage(step, &message);
  const Step got = FromMessage(&message).value();
  CHECK(absl::IsResourceExhausted(got.status));
  CHECK(got.status.message().size() == 256);
}

TEST_CASE("arrays that contradict each other and unknown codes are refused", "[wire][R8]") {
  const auto refused = [](const auto& spoil, absl::string_view words) {
    wire::StepMessage message;
    ToMessage(FullStep(), &message);
    spoil(message);
    const absl::Status status = FromMessage(&message).status();
    INFO(status.ToString());
    CHECK(absl::IsInvalidArgument(status));
    CHECK(absl::StrContains(status.message(), words));
  };
  using M = wire::StepMessage;
  refused([](M& m) { m.mutable_batch()->mutable_sampling(0)->add_count_ids(1); }, "counts");
  refused([](M& m) { m.mutable_batch()->mutable_sampling(0)->add_bias(1); }, "bias");
  refused([](M& m) { m.mutable_sampled(0)->add_top_ids(1); }, "top_ids");
  refused([](M& m) { m.mutable_error()->set_code(0); }, "error.code is 0");
  refused([](M& m) { m.mutable_error()->set_code(17); }, "error.code is 17");
  refused(
      [](M& m) {
        m.mutable_error()->set_code(3);
        m.mutable_error()->set_message(std::string(257, 'x'));
      },
      "error.message is 257 bytes");
  refused(
      [](M& m) {
        for (int i = 0; i < 256; ++i) m.add_times();
      },
      "times has 257 entries");
}

TEST_CASE("an assignment that makes no sense is refused by field", "[wire][R8]") {
  wire::Assign good;
  good.set_epoch(1);
  good.set_layer_last(2);
  good.set_precision(wire::PRECISION_BF16);
  good.mutable_previous()->set_node_id("coordinator");
  good.mutable_next()->set_node_id("b");
  ToMessage(BatchLimits{.rows_max = 1,
                        .sequences_max = 1,
                        .samples_max = 1,
                        .pages = 1,
                        .positions_max = 1,
                        .vocab_size = 1},
            good.mutable_limits());
  REQUIRE(ReadAssignment(good).ok());
  const auto refused = [&](const auto& spoil, absl::string_view words) {
    wire::Assign assign = good;
    spoil(assign);
    const absl::Status status = ReadAssignment(assign).status();
    INFO(status.ToString());
    CHECK(absl::IsInvalidArgument(status));
    CHECK(absl::StrContains(status.message(), words));
  };
  using A = wire::Assign;
  refused([](A& a) { a.set_epoch(0); }, "epoch");
  refused([](A& a) { a.set_layer_first(2); }, "layers [2,2)");
  refused([](A& a) { a.set_layer_last(5000); }, "layers [0,5000)");
  refused([](A& a) { a.set_precision(wire::PRECISION_UNKNOWN); }, "assign.precision");
  refused([](A& a) { a.set_precision(static_cast<wire::WirePrecision>(9)); }, "unknown value 9");
  refused([](A& a) { a.mutable_limits()->set_pages(0); },
          "limits.pages and limits.window_pages are both 0");
  refused([](A& a) { a.mutable_limits()->set_window(1u << 31); }, "limits.window");
  refused([](A& a) { a.mutable_limits()->set_rows_max(1u << 31); }, "limits.rows_max");
  refused([](A& a) { a.mutable_next()->set_node_id("../x"); }, "node name");
  refused([](A& a) { a.mutable_next()->set_port(65536); }, "next.port");
  refused([](A& a) { a.set_model_name(std::string(257, 'x')); }, "model_name is 257");
}

TEST_CASE("a report out of bounds is refused by figure", "[wire]") {
  wire::Report good;
  good.set_memory_total_bytes(100);
  good.set_memory_free_bytes(100);
  good.set_cores(1);
  good.set_read_bandwidth(1e9);
  good.set_matmul_rate(1e9);
  good.set_data_port(1);
  REQUIRE(ReadReport(good, "10.0.0.1").ok());
  CHECK(ReadReport(good, "10.0.0.1")->data_host == "10.0.0.1");
  const auto refused = [&](const auto& spoil, absl::string_view words) {
    wire::Report report = good;
    spoil(report);
    const absl::Status status = ReadReport(report, "").status();
    INFO(status.ToString());
    CHECK(absl::IsInvalidArgument(status));
    CHECK(absl::StrContains(status.message(), words));
  };
  using R = wire::Report;
  refused([](R& r) { r.set_memory_total_bytes(0); }, "memory_total_bytes");
  refused([](R& r) { r.set_memory_free_bytes(101); }, "memory_free_bytes is 101");
  refused([](R& r) { r.set_memory_free_bytes(-1); }, "memory_free_bytes");
  refused([](R& r) { r.set_read_bandwidth(0); }, "read_bandwidth");
  refused([](R& r) { r.set_matmul_rate(1.0 / 0.0); }, "matmul_rate");
  refused([](R& r) { r.set_data_port(0); }, "data_port");
  refused([](R& r) { r.set_cores(0); }, "cores");
  refused([](R& r) { r.set_host_memory_bytes(101); }, "host_memory_bytes is 101");
  refused([](R& r) { r.set_host_memory_bytes(50); }, "host_bandwidth");  // 0 so far
  refused([](R& r) { r.set_power_limit_w(-1); }, "power_limit_w");
  refused([](R& r) { r.set_row_rate(-1); }, "row_rate");
  refused([](R& r) { r.set_op_seconds(0.0 / 0.0); }, "op_seconds");
  refused([](R& r) { r.set_device_uuid(std::string(257, 'x')); }, "device_uuid");
  refused([](R& r) { r.set_device_name(std::string(257, 'x')); }, "device_name");
}

void Walk(const google::protobuf::Descriptor* type, std::set<std::string>& fields) {
  for (int i = 0; i < type->field_count(); ++i) {
    const google::protobuf::FieldDescriptor* field = type->field(i);
    const std::string name =
        absl::StrCat(std::string(type->name()), ".", std::string(field->name()));
    if (!fields.insert(name).second) continue;
    if (field->message_type() != nullptr) Walk(field->message_type(), fields);
  }
}

TEST_CASE("the data plane holds these fields and no other: no pointers, no op codes, no offsets",
          "[wire][R1][R3]") {
  std::set<std::string> fields;
  Walk(wire::StepMessage::descriptor(), fields);
  CHECK(fields == std::set<std::string>{"StepMessage.header",
                                        "StepMessage.step",
                                        "StepMessage.attempt",
                                        "StepMessage.batch",
                                        "StepMessage.activations",
                                        "StepMessage.sampled",
                                        "StepMessage.times",
                                        "StepMessage.error",
                                        "EdgeHeader.cluster_id",
                                        "EdgeHeader.epoch",
                                        "EdgeHeader.boot_id",
                                        "BatchMessage.tokens",
                                        "BatchMessage.positions",
                                        "BatchMessage.sequence_offsets",
                                        "BatchMessage.pages",
                                        "BatchMessage.page_offsets",
                                        "BatchMessage.window_pages",
                                        "BatchMessage.state_slots",
                                        "BatchMessage.state_sources",
                                        "BatchMessage.sampled_rows",
                                        "BatchMessage.sampling",
                                        "Sampling.seed",
                                        "Sampling.position",
                                        "Sampling.temperature",
                                        "Sampling.top_p",
                                        "Sampling.min_p",
                                        "Sampling.top_k",
                                        "Sampling.repetition_penalty",
                                        "Sampling.presence_penalty",
                                        "Sampling.frequency_penalty",
                                        "Sampling.top_logprobs",
                                        "Sampling.target",
                                        "Sampling.count_ids",
                                        "Sampling.count_generated",
                                        "Sampling.count_in_window",
                                        "Sampling.bias_ids",
                                        "Sampling.bias",
                                        "Sampling.banned",
                                        "Sampled.token",
                                        "Sampled.logprob",
                                        "Sampled.top_ids",
                                        "Sampled.top_logprobs",
                                        "Sampled.failed",
                                        "StageTime.queue_us",
                                        "StageTime.compute_us",
                                        "StepError.code",
                                        "StepError.message"});
}

}  // namespace
}  // namespace neurogrid
