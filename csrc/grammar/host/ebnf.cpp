// grammar/host/ebnf.cpp: the reader of grammar text, a superset of GBNF.
#include <algorithm>
#include <unordered_map>

#include "grammar.h"

namespace lmx::grammar {
namespace {
constexpr int kMaxDepth = 2000;             // of parentheses
constexpr int64_t kMaxRepeat = 2147483647;  // of a count in braces

bool is_name_start(char c) { return (c | 32) >= 'a' && (c | 32) <= 'z' ? true : c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name(char c) { return is_name_start(c) || is_digit(c) || c == '.' || c == '-'; }
int hex_value(char c) {
  if (is_digit(c)) return c - '0';
  return (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Grammar parse(const std::string& root) {
    if (const size_t bad = find_bad_utf8(text_); bad != std::string_view::npos)
      throw GrammarSyntaxError("grammar: invalid UTF-8 at byte " + std::to_string(bad));
    for (skip(); i_ < text_.size(); skip()) rule();
    if (first_use_.empty() && grammar_.rules.empty()) fail(i_, "a rule, name ::= ...");
    for (size_t r = 0; r < grammar_.rules.size(); ++r)
      if (!grammar_.rules[r].body)
        throw GrammarError(place(first_use_[r]) + "undefined rule " + grammar_.rules[r].name);
    const auto found = index_.find(root);
    if (found == index_.end())
      throw GrammarError("grammar: no rule " + root + ", which is to be the root");
    grammar_.root = found->second;
    return std::move(grammar_);
  }

 private:
  std::string place(size_t at) const {
    size_t line = 1, start = 0;
    for (size_t j = 0; j < at && j < text_.size(); ++j)
      if (text_[j] == '\n') ++line, start = j + 1;
    size_t column = 1;
    for (size_t j = start; j < at && j < text_.size(); ++column)
      if (next_code_point(text_, j) == kBadCodePoint) break;
    return "grammar:" + std::to_string(line) + ":" + std::to_string(column) + ": ";
  }
  [[noreturn]] void fail(size_t at, const std::string& expected) const {
    std::string got = "the end";
    if (at < text_.size()) {
      size_t end = at;
      next_code_point(text_, end);
      got = "'" + std::string(text_.substr(at, end - at)) + "'";
      if (text_[at] == '\n') got = "the end of the line";
    }
    throw GrammarSyntaxError(place(at) + "expected " + expected + ", got " + got);
  }

  char peek(size_t ahead = 0) const { return i_ + ahead < text_.size() ? text_[i_ + ahead] : '\0'; }
  bool starts(std::string_view s) const { return text_.substr(i_, s.size()) == s; }
  bool take(std::string_view s) {
    if (!starts(s)) return false;
    i_ += s.size();
    return true;
  }
  void expect(std::string_view s, const char* after) {
    skip();
    if (!take(s)) fail(i_, std::string(s) + after);
  }
  void skip() {
    for (; i_ < text_.size(); ++i_) {
      if (text_[i_] == '#')
        i_ = std::min(text_.find('\n', i_), text_.size() - 1);
      else if (std::string_view(" \t\r\n").find(text_[i_]) == std::string_view::npos)
        return;
    }
  }
  std::string name() {
    const size_t begin = i_;
    while (i_ < text_.size() && is_name(text_[i_])) ++i_;
    return std::string(text_.substr(begin, i_ - begin));
  }
  // Whether a name at i_ is that of a new rule.
  bool at_rule() {
    const size_t begin = i_;
    name();
    skip();
    const bool is = starts("::=");
    i_ = begin;
    return is;
  }
  int rule_index(const std::string& name, size_t at) {
    const auto [it, is_new] = index_.try_emplace(name, static_cast<int>(grammar_.rules.size()));
    if (is_new) {
      grammar_.rules.push_back({name, nullptr});
      first_use_.push_back(at);
    }
    return it->second;
  }

  void rule() {
    const size_t at = i_;
    if (!is_name_start(peek())) fail(i_, "the name of a rule");
    const std::string its_name = name();
    expect("::=", " after the name of a rule");
    const int r = rule_index(its_name, at);
    if (grammar_.rules[r].body) throw GrammarError(place(at) + "duplicate rule " + its_name);
    grammar_.rules[r].body = alternatives();
    skip();
    if (i_ < text_.size() && !is_name_start(peek())) fail(i_, "an expression or a new rule");
  }

  ExprPtr alternatives() {
    std::vector<ExprPtr> parts{elements()};
    for (skip(); take("|"); skip()) parts.push_back(elements());
    return choice(std::move(parts));
  }

  ExprPtr elements() {
    std::vector<ExprPtr> parts;
    std::string run;  // literals side by side become one
    while (true) {
      skip();
      const size_t at = i_;
      ExprPtr e = element();
      if (!e) break;
      if (ExprPtr more = postfix(e); more != e) {
        e = more;
      } else if (e->kind == Kind::literal) {
        run += e->text;
        continue;
      }
      if (!run.empty()) parts.push_back(literal(std::move(run)));
      run.clear();
      parts.push_back(std::move(e));
      if (i_ == at) break;
    }
    if (!run.empty()) parts.push_back(literal(std::move(run)));
    return sequence(std::move(parts));
  }

  // One element, or null where none begins.
  ExprPtr element() {
    const char c = peek();
    if (c == '"') return literal(string());
    if (c == '[') return char_class();
    if (c == '.') return ++i_, chars({{0, kMaxCodePoint}});
    if (c == '(') return group();
    if (starts("<[") || starts("!<[")) return llama_token();
    if (!is_name_start(c) || at_rule()) return nullptr;
    const size_t at = i_;
    const std::string called = name();
    if (peek() == '(')
      if (ExprPtr made = macro(called, at)) return made;
    if (peek() == '[' && (text_.substr(i_ + 1, 4) == "max_"))
      throw GrammarError(place(i_) + "budgets of rules (max_tokens, max_chars) are not supported");
    return rule_ref(rule_index(called, at));
  }

  ExprPtr group() {
    const size_t at = i_++;
    if (++depth_ > kMaxDepth)
      throw GrammarSyntaxError(place(at) + "parentheses nested more than " +
                               std::to_string(kMaxDepth) + " deep");
    const bool is_hint = take("=");  // a lookahead, of use to other engines only
    ExprPtr e = alternatives();
    expect(")", " that ends a group");
    --depth_;
    return is_hint ? literal("") : e;
  }

  ExprPtr postfix(const ExprPtr& e) {
    ExprPtr out = e;
    const size_t at = i_;
    if (take("*"))
      out = repeat(e, 0, kUnbounded);
    else if (take("+"))
      out = repeat(e, 1, kUnbounded);
    else if (take("?"))
      out = repeat(e, 0, 1);
    else if (take("{"))
      out = braces(e, at);
    if (out != e && std::string_view("*+?{").find(peek()) != std::string_view::npos && peek())
      fail(i_, "one repetition per element (write (x+)+)");
    return out;
  }

  ExprPtr braces(const ExprPtr& e, size_t at) {
    skip();
    const bool has_min = is_digit(peek()) || peek() == '-';
    const int64_t min = has_min ? number() : 0;
    int64_t max = min;
    skip();
    if (take(",")) {
      skip();
      max = is_digit(peek()) || peek() == '-' ? number() : kUnbounded;
      if (!has_min && max == kUnbounded) fail(i_, "a count in braces");
    } else if (!has_min) {
      fail(i_, "a count in braces");
    }
    expect("}", " after a count");
    if (max != kUnbounded && min > max)
      throw GrammarSyntaxError(place(at) + "expected {m,n} with m <= n, got {" +
                               std::to_string(min) + "," + std::to_string(max) + "}");
    return repeat(e, min, max);
  }

  int64_t number() {
    const size_t at = i_;
    if (peek() == '-') fail(i_, "a count of at least 0");
    int64_t value = 0;
    for (; is_digit(peek()); ++i_) {
      value = value * 10 + (peek() - '0');
      if (value > kMaxRepeat)
        throw GrammarSyntaxError(place(at) + "expected a number up to 2147483647");
    }
    if (i_ == at) fail(i_, "a number");
    return value;
  }

  uint32_t hex_digits(size_t least, size_t most, size_t at) {
    uint64_t value = 0;
    size_t n = 0;
    for (; n < most && hex_value(peek()) >= 0; ++n, ++i_) {
      value = value * 16 + hex_value(peek());
      if (value > kMaxCodePoint) break;
    }
    if (n < least) fail(i_, "a hexadecimal digit");
    if (value > kMaxCodePoint || (value >= 0xD800 && value <= 0xDFFF))
      throw GrammarSyntaxError(place(at) + "expected an escape of a Unicode scalar value");
    return static_cast<uint32_t>(value);
  }

  // Behind a backslash. `more` are characters that stand for themselves here.
  uint32_t escape(std::string_view more) {
    const size_t at = i_ - 1;
    const char c = peek();
    ++i_;
    constexpr std::string_view kFrom = "nrtbfav0e\\\"/'?",
                               kTo = {"\n\r\t\b\f\a\v\0\x1B\\\"/'?", 14};
    if (c == 'x') return hex_digits(1, 64, at);
    if (c == 'u') return hex_digits(4, 4, at);
    if (c == 'U') return hex_digits(8, 8, at);
    if (const size_t k = kFrom.find(c); k != std::string_view::npos)
      return static_cast<uint8_t>(kTo[k]);
    if (c && more.find(c) != std::string_view::npos) return static_cast<uint8_t>(c);
    --i_;
    constexpr std::string_view kSets = "dwsDWS";
    if (!more.empty() && c && kSets.find(c) != std::string_view::npos) {
      const char* ranges = (c | 32) == 'd' ? "0-9" : (c | 32) == 'w' ? "a-zA-Z0-9_" : " \\t\\r\\n";
      throw GrammarSyntaxError(place(at) + "no \\" + c + " in a class: write the ranges, such as " +
                               ranges);
    }
    fail(i_, "an escape that is known");
  }

  std::string string() {
    const size_t at = i_++;
    std::string out;
    while (true) {
      if (i_ >= text_.size() || text_[i_] == '\n')
        fail(i_, "\" that ends the string of " + place(at));
      if (take("\"")) return out;
      append_utf8(out, take("\\") ? escape("") : next_code_point(text_, i_));
    }
  }

  uint32_t class_member(size_t at) {
    if (i_ >= text_.size()) fail(i_, "] that ends the class of " + place(at));
    return take("\\") ? escape("^-][.*+?(){}|/$") : next_code_point(text_, i_);
  }

  ExprPtr char_class() {
    const size_t at = i_++;
    const bool is_negated = take("^");
    CharSet set;
    while (!take("]")) {
      const uint32_t lo = class_member(at);
      uint32_t hi = lo;
      if (peek() == '-' && peek(1) != ']') {
        ++i_;
        hi = class_member(at);
        if (hi < lo) fail(at, "a class whose ranges go upwards");
      }
      set.push_back({lo, hi});
    }
    if (set.empty() && !is_negated) fail(at, "a class with members");
    set = normal(std::move(set));
    return chars(is_negated ? complement(set) : set);
  }

  ExprPtr llama_token() {
    auto e = std::make_shared<Expr>();
    e->kind = take("!") ? Kind::not_tokens : Kind::tokens;
    i_ += 2;
    e->ids.push_back(static_cast<int32_t>(number()));
    if (!take("]>")) fail(i_, "]> after a token id");
    return e;
  }

  // ---- macros ------------------------------------------------------------------------------
  std::string string_argument() {
    skip();
    if (peek() != '"') fail(i_, "a string");
    return string();
  }
  bool option(std::string_view key) {
    const size_t begin = i_;
    skip();
    if (take(key)) {
      skip();
      if (take("=")) return skip(), true;
    }
    i_ = begin;
    return false;
  }
  bool more() {
    skip();
    return take(",");
  }
  std::vector<std::string> string_list() {
    std::vector<std::string> out{string_argument()};
    while (more()) out.push_back(string_argument());
    return out;
  }

  ExprPtr macro(const std::string& called, size_t at) {
    auto e = std::make_shared<Expr>();
    if (called == "Regex")
      e->kind = Kind::regex;
    else if (called == "Substring")
      e->kind = Kind::substring;
    else if (called == "Token" || called == "ExcludeToken")
      e->kind = called == "Token" ? Kind::tokens : Kind::not_tokens;
    else if (called == "TagDispatch")
      e->kind = Kind::dispatch;
    else if (called == "TokenTagDispatch")
      return ++i_, token_dispatch(at);
    else
      return nullptr;
    ++i_;
    if (e->kind == Kind::regex) {
      e->text = string_argument();
      if (more()) e->flags = (option("flags"), string_argument());
    } else if (e->kind == Kind::substring) {
      e->strings = string_list();
    } else if (e->kind == Kind::dispatch) {
      dispatch(*e);
    } else {
      do {
        skip();
        e->ids.push_back(static_cast<int32_t>(number()));
      } while (more());
      std::sort(e->ids.begin(), e->ids.end());
    }
    expect(")", " that ends the arguments of a macro");
    return e;
  }

  bool boolean() {
    const bool is_true = take("true");
    if (!is_true && !take("false")) fail(i_, "true or false");
    return is_true;
  }
  int32_t token_id() {
    skip();
    return static_cast<int32_t>(number());
  }

  // Tokens of any kind, among which each tag is followed by its expression.
  ExprPtr token_dispatch(size_t at) {
    auto text = std::make_shared<Expr>();
    text->kind = Kind::not_tokens;
    std::vector<ExprPtr> tagged;
    std::vector<int32_t> excludes;
    bool loops = true;
    do {
      if (option("loop_after_dispatch")) {
        loops = boolean();
      } else if (option("excludes")) {
        expect("(", " before the excluded tokens");
        do excludes.push_back(token_id());
        while (more());
        expect(")", " after the excluded tokens");
      } else {
        expect("(", " before a tag and its rule");
        auto tag = std::make_shared<Expr>();
        tag->kind = Kind::tokens;
        tag->ids.push_back(token_id());
        text->ids.push_back(tag->ids[0]);
        expect(",", " between a tag and its rule");
        tagged.push_back(sequence({tag, alternatives()}));
        expect(")", " after a tag and its rule");
      }
    } while (more());
    expect(")", " that ends the arguments of a macro");
    for (const int32_t id : excludes)
      if (std::find(text->ids.begin(), text->ids.end(), id) != text->ids.end())
        throw GrammarError(place(at) + "TokenTagDispatch: token " + std::to_string(id) +
                           " is both a tag and excluded");
    text->ids.insert(text->ids.end(), excludes.begin(), excludes.end());
    std::sort(text->ids.begin(), text->ids.end());
    const ExprPtr any = text, ways = choice(tagged);
    if (tagged.empty()) return repeat(any, 0, kUnbounded);
    if (loops) return repeat(choice({any, ways}), 0, kUnbounded);
    return sequence({repeat(any, 0, kUnbounded), repeat(ways, 0, 1)});
  }

  void dispatch(Expr& e) {
    do {
      if (option("loop_after_dispatch")) {
        e.loop = boolean();
      } else if (option("excludes")) {
        expect("(", " before the excluded strings");
        skip();
        if (!starts(")")) e.excludes = string_list();
        expect(")", " after the excluded strings");
      } else {
        expect("(", " before a tag and its rule");
        e.strings.push_back(string_argument());
        expect(",", " between a tag and its rule");
        e.parts.push_back(alternatives());
        expect(")", " after a tag and its rule");
      }
    } while (more());
  }

  std::string_view text_;
  size_t i_ = 0;
  int depth_ = 0;
  Grammar grammar_;
  std::unordered_map<std::string, int> index_;
  std::vector<size_t> first_use_;
};
}  // namespace

Grammar parse_ebnf(std::string_view text, const std::string& root) {
  return Parser(text).parse(root);
}
}  // namespace lmx::grammar
