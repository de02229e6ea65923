// grammar/host/lazy.h: parts of a program that are made when they are first reached.
//
// A rule may be given as a machine, which is asked for states one by one, or by a source, which is
// asked for the rule's body. Nothing is known of such a body beforehand, so its maker promises what
// analysis finds out for written grammars (program.h): it yields some text, never the empty one,
// begins and is followed by declared bytes only, and calls nothing on its left but rules of a
// higher rank.
#pragma once
#include <functional>
#include <string>

#include "program.h"

namespace lmx::grammar {
// A deterministic automaton over bytes. State 0 is the start, and not final.
struct ByteMachine {
  virtual ~ByteMachine() = default;
  // The state after a byte, or -1 where no text of the language goes on with it.
  virtual int32_t next(int32_t state, uint8_t byte) = 0;
  virtual bool is_final(int32_t state) = 0;
  // An own one for each program: asking for states changes a machine.
  virtual std::shared_ptr<ByteMachine> clone() const = 0;
};

class RuleSource {
 public:
  virtual ~RuleSource() = default;
  // Gives a rule its automaton; may add states and rules.
  virtual void make(Program& program, int32_t rule) = 0;
};

// Makes programs whose rules have a source, and the same as a grammar with all rules.
class RuleFactory {
 public:
  virtual ~RuleFactory() = default;
  virtual Program program(const Budget& budget) const = 0;
  virtual Grammar grammar() const = 0;  // GrammarLimitError if there are too many rules
  virtual std::string key() const = 0;  // equal keys mean equal languages
};

// Ranks of rules made on demand: bodies first, then what they call on their left. Rules within a
// body (repetitions) lie between, each before what it repeats.
constexpr int32_t kBodyRank = 0, kTokenRank = 1 << 24, kLeafRank = 1 << 28;

// Adds a rule that the program's source will make.
int32_t add_rule(Program& program, std::string name, int32_t rank, const std::bitset<256>& first,
                 const std::bitset<256>& follow);
// Lowers one rule's body; `rule_of` gives the program's rule for one that it calls.
void lower_rule(int32_t rule, const Expr& body, const std::function<int32_t(int)>& rule_of,
                const Budget& budget, Program& program);  // lower.cpp
// Analysis of the states and rules that were added since there were so many.
void settle(Program& program, size_t num_states, size_t num_rules);

// The grammar with its machines written out as rules, and those of its factory. GrammarLimitError
// above 100,000 rules.
Grammar written_out(const Grammar& grammar);
}  // namespace lmx::grammar
