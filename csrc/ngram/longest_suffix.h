// csrc/ngram/longest_suffix.h: how much of the end of a context the index holds.
//   len[q] = the largest k such that the last k tokens occur at least min_count times; 0 always
//   does rng[q,s], cnt[q] = ranges and count of these k tokens
// max_len > 0 bounds k. prev_len[q] (streaming) is the result for the same context without its last
// token; the result is then at most one more, which is not checked. -1: not known.
// Source: infini-gram, arXiv 2401.17377, sections 2 and 3.
#pragma once
#include "../common/isa.h"
#include "suffix.h"

struct CUstream_st;
namespace lmx::ngram {
struct LongestSuffixParams {
  Index index;
  const int64_t* qtok;      // [num_tokens]
  const int64_t* qoff;      // [num_queries + 1]
  const int32_t* prev_len;  // [num_queries] or null
  int64_t num_queries, num_tokens;
  int64_t max_len, min_count;
  int32_t* len;     // [num_queries]
  int64_t* rng;     // [num_queries, S, 2]
  int64_t* cnt;     // [num_queries]
  int32_t* status;  // [num_queries] or null
};

LMX_HD int64_t bounded(int64_t size, int64_t max_len) {
  return max_len > 0 && max_len < size ? max_len : size;
}
LMX_CPU_KERNEL(longest_suffix_cpu, LongestSuffixParams)
void longest_suffix_cuda(const LongestSuffixParams& p, CUstream_st* stream);
}  // namespace lmx::ngram
