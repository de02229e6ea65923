// grammar/host/regex.h: regular expressions, in ECMAScript's notation.
//
// A pattern without assertions becomes an expression, or an automaton where one is needed; one with
// ^ $ \b, lookahead or lookbehind becomes an automaton, by products and complements, at once.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "program.h"

namespace lmx::grammar {
struct RegexNode;
using RegexPtr = std::shared_ptr<const RegexNode>;
struct RegexNode {
  enum class Kind { set, sequence, choice, repeat, ahead, behind };
  Kind kind = Kind::sequence;
  CharSet set;
  std::vector<RegexPtr> parts;
  int64_t min = 0, max = 0;
  bool is_negated = false;  // of ahead and behind
};

// flags: i, s, m, u, and x for "find anywhere". Throws GrammarSyntaxError or UnsupportedRegexError,
// both with the offset in code points.
RegexPtr parse_regex(std::string_view pattern, std::string_view flags);
bool has_assertions(const RegexNode& node);
ExprPtr to_expr(const RegexNode& node);                       // of one without assertions
ByteDfa to_dfa(const RegexNode& node, const Budget& budget);  // of any

// Adds the spellings of a set between two states, sharing their tails.
void add_chars(Program& program, const CharSet& set, int32_t from, int32_t to);

// The set of \p{name} or \p{name=value}; false if there is none.
bool property_set(std::string_view name, CharSet& set);
// The set and what differs from its members in case only.
CharSet fold_case(const CharSet& set);
}  // namespace lmx::grammar
