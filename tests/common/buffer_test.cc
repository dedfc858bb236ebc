// Buffers of an arena lie side by side and belong to nobody but their owners.
#include "common/buffer.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>

namespace neurogrid {
namespace {

constexpr size_t kPage = 4096;

bool IsZero(const Buffer& buffer) {
  const auto* const data = buffer.as<uint8_t>();
  return std::all_of(data, data + buffer.bytes(), [](uint8_t byte) { return byte == 0; });
}

TEST_CASE("buffers of an arena lie side by side, each from a page's start", "[buffer]") {
  BufferArena arena;
  const Buffer first = arena.Allocate(3 * kPage + 1).value();
  const Buffer second = arena.Allocate(1).value();
  const Buffer third = arena.Allocate(kPage).value();
  CHECK(first.bytes() == 3 * kPage + 1);
  CHECK(reinterpret_cast<uintptr_t>(first.data()) % kPage == 0);
  CHECK(second.as<uint8_t>() == first.as<uint8_t>() + 4 * kPage);
  CHECK(third.as<uint8_t>() == second.as<uint8_t>() + kPage);
  CHECK((IsZero(first) && IsZero(second) && IsZero(third)));
}

TEST_CASE("a buffer that goes takes nothing of its neighbours, nor does the arena", "[buffer]") {
  std::optional<BufferArena> arena(std::in_place);
  std::optional<Buffer> left = arena->Allocate(kPage - 1).value();
  std::optional<Buffer> middle = arena->Allocate(kPage + 1).value();
  const Buffer right = arena->Allocate(kPage).value();
  for (Buffer* buffer : {&*left, &*middle, const_cast<Buffer*>(&right)}) {
    std::fill_n(buffer->as<uint8_t>(), buffer->bytes(), uint8_t{7});
  }
  middle.reset();
  CHECK(left->as<uint8_t>()[kPage - 2] == 7);
  CHECK(right.as<uint8_t>()[0] == 7);
  left.reset();
  arena.reset();
  CHECK(right.as<uint8_t>()[kPage - 1] == 7);
}

TEST_CASE("an arena gives what is larger than it reserves, and says when there is none",
          "[buffer]") {
  BufferArena arena;
  const Buffer small = arena.Allocate(1).value();
  const Buffer large = arena.Allocate(size_t{257} << 20).value();
  large.as<uint8_t>()[large.bytes() - 1] = 1;
  CHECK(small.as<uint8_t>()[0] == 0);
  CHECK(arena.Allocate(0).value().data() == nullptr);
  for (const size_t bytes : {size_t{1} << 60, std::numeric_limits<size_t>::max()}) {
    CHECK(absl::IsResourceExhausted(arena.Allocate(bytes).status()));
  }
  CHECK(arena.Allocate(1).ok());
}

TEST_CASE("an arena gives what it was to keep first, until that is too little", "[buffer]") {
  BufferArena arena;
  const Buffer before = arena.Allocate(kPage).value();
  Buffer zeros = Buffer::Allocate(4 * kPage).value();
  const auto* const place = zeros.as<uint8_t>();
  arena.Keep(std::move(zeros));
  CHECK(arena.kept_bytes() == 4 * kPage);
  const Buffer first = arena.Allocate(kPage + 1).value();
  CHECK(first.as<uint8_t>() == place);
  CHECK(arena.kept_bytes() == 2 * kPage);
  const Buffer large = arena.Allocate(3 * kPage).value();
  CHECK(arena.kept_bytes() == 0);
  for (const Buffer* buffer : {&before, &first, &large}) {
    std::fill_n(buffer->as<uint8_t>(), buffer->bytes(), uint8_t{7});
  }
  CHECK(first.as<uint8_t>()[kPage] == 7);
  CHECK(IsZero(arena.Allocate(kPage).value()));
}

TEST_CASE("an arena keeps whole pages alone", "[buffer]") {
  BufferArena arena;
  arena.Keep(Buffer::Allocate(kPage + 1).value());
  CHECK(arena.kept_bytes() == 0);
  arena.Keep(Buffer());
  CHECK(arena.kept_bytes() == 0);
  CHECK(arena.Allocate(kPage).ok());
}

}  // namespace
}  // namespace neurogrid
