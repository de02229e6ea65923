// csrc/tree/trees_cpu.h: what the CPU kernels share. Include it only from kernel files.
#pragma once
#include <stdexcept>
#include <string>

#include "../common/parallel.h"
#include "trees.h"

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
}  // namespace lmx::tree::LMX_ISA
