// grammar/host/grammar.h: a grammar as it is written: named rules over expressions.
//
// Immutable once built. Text of extended Backus-Naur form comes in by parse_ebnf and goes out by
// to_ebnf; what it means is decided in lower.h.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "charset.h"
#include "errors.h"

namespace lmx::grammar {
struct Expr;
struct ByteMachine;
class RuleFactory;
using ExprPtr = std::shared_ptr<const Expr>;
constexpr int64_t kUnbounded = -1;

enum class Kind {
  literal,    // text, UTF-8; "" is the empty string
  chars,      // one code point of a set
  sequence,   // parts, one after the other
  choice,     // one of the parts
  repeat,     // parts[0], min to max times
  rule,       // the rule of that number
  regex,      // text is a pattern of regex.h, flags its flags
  substring,  // a contiguous run of strings
  dispatch,   // free text in which strings[i] is followed by parts[i]
  graph,      // parts[i] leads from state links[i].from to links[i].to; 0 is the start, 1 the end
  machine,    // the language of an automaton (lazy.h)
  tokens,     // one token, by id
  not_tokens  // one token that is none of these, nor a stop token
};

struct Expr {
  Kind kind = Kind::literal;
  std::string text, flags;
  CharSet set;
  std::vector<ExprPtr> parts;
  int64_t min = 0, max = 0;
  int rule = -1;
  std::vector<std::string> strings, excludes;
  std::vector<int32_t> ids;
  bool loop = true;  // dispatch: free text goes on after a part
  std::shared_ptr<ByteMachine> machine;
  struct Link {
    int from, to;
  };
  std::vector<Link> links;
};

struct Rule {
  std::string name;
  ExprPtr body;
};

struct Grammar {
  std::vector<Rule> rules;
  int root = 0;
  std::vector<std::string> warnings;
  std::shared_ptr<const RuleFactory> factory;  // makes the rules, which are then none (lazy.h)
};

ExprPtr literal(std::string text);
ExprPtr chars(CharSet set);  // any order
ExprPtr sequence(std::vector<ExprPtr> parts);
ExprPtr choice(std::vector<ExprPtr> parts);
ExprPtr repeat(ExprPtr part, int64_t min, int64_t max);
ExprPtr rule_ref(int rule);
ExprPtr regex(std::string pattern, std::string flags);
ExprPtr graph(std::vector<ExprPtr> parts, std::vector<Expr::Link> links);
ExprPtr machine(std::shared_ptr<ByteMachine> machine);

// Throws GrammarSyntaxError with line and column, or GrammarError naming a rule.
Grammar parse_ebnf(std::string_view text, const std::string& root);
std::string to_ebnf(const Grammar& grammar);

// The expression with its rules' numbers moved up.
ExprPtr renumbered(const ExprPtr& e, int shift);
// The language of any one of several grammars, or of all of them one after the other.
Grammar combine(const std::vector<const Grammar*>& grammars, Kind kind);

// A JSON text by RFC 8259. `gap` is an expression for the white space between two of its tokens;
// only_containers leaves out scalars.
Grammar json_grammar(const ExprPtr& gap, bool only_containers);
}  // namespace lmx::grammar
