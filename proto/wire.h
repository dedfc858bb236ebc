// A step as it travels, apart from how it travels; and the numbers both ends of a wire must share.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "common/status.h"
#include "engine/batch.h"
#include "proto/cluster.pb.h"
#include "proto/stage.pb.h"

namespace neurogrid {

/// Protocol versions this build speaks; the coordinator picks the highest common one.
inline constexpr uint32_t kProtocolMin = 3;
inline constexpr uint32_t kProtocolMax = 3;

inline constexpr size_t kWireStringBytesMax = 256;
inline constexpr size_t kWirePathBytesMax = 4096;
inline constexpr int kStagesMax = 256;
inline constexpr int kControlBytesMax = 1 << 20;
/// Of a data message; the receiver also computes the exact size of its payload.
inline constexpr int kDataBytesMax = 256 << 20;
/// Steps that may wait for one stage. The coordinator keeps far fewer in flight.
inline constexpr size_t kStepsQueuedMax = 64;

struct StageTime {
  uint32_t queue_us = 0;
  uint32_t compute_us = 0;
};

struct Step {
  uint64_t epoch = 0;
  uint64_t number = 0;  // 1, 2, 3, ... within an epoch
  uint32_t attempt = 0;
  Batch batch;
  std::string activations;            // [rows, hidden] in the plan's activation dtype
  std::vector<SampledToken> sampled;  // [samples] after the last stage
  std::vector<StageTime> times;       // one entry per stage passed
  absl::Status status;                // of the first stage that could not run it
  std::chrono::steady_clock::time_point arrived;
};

/// Fills everything but the header.
void ToMessage(Step step, wire::StepMessage* message);
/// Takes the message's payload. InvalidArgument for arrays that contradict each other or codes that
/// do not exist; whether ids and positions are in bounds is CheckBatch's question.
absl::StatusOr<Step> FromMessage(wire::StepMessage* message);

void ToMessage(const BatchLimits& limits, wire::Limits* message);
/// InvalidArgument naming the field that is 0 where it may not be, or too large for an int.
absl::StatusOr<BatchLimits> FromMessage(const wire::Limits& message);

/// InvalidArgument "NAME is 300 bytes long, at most 256" where a text is too long.
absl::Status CheckText(absl::string_view name, absl::string_view text,
                       size_t bytes_max = kWireStringBytesMax);

}  // namespace neurogrid
