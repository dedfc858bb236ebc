// What passes the gate in front of a stage, and the words with which the rest is refused.
#include "worker/step_gate.h"

#include <catch2/catch_test_macros.hpp>

#include "absl/strings/match.h"

namespace neurogrid {
namespace {

StepGate::Expectation Second() {
  return {.epoch = 5,
          .node_id = "first",
          .boot_id = 77,
          .first = false,
          .hidden_size = 8,
          .activation_dtype = DType::kBF16,
          .limits = {.rows_max = 4,
                     .sequences_max = 2,
                     .samples_max = 2,
                     .pages = 8,
                     .slots = 2,
                     .positions_max = 64,
                     .vocab_size = 100}};
}

EdgeSender Sender() {
  return {.node_id = "first", .role = Role::kWorker, .epoch = 5, .boot_id = 77};
}

Step StepNumber(uint64_t number) {
  Step step;
  step.epoch = 5;
  step.number = number;
  step.batch.tokens = {1, 2};
  step.batch.positions = {0, 1};
  step.batch.sequence_offsets = {0, 2};
  step.batch.pages = {3};
  step.batch.page_offsets = {0, 1};
  step.batch.state_slots = {0};
  step.batch.state_sources = {-1};
  step.batch.sampled_rows = {1};
  step.batch.sampling.resize(1);
  step.batch.sampling[0].position = 2;
  step.activations = std::string(2 * 8 * 2, '\0');
  return step;
}

struct Gate {
  std::vector<Step> taken;
  bool room = true;
  StepGate gate{[this](Step step) {
    if (room) taken.push_back(std::move(step));
    return room;
  }};
  Gate() {
    gate.Expect(Second());
    gate.Activate(5);
  }
  /// The refusal must carry these words.
  void Refuses(const EdgeSender& sender, const Step& step, absl::string_view words) {
    const absl::Status status = gate.TakeStep(sender, step);
    INFO(status.ToString());
    CHECK_FALSE(status.ok());
    CHECK(absl::StrContains(status.message(), words));
    CHECK(taken.empty());
  }
};

TEST_CASE("steps of the awaited sender pass in order", "[step_gate]") {
  Gate g;
  REQUIRE(g.gate.TakeStep(Sender(), StepNumber(1)).ok());
  REQUIRE(g.gate.TakeStep(Sender(), StepNumber(2)).ok());
  REQUIRE(g.taken.size() == 2);
  CHECK(g.taken[0].status.ok());
  CHECK(g.gate.TakeStep(Sender(), StepNumber(2)).ok());  // a repeat
  CHECK(g.taken.size() == 2);
  CHECK(g.gate.stale() == 1);
  const absl::Status gap = g.gate.TakeStep(Sender(), StepNumber(4));
  CHECK(absl::StrContains(gap.message(), "3 is wanted next"));
}

TEST_CASE("a step before activation is refused, naming epoch and step", "[step_gate][R11]") {
  Gate g;
  g.gate.Expect(Second());
  CHECK(g.gate.CheckSender(Sender()).ok());
  g.Refuses(Sender(), StepNumber(1), "step 1 of epoch 5 came before this stage was activated");
}

TEST_CASE("a step without an assignment is refused", "[step_gate][R11]") {
  std::vector<Step> taken;
  StepGate gate([&](Step) { return true; });
  CHECK(absl::IsFailedPrecondition(gate.TakeStep(Sender(), StepNumber(1))));
  CHECK(absl::IsFailedPrecondition(gate.CheckSender(Sender())));
}

TEST_CASE("older epochs are dropped and counted, newer ones refused", "[step_gate]") {
  Gate g;
  EdgeSender sender = Sender();
  sender.epoch = 4;
  CHECK(g.gate.TakeStep(sender, StepNumber(1)).ok());
  CHECK(g.taken.empty());
  CHECK(g.gate.stale() == 1);
  sender.epoch = 6;
  g.Refuses(sender, StepNumber(1), "epoch 6 is not the one assigned here (5)");
  g.gate.Close();
  g.Refuses(Sender(), StepNumber(1), "assigned here (none)");
}

TEST_CASE("only the neighbour of the plan is heard", "[step_gate][R14]") {
  Gate g;
  EdgeSender sender = Sender();
  sender.node_id = "third";
  g.Refuses(sender, StepNumber(1), "third is not before this stage");
  sender = Sender();
  sender.boot_id = 78;
  g.Refuses(sender, StepNumber(1), "first has restarted");
  sender = Sender();
  sender.role = Role::kCoordinator;
  g.Refuses(sender, StepNumber(1), "is not before this stage");
}

TEST_CASE("a payload of another size than the model's is refused with both sizes", "[step_gate]") {
  Gate g;
  Step step = StepNumber(1);
  step.activations.pop_back();
  g.Refuses(Sender(), step, "31 bytes, expected 32 for 2 rows of 8");
  step.activations = "";
  g.Refuses(Sender(), step, "0 bytes, expected 32");
  StepGate::Expectation first = Second();
  first.first = true;
  g.gate.Expect(first);
  g.gate.Activate(5);
  EdgeSender coordinator = Sender();
  coordinator.role = Role::kCoordinator;
  g.Refuses(coordinator, StepNumber(1), "32 bytes, expected 0");
}

TEST_CASE("a batch out of bounds fails its own step and no other", "[step_gate][R2]") {
  Gate g;
  Step step = StepNumber(1);
  step.batch.pages[0] = 8;
  REQUIRE(g.gate.TakeStep(Sender(), step).ok());
  REQUIRE(g.taken.size() == 1);
  CHECK(absl::IsInvalidArgument(g.taken[0].status));
  CHECK(absl::StrContains(g.taken[0].status.message(), "pages"));
  REQUIRE(g.gate.TakeStep(Sender(), StepNumber(2)).ok());
  CHECK(g.taken[1].status.ok());
}

TEST_CASE("tokens that claim to be sampled already are refused", "[step_gate]") {
  Gate g;
  Step step = StepNumber(1);
  step.sampled.resize(1);
  g.Refuses(Sender(), step, "sampled");
}

TEST_CASE("a full queue is an error, not a wait", "[step_gate]") {
  Gate g;
  g.room = false;
  g.Refuses(Sender(), StepNumber(1), "steps wait for this stage");
}

}  // namespace
}  // namespace neurogrid
