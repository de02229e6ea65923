// grammar/host/schema_strings.h: sets of strings, and automata that read them as JSON spells them.
//
// A language is a set of decoded strings: of a pattern, a format, or a list. Combinations become
// one automaton over decoded bytes (a product), which a machine reads through JSON's escapes,
// counting characters where a length is bounded.
#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "lazy.h"
#include "regex.h"
#include "schema_sets.h"

namespace lmx::grammar {
// Flags of parse_regex for patterns, which are searched for, and for formats.
constexpr std::string_view kPatternFlags = "ux", kFormatFlags = "u";

class Languages {
 public:
  // Throws GrammarSyntaxError, UnsupportedRegexError. `flags` as parse_regex.
  int of_regex(std::string_view pattern, std::string_view flags);
  int of_words(const std::vector<std::string>& words);

  bool has(int language, std::string_view text);
  bool has(const StringSet& set, std::string_view text);
  StringSet intersection(const StringSet& a, const StringSet& b);
  std::vector<StringSet> complement(const StringSet& a);
  bool is_empty(const StringSet& a);
  // After the opening quote: the spellings of the set's strings, and the closing quote. `every`
  // escape may be used, or only those that must be.
  ExprPtr tail(const StringSet& set, bool every, int char_rule);
  // Which of some sets strings can be in at the same time: all combinations that occur, each as the
  // numbers of the sets. GrammarLimitError above 4,096 of them.
  std::vector<std::vector<int>> combinations(const std::vector<StringSet>& sets);

 private:
  struct Language {
    RegexPtr node;                               // null: a list
    std::vector<std::string> words;              // sorted
    int64_t shortest = 0, longest = kUnbounded;  // in characters, or a wider range
    bool is_sure = true;                         // of the range, and that there is some string
    bool is_format = false;                      // then its pattern:
    std::string pattern;
    std::shared_ptr<const ByteDfa> table;
  };
  const ByteDfa& table(int language);
  bool is_implied(const StringSet& set) const;
  std::shared_ptr<const ByteDfa> product(const std::vector<int>& in, const std::vector<int>& out);
  std::vector<Language> languages_;
  std::map<std::pair<std::string, std::string>, int> regexes_;
  std::map<std::vector<std::string>, int> lists_;
  std::map<std::pair<std::vector<int>, std::vector<int>>, std::shared_ptr<const ByteDfa>> products_;
};

// Regular expressions of formats (schema_formats.cpp); null if the name is not known.
const char* format_pattern(std::string_view name);

// One character of a JSON string, of a set: as it is where it may be, else escaped.
ExprPtr json_chars(const CharSet& set, bool every_escape);
// What the text of a JSON string literal may be: the shortest spelling, or with `every` any one.
ExprPtr json_literal(std::string_view text, bool every_escape);
// Of any string but some: after the opening quote. `names` sorted.
std::shared_ptr<ByteMachine> other_string_machine(std::vector<std::string> names);
// Of a table, with bounds on the number of characters; null if there is no such string.
std::shared_ptr<ByteMachine> string_machine(std::shared_ptr<const ByteDfa> table, int64_t min,
                                            int64_t max, bool every_escape);
}  // namespace lmx::grammar
