// csrc/ngram/next.h: what may follow a string of tokens, from its ranges.
//   next_prob: num[q] = count of the string followed by tok[q], den[q] = count of the string
//   ntd:       all tokens that follow query q's string, ascending, with their counts
//   ntd_dense: probs[q, y] = num / den;   ntd_topk: the k most frequent, ties by the smaller token
// `rng` and `depth` are what find and longest_suffix return. That the document ends counts as the
// token eos_id (together with that token itself where a document holds it); without eos_id it is
// listed under -1, and ntd_dense leaves it out. At depth 0 no document ends.
// max_support > 0 approximates as infini-gram does, from samples (Cells below), with `unit` the
// least power of two such that den <= unit * max_support. Source: infini-gram, arXiv 2401.17377,
// section 3 and appendix A.
#pragma once
#include "../common/isa.h"
#include "search.h"

struct CUstream_st;
namespace lmx::ngram {
struct NextParams {
  Index index;
  const int64_t* rng;    // [num_queries, S, 2]
  const int32_t* depth;  // [num_queries]
  int64_t num_queries;
  int64_t max_support;
  int32_t* status;  // [num_queries] or null
};
struct NextProbParams {
  NextParams next;
  const int64_t* tok;  // [num_queries]
  int64_t *num, *den;  // [num_queries]
};
struct NtdParams {
  NextParams next;
  int64_t capacity;
  int64_t* crow;  // [num_queries + 1]
  int64_t* tok;   // [capacity]; -1 past the last row that fits
  int64_t* num;   // [capacity]; 0 past it
  int64_t* den;   // [num_queries]
  bool* approx;   // [num_queries]
  // Workspaces of the CUDA side.
  int64_t* runs;               // [num_queries * (S + 1) + 1]
  int64_t *run_tok, *run_num;  // [capacity]
};
// Where the last row that fits ends; a row that does not fit is left out.
LMX_HD int64_t end_of_rows(const NtdParams& p) {
  int64_t lo = 0, hi = p.next.num_queries;  // the last q whose crow[q] <= capacity
  while (lo < hi) {
    const int64_t mid = (lo + hi + 1) >> 1;
    if (p.crow[mid] <= p.capacity)
      lo = mid;
    else
      hi = mid - 1;
  }
  return p.crow[lo];
}
struct NtdDenseParams {
  NextParams next;
  float* probs;  // [num_queries, vocab_size]
};
struct NtdTopkParams {
  NextParams next;
  int64_t k;
  int64_t *tok, *num;  // [num_queries, k]; -1 and 0 where fewer tokens follow
};

// One shard's range of a string as a row of cells, each of which counts for one token: single
// ranks, or, with unit > 1, the samples of infini-gram: the range is halved until its parts are
// shorter than 4 * unit, a part is cut into pieces of `unit` (the last is shorter), and a piece
// counts for the token at its middle. A part has four cells, some of them without ranks. Cells of
// the same token stand together.
template <typename Order>
struct Cells {
  Next<Order> next;
  Range range;
  int64_t unit;
  int depth = 0;  // halvings

  LMX_HD void set_unit(int64_t ranks) {
    unit = ranks;
    for (depth = 0; unit > 1 && (range.hi - range.lo) >> depth >= 4 * unit;) ++depth;
  }
  LMX_HD int64_t size() const {
    if (range.lo >= range.hi) return 0;
    return unit == 1 ? range.hi - range.lo : int64_t{4} << depth;
  }
  LMX_HD Range part(int64_t i) const {
    Range r = range;
    for (int bit = depth - 1; bit >= 0; --bit) {
      const int64_t mid = (r.lo + r.hi) >> 1;
      if (i >> bit & 1)
        r.lo = mid;
      else
        r.hi = mid;
    }
    return r;
  }
  LMX_HD Range ranks(int64_t cell) const {
    const Range r = part(cell >> 2);
    const int64_t begin = r.lo + (cell & 3) * unit, lo = begin < r.hi ? begin : r.hi;
    return {lo, lo + unit < r.hi ? lo + unit : r.hi};
  }
  LMX_HD int64_t rank(int64_t cell) const {  // where it begins
    if (unit == 1) return range.lo + cell;
    return cell == size() ? range.hi : ranks(cell).lo;
  }
  LMX_HD int64_t sample(int64_t cell) const {  // the rank whose token it counts for
    if (unit == 1) return range.lo + cell;
    const Range r = ranks(cell);
    return r.lo < r.hi ? (r.lo + r.hi) >> 1 : r.lo - 1;
  }
  LMX_HD int64_t place(int64_t cell) { return next.place(sample(cell)); }
  // The first cell in [from, to) whose place is above `place`: steps of `gap`, doubled, then
  // halves; gap 0: halves from the start.
  LMX_HD int64_t first_above(int64_t from, int64_t to, int64_t place_below, int64_t gap) {
    while (from < to) {
      const int64_t probe = gap > 0 && gap <= to - from ? from + gap - 1 : (from + to) >> 1;
      if (place(probe) <= place_below)
        from = probe + 1, gap *= 2;
      else
        to = probe, gap = 0;
    }
    return from;
  }
  LMX_HD int64_t end_of_run(int64_t from, int64_t to, int64_t place_of_run) {
    return first_above(from, to, place_of_run, 1);
  }
  LMX_HD int64_t count(int64_t place_wanted) {  // ranks that count for it
    int64_t begin = 0, end = 0;
    for (int side = 0; side < 2; ++side) {
      begin = end;
      end = first_above(end, size(), place_wanted - 1 + side, side);
    }
    return rank(end) - rank(begin);
  }
};

template <typename Order>
LMX_HD Cells<Order> cells_of(const NextParams& p, int64_t q, int64_t s, int64_t unit,
                             int32_t& bits) {
  Cells<Order> cells;
  cells.range = {0, 0}, cells.next.corrupt = false;
  if (!shard_at(p.index, s, cells.next.shard)) bits |= kStatusCorrupt;
  cells.next.depth = p.depth[q];
  bool bad = p.depth[q] < 0;
  const Range r = checked(cells.next.shard, p.rng + (q * p.index.num_shards + s) * 2, bad);
  if (bad)
    bits |= kStatusBadValue;
  else
    cells.range = r;
  cells.set_unit(unit);
  return cells;
}

struct Support {
  int64_t den, unit;
};
// The count of query q's string, and how many ranks make a cell.
template <typename Order>
LMX_HD Support support_of(const NextParams& p, int64_t q, int32_t& bits) {
  Support support{0, 1};
  int64_t ranks = 0;
  for (int64_t s = 0; s < p.index.num_shards; ++s) {
    const Cells<Order> cells = cells_of<Order>(p, q, s, 1, bits);
    ranks += cells.range.hi - cells.range.lo;
    support.den += cells.next.shard.sign * (cells.range.hi - cells.range.lo);
  }
  if (support.den < 0) support.den = 0, bits |= kStatusCorrupt;
  if (p.max_support > 0)
    while (ranks > support.unit * p.max_support) support.unit *= 2;
  return support;
}

// The counts behind query q's probability of p.tok[q].
template <typename Order>
LMX_HD void next_prob_of(const NextProbParams& p, int64_t q, int32_t& bits) {
  const Index& index = p.next.index;
  const Support support = support_of<Order>(p.next, q, bits);
  int64_t num = 0;
  for (int64_t s = 0; s < index.num_shards; ++s) {
    Cells<Order> cells = cells_of<Order>(p.next, q, s, 1, bits);
    Next<Order>& next = cells.next;
    int64_t here = 0;
    if (is_token(p.tok[q], index.vocab_size))
      here += next.count(cells.range, next.place_of(p.tok[q]));
    if (p.tok[q] == index.eos_id) here += next.count_end(cells.range);
    num += next.shard.sign * here;
    if (next.corrupt) bits |= kStatusCorrupt;
  }
  if (num < 0) num = 0, bits |= kStatusCorrupt;
  p.num[q] = num, p.den[q] = support.den;
}

LMX_CPU_KERNEL(next_prob_cpu, NextProbParams)
LMX_CPU_KERNEL(ntd_cpu, NtdParams)
LMX_CPU_KERNEL(ntd_dense_cpu, NtdDenseParams)
LMX_CPU_KERNEL(ntd_topk_cpu, NtdTopkParams)
void next_prob_cuda(const NextProbParams& p, CUstream_st* stream);
void ntd_cuda(const NtdParams& p, CUstream_st* stream);
void ntd_dense_cuda(const NtdDenseParams& p, CUstream_st* stream);
void ntd_topk_cuda(const NtdTopkParams& p, CUstream_st* stream);
}  // namespace lmx::ngram
