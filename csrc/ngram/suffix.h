// csrc/ngram/suffix.h: the search for the longest suffix of a context that the index holds, as CPU
// threads and single queries run it.
#pragma once
#include "search.h"

namespace lmx::ngram {
constexpr int64_t kFirstLength = 4;  // the usual one in natural text

// Between a length that qualifies and one that does not: doubling from below, then halving.
LMX_HD int64_t next_length(int64_t found, int64_t fails) {
  return found > 0 && 2 * found < fails ? 2 * found : (found + fails) / 2;
}

// Looks for the largest length k in [0, limit] whose string context[size - k .. size) has
// sum_s sign_s * count_s >= min_count; the count never grows with k. `ranges` and `trial` hold S
// ranges each.
template <typename Order, typename Id>
struct SuffixSearch {
  Finder<Order, Id> finder;
  const Shard<Order>* shards;
  int64_t num_shards, min_count;
  const Id* end;             // one past the context
  int64_t found, fails;      // the longest that is known to qualify, the shortest known not to
  int64_t count;             // of `found`
  int64_t length, s, total;  // under test; length 0: none
  Range *ranges, *trial;     // of `found` and of `length`
  bool corrupt;

  // prev_len: the longest suffix of the context without its last token is known to have this many
  // tokens, so that this one has at most one more; -1: not known.
  LMX_HD void start(const Shard<Order>* all, int64_t num, const Id* context_end, int64_t most,
                    int64_t least, int64_t prev_len, Range* best, Range* other) {
    shards = all, num_shards = num, end = context_end, min_count = least;
    ranges = best, trial = other, corrupt = false;
    found = 0, count = 0;
    for (s = 0; s < num_shards; ++s) {
      ranges[s] = {0, shards[s].num_suffixes};
      count += shards[s].sign * shards[s].num_suffixes;
    }
    const int64_t limit = prev_len >= 0 && prev_len < most ? prev_len + 1 : most;
    fails = limit + 1, length = 0;
    if (limit > 0 && num_shards > 0)
      test(prev_len >= 0 || limit < kFirstLength ? limit : kFirstLength);
  }

  LMX_HD bool step() {
    if (length == 0) return false;
    if (finder.step()) return true;
    trial[s] = finder.range();
    total += shards[s].sign * (trial[s].hi - trial[s].lo);
    corrupt |= finder.corrupt;
    if (++s < num_shards) {
      finder.start(shards[s], end - length, length);
      return true;
    }
    decide();
    return length > 0;
  }

 private:
  LMX_HD void test(int64_t k) {
    length = k, s = 0, total = 0;
    finder.start(shards[0], end - k, k);
  }
  LMX_HD void decide() {
    if (total >= min_count && total > 0) {
      found = length, count = total;
      Range* best = trial;
      trial = ranges, ranges = best;
    } else {
      fails = length;
    }
    length = 0;
    if (found + 1 < fails) test(next_length(found, fails));
  }
};
}  // namespace lmx::ngram
