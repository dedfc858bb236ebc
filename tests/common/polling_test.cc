#include "common/polling.h"

#include <catch2/catch_test_macros.hpp>
#include <thread>

namespace neurogrid {
namespace {

/// Whether a wait asks before it sleeps.
bool Asks(Polling& polling) {
  bool asked = false;
  polling.Wait([&] { return asked = true; }, [] {});
  return asked;
}

TEST_CASE("who may not poll sleeps, however short the waits", "[polling]") {
  Polling polling(false);
  for (int i = 0; i < 100; ++i) CHECK_FALSE(Asks(polling));
}

TEST_CASE("who may poll does so after a short wait, and sleeps after a long one", "[polling]") {
  Polling polling(true);
  CHECK_FALSE(Asks(polling));  // nothing is known yet
  // Sleeping did not take long, unless this thread was kept from running: then the next one tells.
  bool asked = false;
  for (int i = 0; i < 1000 && !asked; ++i) asked = Asks(polling);
  CHECK(asked);
  int sleeps = 0;
  polling.Wait([] { return false; },  // in vain, until it gives up
               [&] {
                 ++sleeps;
                 std::this_thread::sleep_for(2 * Polling::kLongest);
               });
  CHECK(sleeps == 1);
  CHECK_FALSE(Asks(polling));
  polling.Allow(false);
  for (int i = 0; i < 100; ++i) CHECK_FALSE(Asks(polling));
}

}  // namespace
}  // namespace neurogrid
