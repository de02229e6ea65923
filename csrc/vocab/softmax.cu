// csrc/vocab/softmax.cu: CUDA side of softmax.h. Memory bound: two reads of the allowed logits (the
// second from L2 where the rows fit) and one write of the row.
#include "blocks.h"
#include "rows_cuda.cuh"
#include "softmax.h"

namespace lmx::vocab {
namespace {
// ---- launch parameters --------------------------------------------------------------------
constexpr int kThreads = 256;
constexpr int kBlocksPerCta = kThreads / kWarpSize;
// At least one, also for rows without tokens: their status is set all the same.
LMX_HD int64_t groups_of(int64_t num_blocks) {
  return num_blocks > 0 ? ceil_div<int64_t>(num_blocks, kBlocksPerCta) : 1;
}
// ---- kernel -------------------------------------------------------------------------------
template <typename T>
__global__ void __launch_bounds__(kThreads) softmax_kernel(SoftmaxParams p) {
  const int64_t groups = groups_of(p.blocks.num_blocks);
  const int64_t row = blockIdx.x / groups;
  const int64_t block = blockIdx.x % groups * kBlocksPerCta + threadIdx.x / kWarpSize;
  const int lane = threadIdx.x % kWarpSize;
  const int32_t bits = row_status(p.rows, p.shaping, row);
  if (bits && p.status && block == 0 && lane == 0) p.status[row] |= bits;
  if (block >= p.blocks.num_blocks) return;
  const RowTotal total{p.blocks.row_top[row], p.blocks.row_total[row]};
  const bool live = !bits && total.top > -INFINITY, nan = !bits && total.top != total.top;
  const bool greedy = !bits && is_greedy(p.shaping, row);
  const Cut cut = p.cut.logit ? Cut{p.cut.logit[row], p.cut.id[row]} : Cut{};
  float logit[kPerLane], weight[kPerLane] = {};
  float factor = 0.f;
  if (live) {
    const float scale = row_scale(p.shaping, row);
    load_block(p.rows, row_logits<T>(p.rows, row), row_mask(p.rows, row), block, logit);
    const float top = p.blocks.top[row * p.blocks.num_blocks + block];
    block_weights(logit, scale, top, weight);
    factor = probability_factor(top, total);
  }
  float* probs = p.probs + row * p.rows.vocab_size;
#pragma unroll
  for (int k = 0; k < kPerLane; ++k) {
    const int64_t i = block * kDrawBlock + k * kWarpSize + lane;
    if (i >= p.rows.vocab_size) break;
    float prob = live && keeps(cut, logit[k], i) ? weight[k] * factor : 0.f;
    if (greedy) prob = i == cut.id ? 1.f : 0.f;
    probs[i] = nan ? NAN : prob;
  }
}
}  // namespace
// ---- launcher: 3 dtypes -------------------------------------------------------------------
void softmax_cuda(const SoftmaxParams& p, cudaStream_t stream) {
  if (p.rows.num_rows == 0) return;
  shaped_blocks(p.rows, p.shaping, p.blocks, p.cut, stream);
  totals_cuda(p.blocks, p.rows.num_rows, stream);
  visit_cuda_dtype(p.rows.dtype, [&](auto type) {
    launch(softmax_kernel<decltype(type)>, p.rows.num_rows * groups_of(p.blocks.num_blocks),
           kThreads, 0, stream, p);
  });
}
}  // namespace lmx::vocab
