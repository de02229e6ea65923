// csrc/tree/recycle_update.h: what a verified step teaches a matrix of recycled tokens. For every
// row i of the trees, accepted or not,
//   matrix[tokens[i]] = the k tokens with the largest logits of row i, descending, lower id first
// where a token with logit -inf or NaN is no candidate: the rest of the row is -1. Of several rows
// with the same token and matrix one writes: with a path, rows on it come before others; else, and
// then, the largest row. Rows of the matrix are written whole, by one row of logits each. A
// sequence with a bad token, matrix id or path teaches nothing. Source: Token Recycling (Luo et al.
// 2024, arXiv 2408.08696), section 3; there the order is open.
#pragma once
#include <cmath>

#include "../common/isa.h"
#include "trees.h"

namespace lmx::tree {
constexpr int kMaxCandidates = 16;  // k

struct RecycleUpdateParams {
  Trees trees;
  const int64_t* tokens;      // [num_rows]
  const float* logits;        // [num_rows, vocab_size]
  const int32_t* path;        // [num_seqs, width] or null
  const int32_t* matrix_ids;  // [num_seqs] or null: 0 of one matrix, else the sequence's own
  int64_t width, num_matrices, vocab_size, k;
  int32_t* owner;   // workspace [num_rows]: the matrix that a row writes to, -1 = none
  int64_t* weight;  // workspace [num_rows]: of rows with one token the heaviest writes
  int32_t* matrix;  // [num_matrices, vocab_size, k]
};

LMX_HD int64_t matrix_of(const RecycleUpdateParams& p, int64_t seq) {
  if (p.matrix_ids) return p.matrix_ids[seq];
  return p.num_matrices == 1 ? 0 : seq;
}

LMX_HD bool is_good_matrix(const RecycleUpdateParams& p, int64_t seq) {
  const int64_t id = matrix_of(p, seq);
  return id >= 0 && id < p.num_matrices;
}

LMX_HD bool is_token(const RecycleUpdateParams& p, int64_t token) {
  return token >= 0 && token < p.vocab_size;
}

LMX_HD int64_t weight_of(const RecycleUpdateParams& p, int64_t seq, Span span, int32_t i) {
  bool is_accepted = false;
  for (int64_t j = 0; p.path && j < p.width; ++j)
    is_accepted = is_accepted || p.path[seq * p.width + j] == i;
  return span.begin + i + (is_accepted ? p.trees.num_rows : 0);
}

LMX_HD bool loses(const RecycleUpdateParams& p, int64_t row, int64_t other) {
  return p.owner[other] == p.owner[row] && p.tokens[other] == p.tokens[row] &&
         p.weight[other] > p.weight[row];
}

// The kCapacity largest of the pairs that were offered, descending; of equal values the one offered
// first, so offers come by ascending id.
template <int kCapacity>
struct Largest {
  float value[kCapacity];
  int32_t id[kCapacity];

  LMX_HD void clear() {
    for (int i = 0; i < kCapacity; ++i) value[i] = -INFINITY, id[i] = -1;
  }
  // Least value that is kept.
  LMX_HD float least() const { return value[kCapacity - 1]; }
  LMX_HD void offer(float x, int32_t token) {
    if (!(x > least())) return;
    for (int i = kCapacity - 1; i >= 0; --i) {
      const bool is_here = i == 0 || value[i - 1] >= x;
      value[i] = is_here ? x : value[i - 1];
      id[i] = is_here ? token : id[i - 1];
      if (is_here) break;
    }
  }
};

LMX_CPU_KERNEL(recycle_update_cpu, RecycleUpdateParams)
void recycle_update_cuda(const RecycleUpdateParams& p, CUstream_st* stream);
}  // namespace lmx::tree
