// grammar/host/schema.h: JSON schemas as grammars.
//
//   text -> tree (json.h) -> sets of values by type (schema_sets.h), for every place of an
//   instance, where a place is a set of subschemas that all apply there (schema_model.h) -> rules
//   (schema_emit.h), each made when a matcher first reaches it (lazy.h).
// All keywords are read, and all places looked at, when the grammar is made.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "grammar.h"

namespace lmx::grammar {
// A keyword that cannot be honoured: "POINTER: KEYWORD: reason".
struct UnsupportedSchemaError : GrammarError {
  using GrammarError::GrammarError;
};
// A schema that no value fits, or a reference to itself.
struct UnsatisfiableSchemaError : GrammarError {
  using GrammarError::GrammarError;
};

struct SchemaOptions {
  bool any_order = false;         // properties may come in any order
  bool strict = false;            // no additional properties or items where nothing is said of them
  bool lenient = false;           // keywords that cannot be honoured are dropped with a warning
  bool integer_fraction = false;  // integers may end with .0
  bool every_escape = false;      // constrained strings may spell characters as \uXXXX
  std::string formats =
      "known";      // unknown ones: "known" warns, "strict" refuses; "off" ignores all
  std::string gap;  // a regular expression for white space between two tokens
  std::string item_separator = ",", key_separator = ":";
  int indent = -1;  // spaces per level on lines of their own; -1: no lines
  std::vector<std::pair<std::string, std::string>> registry;  // texts of schemas, by URI
  std::string key() const;
};

// Throws GrammarSyntaxError, UnsupportedSchemaError, UnsatisfiableSchemaError, GrammarLimitError.
Grammar schema_grammar(std::string_view text, const SchemaOptions& options);
// Every keyword that cannot be honoured, each with its pointer and reason.
std::vector<std::string> explain_schema(std::string_view text, SchemaOptions options);
}  // namespace lmx::grammar
