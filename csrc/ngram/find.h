// csrc/ngram/find.h: the range and the count of strings of tokens.
//   rng[q,s] = ranks [lo, hi) of shard s whose suffixes begin with query q; lo = hi where none does
//   cnt[q]   = sum over s of sign_s * (hi - lo)
// The empty query has the range of all. A token outside [0, vocab_size) occurs nowhere. hint[q,s] =
// (lo, hi, depth) is a range whose suffixes are known to begin with the query's first `depth`
// tokens, such as the range of a shorter query.
// Source: suffix arrays, Manber and Myers 1993, section 3; infini-gram, arXiv 2401.17377,
// section 3.
#pragma once
#include "../common/isa.h"
#include "search.h"

struct CUstream_st;
namespace lmx::ngram {
struct FindParams {
  Index index;
  const int64_t* qtok;  // [num_tokens]
  const int64_t* qoff;  // [num_queries + 1]
  const int64_t* hint;  // [num_queries, S, 3] or null
  int64_t num_queries, num_tokens;
  int64_t* rng;     // [num_queries, S, 2]
  int64_t* cnt;     // [num_queries]
  int32_t* status;  // [num_queries] or null
};

// Sets a finder to query `q` in shard `s`; `known` is how many of its tokens come before the first
// that occurs nowhere.
template <typename Order, typename Id>
LMX_HD int32_t start_find(const FindParams& p, const Shard<Order>& shard, int64_t q, int64_t s,
                          const Id* query, int64_t size, int64_t known, Finder<Order, Id>& finder) {
  if (known < size) {
    finder.start(shard, query, 0, {0, 0}, 0);
    return 0;
  }
  if (!p.hint) {
    finder.start(shard, query, size);
    return 0;
  }
  const int64_t* hint = p.hint + (q * p.index.num_shards + s) * 3;
  bool bad = hint[2] < 0 || hint[2] > size;
  const Range range = checked(shard, hint, bad);
  finder.start(shard, query, size, bad ? Range{0, 0} : range, bad ? size : hint[2]);
  return bad ? kStatusBadValue : 0;
}

LMX_CPU_KERNEL(find_cpu, FindParams)
void find_cuda(const FindParams& p, CUstream_st* stream);
}  // namespace lmx::ngram
