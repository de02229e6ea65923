// csrc/ngram/index.cuh: what the CUDA kernels share.
#pragma once
#include "../common/launch.h"
#include "../common/warp.cuh"
#include "search.h"

namespace lmx::ngram {
__device__ __forceinline__ void set_bits(int32_t* status, int64_t row, int32_t bits) {
  if (bits && status) atomicOr(status + row, bits);
}

// The largest and the smallest of a warp's values, for lengths.
struct Min {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return min(a, b);
  }
};

// How often a string occurs, over all shards.
template <typename Order>
__device__ int64_t count_of(const Index& index, const int64_t* string, int64_t size,
                            int32_t& bits) {
  int64_t count = 0;
  Finder<Order, int64_t> finder;
  Shard<Order> shard;
  for (int64_t s = 0; s < index.num_shards; ++s) {
    if (!shard_at(index, s, shard)) bits |= kStatusCorrupt;
    finder.start(shard, string, size);
    const Range r = finder.run();
    if (finder.corrupt) bits |= kStatusCorrupt;
    count += shard.sign * (r.hi - r.lo);
  }
  return count;
}

// The longest suffix, by a warp: its lanes try 32 lengths at once. `most` bounds it; with prev_len
// >= 0 it is at most one more. Every lane gets the result; `bits` are the lane's own.
template <typename Order>
__device__ int64_t warp_longest(const Index& index, const int64_t* end, int64_t most,
                                int64_t min_count, int64_t prev_len, int32_t& bits) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t limit = prev_len >= 0 && prev_len < most ? prev_len + 1 : most;
  int64_t found = 0, fails = limit + 1;
  for (bool first = true; found + 1 < fails; first = false) {
    int64_t k;
    if (first)
      k = prev_len >= 0 ? limit - lane : int64_t{1} << lane;
    else
      k = found + ceil_div<int64_t>(fails - found - 1, kWarpSize) * (lane + 1);
    const bool tries = k > found && k < fails;
    const int64_t count = tries ? count_of<Order>(index, end - k, k, bits) : 0;
    const bool occurs = tries && count > 0 && count >= min_count;
    found = warp_reduce(occurs ? k : found, Max{});
    fails = warp_reduce(tries && !occurs ? k : fails, Min{});
    if (found >= fails) fails = found + 1;  // only in a corrupt index
  }
  return found;
}
}  // namespace lmx::ngram
