// Connection settings, the same on both ends: tuning one side alone makes the other one end healthy
// connections for too many pings (cluster.md 4).
#pragma once

#include <cstddef>

namespace neurogrid {

inline constexpr int kKeepaliveMs = 1'000;
/// Longer than the lease, which finds a silent node first: a machine that stalls for a second is no
/// reason to cut its connections.
inline constexpr int kKeepaliveTimeoutMs = 5'000;
inline constexpr int kPingIntervalMinMs = 900;
inline constexpr int kPingStrikes = 2;
inline constexpr int kMetadataBytesMax = 8 * 1024;
inline constexpr int kHandshakeMs = 5'000;
inline constexpr int kStreamsMax = 64;
/// Connections that have sent the preamble of an edge and not yet been found to be expected. One
/// more ends the oldest, here and below.
inline constexpr size_t kStrangersMax = 32;
/// Edges that are expected, or were at an epoch before.
inline constexpr size_t kEdgesMax = 32;
/// One prompt chunk fits without waiting for a window update.
inline constexpr int kWindowBytes = 8 << 20;

}  // namespace neurogrid
