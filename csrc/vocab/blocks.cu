// csrc/vocab/blocks.cu: one warp per block of 256 tokens. Memory bound: reads the allowed logits
// once (all of them where `all` is asked for), writes 8 bytes per 256 tokens. About 20 instructions
// per token.
#include "blocks.h"

#include "rows_cuda.cuh"

namespace lmx::vocab {
namespace {
// ---- launch parameters --------------------------------------------------------------------
constexpr int kThreads = 256;
constexpr int kBlocksPerCta = kThreads / kWarpSize;
// ---- kernels ------------------------------------------------------------------------------
__device__ void store_block(const Blocks& to, int64_t row, int64_t block, float top, float sum) {
  if (threadIdx.x % kWarpSize != 0) return;
  to.top[row * to.num_blocks + block] = top;
  to.sum[row * to.num_blocks + block] = sum;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) blocks_kernel(BlocksParams p) {
  const int64_t num_blocks = p.allowed.num_blocks;
  const int64_t groups = ceil_div<int64_t>(num_blocks, kBlocksPerCta);
  const int64_t row = blockIdx.x / groups;
  const int64_t block = blockIdx.x % groups * kBlocksPerCta + threadIdx.x / kWarpSize;
  if (block >= num_blocks) return;
  if (row_status(p.rows, p.shaping, row)) {
    store_block(p.allowed, row, block, -INFINITY, 0.f);
    if (p.all.top) store_block(p.all, row, block, -INFINITY, 0.f);
    return;
  }
  const int lane = threadIdx.x % kWarpSize;
  const float scale = row_scale(p.shaping, row);
  const uint32_t* mask = row_mask(p.rows, row);
  float logit[kPerLane], weight[kPerLane];
  load_block(p.rows, row_logits<T>(p.rows, row), p.all.top ? nullptr : mask, block, logit);
  if (p.all.top) {
    const float top = warp_block_top(logit, scale);
    block_weights(logit, scale, top, weight);
    store_block(p.all, row, block, top, warp_tree_sum(weight));
    for (int k = 0; k < kPerLane; ++k)
      if (!(mask_word(p.rows, mask, block * kPerLane + k) >> lane & 1)) logit[k] = -INFINITY;
  }
  const float top = warp_block_top(logit, scale);
  block_weights(logit, scale, top, weight);
  if (p.cut.logit && top == top) {
    const Cut cut{p.cut.logit[row], p.cut.id[row]};
#pragma unroll
    for (int k = 0; k < kPerLane; ++k)
      if (!keeps(cut, logit[k], block * kDrawBlock + k * kWarpSize + lane)) weight[k] = 0.f;
  }
  store_block(p.allowed, row, block, top, warp_tree_sum(weight));
}

__global__ void __launch_bounds__(kWarpSize) totals_kernel(Blocks p) {
  const int64_t row = blockIdx.x, first = row * p.num_blocks;
  const RowTotal t = warp_row_total(p.top + first, p.sum + first, p.num_blocks, nullptr);
  if (threadIdx.x != 0) return;
  p.row_top[row] = t.top;
  p.row_total[row] = t.total;
}
}  // namespace
// ---- launchers: 3 dtypes ------------------------------------------------------------------
void blocks_cuda(const BlocksParams& p, cudaStream_t stream) {
  const int64_t groups = ceil_div<int64_t>(p.allowed.num_blocks, kBlocksPerCta);
  if (p.rows.num_rows * groups == 0) return;
  visit_cuda_dtype(p.rows.dtype, [&](auto type) {
    launch(blocks_kernel<decltype(type)>, p.rows.num_rows * groups, kThreads, 0, stream, p);
  });
}

void totals_cuda(const Blocks& blocks, int64_t num_rows, cudaStream_t stream) {
  if (num_rows == 0) return;
  launch(totals_kernel, num_rows, kWarpSize, 0, stream, blocks);
}
}  // namespace lmx::vocab
