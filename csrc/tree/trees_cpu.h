// csrc/tree/trees_cpu.h: what the CPU kernels share. Include it only from kernel files.
#pragma once
#include <stdexcept>
#include <string>

#include "../common/parallel.h"
#include "walk.h"

namespace lmx::tree::LMX_ISA {
constexpr int64_t kGrainSeqs = 16;  // a tree takes a microsecond or two

// "lmx::op: expected <words> of sequence <seq>".
[[noreturn]] inline void complain(const char* op, int64_t seq, const std::string& words) {
  throw std::invalid_argument(std::string("lmx::") + op + ": expected " + words + " of sequence " +
                              std::to_string(seq));
}

inline std::string got(const char* name, int64_t at, int64_t value) {
  return std::string(", got ") + name + "[" + std::to_string(at) + "] = " + std::to_string(value);
}

inline std::string say_span(const Trees& t, int64_t seq, int32_t bits) {
  if (bits & kStatusTooMany)
    return "at most " + std::to_string(kMaxNodes) + " nodes, got " +
           std::to_string(t.indptr[seq + 1] - t.indptr[seq]);
  return "indptr that ascends from 0 to at most " + std::to_string(t.num_rows) + ", got " +
         std::to_string(t.indptr[seq]) + " to " + std::to_string(t.indptr[seq + 1]);
}

// Adds bits to a sequence's status; without a status tensor it throws what say() words.
template <typename Say>
void report(const Trees& t, int64_t seq, int32_t bits, const char* op, const Say& say) {
  if (!bits) return;
  if (!t.status) complain(op, seq, say());
  t.status[seq] |= bits;
}

// The rows of a sequence, its status set.
inline Span checked_span(const Trees& t, int64_t seq, const char* op) {
  const Span span = span_of(t, seq);
  report(t, seq, span.bits, op, [&] { return say_span(t, seq, span.bits); });
  return span;
}

// Walks of all sequences: walk(seq, span, tree) returns status bits, say(bits) words what was
// expected of a tree whose links are sound.
template <typename WalkOne, typename Say>
void for_walks(const WalkParams& w, const char* op, int64_t grain, const WalkOne& walk,
               const Say& say) {
  parallel_for(0, w.trees.num_seqs, grain, [&](int64_t begin, int64_t end) {
    for (int64_t seq = begin; seq < end; ++seq) {
      clear_walk(w, seq);
      const Span span = checked_span(w.trees, seq, op);
      if (span.size == 0) continue;
      const TreeView tree{w.tokens + span.begin, w.first_child + span.begin,
                          w.next_sibling + span.begin, span.size};
      const int32_t bits = walk(seq, span, tree);
      if (bits & kStatusBadTree) clear_walk(w, seq);
      report(w.trees, seq, bits, op, [&] {
        return std::string(bits & kStatusBadTree
                               ? "first_child and next_sibling to link each node once, below its "
                                 "parent, inside the tree"
                               : say(bits));
      });
    }
  });
}
}  // namespace lmx::tree::LMX_ISA
