// csrc/ngram/sais.h: suffix sorting of integers by induction, in linear time.
// Source: Nong, Zhang, Chan 2009, "Linear suffix array construction by almost pure
// induced-sorting"; marks in the sign bit as in the authors' later papers save the array of types.
//
// A suffix is S-type if it is less than the one that follows it, else L-type; the text is followed
// by a symbol below all others, so the last suffix is L-type. An LMS position is S-type behind an
// L-type one. Once the LMS suffixes are sorted, one pass from the left over the buckets of first
// symbols sorts the L-type suffixes, one from the right the S-type ones.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

namespace lmx::ngram {
// Poll is called every million or so steps, with the number of them; it may throw to stop.
template <typename Poll>
class SaIs {
 public:
  explicit SaIs(const Poll& poll) : poll_(poll) {}

  // Sorts all suffixes of text[0..n), symbols in [0, num_symbols), into sa[0..n). n < 2^31.
  void sort(const int32_t* text, int32_t* sa, int32_t n, int32_t num_symbols) {
    if (n == 0) return;
    if (n == 1) {
      sa[0] = 0;
      return;
    }
    std::vector<int32_t> bucket(static_cast<size_t>(num_symbols));
    const int32_t num_lms = sort_lms_strings(text, sa, n, bucket);
    const int32_t names = num_lms > 0 ? name(text, sa, n, num_lms) : 0;
    if (names < num_lms) {
      std::vector<int32_t>().swap(bucket);
      recurse(text, sa, n, num_lms, names);
      bucket.resize(static_cast<size_t>(num_symbols));
    }
    induce(text, sa, n, num_lms, bucket);
  }

 private:
  static constexpr int32_t kAhead = 48;  // prefetch distance, in suffixes
  static constexpr int32_t kPoll = 1 << 20;

  void tick(int32_t i) const {
    if ((i & (kPoll - 1)) == 0) poll_(kPoll);
  }
  static void touch(const int32_t* text, int32_t suffix) {
    __builtin_prefetch(text + (suffix > 0 ? suffix - 1 : 0));
  }

  // bucket[c] = where the suffixes that begin with c begin, or end.
  static void fill(const int32_t* text, int32_t n, std::vector<int32_t>& bucket, bool ends) {
    std::fill(bucket.begin(), bucket.end(), 0);
    for (int32_t i = 0; i < n; ++i) ++bucket[static_cast<size_t>(text[i])];
    int32_t sum = 0;
    for (int32_t& b : bucket) {
      sum += b;
      b = ends ? sum : sum - b;
    }
  }

  // Calls f(i) for the LMS positions, from the right.
  template <typename F>
  static void each_lms(const int32_t* text, int32_t n, const F& f) {
    bool is_s = false;  // the type of i
    for (int32_t i = n - 2; i >= 0; --i) {
      const bool s = text[i] < text[i + 1] || (text[i] == text[i + 1] && is_s);
      if (!s && is_s) f(i + 1);
      is_s = s;
    }
  }

  // The LMS positions into sa[0..result), sorted by their substrings up to the next LMS position.
  int32_t sort_lms_strings(const int32_t* text, int32_t* sa, int32_t n,
                           std::vector<int32_t>& bucket) {
    std::fill(sa, sa + n, 0);
    fill(text, n, bucket, true);
    int32_t* b = bucket.data();
    each_lms(text, n, [&](int32_t i) { sa[--b[text[i]]] = i; });
    // From the left. Marked (~): an L-type suffix behind an S-type one, the seeds of the next pass;
    // only they are kept.
    fill(text, n, bucket, false);
    const auto put_l = [&](int32_t j) {
      sa[b[text[j]]++] = j > 0 && text[j - 1] < text[j] ? ~j : j;
    };
    put_l(n - 1);
    for (int32_t i = 0; i < n; ++i) {
      tick(i);
      if (i + kAhead < n) touch(text, sa[i + kAhead]);
      const int32_t j = sa[i];
      if (j > 0) {
        sa[i] = 0;
        put_l(j - 1);
      } else if (j < 0) {
        sa[i] = ~j;
      }
    }
    // From the right. Marked: an S-type suffix behind an L-type one, an LMS position.
    fill(text, n, bucket, true);
    for (int32_t i = n - 1; i >= 0; --i) {
      tick(i);
      if (i >= kAhead) touch(text, sa[i - kAhead]);
      const int32_t j = sa[i];
      if (j <= 0) continue;
      sa[i] = 0;
      const int32_t k = j - 1;
      sa[--b[text[k]]] = k > 0 && text[k - 1] > text[k] ? ~k : k;
    }
    int32_t count = 0;
    for (int32_t i = 0; i < n; ++i)
      if (sa[i] < 0) sa[count++] = ~sa[i];
    return count;
  }

  // Equal substrings get equal names, larger ones larger names; name + 1 into
  // sa[num_lms + position / 2] (LMS positions are two apart). Returns the number of names.
  int32_t name(const int32_t* text, int32_t* sa, int32_t n, int32_t num_lms) {
    int32_t* slot = sa + num_lms;
    std::fill(slot, sa + n, 0);
    int32_t next = n;  // the LMS position behind this one
    each_lms(text, n, [&](int32_t i) {
      slot[i / 2] = next - i + 1;
      next = i;
    });
    int32_t names = 0, last = -1, last_size = 0;
    for (int32_t i = 0; i < num_lms; ++i) {
      tick(i);
      const int32_t here = sa[i], size = slot[here / 2];
      bool equal = last >= 0 && size == last_size && here + size <= n && last + size <= n;
      for (int32_t k = 0; equal && k < size; ++k) equal = text[here + k] == text[last + k];
      names += !equal;
      last = here, last_size = size;
      slot[here / 2] = names;
    }
    return names;
  }

  // Sorts the LMS suffixes as a text of names, within sa.
  void recurse(const int32_t* text, int32_t* sa, int32_t n, int32_t num_lms, int32_t names) {
    int32_t* shorter = sa + n - num_lms;
    int32_t to = n;
    for (int32_t i = num_lms + n / 2 - 1; i >= num_lms; --i)
      if (sa[i] > 0) sa[--to] = sa[i] - 1;
    sort(shorter, sa, num_lms, names);
    to = n;
    each_lms(text, n, [&](int32_t i) { sa[--to] = i; });
    for (int32_t i = 0; i < num_lms; ++i) sa[i] = shorter[sa[i]];
  }

  // All suffixes from the sorted LMS suffixes in sa[0..num_lms).
  void induce(const int32_t* text, int32_t* sa, int32_t n, int32_t num_lms,
              std::vector<int32_t>& bucket) {
    int32_t* b = bucket.data();
    std::fill(sa + num_lms, sa + n, 0);
    fill(text, n, bucket, true);
    for (int32_t i = num_lms - 1; i >= 0; --i) {
      const int32_t j = sa[i];
      sa[i] = 0;
      sa[--b[text[j]]] = j;
    }
    // Marked on the way: what the pass need not follow any more, or the next one must not.
    fill(text, n, bucket, false);
    const auto put_l = [&](int32_t j) {
      sa[b[text[j]]++] = j > 0 && text[j - 1] < text[j] ? ~j : j;
    };
    put_l(n - 1);
    for (int32_t i = 0; i < n; ++i) {
      tick(i);
      if (i + kAhead < n) touch(text, sa[i + kAhead]);
      const int32_t j = sa[i];
      sa[i] = ~j;
      if (j > 0) put_l(j - 1);
    }
    fill(text, n, bucket, true);
    for (int32_t i = n - 1; i >= 0; --i) {
      tick(i);
      if (i >= kAhead) touch(text, sa[i - kAhead]);
      const int32_t j = sa[i];
      if (j > 0) {
        const int32_t k = j - 1;
        sa[--b[text[k]]] = k == 0 || text[k - 1] > text[k] ? ~k : k;
      } else {
        sa[i] = ~j;
      }
    }
  }

  const Poll& poll_;
};
}  // namespace lmx::ngram
