// csrc/tree/walk.cuh: how a block of threads brings a tree into shared memory.
#pragma once
#include "../common/launch.h"
#include "walk.h"

namespace lmx::tree {
struct SharedTree {
  int64_t tokens[kMaxNodes];
  int32_t first_child[kMaxNodes];
  int32_t next_sibling[kMaxNodes];
};

// All threads call; readable after the caller's barrier.
template <int kThreads>
__device__ __forceinline__ TreeView load_tree(const WalkParams& p, Span span, SharedTree& s) {
  for (int32_t i = threadIdx.x; i < span.size; i += kThreads) {
    s.tokens[i] = p.tokens[span.begin + i];
    s.first_child[i] = p.first_child[span.begin + i];
    s.next_sibling[i] = p.next_sibling[span.begin + i];
  }
  return {s.tokens, s.first_child, s.next_sibling, span.size};
}

// By one thread, after the walk of a sequence.
__device__ __forceinline__ void finish_walk(const WalkParams& p, int64_t seq, int32_t bits) {
  if (bits & kStatusBadTree) clear_walk(p, seq);
  if (bits && p.trees.status) p.trees.status[seq] |= bits;
}
}  // namespace lmx::tree
