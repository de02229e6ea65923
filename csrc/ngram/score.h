// csrc/ngram/score.h: the infinity-gram probability of every token of a text, given those before.
//   suffix_len[t] = longest suffix of tokens before t that occurs at least min_count times
//   den[t]        = its count;   num[t] = the count of it followed by token t
//   distinct[t]   = min(2, how many tokens follow it somewhere); 1 = a sparse estimate
// max_len > 0 bounds the suffix. Token t counts for eos_id as in next.h. What follows a suffix of
// length k is again a suffix, so the search at t + 1 begins with the ranges found at t.
// Source: infini-gram, arXiv 2401.17377, section 2 and appendix A.
#pragma once
#include "../common/isa.h"
#include "longest_suffix.h"
#include "next.h"

namespace lmx::ngram {
struct ScoreParams {
  Index index;
  const int64_t* qtok;  // [num_tokens]
  const int64_t* qoff;  // [num_texts + 1]
  int64_t num_texts, num_tokens;
  int64_t max_len, min_count;
  int32_t* suffix_len;  // [num_tokens]
  int64_t *den, *num;   // [num_tokens]
  int32_t* distinct;    // [num_tokens]
  int32_t* status;      // [num_texts] or null
};

// min(2, number of tokens with a positive count) that follow a string of `depth` tokens.
template <typename Order>
struct Distinct {
  const Shard<Order>* shards;
  int64_t num_shards, depth, eos_id;
  bool corrupt = false;

  // range_of(s): the string's range in shard s.
  template <typename RangeOf>
  LMX_HD int32_t operator()(const RangeOf& range_of) {
    int64_t seen = kNone;
    for (int64_t s = 0; s < num_shards; ++s) {
      if (shards[s].sign < 0) continue;
      Cells<Order> cells{{shards[s], depth}, range_of(s), 1};
      const int64_t size = cells.size();
      for (int64_t c = 0; c < size;) {
        const int64_t place = cells.place(c);
        const int64_t token = Next<Order>::is_end(place) ? eos_id : Next<Order>::token_of(place);
        if (token != seen && is_left(token, range_of)) {
          if (seen != kNone) return 2;
          seen = token;
        }
        if (c == 0 && cells.place(size - 1) == place) break;  // one run
        c = cells.end_of_run(c + 1, size, place);
      }
      corrupt |= cells.next.corrupt;
    }
    return seen != kNone;
  }

 private:
  static constexpr int64_t kNone = INT64_MIN;

  // Whether subtracted shards leave some of a token that others hold.
  template <typename RangeOf>
  LMX_HD bool is_left(int64_t token, const RangeOf& range_of) {
    int64_t count = 0;
    bool subtracts = false;
    for (int64_t s = 0; s < num_shards; ++s) subtracts |= shards[s].sign < 0;
    if (!subtracts) return true;
    for (int64_t s = 0; s < num_shards; ++s) {
      Next<Order> next{shards[s], depth};
      const Range range = range_of(s);
      int64_t here = token == eos_id ? next.count_end(range) : 0;
      if (token >= 0) here += next.count(range, next.place_of(token));
      count += shards[s].sign * here;
      corrupt |= next.corrupt;
    }
    return count > 0;
  }
};

LMX_CPU_KERNEL(score_cpu, ScoreParams)
void score_cuda(const ScoreParams& p, CUstream_st* stream);
}  // namespace lmx::ngram
