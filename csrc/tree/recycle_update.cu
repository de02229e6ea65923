// csrc/tree/recycle_update.cu: CUDA side of recycle_update.h. One launch says which row writes
// where, a second has one block per row: each thread keeps the k best of its part, then the block
// takes the best of all heads k times. Memory bound: one read of the logits of the rows that write.
#include "../common/warp.cuh"
#include "recycle_update.h"

namespace lmx::tree {
namespace {
// ---- launch parameters --------------------------------------------------------------------
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;

struct UpdateShared {
  ValueAt<float> scratch[kWarps];
};

// ---- kernels ------------------------------------------------------------------------------
__global__ void __launch_bounds__(kThreads) update_fill_kernel(RecycleUpdateParams p) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < p.trees.num_rows) p.owner[i] = -1;
}

__global__ void __launch_bounds__(kThreads) claim_kernel(RecycleUpdateParams p) {
  const int64_t seq = blockIdx.x;
  const Span span = span_of(p.trees, seq);
  int32_t bits = span.bits;
  if (span.size > 0 && !is_good_matrix(p, seq)) bits |= kStatusBadValue;
  bool good = true;
  for (int32_t i = threadIdx.x; i < span.size; i += kThreads)
    good = good && is_token(p, p.tokens[span.begin + i]);
  if (!__syncthreads_and(good)) bits |= kStatusBadToken;
  if (threadIdx.x == 0 && bits && p.trees.status) p.trees.status[seq] |= bits;
  for (int32_t i = threadIdx.x; !bits && i < span.size; i += kThreads) {
    p.owner[span.begin + i] = static_cast<int32_t>(matrix_of(p, seq));
    p.weight[span.begin + i] = weight_of(p, seq, span, i);
  }
}

template <int kCapacity>
__global__ void __launch_bounds__(kThreads) update_kernel(RecycleUpdateParams p) {
  auto& s = shared_memory<UpdateShared>();
  const int64_t row = blockIdx.x;
  bool lost = p.owner[row] < 0;
  for (int64_t other = threadIdx.x; !lost && other < p.trees.num_rows; other += kThreads)
    lost = loses(p, row, other);
  const bool writes = !__syncthreads_or(lost);
  Largest<kCapacity> best;
  best.clear();
  const float* x = p.logits + row * p.vocab_size;
  for (int64_t i = threadIdx.x; writes && i < p.vocab_size; i += kThreads)
    best.offer(x[i], static_cast<int32_t>(i));
  for (int64_t rank = 0; writes && rank < p.k; ++rank) {
    const int32_t mine = best.id[0] < 0 ? INT32_MAX : best.id[0];
    const ValueAt<float> top =
        block_reduce<kThreads>(ValueAt<float>{best.value[0], mine}, ArgMax{}, s.scratch);
    if (threadIdx.x == 0)
      p.matrix[(p.owner[row] * p.vocab_size + p.tokens[row]) * p.k + rank] =
          top.index == INT32_MAX ? -1 : top.index;
    if (mine != top.index || best.id[0] < 0) continue;
    for (int i = 0; i + 1 < kCapacity; ++i)
      best.value[i] = best.value[i + 1], best.id[i] = best.id[i + 1];
    best.value[kCapacity - 1] = -INFINITY, best.id[kCapacity - 1] = -1;
  }
}
}  // namespace

// ---- launcher: 2 capacities ---------------------------------------------------------------
void recycle_update_cuda(const RecycleUpdateParams& p, cudaStream_t stream) {
  const int64_t rows = p.trees.num_rows;
  if (rows == 0 || p.trees.num_seqs == 0) return;
  launch(update_fill_kernel, ceil_div<int64_t>(rows, kThreads), kThreads, 0, stream, p);
  launch(claim_kernel, p.trees.num_seqs, kThreads, 0, stream, p);
  if (p.k <= 8)
    launch(update_kernel<8>, rows, kThreads, sizeof(UpdateShared), stream, p);
  else
    launch(update_kernel<kMaxCandidates>, rows, kThreads, sizeof(UpdateShared), stream, p);
}
}  // namespace lmx::tree
