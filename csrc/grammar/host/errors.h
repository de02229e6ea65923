// grammar/host/errors.h: what the host classes throw. module.cpp turns each into its Python class.
#pragma once
#include <stdexcept>
#include <string>

namespace lmx::grammar {
// A grammar that cannot be compiled: an undefined rule, an empty language.
struct GrammarError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// Text that is no grammar, with line and column.
struct GrammarSyntaxError : GrammarError {
  using GrammarError::GrammarError;
};
// A regular expression with something that no automaton can do, with its offset.
struct UnsupportedRegexError : GrammarError {
  using GrammarError::GrammarError;
};
// A budget is used up: states, items, steps or time. Whoever throws it leaves its state unchanged.
struct GrammarLimitError : GrammarError {
  using GrammarError::GrammarError;
};
}  // namespace lmx::grammar
