// csrc/grammar/step.cpp: CPU side of step.h.
#include "step.h"

#include <stdexcept>
#include <string>

#include "../common/parallel.h"

namespace lmx::grammar::LMX_ISA {
namespace {
std::string complaint(const StepParams& p, int64_t row, int32_t bits) {
  const std::string where = "lmx::grammar_step: row " + std::to_string(row) + ": expected ";
  if (bits & kStatusBadToken)
    return where + "a token in [0, " + std::to_string(p.vocab_size) + "), got " +
           std::to_string(p.tokens[row]);
  if (bits & kStatusBadOffsets)
    return where + "offsets of token " + std::to_string(p.tokens[row]) + " in order and within " +
           std::to_string(p.num_symbols) + " symbols";
  return where + "states in [-1, " + std::to_string(p.num_states) + "), classes in [0, " +
         std::to_string(p.num_classes) + "), got state " + std::to_string(p.states[row]);
}
}  // namespace

void step_cpu(const StepParams& p) {
  for (int64_t row = 0; row < p.num_rows && !p.status; ++row) {
    int32_t next;
    if (const int32_t bits = step_row(p, row, next))
      throw std::invalid_argument(complaint(p, row, bits));
  }
  constexpr int64_t kGrain = 256;
  parallel_for(0, p.num_rows, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int32_t bits = step_row(p, row, p.next[row]);
      if (p.status) p.status[row] |= bits;
    }
  });
}
}  // namespace lmx::grammar::LMX_ISA
