// csrc/grammar/step.h: one token through an automaton that lies in tensors.
//   state[r] -> transitions[..., class of symbol s, ...] for each symbol s of tokens[r]
// A symbol is a byte, kNeverSymbol for tokens that stand for none, or kStopSymbol for stop tokens.
// Where there is no way, or the state was -1 already, the next state is -1. Tables are checked as
// they are read: an offset, class or state out of its range gives -1 and sets the row's status.
#pragma once
#include "../common/hostdev.h"
#include "../common/isa.h"
#include "../common/status.h"
struct CUstream_st;

namespace lmx::grammar {
constexpr int kNeverSymbol = 256;
constexpr int kStopSymbol = 257;
constexpr int kNumSymbols = 258;
constexpr uint16_t kNoState = 0xFFFF;

struct StepParams {
  const int32_t* states;        // [num_rows]
  const int64_t* tokens;        // [num_rows]
  const uint16_t* transitions;  // [num_states, num_classes], kNoState: no way
  const int16_t* classes;       // [kNumSymbols]
  const int16_t* symbols;       // [num_symbols]: those of token 0, of token 1, ...
  const int32_t* offsets;       // [vocab_size + 1], into symbols
  int32_t* next;                // [num_rows]
  int32_t* status;              // [num_rows] or null
  int64_t num_rows, num_states, num_classes, num_symbols, vocab_size;
};

// The status of a row, and the next state in `next`.
LMX_HD int32_t step_row(const StepParams& p, int64_t row, int32_t& next) {
  next = -1;
  const int64_t token = p.tokens[row];
  int32_t state = p.states[row];
  if (token < 0 || token >= p.vocab_size) return kStatusBadToken;
  if (state < -1 || state >= p.num_states) return kStatusBadValue;
  const int32_t begin = p.offsets[token], end = p.offsets[token + 1];
  if (begin < 0 || begin > end || end > p.num_symbols) return kStatusBadOffsets;
  for (int32_t i = begin; i < end && state >= 0; ++i) {
    const int32_t symbol = p.symbols[i];
    if (symbol < 0 || symbol >= kNumSymbols) return kStatusBadValue;
    const int32_t kind = p.classes[symbol];
    if (kind < 0 || kind >= p.num_classes) return kStatusBadValue;
    const uint16_t to = p.transitions[state * p.num_classes + kind];
    if (to != kNoState && to >= p.num_states) return kStatusBadValue;
    state = to == kNoState ? -1 : to;
  }
  next = state;
  return kStatusOk;
}

LMX_CPU_KERNEL(step_cpu, StepParams)
void step_cuda(const StepParams& p, CUstream_st* stream);
}  // namespace lmx::grammar
