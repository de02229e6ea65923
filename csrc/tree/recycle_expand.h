// csrc/tree/recycle_expand.h: draft trees from matrices of recycled tokens. Row t of a matrix holds
// k candidates for the token after t, the likeliest first, -1 where there is none. A template is a
// tree whose node i is the candidate of rank template_rank[i] after its parent's token:
//   token(0) = roots[b],  token(i) = matrix[token(template_parent[i]), template_rank[i]]
// Sequence b takes the template's first sizes[b] nodes (all without sizes), without those that have
// no candidate and what hangs below them. Trees are packed; `nodes` says which node of the template
// a row is. Rows beyond the last tree are -1. A bad root, size, matrix id or candidate leaves the
// sequence without rows, and so does a bad template all of them.
// Source: Token Recycling (Luo et al. 2024, arXiv 2408.08696), section 3.
#pragma once
#include "../common/isa.h"
#include "trees.h"

namespace lmx::tree {
constexpr int kMaxRecycleDepth = 32;  // of a template

struct RecycleExpandParams {
  const int32_t* matrix;           // [num_matrices, vocab_size, k]
  const int64_t* roots;            // [num_seqs]
  const int32_t* template_parent;  // [num_nodes]: -1, then 0 <= parent < i
  const int32_t* template_rank;    // [num_nodes], in [0, k); that of the root is not used
  const int32_t* sizes;            // [num_seqs] or null: num_nodes
  const int32_t* matrix_ids;       // [num_seqs] or null: 0 of one matrix, else the sequence's own
  int64_t num_matrices, vocab_size, k, num_seqs, num_nodes;
  int64_t* padded;   // workspace [num_seqs, num_nodes]: tokens, -1 = no such node
  int32_t* counts;   // workspace [num_seqs]
  int64_t* tokens;   // [num_seqs * num_nodes]
  int32_t* parents;  // [num_seqs * num_nodes]
  int32_t* indptr;   // [num_seqs + 1]
  int32_t* nodes;    // [num_seqs * num_nodes]
  int32_t* status;   // [num_seqs] or null
};

LMX_HD int64_t matrix_of(const RecycleExpandParams& p, int64_t seq) {
  if (p.matrix_ids) return p.matrix_ids[seq];
  return p.num_matrices == 1 ? 0 : seq;
}

LMX_HD bool is_good_template_node(const RecycleExpandParams& p, int32_t i) {
  const int32_t parent = p.template_parent[i], rank = p.template_rank[i];
  if (i == 0) return parent == -1;
  return parent >= 0 && parent < i && rank >= 0 && rank < p.k;
}

// Bits of a sequence's own arguments.
LMX_HD int32_t expand_status(const RecycleExpandParams& p, int64_t seq) {
  const int64_t root = p.roots[seq], id = matrix_of(p, seq);
  const bool is_size = !p.sizes || (p.sizes[seq] >= 0 && p.sizes[seq] <= p.num_nodes);
  return (root >= 0 && root < p.vocab_size ? 0 : kStatusBadToken) |
         (id >= 0 && id < p.num_matrices && is_size ? 0 : kStatusBadValue);
}

// How deep a node is, or kMaxRecycleDepth + 1 if deeper than that; parents must be before nodes.
LMX_HD int template_depth(const RecycleExpandParams& p, int32_t i) {
  int depth = 0;
  for (; i > 0 && depth <= kMaxRecycleDepth; i = p.template_parent[i]) ++depth;
  return depth;
}

struct Recycled {
  int64_t token;  // -1: no candidate on the way
  int32_t bits;
};

// The token of node i of a good template: up the template for the ranks, then down the matrix.
LMX_HD Recycled recycled_token(const RecycleExpandParams& p, int64_t seq, int32_t i) {
  int32_t rank[kMaxRecycleDepth];
  int depth = 0;
  for (int32_t node = i; node > 0; node = p.template_parent[node])
    rank[depth++] = p.template_rank[node];
  const int32_t* matrix = p.matrix + matrix_of(p, seq) * p.vocab_size * p.k;
  int64_t token = p.roots[seq];
  while (depth > 0 && token >= 0) {
    token = matrix[token * p.k + rank[--depth]];
    if (token < -1 || token >= p.vocab_size) return {-1, kStatusBadToken};
  }
  return {token, kStatusOk};
}

LMX_CPU_KERNEL(recycle_expand_cpu, RecycleExpandParams)
void recycle_expand_cuda(const RecycleExpandParams& p, CUstream_st* stream);
}  // namespace lmx::tree
