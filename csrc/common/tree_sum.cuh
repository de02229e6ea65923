// common/tree_sum.cuh: the sum of a block of draw.h by a warp, whose lane l holds the elements l,
// l + 32, ..., l + 224: seven additions in a lane and five shuffles are the fixed tree.
#pragma once
#include "draw.h"
#include "warp.cuh"

namespace lmx {
constexpr int kDrawPerLane = kDrawBlock / kWarpSize;

__device__ __forceinline__ float warp_tree_sum(const float (&w)[kDrawPerLane]) {
  static_assert(kDrawPerLane == 8);
  return warp_sum(((w[0] + w[4]) + (w[2] + w[6])) + ((w[1] + w[5]) + (w[3] + w[7])));
}
}  // namespace lmx
