// csrc/tree/recycle_expand.cu: CUDA side of recycle_expand.h. One block per sequence looks up every
// node along its own path, so no level waits for another; a second launch packs the trees. Bound by
// latency: depth lookups, a few microseconds.
#include "../common/warp.cuh"
#include "recycle_expand.h"

namespace lmx::tree {
namespace {
// ---- launch parameters --------------------------------------------------------------------
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;

struct ExpandShared {
  int32_t scratch[kWarps];
  int32_t bits;
};

struct PackShared {
  int32_t scratch[kWarps];
  int32_t local[kMaxNodes];  // a node's id in the packed tree
};

// ---- kernels ------------------------------------------------------------------------------
__global__ void __launch_bounds__(kThreads) expand_fill_kernel(RecycleExpandParams p) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < p.num_seqs * p.num_nodes) p.tokens[i] = p.parents[i] = p.nodes[i] = -1;
}

// Status bits of the sequence's arguments and of the template, to all threads.
__device__ int32_t checked(const RecycleExpandParams& p, int64_t seq, ExpandShared& s) {
  const bool was_bad = p.status && p.status[seq];
  if (threadIdx.x == 0) s.bits = was_bad ? 0 : expand_status(p, seq);
  __syncthreads();
  bool is_tree = true;
  for (int32_t i = threadIdx.x; !was_bad && i < p.num_nodes; i += kThreads)
    is_tree = is_tree && is_good_template_node(p, i);
  // Parents are before their nodes from here on, so that a walk up the template ends.
  if (!__syncthreads_and(is_tree)) {
    is_tree = false;
  } else {
    for (int32_t i = threadIdx.x; !was_bad && i < p.num_nodes; i += kThreads)
      is_tree = is_tree && template_depth(p, i) <= kMaxRecycleDepth;
  }
  if (!is_tree) atomicOr(&s.bits, static_cast<int32_t>(kStatusBadTree));
  __syncthreads();
  const int32_t bits = s.bits;
  __syncthreads();
  return bits;
}

__global__ void __launch_bounds__(kThreads) expand_kernel(RecycleExpandParams p) {
  auto& s = shared_memory<ExpandShared>();
  const int64_t seq = blockIdx.x;
  const bool was_bad = p.status && p.status[seq];
  const bool skip = checked(p, seq, s) || was_bad;
  const int64_t size = skip ? 0 : p.sizes ? p.sizes[seq] : p.num_nodes;
  int32_t count = 0, mine = 0;
  for (int32_t i = threadIdx.x; i < p.num_nodes; i += kThreads) {
    const Recycled r = i < size ? recycled_token(p, seq, i) : Recycled{-1, kStatusOk};
    mine |= r.bits;
    p.padded[seq * p.num_nodes + i] = r.token;
    count += r.token >= 0;
  }
  if (mine) atomicOr(&s.bits, mine);
  int32_t total;
  block_exclusive_sum<kThreads>(count, total, s.scratch);
  if (threadIdx.x != 0) return;
  p.counts[seq] = s.bits ? 0 : total;
  if (s.bits && p.status) p.status[seq] |= s.bits;
}

__global__ void __launch_bounds__(kThreads) pack_kernel(RecycleExpandParams p) {
  auto& s = shared_memory<PackShared>();
  const int64_t seq = blockIdx.x;
  int32_t before = 0, first;
  for (int64_t b = threadIdx.x; b < seq; b += kThreads) before += p.counts[b];
  block_exclusive_sum<kThreads>(before, first, s.scratch);
  const int32_t mine = p.counts[seq];
  if (threadIdx.x == 0) {
    p.indptr[seq] = first;
    if (seq == p.num_seqs - 1) p.indptr[p.num_seqs] = first + mine;
  }
  const int64_t* tokens = p.padded + seq * p.num_nodes;
  int32_t done = 0;
  for (int64_t start = 0; mine > 0 && start < p.num_nodes; start += kThreads) {
    const int64_t i = start + threadIdx.x;
    const int64_t token = i < p.num_nodes ? tokens[i] : -1;
    int32_t total;
    const int32_t local =
        done + block_exclusive_sum<kThreads>(static_cast<int32_t>(token >= 0), total, s.scratch);
    if (token >= 0) s.local[i] = local;
    __syncthreads();
    if (token >= 0) {
      p.tokens[first + local] = token;
      p.parents[first + local] = i == 0 ? -1 : s.local[p.template_parent[i]];
      p.nodes[first + local] = static_cast<int32_t>(i);
    }
    done += total;
  }
}

__global__ void __launch_bounds__(kWarpSize) empty_kernel(RecycleExpandParams p) {
  if (threadIdx.x == 0) p.indptr[0] = 0;
}
}  // namespace

// ---- launcher -----------------------------------------------------------------------------
void recycle_expand_cuda(const RecycleExpandParams& p, cudaStream_t stream) {
  if (p.num_seqs == 0) {
    launch(empty_kernel, int64_t{1}, kWarpSize, 0, stream, p);
    return;
  }
  const int64_t capacity = p.num_seqs * p.num_nodes;
  if (capacity > 0)
    launch(expand_fill_kernel, ceil_div<int64_t>(capacity, kThreads), kThreads, 0, stream, p);
  launch(expand_kernel, p.num_seqs, kThreads, sizeof(ExpandShared), stream, p);
  launch(pack_kernel, p.num_seqs, kThreads, sizeof(PackShared), stream, p);
}
}  // namespace lmx::tree
