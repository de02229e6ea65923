// csrc/tree/commit.h: where the accepted rows of a step go in the page pool. Of sequence b, whose
// rows of the table hold L slots, node path[b, j] goes to slot L + j for j = 0 .. accept_length[b]:
//   slot_mapping[r, indptr[b] + path[b, j]] = page * page_size + (L + j) % page_size
//   page = block_table[b, r, (L + j) / page_size],  L = num_slots[b, r]
// and every other row gets -1, "do not store": it is what kv_append takes. A sequence with a bad
// path, table or count gets -1 everywhere and a bit; entries that are not needed are not read. Page
// 0 is the null page, which nobody owns.
#pragma once
#include "../common/isa.h"
#include "trees.h"

namespace lmx::tree {
struct CommitParams {
  Trees trees;
  const int32_t* path;           // [num_seqs, width]
  const int32_t* accept_length;  // [num_seqs]
  const int32_t* block_table;    // [num_seqs, table_rows, max_pages]
  const int32_t* num_slots;      // [num_seqs, table_rows]
  int64_t width;
  int64_t table_rows;
  int64_t max_pages;
  int64_t page_size;
  int64_t num_pages;      // of the pool
  int64_t* slot_mapping;  // [table_rows, num_rows]
};

// The nodes that a sequence commits: 0 for one without rows.
LMX_HD int64_t num_committed(const CommitParams& p, int64_t seq, Span span) {
  return span.size > 0 ? int64_t{p.accept_length[seq]} + 1 : 0;
}

LMX_HD bool is_good_count(const CommitParams& p, int64_t count) {
  return count >= 0 && count <= p.width;
}

// Whether step j of the path is a node after the step before it, so that no row is stored twice.
LMX_HD bool is_good_step(const CommitParams& p, int64_t seq, Span span, int64_t j) {
  const int32_t* path = p.path + seq * p.width;
  return j == 0 ? path[0] == 0 : path[j] > path[j - 1] && path[j] < span.size;
}

struct Slot {
  int64_t index;  // in the pool
  int32_t bits;
};

// Where entry j of the path goes by row r of the table.
LMX_HD Slot slot_of(const CommitParams& p, int64_t seq, int64_t r, int64_t j) {
  const int64_t length = p.num_slots[seq * p.table_rows + r];
  if (length < 0 || length + j >= p.max_pages * p.page_size) return {-1, kStatusTooMany};
  const int64_t slot = length + j;
  const int32_t* table = p.block_table + (seq * p.table_rows + r) * p.max_pages;
  const int32_t page = table[slot / p.page_size];
  if (page <= 0 || page >= p.num_pages) return {-1, kStatusBadPage};
  return {page * p.page_size + slot % p.page_size, kStatusOk};
}

// The bits of entry (r, j) of a sequence's commit.
LMX_HD int32_t entry_status(const CommitParams& p, int64_t seq, Span span, int64_t r, int64_t j) {
  return (is_good_step(p, seq, span, j) ? 0 : kStatusBadTree) | slot_of(p, seq, r, j).bits;
}

LMX_CPU_KERNEL(commit_cpu, CommitParams)
void commit_cuda(const CommitParams& p, CUstream_st* stream);
}  // namespace lmx::tree
