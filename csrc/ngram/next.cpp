// csrc/ngram/next.cpp: CPU side of next.h.
#include "next.h"

#include <algorithm>

#include "cpu.h"

namespace lmx::ngram::LMX_ISA {
namespace {
struct Entry {
  int64_t tok, num;
};

struct Run {
  int64_t place, ranks;
};

// Walks the runs that begin in cells [begin, stop) of a range, one load a step: a pointer, or the
// token that it leads to. Where a run ends is found by doubling, then halving.
template <typename Order>
struct Part {
  Cells<Order> cells;
  std::vector<Run> runs;

  void start(const Cells<Order>& all, int64_t begin, int64_t stop) {
    cells = all, size_ = all.size(), stop_ = stop, runs.clear();
    counts_ = begin == 0, is_done_ = false;  // a run that began before is another part's
    if (begin == 0) {
      stage_ = Stage::first, run_ = 0;
      return ask(0);
    }
    stage_ = Stage::before, run_ = begin;
    ask(begin - 1);
  }

  bool step() {
    if (is_done_) return false;
    if (at_ < 0) {
      at_ = position(cell_);
      if (at_ >= 0) LMX_PREFETCH(cells.next.shard.text + at_ + cells.next.depth);
      if (at_ < 0) cells.next.corrupt = is_done_ = true;
    } else {
      at_ = -1;
      take(cells.place(cell_));
    }
    return !is_done_;
  }

 private:
  enum class Stage : int8_t { before, first, doubling, halving };

  int64_t position(int64_t cell) const { return cells.next.shard.position(cells.sample(cell)); }
  void ask(int64_t cell) {
    cell_ = cell, at_ = -1;
    LMX_PREFETCH(cells.next.shard.pointer_address(cells.sample(cell)));
  }

  void take(int64_t place) {
    switch (stage_) {
      case Stage::before: return begin_run(place, run_);
      case Stage::first: return begin_run(place, run_ + 1);
      case Stage::doubling:
        if (place <= place_) {
          lo_ += gap_, gap_ *= 2;
          return double_on();
        }
        hi_ = lo_ + gap_ - 1, hi_place_ = place, stage_ = Stage::halving;
        return halve();
      case Stage::halving:
        if (place <= place_)
          lo_ = cell_ + 1;
        else
          hi_ = cell_, hi_place_ = place;
        return halve();
    }
  }
  void begin_run(int64_t place, int64_t rest) {
    place_ = place, lo_ = rest, gap_ = 1, stage_ = Stage::doubling;
    double_on();
  }
  void double_on() {
    if (lo_ + gap_ <= size_) return ask(lo_ + gap_ - 1);
    hi_ = size_, stage_ = Stage::halving;
    halve();
  }
  void halve() {
    if (lo_ < hi_) return ask((lo_ + hi_) >> 1);
    if (counts_) runs.push_back({place_, cells.rank(hi_) - cells.rank(run_)});
    counts_ = true, run_ = hi_;
    if (run_ >= stop_)
      is_done_ = true;
    else
      begin_run(hi_place_, run_ + 1);
  }

  int64_t size_, stop_, run_, lo_, hi_, gap_, cell_, at_, place_, hi_place_;
  Stage stage_;
  bool counts_, is_done_;
};

// The distribution after one string: walks the runs of every shard, then joins them.
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
      const bool scans = cells.unit == 1 && (cells.size() <= kScan || has_keys(cells.next));
      end += scans ? scan_all(cells) : walk_parts(cells);
    }
    if (end != 0) entries.push_back({p_.index.eos_id, end});
    join();
  }

 private:
  using N = Next<Order>;
  static constexpr int64_t kBlock = int64_t{1} << kKeyShift;
  static constexpr int64_t kScan = 48;  // fewer ranks are read one by one

  void add(int64_t place, int64_t num, int64_t& end) {
    if (N::is_end(place))
      end += num;
    else
      entries.push_back({N::token_of(place), num});
  }

  // Reads ranks [begin, end), at most kBlock of them, behind prefetches, and adds the runs that
  // end.
  void scan(Next<Order>& next, int64_t begin, int64_t end, int64_t& ends) {
    int64_t at[kBlock];
    for (int64_t r = begin; r < end; ++r) {
      at[r - begin] = next.shard.position(r);
      if (at[r - begin] >= 0) LMX_PREFETCH(next.shard.text + at[r - begin] + next.depth);
    }
    for (int64_t r = begin; r < end; ++r) see(next, r, next.place_at(at[r - begin]), ends);
  }
  void see(const Next<Order>& next, int64_t rank, int64_t place, int64_t& ends) {
    if (place == place_) return;
    if (place_ >= 0) add(place_, next.shard.sign * (rank - begin_), ends);
    place_ = place, begin_ = rank;
  }

  // Ranks one by one. Where keys tell that two ranks 64 apart have the same token, so have all in
  // between, which are not read.
  int64_t scan_all(const Cells<Order>& cells) {
    Next<Order> next = cells.next;
    int64_t ends = 0;
    place_ = -1;
    for (int64_t r = cells.range.lo; r < cells.range.hi;) {
      const int64_t stop = std::min(((r >> kKeyShift) + 1) << kKeyShift, cells.range.hi);
      const bool same = has_keys(next) && place_ >= 0 && r % kBlock == 0 && stop < cells.range.hi &&
                        key_place(next, r) == place_ && key_place(next, stop) == place_;
      if (!same) scan(next, r, stop, ends);
      r = stop;
    }
    if (place_ >= 0) add(place_, next.shard.sign * (cells.range.hi - begin_), ends);
    if (next.corrupt) bits |= kStatusCorrupt;
    return ends;
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

  // Large ranges in parts, which are walked in turns.
  int64_t walk_parts(const Cells<Order>& cells) {
    const int64_t size = cells.size(),
                  count = std::min<int64_t>(kInFlight, ceil_div<int64_t>(size, 16));
    int live = static_cast<int>(count);
    for (int64_t i = 0; i < count; ++i)
      parts_[static_cast<size_t>(i)].start(cells, size * i / count, size * (i + 1) / count);
    for (bool any = true; any;) {
      any = false;
      for (int i = 0; i < live; ++i) any |= parts_[static_cast<size_t>(i)].step();
    }
    int64_t end = 0;
    for (int64_t i = 0; i < count; ++i) {
      const Part<Order>& part = parts_[static_cast<size_t>(i)];
      for (const Run& run : part.runs) add(run.place, cells.next.shard.sign * run.ranks, end);
      if (part.cells.next.corrupt) bits |= kStatusCorrupt;
    }
    return end;
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
  std::vector<Part<Order>> parts_{kInFlight};
  int64_t place_ = -1, begin_ = 0;  // the run that scan is in
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
