// csrc/tree/prepare.cpp: CPU side of prepare.h. One pass over the nodes, last to first for the
// links.
#include "prepare.h"

#include <algorithm>

#include "trees_cpu.h"

namespace lmx::tree::LMX_ISA {
namespace {
constexpr auto kOp = "tree_prepare";

std::string say_node(const PrepareParams& p, int64_t begin, int32_t i, int32_t bits) {
  if (bits & kStatusBadTree)
    return (i == 0 ? std::string("a root with parent -1")
                   : "a parent in [0, " + std::to_string(i) + ")") +
           got("parents", begin + i, p.parents[begin + i]);
  return "a token in [0, " + std::to_string(p.vocab_size) + ")" +
         got("tokens", begin + i, p.tokens[begin + i]);
}

bool is_good(const PrepareParams& p, int64_t seq, Span span) {
  if (span.size > p.max_nodes) {
    report(p.trees, seq, kStatusTooMany, kOp, [&] {
      return "at most max_nodes = " + std::to_string(p.max_nodes) + " nodes, got " +
             std::to_string(span.size);
    });
    return false;
  }
  int32_t bits = 0;
  for (int32_t i = 0; i < span.size; ++i) {
    const int32_t mine = node_status(p, span.begin, i);
    if (mine && !p.trees.status) complain(kOp, seq, say_node(p, span.begin, i, mine));
    bits |= mine;
  }
  if (bits) p.trees.status[seq] |= bits;
  return !bits;
}

void derive(const PrepareParams& p, Span span) {
  const int32_t* parents = p.parents + span.begin;
  int32_t* depth = p.depth + span.begin;
  int32_t* first = p.first_child + span.begin;
  int32_t* next = p.next_sibling + span.begin;
  uint32_t* ancestors = p.ancestors + span.begin * p.num_words;
  for (int32_t i = span.size - 1; i > 0; --i) next[i] = first[parents[i]], first[parents[i]] = i;
  for (int32_t i = 0; i < span.size; ++i) {
    uint32_t* mine = ancestors + i * p.num_words;
    if (i > 0) {
      depth[i] = depth[parents[i]] + 1;
      std::copy_n(ancestors + parents[i] * p.num_words, p.num_words, mine);
    }
    mine[i / 32] |= 1u << i % 32;
  }
}
}  // namespace

void prepare_cpu(const PrepareParams& p) {
  const int64_t rows = p.trees.num_rows;
  std::fill_n(p.depth, rows, 0);
  std::fill_n(p.first_child, rows, -1);
  std::fill_n(p.next_sibling, rows, -1);
  std::fill_n(p.ancestors, rows * p.num_words, 0u);
  parallel_for(0, p.trees.num_seqs, kGrainSeqs, [&](int64_t begin, int64_t end) {
    for (int64_t seq = begin; seq < end; ++seq) {
      const Span span = checked_span(p.trees, seq, kOp);
      if (is_good(p, seq, span)) derive(p, span);
    }
  });
}
}  // namespace lmx::tree::LMX_ISA
