// grammar/host/grammar.cpp: making and printing grammars.
#include "grammar.h"

#include <set>

#include "lazy.h"

namespace lmx::grammar {
namespace {
std::shared_ptr<Expr> make(Kind kind) {
  auto e = std::make_shared<Expr>();
  e->kind = kind;
  return e;
}

std::string hex(uint32_t c) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  const int digits = c > 0xFFFF ? 8 : 4;
  std::string s = digits == 8 ? "\\U" : "\\u";
  for (int i = digits - 1; i >= 0; --i) s += kDigits[c >> (4 * i) & 15];
  return s;
}

// A code point inside quotes or brackets; `special` are those that need a backslash there.
std::string escaped(uint32_t c, std::string_view special) {
  if (c == '\n') return "\\n";
  if (c == '\r') return "\\r";
  if (c == '\t') return "\\t";
  if (c < 0x20 || c >= 0x7F) return hex(c);
  const char ascii = static_cast<char>(c);
  return special.find(ascii) == std::string_view::npos ? std::string(1, ascii)
                                                       : std::string("\\") + ascii;
}

std::string quoted(std::string_view text) {
  std::string s = "\"";
  for (size_t i = 0; i < text.size();) s += escaped(next_code_point(text, i), "\"\\");
  return s + '"';
}

std::string spelled(const CharSet& set) {
  constexpr std::string_view kSpecial = "^-][\\";
  std::string s = "[";
  for (const CodeRange r : set) {
    s += escaped(r.lo, kSpecial);
    if (r.hi > r.lo) s += (r.hi > r.lo + 1 ? "-" : "") + escaped(r.hi, kSpecial);
  }
  return s + "]";
}

class Printer {
 public:
  explicit Printer(const Grammar& grammar) : grammar_(grammar) {}

  // `tight`: as the operand of a postfix operator or inside a sequence, a choice needs parentheses.
  std::string print(const Expr& e, int tight) const {
    switch (e.kind) {
      case Kind::literal: return quoted(e.text);
      case Kind::chars: return e.set == complement({}) ? "[^]" : spelled(e.set);
      case Kind::sequence: return wrap(joined(e.parts, " ", 1), tight > 1);
      case Kind::choice: return wrap(joined(e.parts, " | ", 1), tight > 0);
      case Kind::repeat: return wrap(print(*e.parts[0], 3) + bounds(e), tight > 2);
      case Kind::rule: return grammar_.rules[e.rule].name;
      case Kind::regex:
        return "Regex(" + quoted(e.text) + (e.flags.empty() ? "" : ", flags=" + quoted(e.flags)) +
               ")";
      case Kind::substring: return "Substring(" + quoted_list(e.strings) + ")";
      case Kind::dispatch: return dispatch(e);
      default: return (e.kind == Kind::tokens ? "Token(" : "ExcludeToken(") + id_list(e.ids) + ")";
    }
  }

 private:
  static std::string wrap(const std::string& s, bool needed) { return needed ? "(" + s + ")" : s; }
  static std::string bounds(const Expr& e) {
    if (e.max == kUnbounded && e.min < 2) return e.min ? "+" : "*";
    if (e.min == 0 && e.max == 1) return "?";
    if (e.min == e.max) return "{" + std::to_string(e.min) + "}";
    return "{" + std::to_string(e.min) + "," + (e.max == kUnbounded ? "" : std::to_string(e.max)) +
           "}";
  }
  static std::string quoted_list(const std::vector<std::string>& strings) {
    std::string s;
    for (const auto& one : strings) s += (s.empty() ? "" : ", ") + quoted(one);
    return s;
  }
  static std::string id_list(const std::vector<int32_t>& ids) {
    std::string s;
    for (const int32_t id : ids) s += (s.empty() ? "" : ", ") + std::to_string(id);
    return s;
  }
  std::string joined(const std::vector<ExprPtr>& parts, const char* between, int tight) const {
    std::string s;
    for (const auto& part : parts) s += (s.empty() ? "" : between) + print(*part, tight);
    return s;
  }
  std::string dispatch(const Expr& e) const {
    std::string s = "TagDispatch(";
    for (size_t i = 0; i < e.strings.size(); ++i)
      s += (i ? ", (" : "(") + quoted(e.strings[i]) + ", " + print(*e.parts[i], 0) + ")";
    if (!e.loop) s += ", loop_after_dispatch=false";
    if (!e.excludes.empty()) s += ", excludes=(" + quoted_list(e.excludes) + ")";
    return s + ")";
  }
  const Grammar& grammar_;
};

}  // namespace

ExprPtr renumbered(const ExprPtr& e, int shift) {
  if (e->kind != Kind::rule && e->parts.empty()) return e;
  auto copy = std::make_shared<Expr>(*e);
  if (copy->kind == Kind::rule) copy->rule += shift;
  for (auto& part : copy->parts) part = renumbered(part, shift);
  return copy;
}
ExprPtr literal(std::string text) {
  auto e = make(Kind::literal);
  e->text = std::move(text);
  return e;
}

ExprPtr chars(CharSet set) {
  auto e = make(Kind::chars);
  e->set = normal(std::move(set));
  return e;
}

ExprPtr sequence(std::vector<ExprPtr> parts) {
  if (parts.size() == 1) return parts[0];
  if (parts.empty()) return literal("");
  auto e = make(Kind::sequence);
  e->parts = std::move(parts);
  return e;
}

ExprPtr choice(std::vector<ExprPtr> parts) {
  if (parts.size() == 1) return parts[0];
  auto e = make(Kind::choice);
  e->parts = std::move(parts);
  return e;
}

ExprPtr repeat(ExprPtr part, int64_t min, int64_t max) {
  auto e = make(Kind::repeat);
  e->parts = {std::move(part)};
  e->min = min;
  e->max = max;
  return e;
}

ExprPtr rule_ref(int rule) {
  auto e = make(Kind::rule);
  e->rule = rule;
  return e;
}

ExprPtr regex(std::string pattern, std::string flags) {
  auto e = make(Kind::regex);
  e->text = std::move(pattern);
  e->flags = std::move(flags);
  return e;
}

ExprPtr graph(std::vector<ExprPtr> parts, std::vector<Expr::Link> links) {
  auto e = make(Kind::graph);
  e->parts = std::move(parts);
  e->links = std::move(links);
  return e;
}

ExprPtr machine(std::shared_ptr<ByteMachine> machine) {
  auto e = make(Kind::machine);
  e->machine = std::move(machine);
  return e;
}

std::string to_ebnf(const Grammar& given) {
  const Grammar grammar = written_out(given);
  const Printer printer(grammar);
  std::string s;
  for (size_t i = 0; i < grammar.rules.size(); ++i) {  // the root first
    const size_t r = i == 0 ? grammar.root : i <= static_cast<size_t>(grammar.root) ? i - 1 : i;
    s += grammar.rules[r].name + " ::= " + printer.print(*grammar.rules[r].body, 0) + "\n";
  }
  return s;
}

Grammar combine(const std::vector<const Grammar*>& grammars, Kind kind) {
  if (grammars.empty()) throw GrammarError("expected at least one grammar, got none");
  Grammar out;
  std::set<std::string> names{"root"};
  out.rules.push_back({"root", nullptr});
  std::vector<ExprPtr> roots;
  for (const Grammar* given : grammars) {
    const Grammar made = given->factory ? given->factory->grammar() : Grammar{};
    const Grammar* g = given->factory ? &made : given;
    const int shift = static_cast<int>(out.rules.size());
    roots.push_back(rule_ref(g->root + shift));
    for (const Rule& rule : g->rules) {
      std::string name = rule.name;
      for (int i = 1; !names.insert(name).second; ++i) name = rule.name + "_" + std::to_string(i);
      out.rules.push_back({name, renumbered(rule.body, shift)});
    }
    out.warnings.insert(out.warnings.end(), g->warnings.begin(), g->warnings.end());
  }
  out.rules[0].body = kind == Kind::choice ? choice(std::move(roots)) : sequence(std::move(roots));
  return out;
}

Grammar json_grammar(const ExprPtr& gap, bool only_containers) {
  Grammar g = parse_ebnf(R"(
    root ::= value
    value ::= object | array | string | number | "true" | "false" | "null"
    object ::= "{" gap (member (gap "," gap member)* gap)? "}"
    member ::= string gap ":" gap value
    array ::= "[" gap (value (gap "," gap value)* gap)? "]"
    string ::= "\"" ([^"\\\x00-\x1F] | "\\" (["\\/bfnrt] | "u" escape))* "\""
    escape ::= ""
    number ::= "-"? ("0" | [1-9] [0-9]*) ("." [0-9]+)? ([eE] [+\-]? [0-9]+)?
    gap ::= "" )",
                         "root");
  const auto find = [&](const char* name) -> Rule& {
    for (Rule& rule : g.rules)
      if (rule.name == name) return rule;
    throw GrammarError("no such rule");
  };
  find("gap").body = gap;
  // A high surrogate is followed by a low one, and a low one by nothing else.
  find("escape").body = regex(
      "[0-9A-Ca-cE-Fe-f][0-9A-Fa-f]{3}|[Dd][0-7][0-9A-Fa-f]{2}|"
      "[Dd][89ABab][0-9A-Fa-f]{2}\\\\u[Dd][C-Fc-f][0-9A-Fa-f]{2}",
      "");
  if (only_containers) {
    std::vector<ExprPtr> two;
    for (size_t i = 0; i < g.rules.size(); ++i)
      if (g.rules[i].name == "object" || g.rules[i].name == "array")
        two.push_back(rule_ref(static_cast<int>(i)));
    find("root").body = choice(two);
  }
  return g;
}
}  // namespace lmx::grammar
