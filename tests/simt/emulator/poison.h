// AddressSanitizer's view of guard zones and of the stacks of fibers; without it, nothing. Also for
// files that are not instrumented themselves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(NG_SIMT_ASAN)
#include <pthread.h>
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt {

inline void Poison([[maybe_unused]] const void* p, [[maybe_unused]] size_t bytes) {
#if defined(NG_SIMT_ASAN)
  __asan_poison_memory_region(p, bytes);
#endif
}
inline void Unpoison([[maybe_unused]] const void* p, [[maybe_unused]] size_t bytes) {
#if defined(NG_SIMT_ASAN)
  __asan_unpoison_memory_region(p, bytes);
#endif
}

/// What guard zones hold: as f32 and bf16 a NaN that any arithmetic changes, so that a value
/// computed from a guard zone and written back to it shows.
class GuardZone {
 public:
  static void Fill(unsigned char* p, size_t bytes) { std::memcpy(p, Intact(p), bytes); }
  static bool IsIntact(const unsigned char* p, size_t bytes) {
    return std::memcmp(p, Intact(p), bytes) == 0;
  }

 private:
  static constexpr size_t kBytesMax = 4096;
  /// 0xA0 at even addresses, 0x7F at odd ones.
  static const unsigned char* Intact(const unsigned char* p) {
    static const auto bytes = [] {
      struct {
        unsigned char at[kBytesMax + 1];
      } pattern;
      for (size_t i = 0; i <= kBytesMax; ++i) pattern.at[i] = i % 2 == 0 ? 0xA0 : 0x7F;
      return pattern;
    }();
    return bytes.at + reinterpret_cast<uintptr_t>(p) % 2;
  }
};

/// Readable for as long as this lives.
class Unpoisoned {
 public:
  Unpoisoned(const void* p, size_t bytes) : p_(p), bytes_(bytes) { Unpoison(p_, bytes_); }
  ~Unpoisoned() { Poison(p_, bytes_); }
  Unpoisoned(const Unpoisoned&) = delete;
  Unpoisoned& operator=(const Unpoisoned&) = delete;

 private:
  const void* p_;
  size_t bytes_;
};

struct StackRange {
  const void* bottom = nullptr;
  size_t bytes = 0;
};

/// The stack of this thread of the process.
inline StackRange CurrentStack() {
  static thread_local StackRange range;  // to ask costs more than many a kernel
#if defined(NG_SIMT_ASAN)
  if (range.bottom != nullptr) return range;
  pthread_attr_t attributes;
  void* bottom = nullptr;
  if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
    pthread_attr_getstack(&attributes, &bottom, &range.bytes);
    pthread_attr_destroy(&attributes);
    range.bottom = bottom;
  }
#endif
  return range;
}

/// Lives on the old stack around a switch to another: exceptions need to know where they are.
class StackSwitch {
 public:
  explicit StackSwitch([[maybe_unused]] const StackRange& to) {
#if defined(NG_SIMT_ASAN)
    __sanitizer_start_switch_fiber(&fake_stack_, to.bottom, to.bytes);
#endif
  }
  ~StackSwitch() {
#if defined(NG_SIMT_ASAN)
    __sanitizer_finish_switch_fiber(fake_stack_, nullptr, nullptr);
#endif
  }
  StackSwitch(const StackSwitch&) = delete;
  StackSwitch& operator=(const StackSwitch&) = delete;

  /// First on a new stack.
  static void Arrived() {
#if defined(NG_SIMT_ASAN)
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
  }
  /// Last on a stack that nobody comes back to.
  static void LeaveForGood([[maybe_unused]] const StackRange& to) {
#if defined(NG_SIMT_ASAN)
    __sanitizer_start_switch_fiber(nullptr, to.bottom, to.bytes);
#endif
  }

 private:
  [[maybe_unused]] void* fake_stack_ = nullptr;
};

}  // namespace simt
