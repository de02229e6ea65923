// csrc/tree/verify_greedy.cpp: CPU side of verify_greedy.h.
#include "verify_greedy.h"

#include "trees_cpu.h"

namespace lmx::tree::LMX_ISA {
void verify_greedy_cpu(const VerifyGreedyParams& p) {
  for_walks(
      p.walk, "tree_verify_greedy", kGrainSeqs,
      [&](int64_t seq, const Span& span, const TreeView& tree) {
        return greedy_walk(p.walk, seq, tree, p.target_ids + span.begin);
      },
      [](int32_t) { return "target_ids that are tokens where the walk comes by, got -1"; });
}
}  // namespace lmx::tree::LMX_ISA
