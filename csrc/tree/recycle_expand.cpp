// csrc/tree/recycle_expand.cpp: CPU side of recycle_expand.h. Bound by the latency of the matrix's
// rows.
#include "recycle_expand.h"

#include <algorithm>

#include "trees_cpu.h"

namespace lmx::tree::LMX_ISA {
namespace {
constexpr auto kOp = "tree_recycle_expand";

// Every node of a template is good, and none is too deep.
int32_t template_status(const RecycleExpandParams& p) {
  int32_t depth[kMaxNodes];
  for (int32_t i = 0; i < p.num_nodes; ++i) {
    if (!is_good_template_node(p, i)) return i;
    depth[i] = i == 0 ? 0 : depth[p.template_parent[i]] + 1;
    if (depth[i] > kMaxRecycleDepth) return i;
  }
  return -1;
}

std::string say_sequence(const RecycleExpandParams& p, int64_t seq, int32_t bits) {
  if (bits & kStatusBadToken && (p.roots[seq] < 0 || p.roots[seq] >= p.vocab_size))
    return "a root in [0, " + std::to_string(p.vocab_size) + ")" + got("roots", seq, p.roots[seq]);
  if (bits & kStatusBadToken)
    return "a matrix of candidates in [-1, " + std::to_string(p.vocab_size) + ")";
  if (p.sizes && (p.sizes[seq] < 0 || p.sizes[seq] > p.num_nodes))
    return "a size in [0, " + std::to_string(p.num_nodes) + "]" + got("sizes", seq, p.sizes[seq]);
  return "a matrix id in [0, " + std::to_string(p.num_matrices) + "), got " +
         std::to_string(matrix_of(p, seq));
}

// Tokens of the sequence's nodes into padded; status bits.
int32_t expand(const RecycleExpandParams& p, int64_t seq) {
  int64_t* tokens = p.padded + seq * p.num_nodes;
  const int64_t size = p.sizes ? p.sizes[seq] : p.num_nodes;
  const int32_t* matrix = p.matrix + matrix_of(p, seq) * p.vocab_size * p.k;
  for (int32_t i = 0; i < size; ++i) {
    const int64_t above = i == 0 ? p.roots[seq] : tokens[p.template_parent[i]];
    tokens[i] = i == 0 || above < 0 ? above : matrix[above * p.k + p.template_rank[i]];
    if (tokens[i] < -1 || tokens[i] >= p.vocab_size) return kStatusBadToken;
  }
  std::fill(tokens + size, tokens + p.num_nodes, -1);
  return kStatusOk;
}

// Packs a sequence's nodes behind `row`; the next free row.
int32_t pack(const RecycleExpandParams& p, int64_t seq, int32_t row) {
  int32_t local[kMaxNodes];
  const int64_t* tokens = p.padded + seq * p.num_nodes;
  const int32_t first = row;
  for (int32_t i = 0; i < p.num_nodes; ++i) {
    if (tokens[i] < 0) continue;
    local[i] = row - first;
    p.tokens[row] = tokens[i];
    p.parents[row] = i == 0 ? -1 : local[p.template_parent[i]];
    p.nodes[row++] = i;
  }
  return row;
}
}  // namespace

void recycle_expand_cpu(const RecycleExpandParams& p) {
  const int32_t bad = template_status(p);
  if (bad >= 0 && !p.status)
    throw std::invalid_argument(
        "lmx::tree_recycle_expand: expected a template that is a tree of at most " +
        std::to_string(kMaxRecycleDepth) + " levels with ranks in [0, " + std::to_string(p.k) +
        ")" + got("template_parent", bad, p.template_parent[bad]) + " and" +
        got("template_rank", bad, p.template_rank[bad]).substr(5));
  int32_t row = 0;
  for (int64_t seq = 0; seq < p.num_seqs; ++seq) {
    p.indptr[seq] = row;
    if (p.status && p.status[seq]) continue;
    int32_t bits = (bad >= 0 ? kStatusBadTree : 0) | expand_status(p, seq);
    if (!bits) bits = expand(p, seq);
    if (bits && !p.status) complain(kOp, seq, say_sequence(p, seq, bits));
    if (bits)
      p.status[seq] |= bits;
    else
      row = pack(p, seq, row);
  }
  p.indptr[p.num_seqs] = row;
  const int64_t capacity = p.num_seqs * p.num_nodes;
  std::fill(p.tokens + row, p.tokens + capacity, -1);
  std::fill(p.parents + row, p.parents + capacity, -1);
  std::fill(p.nodes + row, p.nodes + capacity, -1);
}
}  // namespace lmx::tree::LMX_ISA
