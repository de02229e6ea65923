// csrc/ngram/longest_prefix.h: for every start in a text, how far the index holds it.
//   len[i] = the largest n such that tokens i .. i + n - 1 of the same text occur, 0 if none does
// One search per start for all that follows; where that is absent, the answer is the larger number
// of tokens shared with the suffixes at both sides of the place it would have. Not for indexes with
// subtracted shards.
// Source: infini-gram's "creativity", arXiv 2401.17377, appendix.
#pragma once
#include "../common/isa.h"
#include "search.h"

struct CUstream_st;
namespace lmx::ngram {
struct LongestPrefixParams {
  Index index;
  const int64_t* qtok;  // [num_tokens]
  const int64_t* qoff;  // [num_queries + 1]
  int64_t num_queries, num_tokens;
  int32_t* len;     // [num_tokens]
  int32_t* status;  // [num_queries] or null
};

// Once the finder of query[0..size) is done in a shard: the longest prefix of it there.
template <typename Order, typename Id>
LMX_HD int64_t prefix_found(const Finder<Order, Id>& f, bool& corrupt) {
  if (f.corrupt) {
    corrupt = true;
    return 0;
  }
  if (f.size == 0 || f.lo < f.hi) return f.size;
  int64_t best = 0;
  for (int64_t rank = f.lo - 1; rank <= f.lo; ++rank) {
    if (rank < 0 || rank >= f.shard.num_suffixes) continue;
    const int64_t p = f.shard.position(rank);
    if (p < 0) {
      corrupt = true;
      continue;
    }
    const int64_t same = compare(f.shard, p, f.query, f.size, 0).agree;
    best = same > best ? same : best;
  }
  return best;
}

LMX_CPU_KERNEL(longest_prefix_cpu, LongestPrefixParams)
void longest_prefix_cuda(const LongestPrefixParams& p, CUstream_st* stream);
}  // namespace lmx::ngram
