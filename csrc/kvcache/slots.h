// csrc/kvcache/slots.h: the keys and values at logical slots of sequences, as packed tokens and
// back.
//   gather   key[l, b * n + i, h], value[...] = kv_pages at slot slots[b, r, i] of sequence b
//   scatter  the way back
// r is the table row of head h: h, or 0 where all heads share one. Slot -1 is a token of zeros /
// not stored. A sequence with a slot at or past its num_slots, or with a needed table entry that is
// 0 or outside the pool, is bad: all its tokens are zeros / none is stored. Entries that no slot
// needs are not read.
#pragma once
#include "../common/isa.h"
#include "layout.h"

namespace lmx::kvcache {
struct SlotsParams {
  Pool pool;
  Rows rows;                   // num_tokens = num_seqs * per_seq
  const int32_t* block_table;  // [num_seqs, table_rows, max_pages]
  const int32_t* num_slots;    // [num_seqs, table_rows]
  const int32_t* slots;        // [num_seqs, table_rows, per_seq]
  int64_t num_seqs, table_rows, max_pages, per_seq;
  bool gather;
  int32_t* bad;     // workspace [num_seqs]: written by the check; null: no sequence can be bad
  int32_t* status;  // [num_seqs], or null
};

LMX_HD int64_t page_of(const SlotsParams& p, int64_t seq, int64_t row, int64_t slot) {
  return p.block_table[(seq * p.table_rows + row) * p.max_pages + slot / p.pool.page_size];
}

// The status of one entry of `slots`.
LMX_HD int32_t slot_status(const SlotsParams& p, int64_t seq, int64_t row, int64_t i) {
  const int64_t at = seq * p.table_rows + row, slot = p.slots[at * p.per_seq + i];
  if (slot == -1) return kStatusOk;
  if (slot < -1 || slot >= p.num_slots[at] || slot >= p.max_pages * p.pool.page_size)
    return kStatusTooMany;
  const int64_t page = page_of(p, seq, row, slot);
  return page > 0 && page < p.pool.num_pages ? kStatusOk : kStatusBadPage;
}

// -1 also in a bad sequence.
LMX_HD int64_t slot_of(const SlotsParams& p, int64_t, int64_t token, int64_t head) {
  const int64_t seq = token / p.per_seq, row = p.table_rows > 1 ? head : 0;
  if (p.bad && p.bad[seq]) return -1;
  const int64_t slot = p.slots[(seq * p.table_rows + row) * p.per_seq + token % p.per_seq];
  if (slot < 0) return -1;
  return page_of(p, seq, row, slot) * p.pool.page_size + slot % p.pool.page_size;
}
LMX_HD bool one_slot_for_all_heads(const SlotsParams& p) { return p.table_rows == 1; }

LMX_CPU_KERNEL(slots_cpu, SlotsParams)
void slots_cuda(const SlotsParams& p, CUstream_st* stream);
}  // namespace lmx::kvcache
