// grammar/host/device.h: a grammar with finitely many configurations, as tables for grammar_step.
#pragma once
#include <string>
#include <vector>

#include "matcher.h"

namespace lmx::grammar {
struct DeviceTables {
  int64_t num_states = 0, num_classes = 0;
  std::vector<uint16_t> transitions;  // [num_states, num_classes]; state 0 is the start
  std::vector<int16_t> classes;       // [258]
  std::vector<uint32_t> masks;        // [num_masks, num_words]
  std::vector<int32_t> mask_ids;      // [num_states]
  int64_t num_masks = 0;
};
// The last state is the one after a stop token; it goes on with stop tokens alone. Throws
// GrammarLimitError where there are more than max_states states: the grammar is not regular, or its
// automaton is too large.
DeviceTables device_tables(CompiledGrammar& grammar, int64_t max_states);

struct DeviceVocabulary {
  std::vector<int16_t> symbols;
  std::vector<int32_t> offsets;  // [vocab_size + 1]
};
DeviceVocabulary device_vocabulary(const Vocabulary& vocabulary);
}  // namespace lmx::grammar
