// csrc/tree/commit.cpp: CPU side of commit.h.
#include "commit.h"

#include <algorithm>

#include "trees_cpu.h"

namespace lmx::tree::LMX_ISA {
namespace {
constexpr auto kOp = "tree_commit";

std::string say_entry(const CommitParams& p, int64_t seq, int64_t r, int64_t j, int32_t bits) {
  if (bits & kStatusBadTree)
    return "a path of ascending nodes from 0" +
           got("path", seq * p.width + j, p.path[seq * p.width + j]);
  const int64_t row = seq * p.table_rows + r, slot = int64_t{p.num_slots[row]} + j;
  if (bits & kStatusTooMany)
    return "num_slots in [0, " + std::to_string(p.max_pages * p.page_size) + ") for entry " +
           std::to_string(j) + got("num_slots", row, p.num_slots[row]);
  const int64_t at = row * p.max_pages + slot / p.page_size;
  return "a page in [1, " + std::to_string(p.num_pages) + ")" +
         got("block_table", at, p.block_table[at]);
}

int32_t check(const CommitParams& p, int64_t seq, Span span, int64_t count) {
  if (!is_good_count(p, count)) {
    report(p.trees, seq, kStatusBadValue, kOp, [&] {
      return "accept_length in [-1, " + std::to_string(p.width) + ")" +
             got("accept_length", seq, p.accept_length[seq]);
    });
    return kStatusBadValue;
  }
  int32_t all = 0;
  for (int64_t r = 0; r < p.table_rows; ++r)
    for (int64_t j = 0; j < count; ++j) {
      const int32_t bits = entry_status(p, seq, span, r, j);
      if (bits && !p.trees.status) complain(kOp, seq, say_entry(p, seq, r, j, bits));
      all |= bits;
    }
  if (all) p.trees.status[seq] |= all;
  return all;
}
}  // namespace

void commit_cpu(const CommitParams& p) {
  std::fill_n(p.slot_mapping, p.table_rows * p.trees.num_rows, int64_t{-1});
  parallel_for(0, p.trees.num_seqs, kGrainSeqs, [&](int64_t begin, int64_t end) {
    for (int64_t seq = begin; seq < end; ++seq) {
      const Span span = checked_span(p.trees, seq, kOp);
      const int64_t count = num_committed(p, seq, span);
      if (check(p, seq, span, count)) continue;
      for (int64_t r = 0; r < p.table_rows; ++r)
        for (int64_t j = 0; j < count; ++j)
          p.slot_mapping[r * p.trees.num_rows + span.begin + p.path[seq * p.width + j]] =
              slot_of(p, seq, r, j).index;
    }
  });
}
}  // namespace lmx::tree::LMX_ISA
