// csrc/vocab/truncate_cpu.h: truncate.h on the CPU. Include it only from kernel files.
//
// Nothing is sorted: candidates are filtered against a rising threshold while the row is read once,
// and the cut is found among them by quickselect, by count or by mass.
#pragma once
#include <vector>

#include "rows_cpu.h"
#include "truncate.h"

namespace lmx::vocab::LMX_ISA {
struct Candidate {
  float logit;
  int32_t id;
};
inline bool better(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

// Calls f(first id, bits of the lanes above `threshold`, their logits) for each vector that has
// one, in ascending order; f returns the new threshold. Blocks that wants(block) refuses are not
// read. Returns false at a NaN.
template <typename T, typename F>
bool scan_above(const RowView<T>& row, float threshold, const auto& wants, const F& f) {
  alignas(64) float buffer[kDrawBlock];
  uint32_t nan = 0;
  for (int64_t b = 0; b < row.num_blocks(); ++b) {
    if (!wants(b)) continue;
    const float* x = load_block(row, b, buffer);
    if (!x) continue;
    for (int i = 0; i < kDrawBlock; i += kLanes) {
      const Vec v = load(x + i);
      nan |= is_nan(v);
      if (const uint32_t bits = above(v, Vec(threshold)))
        threshold = f(static_cast<int32_t>(b * kDrawBlock + i), bits, x + i);
    }
    if (nan) return false;
  }
  return true;
}

constexpr auto kAllBlocks = [](int64_t) { return true; };

inline void append(std::vector<Candidate>& to, int32_t first, uint32_t bits, const float* x) {
  for (; bits; bits &= bits - 1) {
    const int lane = std::countr_zero(bits);
    to.push_back({x[lane], first + lane});
  }
}

// The k best tokens, in no order. Returns false at a NaN.
template <typename T>
bool collect_best(const RowView<T>& row, int64_t k, std::vector<Candidate>& best) {
  const int64_t wanted = std::min(k, row.rows->vocab_size);
  const size_t full = static_cast<size_t>(wanted + std::max<int64_t>(wanted, kDrawBlock));
  const auto shrink = [&] {
    std::nth_element(best.begin(), best.begin() + (wanted - 1), best.end(), better);
    best.resize(wanted);
    return best.back().logit;  // a later token with this logit has a larger id: it is worse
  };
  float threshold = -INFINITY;
  const bool ok =
      scan_above(row, threshold, kAllBlocks, [&](int32_t first, uint32_t bits, const float* x) {
        append(best, first, bits, x);
        if (best.size() >= full) threshold = shrink();
        return threshold;
      });
  if (static_cast<int64_t>(best.size()) > wanted) shrink();
  return ok;
}

// All tokens with a logit above the threshold, by ascending id. Returns false at a NaN.
template <typename T>
bool collect_above(const RowView<T>& row, float threshold, std::vector<Candidate>& out,
                   const auto& wants) {
  out.clear();
  return scan_above(row, threshold, wants, [&](int32_t first, uint32_t bits, const float* x) {
    append(out, first, bits, x);
    return threshold;
  });
}

// The last token of the shortest prefix of the candidates with mass(c) adding up to at least
// `needed`; no cut if they do not reach it. Quickselect; reorders the candidates.
template <typename Mass>
Cut cut_by_mass(std::vector<Candidate>& candidates, uint64_t needed, const Mass& mass) {
  const auto sum = [&](auto begin, auto end) {
    uint64_t total = 0;
    for (auto it = begin; it != end; ++it) total += mass(*it);
    return total;
  };
  auto begin = candidates.begin(), end = candidates.end();
  if (sum(begin, end) < needed) return {};
  constexpr int kSmall = 32, kMaxRounds = 64;  // rounds: a bad order of pivots ends in a sort
  for (int round = 0; end - begin > kSmall && round < kMaxRounds; ++round) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, better);
    const uint64_t upper = sum(begin, middle);
    if (upper >= needed) {
      end = middle;
    } else {
      needed -= upper;
      begin = middle;
    }
  }
  std::sort(begin, end, better);
  for (auto it = begin;; ++it) {
    const uint64_t m = mass(*it);
    if (m >= needed) return {it->logit, it->id};
    needed -= m;
  }
}

// Tokens among which the last one kept is found. Returns false at a NaN. blocks_total() fills the
// row's blocks, whose tops are given; it is asked for only where top-p stands alone, and its result
// left in `total`.
template <typename T, typename Total>
bool collect_candidates(const RowView<T>& row, const Limits& limits, float scale,
                        const float* block_top, const Total& blocks_total, RowTotal& total,
                        std::vector<Candidate>& out) {
  out.clear();
  if (limits.top_k > 0) return collect_best(row, limits.top_k, out);
  if (limits.top_p < 1.f) {
    total = blocks_total();
    if (total.top != total.top) return false;
    if (total.top == -INFINITY) return true;
    const float floor = top_p_floor(total, limits.top_p, scale, row.rows->vocab_size);
    const float least_top = exact::weight_top(floor, scale) - 1.f;  // of a block with such a token
    return collect_above(row, floor, out, [&](int64_t b) { return block_top[b] >= least_top; });
  }
  if (!collect_best(row, 1, out)) return false;
  if (out.empty()) return true;
  const float bound = min_p_logit(out[0].logit, limits.min_p, scale);
  return collect_above(row, std::nextafter(bound, -INFINITY), out, kAllBlocks);
}

template <typename T>
Cut find_cut(const RowView<T>& row, const Limits& limits, float scale, const RowTotal& total,
             std::vector<Candidate>& candidates) {
  const float largest = std::min_element(candidates.begin(), candidates.end(), better)->logit;
  Cut cut;
  if (limits.top_p < 1.f) {
    const float row_top = exact::weight_top(largest, scale);
    const auto mass = [&](const Candidate& c) { return weight_mass(c.logit, scale, row_top); };
    uint64_t all = 0;
    if (limits.top_k > 0)
      for (const Candidate& c : candidates) all += mass(c);
    else
      all = total_mass(total);
    cut = cut_by_mass(candidates, needed_mass(limits.top_p, all), mass);
    if (cut.logit == -INFINITY && limits.top_k == 0) {  // top_p within rounding of 1: ask all
      collect_above(row, -INFINITY, candidates, kAllBlocks);
      cut = cut_by_mass(candidates, needed_mass(limits.top_p, all), mass);
    }
  }
  const float bound = limits.min_p > 0.f ? min_p_logit(largest, limits.min_p, scale) : -INFINITY;
  return bound > cut.logit ? Cut{bound, INT32_MAX} : cut;
}

// The tokens a row keeps, by ascending id; empty where nothing is allowed. Returns false at a NaN.
// The limits must not be none.
template <typename T, typename Total>
bool kept_tokens(const RowView<T>& row, const Shaping& s, int64_t r, const Blocks& blocks,
                 const Total& blocks_total, std::vector<Candidate>& kept) {
  constexpr size_t kSortable = 4096;  // above it reading the row again is faster than sorting by id
  const Limits limits(s, r, row.rows->vocab_size);
  const float scale = row_scale(s, r);
  RowTotal total{-INFINITY, 0.0};
  if (!collect_candidates(row, limits, scale, blocks.top + r * blocks.num_blocks, blocks_total,
                          total, kept))
    return false;
  if (kept.empty()) return true;
  const Cut cut = find_cut(row, limits, scale, total, kept);
  const bool exceeds = kept.size() > kSortable && limits.top_k == 0;
  if (exceeds) collect_above(row, std::nextafter(cut.logit, -INFINITY), kept, kAllBlocks);
  std::erase_if(kept, [&](const Candidate& c) { return !keeps(cut, c.logit, c.id); });
  if (!exceeds)
    std::sort(kept.begin(), kept.end(),
              [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  return true;
}

// The weights of the kept tokens [begin, end), all of one block, at their places among 256.
inline BlockSum kept_block_weights(const Candidate* begin, const Candidate* end, float scale,
                                   float* weights) {
  alignas(64) float x[kDrawBlock];
  std::fill_n(x, kDrawBlock, -INFINITY);
  for (const Candidate* c = begin; c < end; ++c) x[c->id % kDrawBlock] = c->logit;
  return weigh(x, block_max(x), scale, weights);
}

// Calls f(block, begin, end) for each run of kept tokens that lie in one block.
template <typename F>
void for_kept_blocks(const std::vector<Candidate>& kept, const F& f) {
  const Candidate* end = kept.data() + kept.size();
  for (const Candidate* begin = kept.data(); begin < end;) {
    const int32_t block = begin->id / kDrawBlock;
    const Candidate* next = begin;
    while (next < end && next->id / kDrawBlock == block) ++next;
    f(block, begin, next);
    begin = next;
  }
}

// Fills a row's blocks with the kept tokens alone and gives their total.
inline RowTotal kept_total(const Blocks& blocks, int64_t r, float scale,
                           const std::vector<Candidate>& kept) {
  float* top = blocks.top + r * blocks.num_blocks;
  float* sum = blocks.sum + r * blocks.num_blocks;
  std::fill_n(top, blocks.num_blocks, -INFINITY);
  std::fill_n(sum, blocks.num_blocks, 0.f);
  for_kept_blocks(kept, [&](int64_t block, const Candidate* begin, const Candidate* end) {
    float weights[kDrawBlock];
    const BlockSum s = kept_block_weights(begin, end, scale, weights);
    top[block] = s.top, sum[block] = s.sum;
  });
  return row_total(top, sum, blocks.num_blocks);
}
}  // namespace lmx::vocab::LMX_ISA
