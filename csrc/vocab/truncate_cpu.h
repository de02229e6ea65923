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

template <typename Mass>
uint64_t sum_mass(const Candidate* begin, const Candidate* end, const Mass& mass) {
  uint64_t total = 0;
  for (const Candidate* c = begin; c < end; ++c) total += mass(*c);
  return total;
}

// The last token of the shortest prefix of the candidates with a mass of at least `needed`, which
// they must have all together. Quickselect; reorders them.
template <typename Mass>
Cut cut_by_mass(Candidate* begin, Candidate* end, uint64_t needed, const Mass& mass) {
  constexpr int kSmall = 32, kMaxRounds = 64;  // rounds: a bad order of pivots ends in a sort
  for (int round = 0; end - begin > kSmall && round < kMaxRounds; ++round) {
    Candidate* middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, better);
    const uint64_t upper = sum_mass(begin, middle, mass);
    if (upper >= needed) {
      end = middle;
    } else {
      needed -= upper;
      begin = middle;
    }
  }
  std::sort(begin, end, better);
  for (const Candidate* c = begin;; ++c) {
    const uint64_t m = mass(*c);
    if (m >= needed) return {c->logit, c->id};
    needed -= m;
  }
}

// Whether a block may have a token above the logit exponent / scale. Products and quotients round:
// a block whose top is one below may.
inline auto reaches(const float* block_top, float exponent) {
  return [=](int64_t b) { return block_top[b] >= exponent - 1.f; };
}

// The cut of top-p where top-k is off, and in `out` at least the tokens it keeps. Tokens are
// collected in bands of falling logits until their mass reaches what is needed. The cut is in the
// last band, which in most rows lies near the top, where few blocks reach.
template <typename T>
Cut nucleus_cut(const RowView<T>& row, float top_p, float scale, const RowTotal& total,
                const float* block_top, std::vector<Candidate>& out) {
  constexpr float kBand = 2.f,
                  kDeepest = 40.f;  // powers of two; below the last band there is no mass
  const auto mass = [&](const Candidate& c) { return weight_mass(c.logit, scale, total.top); };
  uint64_t needed = needed_mass(top_p, total_mass(total));
  out.clear();
  float upper = INFINITY;
  for (float depth = kBand;; depth += kBand) {
    const float exponent = depth > kDeepest ? -INFINITY : total.top - depth;
    const float lower = exponent / scale;
    const size_t band = out.size();
    scan_above(row, lower, reaches(block_top, exponent),
               [&](int32_t first, uint32_t bits, const float* x) {
                 append(out, first, bits & ~above(load(x), Vec(upper)), x);
                 return lower;
               });
    Candidate* begin = out.data() + band;
    Candidate* end = out.data() + out.size();
    const uint64_t found = sum_mass(begin, end, mass);
    if (found >= needed) return cut_by_mass(begin, end, needed, mass);
    if (exponent == -INFINITY) return {};
    needed -= found;
    upper = lower;
  }
}

// The cut of top-p among the tokens that top-k kept.
inline Cut nucleus_cut(float top_p, float scale, std::vector<Candidate>& candidates) {
  if (top_p == 1.f) return {};
  const float largest = std::min_element(candidates.begin(), candidates.end(), better)->logit;
  const float row_top = exact::weight_top(largest, scale);
  const auto mass = [&](const Candidate& c) { return weight_mass(c.logit, scale, row_top); };
  Candidate* begin = candidates.data();
  Candidate* end = begin + candidates.size();
  const uint64_t all = sum_mass(begin, end, mass), needed = needed_mass(top_p, all);
  return all >= needed ? cut_by_mass(begin, end, needed, mass) : Cut{};
}

// `cut`, or the one that min-p makes if that is higher.
inline Cut with_min_p(Cut cut, float min_p, float scale, const std::vector<Candidate>& candidates) {
  if (min_p == 0.f) return cut;
  const float largest = std::min_element(candidates.begin(), candidates.end(), better)->logit;
  const float bound = min_p_logit(largest, min_p, scale);
  return bound > cut.logit ? Cut{bound, INT32_MAX} : cut;
}

// The tokens that the cut keeps, by ascending id.
template <typename T>
void collect_kept(const RowView<T>& row, Cut cut, const auto& wants, std::vector<Candidate>& kept) {
  collect_above(row, std::nextafter(cut.logit, -INFINITY), kept, wants);
  std::erase_if(kept, [&](const Candidate& c) { return !keeps(cut, c.logit, c.id); });
}

// top-k, and then top-p and min-p.
template <typename T>
bool keep_best(const RowView<T>& row, const Limits& limits, float scale,
               std::vector<Candidate>& kept) {
  if (!collect_best(row, limits.top_k, kept)) return false;
  if (kept.empty()) return true;
  const Cut cut = with_min_p(nucleus_cut(limits.top_p, scale, kept), limits.min_p, scale, kept);
  std::erase_if(kept, [&](const Candidate& c) { return !keeps(cut, c.logit, c.id); });
  std::sort(kept.begin(), kept.end(),
            [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  return true;
}

// The tokens a row keeps, by ascending id; empty where nothing is allowed. Returns false at a NaN.
// The limits must not be none. blocks_total() fills the row's blocks and gives its RowTotal; it is
// asked for only where top-p is on and top-k is not.
template <typename T, typename Total>
bool kept_tokens(const RowView<T>& row, const Shaping& s, int64_t r, const Blocks& blocks,
                 const Total& blocks_total, std::vector<Candidate>& kept) {
  const Limits limits(s, r, row.rows->vocab_size);
  const float scale = row_scale(s, r);
  kept.clear();
  if (limits.top_k > 0) return keep_best(row, limits, scale, kept);
  if (limits.top_p == 1.f) {  // min-p alone
    if (!collect_best(row, 1, kept)) return false;
    if (kept.empty()) return true;
    collect_kept(row, with_min_p({}, limits.min_p, scale, kept), kAllBlocks, kept);
    return true;
  }
  const RowTotal total = blocks_total();
  if (total.top != total.top) return false;
  if (total.top == -INFINITY) return true;
  const float* block_top = blocks.top + r * blocks.num_blocks;
  const Cut nucleus = nucleus_cut(row, limits.top_p, scale, total, block_top, kept);
  const Cut cut = with_min_p(nucleus, limits.min_p, scale, kept);
  const float exponent = exact::cap_logit(cut.logit, scale) * scale;
  collect_kept(row, cut, reaches(block_top, exponent), kept);
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
