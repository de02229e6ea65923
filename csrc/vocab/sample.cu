// csrc/vocab/sample.cu: CUDA side of sample.h: the blocks' pass, then one warp per row walks down
// the levels of draw.h. It reads one block of logits again.
#include "blocks.h"
#include "rows_cuda.cuh"
#include "sample.h"

namespace lmx::vocab {
namespace {
struct DrawShared {
  double chunk[kMaxVocab / kDrawBlock / kDrawChunk];
  double block[kDrawChunk];
  double token[kDrawBlock];
  Pick pick;
};
// ---- device helpers -----------------------------------------------------------------------
// One lane walks, all lanes get what it found.
__device__ __forceinline__ Pick warp_pick(DrawShared& s, int count, double before, double target,
                                          const double* value) {
  __syncwarp();  // the values are written
  if (threadIdx.x == 0) s.pick = pick(count, before, target, [&](int i) { return value[i]; });
  __syncwarp();
  const Pick found = s.pick;
  __syncwarp();  // before the next walk overwrites it
  return found;
}

struct Drawn {
  int64_t token;
  float logprob;
};

template <typename T>
__device__ Drawn draw_row(const SampleParams& p, int64_t row, DrawShared& s) {
  const int lane = threadIdx.x;
  const int64_t num_blocks = p.blocks.num_blocks;
  const float* top = p.blocks.top + row * num_blocks;
  const float* sum = p.blocks.sum + row * num_blocks;
  const RowTotal total = warp_row_total(top, sum, num_blocks, s.chunk);
  const Cut cut = p.cut.logit ? Cut{p.cut.logit[row], p.cut.id[row]} : Cut{};
  if (total.top != total.top) return {-1, NAN};
  if (is_greedy(p.shaping, row))
    return cut.id < p.rows.vocab_size ? Drawn{cut.id, 0.f} : Drawn{-1, NAN};
  if (total.top == -INFINITY) return {-1, NAN};

  const double target = static_cast<double>(p.uniforms[row]) * total.total;
  const Pick chunk = warp_pick(s, ceil_div<int>(num_blocks, kDrawChunk), 0.0, target, s.chunk);
  const int64_t first = int64_t{chunk.index} * kDrawChunk;
  const int in_chunk = static_cast<int>(min(int64_t{kDrawChunk}, num_blocks - first));
  if (lane < in_chunk) s.block[lane] = block_value(top[first + lane], sum[first + lane], total.top);
  const Pick found = warp_pick(s, in_chunk, chunk.before, target, s.block);
  const int64_t block = first + found.index;

  const float scale = row_scale(p.shaping, row);
  float logit[kPerLane], weight[kPerLane];
  load_block(p.rows, row_logits<T>(p.rows, row), row_mask(p.rows, row), block, logit);
  block_weights(logit, scale, top[block], weight);
  for (int k = 0; k < kPerLane; ++k) {
    const int i = k * kWarpSize + lane;
    const bool kept = keeps(cut, logit[k], block * kDrawBlock + i);
    s.token[i] = kept ? block_value(top[block], weight[k], total.top) : 0.0;
  }
  const Pick token = warp_pick(s, kDrawBlock, found.before, target, s.token);
  return {block * kDrawBlock + token.index, draw_logprob(s.token[token.index], total)};
}
// ---- kernel -------------------------------------------------------------------------------
template <typename T>
__global__ void __launch_bounds__(kWarpSize) draw_kernel(SampleParams p) {
  auto& shared = shared_memory<DrawShared>();
  const int64_t row = blockIdx.x;
  const int32_t bits = sample_status(p, row);
  const Drawn drawn = bits ? Drawn{-1, NAN} : draw_row<T>(p, row, shared);
  if (threadIdx.x != 0) return;
  if (bits && p.status) p.status[row] |= bits;
  p.token[row] = drawn.token;
  p.logprob[row] = drawn.logprob;
}
}  // namespace
// ---- launcher: 3 dtypes -------------------------------------------------------------------
void sample_cuda(const SampleParams& p, cudaStream_t stream) {
  if (p.rows.num_rows == 0) return;
  shaped_blocks(p.rows, p.shaping, p.blocks, p.cut, stream);
  visit_cuda_dtype(p.rows.dtype, [&](auto type) {
    launch(draw_kernel<decltype(type)>, p.rows.num_rows, kWarpSize, sizeof(DrawShared), stream, p);
  });
}
}  // namespace lmx::vocab
