#include "coordinator/api_ids.h"

#include <sys/random.h>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/rng.h"

namespace neurogrid {

uint64_t RandomBits() {
  uint64_t bits = 0;
  NG_CHECK(getrandom(&bits, sizeof bits, 0) == sizeof bits);
  return bits;
}

std::string NewId(absl::string_view prefix) {
  static constexpr absl::string_view kAlphabet =
      "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  std::string id(prefix);
  uint64_t state = RandomBits();
  for (int i = 0; i < 24; ++i) {
    state = SplitMix64(state);
    id += kAlphabet[(state >> 32) % kAlphabet.size()];
  }
  return id;
}

}  // namespace neurogrid
