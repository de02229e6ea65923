// csrc/ngram/next.cpp: CPU side of next.h.
#include "next.h"

#include <algorithm>

#include "cpu.h"

namespace lmx::ngram::LMX_ISA {
namespace {
struct Entry {
  int64_t tok, num;
};

// Two cells whose places differ; `at` is where the middle one's suffix stands.
struct Gap {
  int64_t low, high, low_place, high_place, at;
  bool is_open() const { return high - low > 1; }
  int64_t middle() const { return (low + high) >> 1; }
};

// A list that takes what it has room for, without looking.
struct Gaps {
  std::vector<Gap> room;
  size_t size = 0;
  void reserve(size_t count) {
    if (room.size() < count) room.resize(2 * count);
  }
  void push(const Gap& gap) { room[size++] = gap; }
  Gap* begin() { return room.data(); }
  Gap* end() { return room.data() + size; }
};

// The distribution after one string: finds the runs of every shard, then joins them.
template <typename Order>
class Walk {
 public:
  explicit Walk(const NextParams& p) : p_(p) {}
  std::vector<Entry> entries;  // of the last query; tokens ascending, counts above 0
  Support support;
  int32_t bits;

  void query(int64_t q) {
    entries.clear();
    bits = 0;
    support = support_of<Order>(p_, q, bits);
    int64_t end = 0;
    for (int64_t s = 0; s < p_.index.num_shards; ++s) {
      Cells<Order> cells = cells_of<Order>(p_, q, s, support.unit, bits);
      if (cells.unit == 1 && cells.next.depth == 0 && cells.next.shard.lut)
        read_table(cells);
      else
        end += cells.unit == 1 && cells.size() <= kScan ? scan(cells) : halve(cells);
    }
    if (end != 0) entries.push_back({p_.index.eos_id, end});
    join();
  }

 private:
  using N = Next<Order>;
  static constexpr int64_t kScan = 48;  // fewer ranks are read one by one

  void add(int64_t place, int64_t num, int64_t& end) {
    if (N::is_end(place))
      end += num;
    else
      entries.push_back({N::token_of(place), num});
  }

  // Behind no token at all: the table of first tokens has the counts, and no document ends.
  void read_table(const Cells<Order>& cells) {
    const Shard<Order>& shard = cells.next.shard;
    int64_t begin = 0;
    for (int64_t token = 0; token < p_.index.vocab_size; ++token) {
      const int64_t end = shard.lut[token + 1];
      const int64_t lo = std::max(begin, cells.range.lo), hi = std::min(end, cells.range.hi);
      if (end < begin) bits |= kStatusCorrupt;
      if (lo < hi) entries.push_back({token, shard.sign * (hi - lo)});
      begin = end;
    }
    if (shard.lut[0] != 0 || begin != shard.num_suffixes) bits |= kStatusCorrupt;
  }

  // Reads all ranks of a small range behind prefetches.
  int64_t scan(const Cells<Order>& cells) {
    Next<Order> next = cells.next;
    const Range r = cells.range;
    int64_t at[kScan], ends = 0, begin = r.lo, run = -1;
    for (int64_t rank = r.lo; rank < r.hi; ++rank) {
      const int64_t position = at[rank - r.lo] = next.shard.position(rank);
      if (position >= 0) LMX_PREFETCH(next.shard.text + position + next.depth);
    }
    for (int64_t rank = r.lo; rank < r.hi; ++rank) {
      const int64_t place = next.place_at(at[rank - r.lo]);
      if (place == run) continue;
      if (run >= 0) add(run, next.shard.sign * (rank - begin), ends);
      run = place, begin = rank;
    }
    if (run >= 0) add(run, next.shard.sign * (r.hi - begin), ends);
    if (next.corrupt) bits |= kStatusCorrupt;
    return ends;
  }

  // A large range: first the cells whose places the keys know, every 64th, then all gaps between
  // different places are halved at once, so that their loads overlap, until every one is an edge.
  int64_t halve(Cells<Order> cells) {
    const int64_t size = cells.size();
    if (size == 0) return 0;
    gaps_.size = 0;
    const int64_t first = cells.place(0);
    Gap gap{0, 0, first, first, 0};
    if (cells.unit == 1 && has_keys(cells.next)) {
      constexpr int64_t kStep = int64_t{1} << kKeyShift;
      for (int64_t r = (cells.range.lo | (kStep - 1)) + 1; r < cells.range.hi; r += kStep)
        reach(cells, gap, r - cells.range.lo, key_place(cells.next, r));
    }
    reach(cells, gap, size - 1, cells.place(size - 1));
    while (halve_once(cells)) {
    }
    int64_t ends = 0, begin = 0, place = first;
    for (const Gap& edge : gaps_) {
      add(place, cells.next.shard.sign * (cells.rank(edge.high) - cells.rank(begin)), ends);
      begin = edge.high, place = edge.high_place;
    }
    add(place, cells.next.shard.sign * (cells.range.hi - cells.rank(begin)), ends);
    if (cells.next.corrupt) bits |= kStatusCorrupt;
    return ends;
  }
  // Goes on from gap.high, and keeps a gap where the place is another one.
  void reach(const Cells<Order>& cells, Gap& gap, int64_t cell, int64_t place) {
    gap.low = gap.high, gap.low_place = gap.high_place, gap.high = cell, gap.high_place = place;
    if (gap.low_place == place) return;
    gaps_.reserve(gaps_.size + 1);
    keep(cells, gap, gaps_);
  }
  static void keep(const Cells<Order>& cells, const Gap& gap, Gaps& gaps) {
    if (gap.is_open()) LMX_PREFETCH(cells.next.shard.pointer_address(cells.sample(gap.middle())));
    gaps.push(gap);
  }
  bool halve_once(Cells<Order>& cells) {
    bool any = false;
    for (Gap& gap : gaps_) {
      if (!gap.is_open()) continue;
      any = true;
      gap.at = cells.next.shard.position(cells.sample(gap.middle()));
      if (gap.at >= 0) LMX_PREFETCH(cells.next.shard.text + gap.at + cells.next.depth);
    }
    if (!any) return false;
    halves_.size = 0;
    halves_.reserve(2 * gaps_.size);
    for (const Gap& gap : gaps_) {
      if (!gap.is_open()) {
        halves_.push(gap);
        continue;
      }
      const int64_t middle = gap.middle(), place = cells.next.place_at(gap.at);
      if (gap.low_place != place) keep(cells, {gap.low, middle, gap.low_place, place, 0}, halves_);
      if (place != gap.high_place)
        keep(cells, {middle, gap.high, place, gap.high_place, 0}, halves_);
    }
    std::swap(gaps_, halves_);
    return true;
  }
  static bool has_keys(const Next<Order>& next) {
    return !Order::kForeign && next.shard.skey && next.depth < Shard<Order>::kKeyTokens;
  }
  static int64_t key_place(const Next<Order>& next, int64_t rank) {
    using Token = typename Order::Token;
    constexpr int kBits = 8 * sizeof(Token);
    const uint64_t key = next.shard.skey[rank >> kKeyShift];
    const auto shift = 64 - kBits * (static_cast<int>(next.depth) + 1);
    return 1 + static_cast<int64_t>(static_cast<Token>(key >> shift));
  }

  void join() {
    const auto before = [](const Entry& a, const Entry& b) { return a.tok < b.tok; };
    if (!std::is_sorted(entries.begin(), entries.end(), before))
      std::sort(entries.begin(), entries.end(), before);
    size_t kept = 0;
    for (size_t i = 0; i < entries.size();) {
      Entry sum = entries[i];
      while (++i < entries.size() && entries[i].tok == sum.tok) sum.num += entries[i].num;
      if (sum.num < 0) bits |= kStatusCorrupt;
      if (sum.num > 0) entries[kept++] = sum;
    }
    entries.resize(kept);
  }

  const NextParams& p_;
  Gaps gaps_, halves_;
};

// Calls f(walk, q) after each query's walk.
template <typename F>
void walk_queries(const NextParams& p, const char* op, const F& f) {
  visit_order(p.index, [&](auto order) {
    parallel_for(0, p.num_queries, 8, [&](int64_t begin, int64_t end) {
      Walk<decltype(order)> walk(p);
      for (int64_t q = begin; q < end; ++q) {
        walk.query(q);
        report(op, p.status, q, walk.bits);
        f(walk, q);
      }
    });
  });
}

template <typename Order>
void next_prob_query(const NextProbParams& p, int64_t q) {
  int32_t bits = 0;
  next_prob_of<Order>(p, q, bits);
  report("ngram_next_prob", p.next.status, q, bits);
}

void copy_row(const NtdParams& p, int64_t q, const Entry* entries) {
  if (p.crow[q + 1] > p.capacity) return;
  for (int64_t i = p.crow[q]; i < p.crow[q + 1]; ++i, ++entries)
    p.tok[i] = entries->tok, p.num[i] = entries->num;
}
}  // namespace

void next_prob_cpu(const NextProbParams& p) {
  visit_order(p.next.index, [&](auto order) {
    parallel_for(0, p.next.num_queries, 64, [&](int64_t begin, int64_t end) {
      for (int64_t q = begin; q < end; ++q) next_prob_query<decltype(order)>(p, q);
    });
  });
}

void ntd_cpu(const NtdParams& p) {
  constexpr int64_t kBlock = 32;  // queries whose rows are kept together until offsets are known
  const int64_t num_queries = p.next.num_queries;
  std::vector<std::vector<Entry>> blocks(static_cast<size_t>(ceil_div(num_queries, kBlock)));
  visit_order(p.next.index, [&](auto order) {
    parallel_for(0, ceil_div(num_queries, kBlock), 1, [&](int64_t begin, int64_t end) {
      Walk<decltype(order)> walk(p.next);
      for (int64_t b = begin; b < end; ++b) {
        for (int64_t q = b * kBlock; q < std::min((b + 1) * kBlock, num_queries); ++q) {
          walk.query(q);
          report("ngram_ntd", p.next.status, q, walk.bits);
          p.crow[q + 1] = static_cast<int64_t>(walk.entries.size());
          p.den[q] = walk.support.den;
          p.approx[q] = walk.support.unit > 1;
          auto& block = blocks[static_cast<size_t>(b)];
          block.insert(block.end(), walk.entries.begin(), walk.entries.end());
        }
      }
    });
  });
  p.crow[0] = 0;
  for (int64_t q = 0; q < num_queries; ++q) {
    p.crow[q + 1] += p.crow[q];
    if (p.crow[q + 1] > p.capacity) report("ngram_ntd", p.next.status, q, kStatusTooMany);
  }
  parallel_for(0, static_cast<int64_t>(blocks.size()), 4, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      for (int64_t q = b * kBlock; q < std::min((b + 1) * kBlock, num_queries); ++q)
        copy_row(p, q, blocks[static_cast<size_t>(b)].data() + p.crow[q] - p.crow[b * kBlock]);
  });
  for (int64_t i = end_of_rows(p); i < p.capacity; ++i) p.tok[i] = -1, p.num[i] = 0;
}

void ntd_dense_cpu(const NtdDenseParams& p) {
  walk_queries(p.next, "ngram_ntd_dense", [&](const auto& walk, int64_t q) {
    float* row = p.probs + q * p.next.index.vocab_size;
    std::fill_n(row, p.next.index.vocab_size, 0.f);
    for (const Entry& e : walk.entries)
      if (is_token(e.tok, p.next.index.vocab_size))
        row[e.tok] =
            static_cast<float>(static_cast<double>(e.num) / static_cast<double>(walk.support.den));
  });
}

void ntd_topk_cpu(const NtdTopkParams& p) {
  walk_queries(p.next, "ngram_ntd_topk", [&](auto& walk, int64_t q) {
    auto& entries = walk.entries;
    const auto k = std::min(p.k, static_cast<int64_t>(entries.size()));
    std::partial_sort(entries.begin(), entries.begin() + k, entries.end(),
                      [](const Entry& a, const Entry& b) {
                        return a.num != b.num ? a.num > b.num : a.tok < b.tok;
                      });
    for (int64_t i = 0; i < p.k; ++i) {
      p.tok[q * p.k + i] = i < k ? entries[static_cast<size_t>(i)].tok : -1;
      p.num[q * p.k + i] = i < k ? entries[static_cast<size_t>(i)].num : 0;
    }
  });
}
}  // namespace lmx::ngram::LMX_ISA
