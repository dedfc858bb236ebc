// A stage: contiguous layers of a model on one device. Its only state is weights and page bytes.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/status.h"
#include "common/tensor.h"
#include "engine/batch.h"
#include "engine/device.h"
#include "engine/model/checkpoint.h"
#include "engine/model/layer_range.h"
#include "engine/model/precision.h"

namespace neurogrid {

struct StageOptions {
  LayerRange layers;
  Precision precision = Precision::kBf16;
  BatchLimits limits;
};

struct StageMemory {
  int64_t weight_bytes = 0;
  int64_t workspace_bytes = 0;
  int64_t page_bytes = 0;         // of one page over the stage's layers that see everything
  int64_t window_page_bytes = 0;  // of one page over its layers with a window
  int64_t state_bytes = 0;        // of one slot
};

inline constexpr size_t kStepsQueued = 2;

class Stage {
 public:
  using Progress = std::function<void(int64_t bytes_done, int64_t bytes_total)>;
  /// Loads the tensors of `options.layers` only (plus embedding on the first stage, final norm and
  /// head on the last) and allocates everything Run needs.
  static absl::StatusOr<std::unique_ptr<Stage>> Load(const Checkpoint& checkpoint, Device& device,
                                                     const StageOptions& options,
                                                     const Progress& progress = nullptr);
  virtual ~Stage() = default;

  struct Output {
    ConstTensor activations;  // [rows, hidden]; valid until the next Queue; empty on the last stage
    std::vector<SampledToken> sampled;  // [samples] on the last stage
  };
  /// Sends a step to the device, which may work on it after the return. `activations` is
  /// [rows, hidden] in activation_dtype() from the stage before; ignored by the first stage. The
  /// batch must have passed CheckBatch. Allocates nothing for activations or weights. A stage that
  /// is the first and the last takes kStepsQueued steps, others one, before Collect is called.
  /// InvalidArgument, and nothing queued, for activations or tokens that do not fit. An error of
  /// the device is returned by this and every later call.
  virtual absl::Status Queue(const Batch& batch, ConstTensor activations) = 0;
  /// Of the oldest step queued, once it is there.
  virtual absl::StatusOr<Output> Collect() = 0;
  /// Whether Collect has nothing to wait for, as far as samples go.
  virtual bool Done() = 0;

  /// Queue, then Collect.
  absl::StatusOr<Output> Run(const Batch& batch, ConstTensor activations) {
    NG_RETURN_IF_ERROR(Queue(batch, activations));
    return Collect();
  }

  virtual DType activation_dtype() const = 0;  // F32 in f32 mode, else BF16
  virtual const StageMemory& memory() const = 0;
  virtual const StageOptions& options() const = 0;
  /// Kernel set, dtype and instruction set: stages of one class give equal bits.
  virtual const std::string& determinism_class() const = 0;
};

}  // namespace neurogrid
