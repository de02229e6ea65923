// csrc/tree/verify_greedy.h: the longest path from the root whose every node holds the argmax of
// its parent. The first child, in sibling order, that holds it is taken. What it emits is greedy
// decoding's own text, given the same logits. target_ids < 0 stands for "no token may follow".
#pragma once
#include "../common/isa.h"
#include "walk.h"

namespace lmx::tree {
struct VerifyGreedyParams {
  WalkParams walk;
  const int64_t* target_ids;  // [num_rows]: the argmax of each row
};

// Walks one sequence with at least a root; `target` is local to it. Returns status bits.
LMX_HD int32_t greedy_walk(const WalkParams& p, int64_t seq, const TreeView& tree,
                           const int64_t* target) {
  Walk walk(p, seq, tree.size);
  walk.begin();
  for (;;) {
    const int64_t token = target[walk.node];
    if (token < 0) {
      p.accept_length[seq] = walk.accepted;
      return kStatusBadToken;
    }
    Siblings siblings(tree, walk.node, &walk.left);
    while (siblings.child >= 0 && tree.tokens[siblings.child] != token) siblings.next(tree);
    if (siblings.bits) return siblings.bits;
    if (siblings.child < 0 || walk.accepted == p.max_depth) {
      walk.out_tokens[walk.accepted] = token;
      p.accept_length[seq] = walk.accepted;
      return kStatusOk;
    }
    walk.accept(siblings.child, token);
  }
}

LMX_CPU_KERNEL(verify_greedy_cpu, VerifyGreedyParams)
void verify_greedy_cuda(const VerifyGreedyParams& p, CUstream_st* stream);
}  // namespace lmx::tree
