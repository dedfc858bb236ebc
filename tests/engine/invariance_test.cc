// The same bits whatever surrounds a sequence: chunking, batch mates, page order, threads, stages.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <optional>
#include <random>

#include "tests/engine/golden_support.h"

namespace neurogrid {
namespace {

std::vector<int32_t> RandomIds(std::mt19937& random, int count, int vocab) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int32_t& id : ids) id = std::uniform_int_distribution<int32_t>(0, vocab - 1)(random);
  return ids;
}

/// First layers of later stages, for two, three and as many stages as there are layers.
std::vector<std::vector<int>> WaysToCut(const Checkpoint& checkpoint) {
  const int layers = checkpoint.config().layers_count();
  std::vector<std::vector<int>> ways = {{1}, {layers - 1}, EveryLayer(checkpoint)};
  if (layers > 2) ways.push_back({1, layers - 1});
  return ways;
}

/// A sequence that is fed to a chain in random pieces.
struct Feed {
  std::vector<int32_t> ids;
  std::vector<int32_t> pages;
  size_t done = 0;
  int slot = -1;
  std::vector<float> logits;
};

/// Runs all feeds to their end in random chunks and company, in pages of random order, their
/// recurrent state in the same slot or from one slot to another.
void RunTogether(Chain& chain, std::vector<Feed>& feeds, std::mt19937& random) {
  std::vector<int32_t> pages(static_cast<size_t>(TestLimits(chain.vocab()).pages));
  for (size_t i = 0; i < pages.size(); ++i) pages[i] = static_cast<int32_t>(i);
  std::shuffle(pages.begin(), pages.end(), random);
  while (true) {
    std::vector<SequencePart> slices;
    std::vector<Feed*> fed;
    for (size_t i = 0; i < feeds.size(); ++i) {
      Feed& feed = feeds[i];
      const size_t left = feed.ids.size() - feed.done;
      if (left == 0 || random() % 3 == 0) continue;
      const size_t count = 1 + random() % std::min<size_t>(left, 20);
      const size_t end = feed.done + count;
      while (feed.pages.size() * kPageTokens < end) {
        feed.pages.push_back(pages.back());
        pages.pop_back();
      }
      const auto begin = feed.ids.begin() + static_cast<std::ptrdiff_t>(feed.done);
      slices.push_back({.ids = {begin, begin + static_cast<std::ptrdiff_t>(count)},
                        .first = static_cast<int>(feed.done),
                        .pages = feed.pages,
                        .source = feed.slot,
                        .slot = static_cast<int>(2 * i + random() % 2)});
      feed.slot = slices.back().slot;
      feed.done = end;
      fed.push_back(&feed);
    }
    if (slices.empty()) {
      bool finished = true;
      for (const Feed& feed : feeds) finished &= feed.done == feed.ids.size();
      if (finished) return;
      continue;
    }
    const std::vector<float> logits = chain.Logits(BatchOf(slices));
    auto row = logits.begin();
    for (size_t i = 0; i < fed.size(); ++i) {
      const auto end = row + static_cast<std::ptrdiff_t>(slices[i].ids.size()) * chain.vocab();
      fed[i]->logits.insert(fed[i]->logits.end(), row, end);
      row = end;
    }
  }
}

/// What fits the depth: a test of every model is short, of few also long or in other precisions.
struct Sweep {
  int tokens = 90;
  std::vector<int> chunks = {1, 3, 16, 40};
  size_t mates = 5;
  int rounds = 2;
};

/// Nothing for what is left out.
std::optional<Sweep> SweepOf(Depth depth, const std::string& model, Precision precision) {
  // Past 256 positions attention merges two splits: a plain and a windowed model go there.
  const bool far = model == "llama" || model == "gemma2";
  if (depth == Depth::kEverything) return far ? Sweep{.tokens = 300} : Sweep{};
  if (kAddressSanitizer && !far && model != "lfm2") return std::nullopt;
  if (precision == Precision::kBf16) {
    if (model == "gemma2") return Sweep{.tokens = 270, .chunks = {100}, .mates = 1, .rounds = 1};
    const bool windowed = model == "mistral-window" || model == "gemma3";
    const int tokens = windowed ? 35 : 20;
    return Sweep{.tokens = tokens, .chunks = {1, 3, 16}, .mates = 2, .rounds = 1};
  }
  if (model != "llama" && model != "lfm2") return std::nullopt;
  return Sweep{.tokens = 35, .chunks = {3, 16}, .mates = 2, .rounds = 1};
}

/// A model, and the logits of a sequence that it computed alone and in one piece.
struct World {
  std::unique_ptr<Checkpoint> checkpoint;
  Precision precision;
  Depth depth;
  Sweep sweep;
  std::unique_ptr<Device> device;
  Chain chain;
  std::mt19937 random{1};
  std::vector<int32_t> ids;
  std::vector<float> alone;

  World(const std::string& model, Precision held, Depth how_far, const Sweep& of)
      : checkpoint(OpenGolden("tiny/" + model)),
        precision(held),
        depth(how_far),
        sweep(of),
        device(TestDevice()),
        chain(*checkpoint, device->ops(), precision),
        ids(RandomIds(random, sweep.tokens, chain.vocab())),
        alone(LogitsOf(chain, ids)) {}
};

void InChunksOfAnySize(World& world) {
  for (const int chunk : world.sweep.chunks) {
    CAPTURE(chunk);
    CHECK(SameBits(LogitsOf(world.chain, world.ids, chunk), world.alone));
  }
}

void OnAnyNumberOfStages(World& world) {
  for (const std::vector<int>& cuts : WaysToCut(*world.checkpoint)) {
    if (world.depth == Depth::kSamples && cuts.size() > 2) continue;
    CAPTURE(cuts);
    Chain stages(*world.checkpoint, world.device->ops(), world.precision, cuts);
    const int chunk = world.depth == Depth::kEverything ? 7 : 100;
    CHECK(SameBits(LogitsOf(stages, world.ids, chunk), world.alone));
  }
}

/// In random chunks and pages, on one stage and on several.
void AmongRandomMates(World& world) {
  Chain stages(*world.checkpoint, world.device->ops(), world.precision,
               WaysToCut(*world.checkpoint).back());
  for (int round = 0; round < world.sweep.rounds; ++round) {
    CAPTURE(round);
    std::vector<Feed> feeds(1 + world.sweep.mates);
    feeds[0].ids = world.ids;
    for (size_t i = 1; i < feeds.size(); ++i) {
      const int longest = world.depth == Depth::kEverything ? 100 : 40;
      const auto count = static_cast<int>(1 + world.random() % static_cast<unsigned>(longest));
      feeds[i].ids = RandomIds(world.random, count, world.chain.vocab());
    }
    RunTogether(round % 2 == 0 ? world.chain : stages, feeds, world.random);
    CHECK(SameBits(feeds[0].logits, world.alone));
  }
}

/// With any kernels, number of threads and order of turns.
void OnAnyDevice(World& world) {
  for (const DeviceVariant& variant : DeviceVariants()) {
    CAPTURE(variant.name);
    const std::unique_ptr<Device> other = variant.make();
    Chain same(*world.checkpoint, other->ops(), world.precision);
    CHECK(SameBits(LogitsOf(same, world.ids), world.alone));
  }
}

void BehindPagesAndStateOfAnotherSequence(World& world) {
  const std::vector<int32_t>& ids = world.ids;
  const auto known = static_cast<std::ptrdiff_t>(world.sweep.tokens > 64 ? 64 : 16);
  SequencePart first{.ids = {ids.begin(), ids.begin() + known}, .pages = {7, 3, 5, 1}, .slot = 9};
  first.pages.resize(static_cast<size_t>(known) / kPageTokens);
  world.chain.Logits(BatchOf({first}));
  SequencePart reader{.ids = {ids.begin() + known, ids.end()},
                      .first = static_cast<int>(known),
                      .pages = first.pages,
                      .source = 9,
                      .slot = 2};
  for (int32_t page = 20; reader.pages.size() * kPageTokens < ids.size(); ++page) {
    reader.pages.push_back(page);
  }
  const std::vector<float> rest = world.chain.Logits(BatchOf({reader}));
  CHECK(SameBits(rest, {world.alone.begin() + known * world.chain.vocab(), world.alone.end()}));
}

void HaveTheSameBits(Depth depth) {
  const std::string model = GENERATE(from_range(TinyModels()));
  const Precision precision = GENERATE(from_range(WeightPrecisions()));
  const std::optional<Sweep> sweep = SweepOf(depth, model, precision);
  if (!sweep) return;
  CAPTURE(model, NameOf(precision));
  World world(model, precision, depth, *sweep);
  InChunksOfAnySize(world);
  OnAnyNumberOfStages(world);
  AmongRandomMates(world);
  BehindPagesAndStateOfAnotherSequence(world);
  OnAnyDevice(world);
}

}  // namespace

TEST_CASE("logits of a sequence have the same bits", "[invariance]") {
  HaveTheSameBits(UsualDepth());
}

TEST_CASE("logits of every model have the same bits on the emulator too", "[.][long][invariance]") {
  if (ThisColumn() != Column::kCudaEmulated) return;  // where that is the usual
  HaveTheSameBits(Depth::kEverything);
}

TEST_CASE("what a page or a slot held before does not matter", "[invariance]") {
  const std::string model = GENERATE("llama", "lfm2", "gemma2");
  const Precision precision = GENERATE(from_range(WeightPrecisions()));
  if (UsualDepth() == Depth::kSamples && precision != Precision::kBf16) return;
  CAPTURE(model, NameOf(precision));
  const std::unique_ptr<Checkpoint> checkpoint = OpenGolden("tiny/" + model);
  const std::unique_ptr<Device> device = TestDevice();
  std::mt19937 random(2);
  Chain clean(*checkpoint, device->ops(), precision);
  const std::vector<int32_t> ids = RandomIds(random, 37, clean.vocab());
  const std::vector<float> alone = LogitsOf(clean, ids);
  Chain used(*checkpoint, device->ops(), precision);
  // More than one chunk of prefill, and more than the later ids take.
  LogitsOf(used, RandomIds(random, UsualDepth() == Depth::kEverything ? 256 : 70, used.vocab()));
  CHECK(SameBits(LogitsOf(used, ids), alone));
}

}  // namespace neurogrid
