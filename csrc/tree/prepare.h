// csrc/tree/prepare.h: what a tree's parents imply.
//   depth[i]        = 0 at the root, depth[parents[i]] + 1 elsewhere
//   first_child[i]  = the least j with parents[j] == i, or -1
//   next_sibling[i] = the least j > i with parents[j] == parents[i], or -1
//   ancestors[i]    : bit j % 32 of word j / 32 is 1 iff node j is i or above it
// parents[0] is -1, and 0 <= parents[i] < i elsewhere. Rows of no sequence get depth 0, links -1
// and no bits. Source: the retrieve_next_token and retrieve_next_sibling of SGLang's kernels.
#pragma once
#include "../common/isa.h"
#include "trees.h"

namespace lmx::tree {
struct PrepareParams {
  Trees trees;
  const int32_t* parents;  // [num_rows]
  const int64_t* tokens;   // [num_rows] or null: not checked
  int64_t vocab_size;
  int64_t max_nodes;
  int64_t num_words;      // ceil(max_nodes / 32)
  int32_t* depth;         // [num_rows]
  int32_t* first_child;   // [num_rows]
  int32_t* next_sibling;  // [num_rows]
  uint32_t* ancestors;    // [num_rows, num_words]
};

LMX_HD int32_t node_status(const PrepareParams& p, int64_t begin, int32_t i) {
  const int32_t parent = p.parents[begin + i];
  const bool is_tree = i == 0 ? parent == -1 : parent >= 0 && parent < i;
  const bool is_token =
      !p.tokens || (p.tokens[begin + i] >= 0 && p.tokens[begin + i] < p.vocab_size);
  return (is_tree ? 0 : kStatusBadTree) | (is_token ? 0 : kStatusBadToken);
}

LMX_CPU_KERNEL(prepare_cpu, PrepareParams)
void prepare_cuda(const PrepareParams& p, CUstream_st* stream);
}  // namespace lmx::tree
