// The cluster's decisions as pure functions of events and time.
#include "coordinator/cluster_state.h"

#include <catch2/catch_test_macros.hpp>

#include "absl/strings/match.h"

namespace neurogrid {
namespace {

using std::chrono::milliseconds;

/// Time stands still unless moved.
class World {
 public:
  template <typename E>
  const std::vector<ClusterAction>& operator()(const E& event) {
    actions = state.Apply(event, now);
    return actions;
  }
  void Member(ConnectionId connection, const std::string& node, uint64_t boot_id = 1) {
    (*this)(event::Joined{connection, node});
    (*this)(event::Reported{connection, boot_id, {}});
  }
  /// Silence of everybody, the clock ticking every 50 ms as the real one does.
  void Pass(milliseconds time) {
    actions.clear();
    for (milliseconds passed{0}; passed < time; passed += milliseconds(50)) {
      now += milliseconds(50);
      for (ClusterAction& action : state.Apply(event::Tick{}, now)) {
        actions.push_back(std::move(action));
      }
    }
  }
  void Order(uint64_t epoch, const std::vector<std::string>& nodes) {
    event::PlanOrdered order{epoch, "digest", {}};
    for (size_t i = 0; i < nodes.size(); ++i) {
      order.stages.emplace_back(nodes[i], LayerRange{static_cast<int>(i), static_cast<int>(i) + 1});
    }
    (*this)(order);
  }
  void BringUp(uint64_t epoch) {
    Order(epoch, {"a", "b"});
    (*this)(event::StageReady{1, epoch, "digest", {}});
    (*this)(event::StageReady{2, epoch, "digest", {}});
    (*this)(event::StageActive{1, epoch});
    (*this)(event::StageActive{kPipelineConnection, epoch});
    (*this)(event::StageActive{2, epoch});
  }
  NodeState StateOf(const std::string& id) const {
    for (const Node& node : state.Members()) {
      if (node.id == id) return node.state;
    }
    return NodeState::kConnecting;
  }
  template <typename A>
  const A* Find() const {
    for (const ClusterAction& action : actions) {
      if (const A* found = std::get_if<A>(&action)) return found;
    }
    return nullptr;
  }
  template <typename A>
  size_t Count() const {
    size_t count = 0;
    for (const ClusterAction& action : actions) count += std::holds_alternative<A>(action);
    return count;
  }

  ClusterState state{ClusterTimes{}};
  ClusterTime now = ClusterTime(std::chrono::hours(1));
  std::vector<ClusterAction> actions;
};

TEST_CASE("a node is a member once it has reported, and not before", "[cluster_state][R48]") {
  World world;
  world(event::Joined{1, "a"});
  CHECK(world.state.Members().empty());
  world(event::Reported{1, 7, {}});
  CHECK(world.Find<action::NodesChanged>() != nullptr);
  REQUIRE(world.state.Members().size() == 1);
  CHECK(world.state.Members()[0].boot_id == 7);
  CHECK(world.StateOf("a") == NodeState::kStandby);
  world(event::Left{1, "gone"});
  CHECK(world.state.Members().empty());
}

TEST_CASE("a node that never reports is cut off", "[cluster_state]") {
  World world;
  world(event::Joined{1, "a"});
  world.Pass(milliseconds(20'050));
  REQUIRE(world.Find<action::Close>() != nullptr);
  CHECK(world.Find<action::Close>()->connection == 1);
}

TEST_CASE("a node that joins again takes the place of its older connection", "[cluster_state]") {
  World world;
  world.Member(1, "a", 7);
  world.Member(2, "b");
  world.BringUp(1);
  world(event::Joined{3, "a"});
  CHECK(world.Find<action::TellEnded>() == nullptr);
  world(event::Reported{3, 8, {}});
  REQUIRE(world.Find<action::Close>() != nullptr);
  CHECK(world.Find<action::Close>()->connection == 1);
  CHECK(world.Find<action::Close>()->for_good);
  REQUIRE(world.Find<action::TellEnded>() != nullptr);
  CHECK(world.Find<action::TellEnded>()->node == "a");
  CHECK(world.state.Members().size() == 2);
  world(event::Left{1, "late news of the old connection"});
  CHECK(world.state.Members().size() == 2);
}

TEST_CASE("silence makes a node suspect, then lost; a heartbeat brings it back before that",
          "[cluster_state]") {
  World world;
  world.Member(1, "a");
  world.Pass(milliseconds(800));
  CHECK(world.StateOf("a") == NodeState::kSuspect);
  world(event::Heartbeat{1, 5, 0, 0});
  CHECK(world.StateOf("a") == NodeState::kStandby);
  REQUIRE(world.Find<action::SendAck>() != nullptr);
  CHECK(world.Find<action::SendAck>()->sequence == 5);
  world.Pass(milliseconds(2'000));
  CHECK(world.state.Members().size() == 1);
  world.Pass(milliseconds(50));
  CHECK(world.state.Members().empty());
  CHECK(absl::StrContains(world.Find<action::Close>()->reason, "no heartbeat"));
}

TEST_CASE("leases do not run while the coordinator itself was held up", "[cluster_state]") {
  World world;
  world.Member(1, "a");
  world.Pass(milliseconds(100));
  world.now += std::chrono::seconds(10);
  world(event::Tick{});
  CHECK(world.state.Members().size() == 1);
  world.Pass(milliseconds(2'050));
  CHECK(world.state.Members().empty());
}

TEST_CASE("a plan is active once every stage and the pipeline answer", "[cluster_state]") {
  World world;
  world.Member(1, "a");
  world.Member(2, "b");
  world.Order(5, {"a", "b"});
  CHECK(world.Count<action::SendAssign>() == 2);
  world(event::Progressed{2, 5, 10, 100});
  REQUIRE(world.Find<action::TellProgress>() != nullptr);
  CHECK(world.Find<action::TellProgress>()->node == "b");
  world(event::StageReady{2, 5, "digest", {}});
  CHECK(world.Count<action::SendActivate>() == 0);
  world(event::StageReady{1, 5, "digest", {}});
  CHECK(world.Count<action::SendActivate>() == 2);
  // The last stage dials the pipeline the moment it is activated.
  CHECK(std::holds_alternative<action::OpenPipeline>(world.actions[1]));
  world(event::StageActive{1, 5});
  world(event::StageActive{2, 5});
  CHECK(world.Find<action::TellActive>() == nullptr);
  world(event::StageActive{kPipelineConnection, 5});
  REQUIRE(world.Find<action::TellActive>() != nullptr);
  CHECK(world.Find<action::TellActive>()->epoch == 5);
  CHECK(world.StateOf("a") == NodeState::kServing);
}

TEST_CASE("a lost stage ends its plan and frees the others", "[cluster_state]") {
  World world;
  world.Member(1, "a");
  world.Member(2, "b");
  world.BringUp(5);
  world(event::Left{2, "the connection ended"});
  const auto* ended = world.Find<action::TellEnded>();
  REQUIRE(ended != nullptr);
  CHECK(ended->node == "b");
  CHECK(ended->was_active);
  CHECK(world.Find<action::ClosePipeline>()->epoch == 5);
  REQUIRE(world.Count<action::SendRelease>() == 1);
  CHECK(world.Find<action::SendRelease>()->connection == 1);
  CHECK(world.StateOf("a") == NodeState::kStandby);
  CHECK_FALSE(world.state.plan().has_value());
}

TEST_CASE("whatever speaks of an epoch that is over changes nothing", "[cluster_state]") {
  World world;
  world.Member(1, "a");
  world.Member(2, "b");
  world.BringUp(5);
  world.BringUp(6);
  const uint64_t before = world.state.ignored();
  CHECK(world(event::StageFailed{1, 5, "late"}).empty());
  CHECK(world(event::StageFailed{kPipelineConnection, 5, "late"}).empty());
  CHECK(world(event::StageReady{1, 5, "digest", {}}).empty());
  CHECK(world(event::StageActive{1, 5}).empty());
  CHECK(world(event::Progressed{1, 5, 1, 2}).empty());
  CHECK(world(event::StageActive{kPipelineConnection, 5}).empty());
  CHECK(world(event::StageReady{9, 6, "digest", {}}).empty());
  CHECK(world.state.ignored() == before + 7);
  CHECK(world.state.plan()->state == PlanState::kActive);
}

TEST_CASE("a plan ends, with the node to blame, when it cannot come up", "[cluster_state]") {
  World world;
  world.Member(1, "a");
  world.Member(2, "b");
  std::string reason, node = "b";
  CHECK(world.Find<action::TellEnded>() == nullptr);
  SECTION("since a node is not there") {
    world.Order(5, {"a", "c"});
    node = "c", reason = "not connected";
    CHECK_FALSE(world.state.plan().has_value());
  }
  SECTION("since a stage cannot load") {
    world.Order(5, {"a", "b"});
    world(event::StageFailed{2, 5, "model is not here"});
    reason = "model is not here";
    CHECK_FALSE(world.state.plan().has_value());
  }
  SECTION("since a stage loaded something else") {
    world.Order(5, {"a", "b"});
    world(event::StageReady{2, 5, "another digest", {}});
    reason = "another plan";
    CHECK_FALSE(world.state.plan().has_value());
  }
  SECTION("since loading stands still while heartbeats go on") {
    world.Order(5, {"a", "b"});
    world(event::StageReady{1, 5, "digest", {}});
    for (int i = 0; i < 121 && world.Find<action::TellEnded>() == nullptr; ++i) {
      world(event::Heartbeat{1, 1, 0, 0});
      world(event::Heartbeat{2, 1, 0, 0});
      world.Pass(milliseconds(500));
    }
    reason = "no progress";
    CHECK_FALSE(world.state.plan().has_value());
  }
  SECTION("since a stage never answers its activation") {
    world.Order(5, {"a", "b"});
    world(event::StageReady{1, 5, "digest", {}});
    world(event::StageReady{2, 5, "digest", {}});
    world(event::StageActive{1, 5});
    for (int i = 0; i < 31 && world.Find<action::TellEnded>() == nullptr; ++i) {
      world(event::Heartbeat{1, 1, 0, 0});
      world(event::Heartbeat{2, 1, 0, 0});
      world.Pass(milliseconds(500));
    }
    reason = "activation took too long";
    CHECK_FALSE(world.state.plan().has_value());
  }
  const auto* ended = world.Find<action::TellEnded>();
  REQUIRE(ended != nullptr);
  CHECK(ended->node == node);
  CHECK_FALSE(ended->was_active);
  CHECK(absl::StrContains(ended->reason, reason));
}

TEST_CASE("a new plan ends the one in force", "[cluster_state]") {
  World world;
  world.Member(1, "a");
  world.Member(2, "b");
  world.BringUp(5);
  world.Order(6, {"b"});
  REQUIRE(world.Find<action::TellEnded>() != nullptr);
  CHECK(world.Find<action::TellEnded>()->epoch == 5);
  CHECK(world.Count<action::SendRelease>() == 2);
  CHECK(world.Count<action::SendAssign>() == 1);
  CHECK(world.StateOf("a") == NodeState::kStandby);
  CHECK(world.StateOf("b") == NodeState::kLoading);
}

TEST_CASE("a stage that holds more than its plan counted is put in words", "[cluster_state]") {
  PlannedStage planned;
  planned.fixed_bytes = 1000;
  planned.page_bytes = 64;
  StageReadyFacts real = {.weight_bytes = 700,
                          .workspace_bytes = 200,
                          .page_bytes = 64,
                          .window_page_bytes = 0,
                          .state_bytes = 25,
                          .load_ms = 1,
                          .determinism_class = ""};
  CHECK(BeyondPlan(planned, real, /*slots=*/4).empty());
  CHECK(BeyondPlan(planned, real, /*slots=*/5) ==
        "weights, workspace and states are 1025 bytes, planned were 1000");
  real.page_bytes = 65;
  CHECK(absl::StrContains(BeyondPlan(planned, real, 4), "a page is 65 bytes"));
}

}  // namespace
}  // namespace neurogrid
