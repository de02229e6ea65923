// csrc/tree/verify_target.h: lossless sampling for drafts chosen without looking at the random
// numbers. At a node with law p and total weight P = sum p, one coin u decides among the children:
//   F = 0;  for each child c with token y not seen among these children:
//     F += p(y);  accept c if u * P < F / threshold_acc,
//                 or if threshold_single < 1 and p(y) >= threshold_single * P
//   none accepted: the last token is drawn from p without the seen tokens, by u_final
// It is inverse-transform sampling with the children first: a child is accepted with probability
// p(y) / P, so both thresholds at 1 give p exactly; lower ones are lossy. Equal siblings count
// once. If nothing is left outside the children though the coin failed, by rounding, the last child
// with p > 0 is accepted. Sums and draws go in the order of draw.h. Source: Leviathan et al. 2023
// (arXiv 2211.17192) for the losslessness; typical thresholds as in SGLang.
#pragma once
#include "../common/draw.h"
#include "../common/isa.h"
#include "walk.h"

namespace lmx::tree {
struct VerifyTargetParams {
  WalkParams walk;
  const float* probs;    // [num_rows, vocab_size]: weights >= 0, finite; only rows of the walk read
  const float* u_node;   // [num_rows], in [0, 1): the coin of each node
  const float* u_final;  // [num_seqs], in [0, 1)
  int64_t vocab_size;
  int64_t num_blocks;  // ceil(vocab_size / kDrawBlock)
  double threshold_single;
  double threshold_acc;
  float* sums;  // workspace [num_seqs, num_blocks]: sums of a row's blocks
};

LMX_HD bool is_uniform(float u) { return u >= 0.f && u < 1.f; }

// The total of chunk g: its blocks one after the other.
LMX_HD double chunk_total(const float* sums, int64_t num_blocks, int64_t g) {
  const int64_t end = (g + 1) * kDrawChunk < num_blocks ? (g + 1) * kDrawChunk : num_blocks;
  double total = 0.0;
  for (int64_t b = g * kDrawChunk; b < end; ++b) total += static_cast<double>(sums[b]);
  return total;
}

// Whether the walk has met the token among the siblings before `child`.
LMX_HD bool seen_before(const TreeView& t, int32_t node, int32_t child, int64_t token) {
  for (int32_t c = t.first_child[node]; c != child; c = t.next_sibling[c])
    if (t.tokens[c] == token) return true;
  return false;
}

// The block that holds a child's token; -1 if it is no token, and such a child is never accepted.
LMX_HD int64_t block_of(const VerifyTargetParams& p, int64_t token) {
  return token >= 0 && token < p.vocab_size ? token / kDrawBlock : -1;
}

// Whether a token is one of the children; their links have been checked.
LMX_HD bool is_child_token(const TreeView& t, int32_t node, int64_t token) {
  return seen_before(t, node, -1, token);
}

struct Coin {
  int32_t child;       // accepted, or -1
  int32_t last_child;  // the last one with positive weight, or -1
  int32_t bits;
};

// The children of a node against its coin. `row` are the node's weights, `total` their sum.
LMX_HD Coin toss(const VerifyTargetParams& p, const TreeView& t, const float* row, double total,
                 float u, Walk& walk) {
  Coin coin{-1, -1, kStatusOk};
  double mass = 0.0;
  const double target = static_cast<double>(u) * total;
  Siblings siblings(t, walk.node, &walk.left);
  for (; siblings.child >= 0; siblings.next(t)) {
    const int64_t y = t.tokens[siblings.child];
    if (block_of(p, y) < 0 || seen_before(t, walk.node, siblings.child, y)) continue;
    const double weight = static_cast<double>(row[y]);
    mass += weight;
    if (weight > 0.0) coin.last_child = siblings.child;
    const bool is_single = p.threshold_single < 1.0 && weight >= p.threshold_single * total;
    if (coin.child < 0 && (target < mass / p.threshold_acc || is_single)) {
      coin.child = siblings.child;
      break;
    }
  }
  coin.bits = siblings.bits;
  return coin;
}

LMX_CPU_KERNEL(verify_target_cpu, VerifyTargetParams)
void verify_target_cuda(const VerifyTargetParams& p, CUstream_st* stream);
}  // namespace lmx::tree
