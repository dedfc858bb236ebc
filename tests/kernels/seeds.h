// Every kernel test runs under several thread orders of the emulator, and under the one order of a
// GPU.
#pragma once

#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <vector>

#include "tests/kernels/device.h"
#if defined(NG_SIMT)
#include "tests/simt/emulator/control.h"
#include "tests/support/sanitized.h"
#endif

namespace neurogrid::kernels {

/// First in a test case: generates the seeds; at its end nothing may have failed.
class Seeded {
 public:
#if defined(NG_SIMT)
  Seeded()
      : seed_(GENERATE(from_range(kAddressSanitizer ? std::vector<unsigned>{1}
                                                    : std::vector<unsigned>{0, 1, 2}))) {
    simt::TakeFailure();  // of an earlier test
    simt::SetSeed(seed_);
    UNSCOPED_INFO("seed " << seed_);
  }
  ~Seeded() {
    cudaDeviceSynchronize();
    simt::SetSeed(0);
    CHECK(simt::TakeFailure().empty());
  }
#else
  Seeded() : seed_(0) {}
  ~Seeded() { CHECK(cudaDeviceSynchronize() == cudaSuccess); }
#endif
  Seeded(const Seeded&) = delete;
  Seeded& operator=(const Seeded&) = delete;
  unsigned seed() const { return seed_; }

 private:
  unsigned seed_;
};

}  // namespace neurogrid::kernels
