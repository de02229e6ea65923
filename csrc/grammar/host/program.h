// grammar/host/program.h: what a grammar is compiled to: rules as automata over bytes that call one
// another.
//
// Lowering builds one nondeterministic automaton with edges of five kinds: empty, a range of bytes,
// a call of a rule, a set of tokens. Analysis then rewrites it, without changing the language,
// until
//   - a call never yields the empty string (nullable rules are bypassed by empty edges),
//   - every state lies on a path to its rule's end (nothing that cannot be completed is left),
//   - no rule calls itself before it has read a byte (left recursion is turned around).
// Deterministic states are made when they are first reached (states.h).
#pragma once
#include <array>
#include <bitset>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "grammar.h"

namespace lmx::grammar {
struct ByteEdge {
  uint8_t lo, hi;
  int32_t to;
};
struct CallEdge {
  int32_t rule, to;
};
struct TokenEdge {
  int32_t set, to;
};
struct NfaState {
  std::vector<int32_t> empty;
  std::vector<ByteEdge> bytes;
  std::vector<CallEdge> calls;
  std::vector<TokenEdge> tokens;
};

struct TokenSetSpec {
  std::vector<int32_t> ids;  // sorted
  bool is_negated;
};

// An explicit automaton over bytes. Every state leads to a final one, unless there is no state.
struct ByteDfa {
  struct State {
    std::vector<ByteEdge> edges;  // by byte
    bool is_final = false;
  };
  std::vector<State> states;                     // state 0 is the start
  int32_t next(int32_t state, uint8_t b) const;  // -1: none
};
ByteDfa pruned(const ByteDfa& dfa);  // without the states that lead to no final one

struct ProgramRule {
  std::string name;
  int32_t start = -1, final = -1;
  int32_t rank = 0;   // a rule that calls another before any byte has a lower rank
  int32_t body = -1;  // of a counted rule: body{min,max}; -1 for an automaton
  int64_t min = 0, max = 0;
  bool nullable = false;    // of the rule as written; a call yields no empty string
  std::vector<bool> alive;  // states that reach `final`; empty: all
  std::bitset<256> follow;  // bytes that may come after the rule, in any context
  std::bitset<256> first;   // bytes it may begin with; of rules that are made on demand (lazy.h)
  std::shared_ptr<ByteMachine> machine;  // its automaton, if it is given as such
};

class RuleSource;

struct Program {
  std::vector<NfaState> nfa;
  std::deque<ProgramRule> rules;       // references stay valid
  std::shared_ptr<RuleSource> source;  // of rules without a start; null: there are none
  std::vector<TokenSetSpec> token_sets;
  int32_t root = 0;
  bool has_counters = false;

  int32_t new_state() {
    nfa.emplace_back();
    return static_cast<int32_t>(nfa.size()) - 1;
  }
};

struct Budget {
  int64_t max_states = 100000;  // deterministic states of a rule, and of a regular expression
  int64_t max_edges = 2000000;  // of the automaton that is made at once
};

// Throws GrammarError where the grammar admits no string, GrammarLimitError at the budget.
Program compile(const Grammar& grammar, const Budget& budget);

void lower(const Grammar& grammar, const Budget& budget, Program& program);  // lower.cpp
void analyse(Program& program, const Budget& budget);                        // analyse.cpp
void remove_left_recursion(Program& program);                                // left.cpp
void find_follow(Program& program);                                          // analyse.cpp
}  // namespace lmx::grammar
