// csrc/tree/trees.h: what every tree op reads: draft trees of a batch, packed one after another.
//
// Sequence b owns rows indptr[b] .. indptr[b+1] - 1; its node i is row indptr[b] + i, and all links
// are such local ids. Node 0 is the root, the pending token. A sequence without rows takes no step.
// Rows at indptr[num_seqs] and beyond belong to nobody. A sequence whose status holds a bit, before
// the op or because of it, counts as one without rows.
#pragma once
#include "../common/status.h"
struct CUstream_st;  // cudaStream_t without a CUDA header

namespace lmx::tree {
constexpr int kMaxNodes = 1024;  // of one tree

struct Trees {
  const int32_t* indptr;  // [num_seqs + 1]
  int64_t num_seqs;
  int64_t num_rows;
  int32_t* status;  // [num_seqs] or null
};

struct Span {
  int64_t begin;
  int32_t size;  // 0 with a bit
  int32_t bits;
};

// The rows of a sequence. They are inside the tensor and no other sequence's if every offset before
// them is at most `begin`; so a bad offset costs its own sequence, and later ones that would
// overlap.
LMX_HD Span span_of(const Trees& t, int64_t seq) {
  if (t.status && t.status[seq]) return {0, 0, kStatusOk};
  const int64_t begin = t.indptr[seq], end = t.indptr[seq + 1];
  bool ok = begin >= 0 && begin <= end && end <= t.num_rows && t.indptr[0] == 0;
  for (int64_t i = 0; i < seq; ++i) ok = ok && t.indptr[i] <= begin;
  if (!ok) return {0, 0, kStatusBadOffsets};
  if (end - begin > kMaxNodes) return {0, 0, kStatusTooMany};
  return {begin, static_cast<int32_t>(end - begin), kStatusOk};
}
}  // namespace lmx::tree
