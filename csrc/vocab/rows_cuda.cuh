// csrc/vocab/rows_cuda.cuh: how CUDA kernels walk a row.
//
// A warp takes a block of 256 tokens; lane l holds tokens l, l + 32, ..., l + 224, so that the
// fixed tree of draw.h is seven additions in a lane and five shuffles. Loads are driven by the
// mask: a word that is 0 costs no load, a lane whose token is not allowed takes no part in one.
#pragma once
#include "../common/dtype.cuh"
#include "../common/launch.h"
#include "../common/tree_sum.cuh"
#include "../common/warp.cuh"
#include "rows.h"

namespace lmx::vocab {
constexpr int kPerLane = kDrawPerLane;

template <typename T>
__device__ __forceinline__ const T* row_logits(const Rows& r, int64_t row) {
  return static_cast<const T*>(r.logits) + row * r.row_stride;
}

template <typename T>
__device__ __forceinline__ void load_block(const Rows& r, const T* x, const uint32_t* mask,
                                           int64_t block, float (&logit)[kPerLane]) {
  const int lane = threadIdx.x % kWarpSize;
#pragma unroll
  for (int k = 0; k < kPerLane; ++k) {
    const int64_t word = block * kPerLane + k, i = word * kWarpSize + lane;
    const bool allowed = i < r.vocab_size && mask_word(r, mask, word) >> lane & 1;
    logit[k] = allowed ? static_cast<float>(x[i]) : -INFINITY;
  }
}

// The block's top from its allowed logits; NaN if one of them is NaN.
__device__ __forceinline__ float warp_block_top(const float (&logit)[kPerLane], float scale) {
  float largest = -INFINITY;
  bool nan = false;
#pragma unroll
  for (int k = 0; k < kPerLane; ++k) {
    largest = logit[k] > largest ? logit[k] : largest;
    nan |= logit[k] != logit[k];
  }
  if (__any_sync(kFullWarp, nan)) return NAN;
  return exact::weight_top(warp_max(largest), scale);
}

__device__ __forceinline__ void block_weights(const float (&logit)[kPerLane], float scale,
                                              float top, float (&weight)[kPerLane]) {
#pragma unroll
  for (int k = 0; k < kPerLane; ++k) {
    const float x = exact::cap_logit(logit[k], scale);
    weight[k] = top > -INFINITY ? exact::weight(x, scale, top) : top != top ? top : 0.f;
  }
}

// A row's total from its blocks, by one warp; every lane gets it. The chunks' totals are left in
// `chunk` (shared memory, one value per chunk, or null), readable after the caller's __syncwarp.
__device__ __forceinline__ RowTotal warp_row_total(const float* top, const float* sum,
                                                   int64_t num_blocks, double* chunk) {
  const int lane = threadIdx.x % kWarpSize;
  float largest = -INFINITY;
  bool nan = false;
  for (int64_t b = lane; b < num_blocks; b += kWarpSize) {
    largest = top[b] > largest ? top[b] : largest;
    nan |= top[b] != top[b];
  }
  if (__any_sync(kFullWarp, nan)) return {NAN, NAN};
  RowTotal t{warp_max(largest), 0.0};
  if (t.top == -INFINITY) return t;
  const int64_t num_chunks = ceil_div<int64_t>(num_blocks, kDrawChunk);
  for (int64_t first = 0; first < num_chunks; first += kWarpSize) {
    const int64_t g = first + lane;
    const double mine = g < num_chunks ? chunk_value(top, sum, num_blocks, g, t.top) : 0.0;
    if (chunk && g < num_chunks) chunk[g] = mine;
    for (int i = 0; i < kWarpSize; ++i) t.total += __shfl_sync(kFullWarp, mine, i);
  }
  return t;
}
}  // namespace lmx::vocab
