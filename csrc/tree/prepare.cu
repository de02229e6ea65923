// csrc/tree/prepare.cu: CUDA side of prepare.h. One launch for the rows of no sequence, then one
// block per sequence, whose threads each walk up from their nodes. Bound by latency: microseconds.
#include "../common/warp.cuh"
#include "prepare.h"

namespace lmx::tree {
namespace {
// ---- launch parameters --------------------------------------------------------------------
constexpr int kThreads = 256;

struct PrepareShared {
  int32_t parent[kMaxNodes];
  int32_t first[kMaxNodes];  // INT32_MAX: no child
};

// ---- kernels ------------------------------------------------------------------------------
__global__ void __launch_bounds__(kThreads) prepare_fill_kernel(PrepareParams p) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < p.trees.num_rows * p.num_words) p.ancestors[i] = 0u;
  if (i >= p.trees.num_rows) return;
  p.depth[i] = 0;
  p.first_child[i] = p.next_sibling[i] = -1;
}

// Walks up from node i. Ids fall on the way, so a word of bits is complete when the next begins.
__device__ __forceinline__ void write_node(const PrepareParams& p, const PrepareShared& s,
                                           Span span, int32_t i) {
  const int64_t row = span.begin + i;
  uint32_t* ancestors = p.ancestors + row * p.num_words;
  uint32_t word = 0u;
  int32_t depth = 0;
  for (int32_t node = i;; node = s.parent[node], ++depth) {
    word |= 1u << node % 32;
    const bool is_last = node == 0 || s.parent[node] / 32 != node / 32;
    if (is_last) ancestors[node / 32] = word, word = 0u;
    if (node == 0) break;
  }
  p.depth[row] = depth;
  p.first_child[row] = s.first[i] == INT32_MAX ? -1 : s.first[i];
  int32_t next = i == 0 ? span.size : i + 1;
  while (next < span.size && s.parent[next] != s.parent[i]) ++next;
  p.next_sibling[row] = next < span.size ? next : -1;
}

__global__ void __launch_bounds__(kThreads) prepare_kernel(PrepareParams p) {
  auto& s = shared_memory<PrepareShared>();
  const int64_t seq = blockIdx.x;
  Span span = span_of(p.trees, seq);
  int32_t bits = span.bits | (span.size > p.max_nodes ? kStatusTooMany : 0);
  if (bits) span.size = 0;
  for (int32_t i = threadIdx.x; i < span.size; i += kThreads) {
    bits |= node_status(p, span.begin, i);
    s.parent[i] = p.parents[span.begin + i];
    s.first[i] = INT32_MAX;
  }
  const int bad_tree = __syncthreads_or(bits & kStatusBadTree);
  const int bad_token = __syncthreads_or(bits & kStatusBadToken);
  bits |= (bad_tree ? kStatusBadTree : 0) | (bad_token ? kStatusBadToken : 0);
  if (bits) span.size = 0;
  if (threadIdx.x == 0 && bits && p.trees.status) p.trees.status[seq] |= bits;
  for (int32_t i = threadIdx.x; i < span.size; i += kThreads)
    if (i > 0) atomicMin(&s.first[s.parent[i]], i);
  __syncthreads();
  for (int32_t i = threadIdx.x; i < span.size; i += kThreads) write_node(p, s, span, i);
}
}  // namespace

// ---- launcher -----------------------------------------------------------------------------
void prepare_cuda(const PrepareParams& p, cudaStream_t stream) {
  const int64_t words = p.num_words > 1 ? p.num_words : 1;
  if (p.trees.num_rows > 0)
    launch(prepare_fill_kernel, ceil_div<int64_t>(p.trees.num_rows * words, kThreads), kThreads, 0,
           stream, p);
  if (p.trees.num_seqs > 0)
    launch(prepare_kernel, p.trees.num_seqs, kThreads, sizeof(PrepareShared), stream, p);
}
}  // namespace lmx::tree
