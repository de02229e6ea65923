// csrc/tree/verify_target.cu: CUDA side of verify_target.h. One block per sequence; at each node of
// the walk its warps sum the row's blocks, the threads the chunks, and one thread decides. Memory
// bound: one read of each row of the walk.
#include <cmath>

#include "../common/tree_sum.cuh"
#include "verify_target.h"
#include "walk.cuh"

namespace lmx::tree {
namespace {
// ---- launch parameters --------------------------------------------------------------------
constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kMaxChunks = (1 << 24) / (kDrawBlock * kDrawChunk);

struct TargetShared {
  SharedTree tree;
  double chunk[kMaxChunks];
  float token[kDrawBlock];
  double total;
  Coin coin;
  int32_t node;
  int32_t block;  // where the draw ends
  Pick found;
};

// ---- device helpers -----------------------------------------------------------------------
// Block b of a row by one warp; without the tokens of the node's children unless `whole`.
__device__ __forceinline__ void load_weights(const VerifyTargetParams& p, const float* row,
                                             int64_t b, const TreeView& tree, int32_t node,
                                             bool whole, float (&w)[kDrawPerLane]) {
  for (int k = 0; k < kDrawPerLane; ++k) {
    const int64_t id = b * kDrawBlock + k * kWarpSize + threadIdx.x % kWarpSize;
    const bool counts = id < p.vocab_size && (whole || !is_child_token(tree, node, id));
    w[k] = counts ? row[id] : 0.f;
  }
}

// Sums the blocks of a row. False, for all threads: a weight is negative, infinite or NaN.
__device__ bool weigh(const VerifyTargetParams& p, const float* row, const TreeView& tree,
                      float* sums) {
  bool good = true;
  for (int64_t b = threadIdx.x / kWarpSize; b < p.num_blocks; b += kWarps) {
    float w[kDrawPerLane];
    load_weights(p, row, b, tree, 0, true, w);
    for (float x : w) good = good && x >= 0.f;
    const float sum = warp_tree_sum(w);
    good = good && sum < INFINITY;
    if (threadIdx.x % kWarpSize == 0) sums[b] = sum;
  }
  return __syncthreads_and(good);
}

// Takes a node's children out of the sums; the warps share the blocks.
__device__ void remove_children(const VerifyTargetParams& p, const float* row, const TreeView& tree,
                                int32_t node, float* sums) {
  for (int32_t c = tree.first_child[node]; c >= 0; c = tree.next_sibling[c]) {
    const int64_t b = block_of(p, tree.tokens[c]);
    if (b < 0 || b % kWarps != threadIdx.x / kWarpSize) continue;
    float w[kDrawPerLane];
    load_weights(p, row, b, tree, node, false, w);
    const float sum = warp_tree_sum(w);
    if (threadIdx.x % kWarpSize == 0) sums[b] = sum;
  }
  __syncthreads();
}

// The total of the sums, for all threads; the chunks' totals stay in shared memory.
__device__ double row_total(const VerifyTargetParams& p, const float* sums, TargetShared& s) {
  const int64_t num_chunks = ceil_div<int64_t>(p.num_blocks, kDrawChunk);
  for (int64_t g = threadIdx.x; g < num_chunks; g += kThreads)
    s.chunk[g] = chunk_total(sums, p.num_blocks, g);
  __syncthreads();
  if (threadIdx.x == 0) {
    s.total = 0.0;
    for (int64_t g = 0; g < num_chunks; ++g) s.total += s.chunk[g];
  }
  __syncthreads();
  return s.total;
}

// Draws from the sums; thread 0 gets the token.
__device__ int64_t draw(const VerifyTargetParams& p, const float* row, const TreeView& tree,
                        int32_t node, bool whole, const float* sums, double target,
                        TargetShared& s) {
  if (threadIdx.x == 0) {
    const Pick chunk = pick(static_cast<int>(ceil_div<int64_t>(p.num_blocks, kDrawChunk)), 0.0,
                            target, [&](int g) { return s.chunk[g]; });
    const int64_t first = int64_t{chunk.index} * kDrawChunk;
    const auto count = static_cast<int>(min(int64_t{kDrawChunk}, p.num_blocks - first));
    s.found = pick(count, chunk.before, target,
                   [&](int b) { return static_cast<double>(sums[first + b]); });
    s.block = static_cast<int32_t>(first) + s.found.index;
  }
  __syncthreads();
  if (threadIdx.x < kWarpSize) {
    float w[kDrawPerLane];
    load_weights(p, row, s.block, tree, node, whole, w);
    for (int k = 0; k < kDrawPerLane; ++k) s.token[k * kWarpSize + threadIdx.x] = w[k];
  }
  __syncthreads();
  if (threadIdx.x != 0) return -1;
  const Pick token = pick(kDrawBlock, s.found.before, target,
                          [&](int i) { return static_cast<double>(s.token[i]); });
  return int64_t{s.block} * kDrawBlock + token.index;
}

// ---- kernel -------------------------------------------------------------------------------
// All threads walk together; thread 0 keeps the books. Returns status bits to all threads.
__device__ int32_t target_walk(const VerifyTargetParams& p, int64_t seq, Span span,
                               const TreeView& tree, TargetShared& s) {
  float* sums = p.sums + seq * p.num_blocks;
  const float u_final = p.u_final[seq];
  Walk walk(p.walk, seq, span.size);  // thread 0's counts
  if (threadIdx.x == 0) walk.begin();
  if (!is_uniform(u_final)) return kStatusBadValue;
  int32_t node = 0;
  for (int64_t accepted = 0;; ++accepted) {
    const float u = p.u_node[span.begin + node];
    const float* row = p.probs + (span.begin + node) * p.vocab_size;
    if (!is_uniform(u) || !weigh(p, row, tree, sums)) {
      if (threadIdx.x == 0) p.walk.accept_length[seq] = walk.accepted;
      return kStatusBadValue;
    }
    const double total = row_total(p, sums, s);
    const bool is_last = accepted == p.walk.max_depth;
    if (threadIdx.x == 0)
      s.coin = is_last ? Coin{-1, -1, kStatusOk} : toss(p, tree, row, total, u, walk);
    __syncthreads();
    Coin coin = s.coin;
    if (coin.bits) return coin.bits;
    double rest = total;
    if (coin.child < 0 && !is_last) {
      remove_children(p, row, tree, node, sums);
      rest = row_total(p, sums, s);
      if (!(rest > 0.0)) coin.child = coin.last_child;
    }
    if (coin.child < 0) {
      if (threadIdx.x == 0) p.walk.accept_length[seq] = walk.accepted;
      if (!(rest > 0.0)) return kStatusBadToken;
      const double target = static_cast<double>(u_final) * rest;
      const int64_t token = draw(p, row, tree, node, is_last, sums, target, s);
      if (threadIdx.x == 0) walk.out_tokens[walk.accepted] = token;
      return kStatusOk;
    }
    if (threadIdx.x == 0) walk.accept(coin.child, tree.tokens[coin.child]);
    node = coin.child;
    __syncthreads();  // before the next node's sums and coin overwrite this one's
  }
}

__global__ void __launch_bounds__(kThreads) verify_target_kernel(VerifyTargetParams p) {
  auto& s = shared_memory<TargetShared>();
  const int64_t seq = blockIdx.x;
  const Span span = span_of(p.walk.trees, seq);
  const TreeView tree = load_tree<kThreads>(p.walk, span, s.tree);
  if (threadIdx.x == 0) clear_walk(p.walk, seq);
  __syncthreads();
  int32_t bits = span.bits;
  if (span.size > 0) bits |= target_walk(p, seq, span, tree, s);
  if (threadIdx.x != 0) return;
  finish_walk(p.walk, seq, bits);
}
}  // namespace

// ---- launcher -----------------------------------------------------------------------------
void verify_target_cuda(const VerifyTargetParams& p, cudaStream_t stream) {
  if (p.walk.trees.num_seqs == 0) return;
  launch(verify_target_kernel, p.walk.trees.num_seqs, kThreads, sizeof(TargetShared), stream, p);
}
}  // namespace lmx::tree
