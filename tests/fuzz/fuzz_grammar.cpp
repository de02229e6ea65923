// tests/fuzz/fuzz_grammar.cpp: random and damaged grammars, patterns, token files and calls,
// without torch or Python, under ASan and UBSan. Run by tests/grammar/test_fuzz.py:
//   fuzz_grammar SEED INPUTS
// Every input must end in a result or in one of our exceptions; masks must agree with accept.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "grammar/host/device.h"
#include "grammar/host/matcher.h"
#include "grammar/host/regex.h"

namespace {
using namespace lmx::grammar;
using Random = std::mt19937_64;

// What grammars and patterns are made of; joined at random most of it is wrong, some of it is not.
const std::vector<std::string> kEbnf{"root",
                                     "a",
                                     "b",
                                     " ::= ",
                                     "\n",
                                     " | ",
                                     "(",
                                     ")",
                                     "[",
                                     "]",
                                     "[a-c]",
                                     "[^a]",
                                     "\"",
                                     "\"a\"",
                                     "\"ab\"",
                                     "\"\"",
                                     "*",
                                     "+",
                                     "?",
                                     "{2}",
                                     "{0,3}",
                                     "{2,}",
                                     "{0,70}",
                                     "{1000000}",
                                     "{-1}",
                                     ".",
                                     "Regex(\"",
                                     "\")",
                                     "a|b",
                                     "Substring(\"a\", \"b\")",
                                     "TagDispatch((\"a\", \"b\"))",
                                     "TokenTagDispatch((1, \"a\"), excludes=(2))",
                                     "Token(1)",
                                     "ExcludeToken(0)",
                                     "<[1]>",
                                     "!<[2]>",
                                     "\\x41",
                                     "\\u00e9",
                                     "\\",
                                     "#",
                                     "\xC3\xA9",
                                     "\xFF",
                                     "(= ",
                                     "root ::= a b\n",
                                     "a ::= \"a\" a | \"b\"\n",
                                     "b ::= b \"a\" | \"\"\n",
                                     ",",
                                     "1"};
const std::vector<std::string> kPattern{
    "a",      "b",        "c",       "|",     "(",    ")",        "(?:",  "(?=", "(?!", "(?<=",
    "(?<!",   "[",        "]",       "[a-b]", "[^a]", "*",        "+",    "?",   "{2}", "{0,9}",
    "{3,}",   "{100000}", ".",       "^",     "$",    "\\b",      "\\B",  "\\d", "\\W", "\\s",
    "\\p{L}", "\\P{Lu}",  "\\u00e9", "\\1",   "\\",   "\xC3\xA9", "\xFF", "-",   "{"};

std::string joined(Random& rng, const std::vector<std::string>& parts, int most) {
  std::string text;
  for (auto n = rng() % most + 1; n > 0; --n) text += parts[rng() % parts.size()];
  return text;
}

std::string damaged(Random& rng, std::string text) {
  for (auto n = rng() % 4; n > 0 && !text.empty(); --n) {
    const size_t at = rng() % text.size();
    switch (rng() % 3) {
      case 0: text[at] = static_cast<char>(rng()); break;
      case 1: text.erase(at, rng() % 5); break;
      default: text.insert(at, 1, static_cast<char>(rng())); break;
    }
  }
  return text;
}

void must(bool ok, const char* what, const std::string& input) {
  if (ok) return;
  std::printf("%s\n%s\n", what, input.c_str());
  std::abort();
}

std::shared_ptr<const Vocabulary> vocabulary() {
  const std::vector<std::string> entries{"a",
                                         "b",
                                         "ab",
                                         "c",
                                         "ba",
                                         "\xC3",
                                         "\xA9",
                                         "1",
                                         " ",
                                         "aa",
                                         "\xC3\xA9",
                                         "\xA9"
                                         "b",
                                         "",
                                         "</s>"};
  return std::make_shared<Vocabulary>(entries, Spelling::raw, 40, std::vector<int32_t>{13},
                                      std::vector<int32_t>{});
}

// A text of the grammar: what the mask says must be what accept does.
void walk(Random& rng, const std::shared_ptr<CompiledGrammar>& grammar, const std::string& input) {
  Matcher m(grammar, {}, false, rng() % 2);
  for (int step = 0; step < 6 && !m.is_terminated(); ++step) {
    std::vector<uint32_t> row(2);
    m.fill(row.data());
    const auto allowed = [&](int64_t t) { return row[t >> 5] >> (t & 31) & 1; };
    for (int64_t t = 0; t < 40; ++t) {
      Matcher fork(m);
      must(fork.accept(t) == static_cast<bool>(allowed(t)), "mask and accept differ", input);
    }
    const int64_t token = static_cast<int64_t>(rng() % 14);
    m.accept(token);
    m.forced_bytes(true);
    if (rng() % 4 == 0 && m.steps() > 0) m.rollback(1);
  }
}

void try_grammar(Random& rng, const Grammar& grammar, const std::string& input) {
  static const auto info = vocabulary();
  const Grammar again = parse_ebnf(to_ebnf(grammar), grammar.rules[grammar.root].name);
  must(to_ebnf(again) == to_ebnf(grammar), "printing and parsing differ", input);
  const CompileOptions options{.limit_ms = 1000,
                               .max_steps = 3000,
                               .max_memory = rng() % 8 ? 1 << 24 : 20000,
                               .cache = rng() % 16 != 0};
  walk(rng, std::make_shared<CompiledGrammar>(grammar, info, options), input);
}

void try_file(Random& rng, const std::string& input) {
  const auto loaded = Vocabulary::load(input);
  must(loaded->size() > 0, "an empty vocabulary", "");
  static_cast<void>(rng);
}

void one_input(Random& rng) {
  static const std::string file = vocabulary()->save();
  const auto kind = rng() % 8;
  std::string input;
  try {
    if (kind < 4) {
      input = (rng() % 2 ? "root ::= " : "") + joined(rng, kEbnf, 14);
      if (rng() % 3 == 0) input = damaged(rng, input);
      try_grammar(rng, parse_ebnf(input, "root"), input);
    } else if (kind < 7) {
      input = joined(rng, kPattern, 10);
      if (rng() % 3 == 0) input = damaged(rng, input);
      const std::string flags = rng() % 2 ? "" : joined(rng, {"i", "s", "m", "u", "x"}, 2);
      parse_regex(input, flags);
      Grammar grammar;
      grammar.rules.push_back({"root", regex(input, flags)});
      try_grammar(rng, grammar, input);
    } else {
      input = damaged(rng, file);
      try_file(rng, input);
    }
  } catch (const GrammarError&) {
  } catch (const std::invalid_argument&) {
  }
}
}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  Random rng(std::strtoull(argv[1], nullptr, 10));
  const long inputs = std::atol(argv[2]);
  double slowest = 0;
  for (long i = 0; i < inputs; ++i) {
    const std::clock_t start = std::clock();  // of this process: a loaded machine changes nothing
    one_input(rng);
    slowest = std::max(slowest, static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
  }
  std::printf("%ld inputs, the slowest took %.2f s\n", inputs, slowest);
  return slowest < 20 ? 0 : 1;
}
