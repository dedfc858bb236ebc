// Bounds on outside input. Each stands in one place, so that a reader can see them all.
#pragma once

#include <cstdint>

namespace neurogrid {

// config.json and the same numbers in GGUF keys.
inline constexpr int64_t kConfigBytesMax = int64_t{1} << 20;
inline constexpr int kLayersMax = 1024;
inline constexpr int kHiddenSizeMax = 65536;
inline constexpr int kFfnSizeMax = 1 << 19;
inline constexpr int kHeadsMax = 1024;
inline constexpr int kHeadDimMax = 512;
inline constexpr int kConvTapsMax = 16;
inline constexpr double kRopeThetaMin = 1.0 + 1e-6;
inline constexpr double kRopeThetaMax = 1e15;
inline constexpr int kVocabSizeMax = 1 << 22;
inline constexpr int kPositionsMax = 1 << 30;
inline constexpr int kEosIdsMax = 1024;

// safetensors. With these, sizes of any tensor of a checked config fit 64 bits with room to spare.
inline constexpr uint64_t kSafetensorsHeaderBytesMax = 100'000'000;
inline constexpr int64_t kSafetensorsTensorsMax = int64_t{1} << 20;
inline constexpr int64_t kSafetensorsNameBytesMax = 1024;
inline constexpr int64_t kSafetensorsIndexBytesMax = int64_t{64} << 20;
inline constexpr int64_t kSafetensorsShardsMax = 4096;

// GGUF.
inline constexpr int64_t kGgufPartsMax = 4096;
inline constexpr uint64_t kGgufKeysMax = 65536;
inline constexpr uint64_t kGgufTensorsMax = 65536;
inline constexpr uint64_t kGgufKeyBytesMax = 65535;
inline constexpr uint64_t kGgufTensorNameBytesMax = 64;
inline constexpr uint64_t kGgufStringBytesMax = uint64_t{64} << 20;
inline constexpr uint64_t kGgufArrayItemsMax = uint64_t{1} << 24;  // of all arrays together
inline constexpr uint64_t kGgufMetadataBytesMax = uint64_t{128} << 20;
inline constexpr uint64_t kGgufAlignmentMax = 65536;

}  // namespace neurogrid
