// csrc/tree/verify_greedy.cpp: CPU side of verify_greedy.h.
#include "verify_greedy.h"

#include "trees_cpu.h"

namespace lmx::tree::LMX_ISA {
void verify_greedy_cpu(const VerifyGreedyParams& p) {
  constexpr auto kOp = "tree_verify_greedy";
  const WalkParams& w = p.walk;
  parallel_for(0, w.trees.num_seqs, kGrainSeqs, [&](int64_t begin, int64_t end) {
    for (int64_t seq = begin; seq < end; ++seq) {
      clear_walk(w, seq);
      const Span span = checked_span(w.trees, seq, kOp);
      if (span.size == 0) continue;
      const TreeView tree{w.tokens + span.begin, w.first_child + span.begin,
                          w.next_sibling + span.begin, span.size};
      const int32_t bits = greedy_walk(w, seq, tree, p.target_ids + span.begin);
      if (bits & kStatusBadTree) clear_walk(w, seq);
      report(w.trees, seq, bits, kOp, [&] {
        return std::string(bits & kStatusBadTree
                               ? "first_child and next_sibling to link each node once, below its "
                                 "parent, inside the tree"
                               : "target_ids that are tokens where the walk comes by, got -1");
      });
    }
  });
}
}  // namespace lmx::tree::LMX_ISA
