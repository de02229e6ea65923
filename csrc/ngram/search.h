// csrc/ngram/search.h: finding a string of tokens in one shard.
//
// A search is a machine whose steps touch one address each: a key, a pointer, or the text. A CPU
// thread keeps many of them in flight and prefetches what the next step of each will touch; a CUDA
// thread, and a single query, run one to its end.
#pragma once
#include "index.h"

#if defined(__AVX512BW__) && !defined(__CUDACC__)
#define LMX_WIDE_SEARCH  // level v4
#include <immintrin.h>
#endif

#ifdef __CUDACC__
#define LMX_PREFETCH(address)
#else
#define LMX_PREFETCH(address) __builtin_prefetch(address)
#endif

namespace lmx::ngram {
struct Range {
  int64_t lo, hi;  // ranks [lo, hi)
};

#ifdef LMX_WIDE_SEARCH
// agree, 64 bytes at a time.
template <typename Token>
inline int64_t agree_wide(const Token* a, const Token* b, int64_t from, int64_t limit) {
  constexpr int64_t kSize = sizeof(Token), kWide = 64 / kSize;
  while (from < limit) {
    const int64_t count = limit - from < kWide ? limit - from : kWide;
    const __mmask64 bytes = ~uint64_t{0} >> (64 - count * kSize);
    const __m512i x = _mm512_maskz_loadu_epi8(bytes, a + from);
    const __m512i y = _mm512_maskz_loadu_epi8(bytes, b + from);
    const uint64_t differ = _mm512_cmpneq_epi8_mask(x, y);
    if (differ) return from + __builtin_ctzll(differ) / kSize;
    from += count;
  }
  return from;
}

// Of keys[lo, hi), more than 8 of them, bounds of where the first one not below `least` stands: 8
// keys cut them into 9 parts.
inline void narrow_wide(const uint64_t* keys, uint64_t least, int64_t& lo, int64_t& hi) {
  const int64_t step = (hi - lo) / 9;
  const __m512i numbers = _mm512_set_epi64(8, 7, 6, 5, 4, 3, 2, 1);
  const __m512i at =
      _mm512_add_epi64(_mm512_set1_epi64(lo), _mm512_mullo_epi64(numbers, _mm512_set1_epi64(step)));
  const __m512i found = _mm512_mask_i64gather_epi64(_mm512_setzero_si512(), 0xff, at, keys, 8);
  const unsigned below =
      _mm512_cmplt_epu64_mask(found, _mm512_set1_epi64(static_cast<long long>(least)));
  const int64_t count = __builtin_popcount(below), first = lo;
  if (count > 0) lo = first + step * count + 1;
  if (count < 8) hi = first + step * (count + 1);
}
#endif

// How many tokens from `from` on agree, at most up to `limit`.
template <typename A, typename B>
LMX_HD int64_t agree(const A* a, const B* b, int64_t from, int64_t limit) {
#ifndef __CUDACC__
#ifdef LMX_WIDE_SEARCH
  if constexpr (sizeof(A) == sizeof(B)) return agree_wide(a, b, from, limit);
#endif
  if constexpr (sizeof(A) == sizeof(B)) {  // eight bytes at a time
    constexpr int64_t kWord = 8 / static_cast<int64_t>(sizeof(A));
    while (from + kWord <= limit) {
      uint64_t x, y;
      __builtin_memcpy(&x, a + from, 8);
      __builtin_memcpy(&y, b + from, 8);
      if (x != y) return from + __builtin_ctzll(x ^ y) / (8 * static_cast<int>(sizeof(A)));
      from += kWord;
    }
  }
#endif
  while (from < limit && a[from] == static_cast<A>(b[from])) ++from;
  return from;
}

struct Compared {
  int64_t agree;  // leading tokens in common
  bool less;      // the suffix comes before every string that begins with the query
};

// The suffix at `position` against query[0..size), which agree in the first `from` tokens.
template <typename Order, typename Id>
LMX_HD Compared compare(const Shard<Order>& shard, int64_t position, const Id* query, int64_t size,
                        int64_t from) {
  using Token = typename Order::Token;
  const Token* suffix = shard.text + position;
  const int64_t left = shard.num_tokens - position;
  const int64_t limit = size < left ? size : left;
  if (from > limit) from = limit;  // only in a corrupt index
  const int64_t same = agree(suffix, query, from, limit);
  if (same == size) return {same, false};
  if (same == left) return {same, true};  // the text ends
  return {same, Order::key(suffix[same]) < Order::key(static_cast<Token>(query[same]))};
}

// The range of a string: first the 64-rank block by its keys, then the lower bound, then the upper
// one. Of both ends of the bracket it is known how many tokens they share with the query, and all
// between share the smaller number (Manber and Myers 1993, section 3).
template <typename Order, typename Id>
struct Finder {
  enum class Phase : int8_t { key_low, key_high, low_rank, low_text, high_rank, high_text, done };
  Shard<Order> shard;
  const Id* query;
  int64_t size;
  int64_t lo, hi;            // the bracket of what is sought
  int64_t lo_same, hi_same;  // tokens shared with the ranks lo - 1 and hi
  int64_t top, top_same;     // a rank beyond the string's range, and what it shares
  int64_t match;             // the last rank known to begin with the query, or -1
  int64_t lower, mid, where;
  int64_t key_lo, key_hi, gap, first_key, end_key;
  uint64_t key_min, key_max;
  Phase phase;
  bool corrupt;

  // Looks for query[0..size), whose tokens are all in the vocabulary (the last may be SEP), among
  // ranks [lo, hi), which share its first `depth` tokens.
  LMX_HD void start(const Shard<Order>& s, const Id* q, int64_t n, Range range, int64_t depth) {
    shard = s, query = q, size = n, lo = range.lo, hi = range.hi, corrupt = false;
    lo_same = hi_same = top_same = depth, top = hi, match = -1, lower = lo;
    if (depth >= n || lo >= hi) {
      if (lo > hi) hi = lo;
      phase = Phase::done;
      return;
    }
    const bool use_keys = !Order::kForeign && shard.skey && depth < Shard<Order>::kKeyTokens &&
                          (lo >> kKeyShift) != (hi - 1) >> kKeyShift;
    if (!use_keys) return seek_low();
    pack_keys();
    key_lo = first_key = (lo + (1 << kKeyShift) - 1) >> kKeyShift;
    key_hi = end_key = (hi + (1 << kKeyShift) - 1) >> kKeyShift;
    phase = Phase::key_low;
    LMX_PREFETCH(shard.skey + ((key_lo + key_hi) >> 1));
  }

  LMX_HD void start(const Shard<Order>& s, const Id* q, int64_t n) {
    if (n > 0 && s.lut) {
      const int64_t a = s.lut[q[0]], b = s.lut[q[0] + 1];
      const bool ok = a >= 0 && a <= b && b <= s.num_suffixes;
      start(s, q, n, ok ? Range{a, b} : Range{0, 0}, 1);
      corrupt = !ok;
    } else {
      start(s, q, n, {0, s.num_suffixes}, 0);
    }
  }

  LMX_HD Range range() const { return {lo, hi}; }

  // False when the range stands.
  LMX_HD bool step() {
    switch (phase) {
      case Phase::key_low: return step_key_low();
      case Phase::key_high: return step_key_high();
      case Phase::low_rank:
      case Phase::high_rank: return step_rank();
      case Phase::low_text: return step_low();
      case Phase::high_text: return step_high();
      case Phase::done: break;
    }
    return false;
  }

  LMX_HD Range run() {
    while (step()) {
    }
    return range();
  }

 private:
  LMX_HD void pack_keys() {
    constexpr int kTokens = Shard<Order>::kKeyTokens, kBits = 64 / kTokens;
    key_min = 0, key_max = 0;
    for (int i = 0; i < kTokens; ++i) {
      const uint64_t token = i < size ? static_cast<typename Order::Token>(query[i]) : 0;
      const uint64_t most = i < size ? token : Shard<Order>::kSep;
      key_min = key_min << kBits | token;
      key_max = key_max << kBits | most;
    }
  }

  LMX_HD bool step_key_low() {
#ifdef LMX_WIDE_SEARCH
    if (key_hi - key_lo > 8) {
      narrow_wide(shard.skey, key_min, key_lo, key_hi);
      for (int64_t i = 1, step = (key_hi - key_lo) / 9; i <= 8; ++i)
        LMX_PREFETCH(shard.skey + key_lo + step * i);
      return true;
    }
#endif
    if (key_lo < key_hi) {
      const int64_t k = (key_lo + key_hi) >> 1;
      if (shard.skey[k] < key_min)
        key_lo = k + 1;
      else
        key_hi = k;
      LMX_PREFETCH(shard.skey + ((key_lo + key_hi) >> 1));
      return true;
    }
    // key_lo is the first key at or above key_min. Now the first one above key_max, by doubling.
    key_hi = key_lo, gap = 1, phase = Phase::key_high;
    return true;
  }

  // Keys before key_hi are not above key_max.
  LMX_HD bool step_key_high() {
    if (gap > 0) {  // doubling
      const int64_t k = key_hi + gap - 1;
      if (k < end_key && shard.skey[k] <= key_max) {
        key_hi = k + 1, gap *= 2;
        return true;
      }
      mid = k < end_key ? k : end_key;  // the first key above lies in [key_hi, mid]
      gap = 0;
    }
    if (key_hi < mid) {
      const int64_t k = (key_hi + mid) >> 1;
      if (shard.skey[k] <= key_max)
        key_hi = k + 1;
      else
        mid = k;
      return true;
    }
    bracket();
    return true;
  }

  // From keys to ranks: key_lo is the first key not below the string, key_hi the first above it.
  LMX_HD void bracket() {
    constexpr int64_t kStep = int64_t{1} << kKeyShift;
    const bool whole = size <= Shard<Order>::kKeyTokens;  // keys decide
    if (key_lo > first_key) lo = (key_lo - 1) * kStep + 1;
    if (key_hi < end_key) top = key_hi * kStep;
    const int64_t below = whole && key_lo < end_key ? key_lo * kStep : top;
    hi = below < top ? below : top;
    if (whole && key_hi > key_lo) match = (key_hi - 1) * kStep, hi_same = size;
    seek_low();
  }

  LMX_HD void seek_low() {
    if (lo >= hi) return seek_high();
    mid = (lo + hi) >> 1, phase = Phase::low_rank;
    LMX_PREFETCH(shard.pointer_address(mid));
  }

  LMX_HD bool step_rank() {
    where = shard.position(mid);
    if (where < 0) {
      corrupt = true, hi = lo = 0, phase = Phase::done;
      return false;
    }
    const bool is_low = phase == Phase::low_rank;
    [[maybe_unused]] const int64_t from = is_low && lo_same < hi_same ? lo_same
                                          : is_low                    ? hi_same
                                                                      : top_same;
    LMX_PREFETCH(shard.text + where + from);
    phase = is_low ? Phase::low_text : Phase::high_text;
    return true;
  }

  LMX_HD bool step_low() {
    const Compared c = compare(shard, where, query, size, lo_same < hi_same ? lo_same : hi_same);
    if (c.less) {
      lo = mid + 1, lo_same = c.agree;
    } else {
      hi = mid, hi_same = c.agree;
      if (c.agree == size) {
        if (match < 0) match = mid;
      } else {
        top = mid, top_same = c.agree;
      }
    }
    seek_low();
    return phase != Phase::done;
  }

  LMX_HD void seek_high() {
    if (phase != Phase::high_text) {  // the lower bound stands
      lower = lo;
      if (match < 0) {
        hi = lower, phase = Phase::done;
        return;
      }
      lo = match + 1, hi = top;
    }
    if (lo >= hi) {
      lo = lower, phase = Phase::done;
      return;
    }
    mid = (lo + hi) >> 1, phase = Phase::high_rank;
    LMX_PREFETCH(shard.pointer_address(mid));
  }

  LMX_HD bool step_high() {
    const Compared c = compare(shard, where, query, size, top_same);
    if (c.agree == size) {
      lo = mid + 1;
    } else {
      hi = mid, top_same = c.agree;
    }
    seek_high();
    return phase != Phase::done;
  }
};

// ---- tokens at a depth ------------------------------------------------------------------------
// Within the range of a string of `depth` tokens the next tokens do not decrease. A suffix that
// ends with the text has none; it counts as a SEP, and comes first.
template <typename Order>
struct Next {
  Shard<Order> shard;
  int64_t depth;
  bool corrupt = false;

  // The next token's place in the order: 0 for the end of the text, else 1 + key.
  LMX_HD int64_t place(int64_t rank) { return place_at(shard.position(rank)); }
  LMX_HD int64_t place_at(int64_t p) {
    const int64_t left = p < 0 ? -1 : shard.num_tokens - p;
    if (depth > left || (!Order::kForeign && depth == left)) {
      corrupt = true;
      return 0;
    }
    if (depth == left) return 0;
    return 1 + static_cast<int64_t>(Order::key(shard.text[p + depth]));
  }
  LMX_HD static int64_t place_of(int64_t token) {
    return 1 + static_cast<int64_t>(Order::key(static_cast<typename Order::Token>(token)));
  }
  LMX_HD static bool is_end(int64_t place) { return place == 0 || place == place_of(-1); }
  LMX_HD static int64_t token_of(int64_t place) {
    return static_cast<int64_t>(Order::key(static_cast<typename Order::Token>(place - 1)));
  }
  // The first rank in [lo, hi) whose place is not below `place`.
  LMX_HD int64_t bound(Range r, int64_t place_wanted) {
    while (r.lo < r.hi) {
      const int64_t mid = (r.lo + r.hi) >> 1;
      if (place(mid) < place_wanted)
        r.lo = mid + 1;
      else
        r.hi = mid;
    }
    return r.lo;
  }
  LMX_HD Range of(Range r, int64_t place_wanted) {
    const int64_t lo = bound(r, place_wanted);
    return {lo, bound({lo, r.hi}, place_wanted + 1)};
  }
  LMX_HD int64_t count(Range r, int64_t place_wanted) {
    const Range found = of(r, place_wanted);
    return found.hi - found.lo;
  }
  LMX_HD int64_t count_end(Range r) {
    const int64_t at_end = Order::kForeign ? count(r, 0) : 0;
    return at_end + count(r, place_of(-1));
  }
};

// A range that an op was given; empty, and `bad`, if it is none of this shard's.
template <typename Order>
LMX_HD Range checked(const Shard<Order>& shard, const int64_t* range, bool& bad) {
  const Range r{range[0], range[1]};
  if (r.lo >= 0 && r.lo <= r.hi && r.hi <= shard.num_suffixes) return r;
  bad = true;
  return {0, 0};
}
}  // namespace lmx::ngram
