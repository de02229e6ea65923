// csrc/tree/verify_target.cpp: CPU side of verify_target.h. One read of each row of the walk, for
// its total; the last one's blocks with a child are summed once more.
#include "verify_target.h"

#include <algorithm>
#include <cmath>

#include "../common/tree_sum.h"
#include "trees_cpu.h"

namespace lmx::tree::LMX_ISA {
namespace {
using namespace lmx::LMX_ISA;

// One sequence's walk: where its row of weights and the sums of the row's blocks are.
struct Target {
  const VerifyTargetParams& p;
  const TreeView& tree;
  const float* probs;  // [size, vocab_size]
  float* sums;

  const float* row(int32_t node) const { return probs + node * p.vocab_size; }

  // Block b of a row, in place or in `buffer`, zeros behind its end.
  const float* block(const float* row, int64_t b, float* buffer) const {
    const int64_t first = b * kDrawBlock, n = std::min<int64_t>(kDrawBlock, p.vocab_size - first);
    if (n == kDrawBlock) return row + first;
    std::fill(std::copy_n(row + first, n, buffer), buffer + kDrawBlock, 0.f);
    return buffer;
  }

  // The same without the tokens of a node's children, in `buffer`.
  void rest(int32_t node, int64_t b, bool with_children, float* buffer) const {
    const float* x = block(row(node), b, buffer);
    if (x != buffer) std::copy_n(x, kDrawBlock, buffer);
    if (with_children) return;
    for (int32_t c = tree.first_child[node]; c >= 0; c = tree.next_sibling[c])
      if (block_of(p, tree.tokens[c]) == b) buffer[tree.tokens[c] % kDrawBlock] = 0.f;
  }

  double total() const {
    double sum = 0.0;
    for (int64_t g = 0; g * kDrawChunk < p.num_blocks; ++g)
      sum += chunk_total(sums, p.num_blocks, g);
    return sum;
  }

  // Sums the blocks of a node's row. False: a weight is negative, infinite or NaN.
  bool weigh(int32_t node) const {
    alignas(64) float buffer[kDrawBlock];
    const Vec zero(0.f);
    constexpr uint32_t kAll = (1u << kLanes) - 1;
    uint32_t good = kAll;
    for (int64_t b = 0; b < p.num_blocks; ++b) {
      const float* x = block(row(node), b, buffer);
      for (int i = 0; i < kDrawBlock; i += kLanes) good &= at_least(load(x + i), zero);
      sums[b] = tree_sum(x);
      if (!(sums[b] < INFINITY)) return false;
    }
    return good == kAll;
  }

  // Takes the children out of the sums.
  void remove_children(int32_t node) const {
    alignas(64) float buffer[kDrawBlock];
    for (int32_t c = tree.first_child[node]; c >= 0; c = tree.next_sibling[c]) {
      const int64_t b = block_of(p, tree.tokens[c]);
      if (b < 0) continue;
      rest(node, b, false, buffer);
      sums[b] = tree_sum(buffer);
    }
  }

  int64_t draw(int32_t node, bool with_children, double total, float u) const {
    const double target = static_cast<double>(u) * total;
    const Pick chunk = pick(static_cast<int>(ceil_div<int64_t>(p.num_blocks, kDrawChunk)), 0.0,
                            target, [&](int g) { return chunk_total(sums, p.num_blocks, g); });
    const int64_t first = int64_t{chunk.index} * kDrawChunk;
    const auto count = static_cast<int>(std::min<int64_t>(kDrawChunk, p.num_blocks - first));
    const Pick found = pick(count, chunk.before, target,
                            [&](int b) { return static_cast<double>(sums[first + b]); });
    alignas(64) float buffer[kDrawBlock];
    rest(node, first + found.index, with_children, buffer);
    const Pick token = pick(kDrawBlock, found.before, target,
                            [&](int i) { return static_cast<double>(buffer[i]); });
    return (first + found.index) * kDrawBlock + token.index;
  }
};

// Walks one sequence with at least a root. Returns status bits.
int32_t target_walk(const VerifyTargetParams& p, int64_t seq, Span span, const TreeView& tree) {
  Walk walk(p.walk, seq, span.size);
  walk.begin();
  const Target target{p, tree, p.probs + span.begin * p.vocab_size, p.sums + seq * p.num_blocks};
  if (!is_uniform(p.u_final[seq])) return kStatusBadValue;
  for (;;) {
    const int32_t node = walk.node;
    const float u = p.u_node[span.begin + node];
    if (!is_uniform(u) || !target.weigh(node)) {
      p.walk.accept_length[seq] = walk.accepted;
      return kStatusBadValue;
    }
    const double total = target.total();
    const bool is_last = walk.accepted == p.walk.max_depth;
    Coin coin{-1, -1, kStatusOk};
    if (!is_last) coin = toss(p, tree, target.row(node), total, u, walk);
    if (coin.bits) return coin.bits;
    double rest = total;
    if (coin.child < 0 && !is_last) {
      target.remove_children(node);
      rest = target.total();
      if (!(rest > 0.0)) coin.child = coin.last_child;
    }
    if (coin.child >= 0) {
      walk.accept(coin.child, tree.tokens[coin.child]);
      continue;
    }
    p.walk.accept_length[seq] = walk.accepted;
    if (!(rest > 0.0)) return kStatusBadToken;
    walk.out_tokens[walk.accepted] = target.draw(node, is_last, rest, p.u_final[seq]);
    return kStatusOk;
  }
}

const char* say_walk(int32_t bits) {
  if (bits & kStatusBadToken) return "target_probs with a positive weight where the walk ends";
  return "uniforms in [0, 1) and finite target_probs >= 0 where the walk comes by";
}
}  // namespace

void verify_target_cpu(const VerifyTargetParams& p) {
  for_walks(
      p.walk, "tree_verify_target", 1,
      [&](int64_t seq, const Span& span, const TreeView& tree) {
        return target_walk(p, seq, span, tree);
      },
      say_walk);
}
}  // namespace lmx::tree::LMX_ISA
