// grammar/host/regex.cpp: reading patterns. Automata with assertions are made in regex_dfa.cpp.
#include "regex.h"

#include <algorithm>

namespace lmx::grammar {
namespace {
using Node = RegexNode;
constexpr int kMaxDepth = 1000;
constexpr int64_t kMaxRepeat = 2147483647;

std::shared_ptr<Node> make(Node::Kind kind) {
  auto node = std::make_shared<Node>();
  node->kind = kind;
  return node;
}
RegexPtr set_node(CharSet set) {
  auto node = make(Node::Kind::set);
  node->set = normal(std::move(set));
  return node;
}
RegexPtr parts_node(Node::Kind kind, std::vector<RegexPtr> parts) {
  if (parts.size() == 1) return parts[0];
  auto node = make(kind);
  node->parts = std::move(parts);
  return node;
}
RegexPtr repeat_node(RegexPtr part, int64_t min, int64_t max) {
  auto node = make(Node::Kind::repeat);
  node->parts = {std::move(part)};
  node->min = min;
  node->max = max;
  return node;
}
RegexPtr assertion(Node::Kind kind, bool is_negated, RegexPtr part) {
  auto node = make(kind);
  node->is_negated = is_negated;
  node->parts = {std::move(part)};
  return node;
}

const CharSet kAny{{0, kMaxCodePoint}};
const CharSet kDigit{{'0', '9'}};
const CharSet kWord{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const CharSet kLineEnd{{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};
const CharSet kSpace{{9, 13},          {32, 32},         {0xA0, 0xA0},     {0x1680, 0x1680},
                     {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
                     {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};

int hex_value(uint32_t c) {
  if (c >= '0' && c <= '9') return static_cast<int>(c - '0');
  return (c | 32) >= 'a' && (c | 32) <= 'f' ? static_cast<int>((c | 32) - 'a') + 10 : -1;
}

class Parser {
 public:
  Parser(std::string_view pattern, std::string_view flags) {
    for (size_t i = 0; i < pattern.size();) {
      const uint32_t c = next_code_point(pattern, i);
      if (c == kBadCodePoint)
        throw GrammarSyntaxError("regex: invalid UTF-8 at byte " + std::to_string(i));
      text_.push_back(c);
    }
    for (const char f : flags) {
      if (f == 'i')
        ignore_case_ = true;
      else if (f == 's')
        dot_all_ = true;
      else if (f == 'm')
        multiline_ = true;
      else if (f == 'x')
        search_ = true;
      else if (f != 'u')
        throw GrammarSyntaxError(std::string("regex: expected flags among i, s, m, u, x, got ") +
                                 f);
    }
  }

  RegexPtr parse() {
    std::vector<RegexPtr> parts;
    do {
      parts.push_back(top_alternative());
    } while (take('|'));
    if (i_ < text_.size()) fail("the end or |");
    return parts_node(Node::Kind::choice, std::move(parts));
  }

 private:
  [[noreturn]] void fail(const std::string& expected) const {
    std::string got = "the end";
    if (i_ < text_.size()) {
      got = "'";
      append_utf8(got, text_[i_]);
      got += "'";
    }
    throw GrammarSyntaxError("regex: at " + std::to_string(i_) + ": expected " + expected +
                             ", got " + got);
  }
  [[noreturn]] void unsupported(size_t at, const std::string& what) const {
    throw UnsupportedRegexError("regex: at " + std::to_string(at) + ": " + what +
                                " is not supported");
  }
  uint32_t peek(size_t ahead = 0) const {
    return i_ + ahead < text_.size() ? text_[i_ + ahead] : kBadCodePoint;
  }
  bool take(uint32_t c) { return peek() == c ? (++i_, true) : false; }
  bool take(std::string_view s) {
    for (size_t k = 0; k < s.size(); ++k)
      if (peek(k) != static_cast<uint8_t>(s[k])) return false;
    i_ += s.size();
    return true;
  }

  // ^ at the start and $ at the end of a whole alternative say nothing where it is anchored, and
  // anchor it where it is not; as assertions they would cost an automaton.
  RegexPtr top_alternative() {
    const bool begins = !multiline_ && take('^');
    std::vector<RegexPtr> parts = sequence_parts();
    const bool ends = !multiline_ && !parts.empty() && parts.back() == last_dollar_;
    if (ends) parts.pop_back();
    const RegexPtr anything = repeat_node(set_node(kAny), 0, kUnbounded);
    if (search_ && !begins) parts.insert(parts.begin(), anything);
    if (search_ && !ends) parts.push_back(anything);
    return parts_node(Node::Kind::sequence, std::move(parts));
  }

  RegexPtr alternatives() {
    std::vector<RegexPtr> parts;
    do {
      parts.push_back(parts_node(Node::Kind::sequence, sequence_parts()));
    } while (take('|'));
    return parts_node(Node::Kind::choice, std::move(parts));
  }

  std::vector<RegexPtr> sequence_parts() {
    std::vector<RegexPtr> parts;
    while (i_ < text_.size() && peek() != '|' && peek() != ')') {
      const RegexPtr part = atom();
      parts.push_back(quantified(part));
    }
    return parts;
  }

  RegexPtr quantified(RegexPtr part) {
    int64_t min = 0, max = 0;
    const size_t at = i_;
    if (take('*'))
      max = kUnbounded;
    else if (take('+'))
      min = 1, max = kUnbounded;
    else if (take('?'))
      max = 1;
    else if (!braces(min, max))
      return part;
    if (part->kind == Node::Kind::ahead || part->kind == Node::Kind::behind)
      throw GrammarSyntaxError("regex: at " + std::to_string(at) + ": nothing to repeat");
    if (peek() == '?' || peek() == '+') ++i_;  // lazy or possessive: the same language
    if (peek() == '*' || peek() == '+' || peek() == '?') fail("one quantifier");
    return repeat_node(std::move(part), min, max);
  }

  // {m}, {m,} or {m,n}; anything else in braces is literal.
  bool braces(int64_t& min, int64_t& max) {
    const size_t at = i_;
    const auto number = [&](int64_t& value) {
      const size_t begin = i_;
      for (value = 0; peek() >= '0' && peek() <= '9'; ++i_)
        value = std::min<int64_t>(value * 10 + (peek() - '0'), kMaxRepeat + 1);
      return i_ > begin;
    };
    if (!take('{')) return false;
    const bool has_min = number(min);
    max = min;
    if (take(',') && !number(max)) max = kUnbounded;
    if (!has_min || !take('}')) return i_ = at, false;
    if (min > kMaxRepeat || max > kMaxRepeat)
      throw GrammarSyntaxError("regex: at " + std::to_string(at) +
                               ": expected counts up to 2147483647");
    if (max != kUnbounded && min > max)
      throw GrammarSyntaxError("regex: at " + std::to_string(at) +
                               ": expected {m,n} with m <= n, got {" + std::to_string(min) + "," +
                               std::to_string(max) + "}");
    return true;
  }

  RegexPtr literal_set(CharSet set) {
    set = normal(std::move(set));
    return set_node(ignore_case_ ? fold_case(set) : set);
  }

  RegexPtr atom() {
    const uint32_t c = peek();
    if (c == '(') return group();
    if (c == '[') return ++i_, char_class();
    if (c == '.') return ++i_, set_node(dot_all_ ? kAny : complement(kLineEnd));
    if (c == '^')
      return ++i_, assertion(Node::Kind::behind, true,
                             set_node(multiline_ ? complement(kLineEnd) : kAny));
    if (c == '$') {
      ++i_;
      return last_dollar_ = assertion(Node::Kind::ahead, true,
                                      set_node(multiline_ ? complement(kLineEnd) : kAny));
    }
    if (c == '\\') return ++i_, escape();
    if (c == '*' || c == '+' || c == '?') fail("something to repeat");
    ++i_;
    return literal_set({{c, c}});
  }

  RegexPtr group() {
    const size_t at = i_++;
    if (++depth_ > kMaxDepth) throw GrammarSyntaxError("regex: groups nested more than 1000 deep");
    Node::Kind kind = Node::Kind::sequence;
    bool is_negated = false;
    if (take("?:")) {
    } else if (take("?=") || take("?!")) {
      kind = Node::Kind::ahead;
      is_negated = text_[i_ - 1] == '!';
    } else if (take("?<=") || take("?<!")) {
      kind = Node::Kind::behind;
      is_negated = text_[i_ - 1] == '!';
    } else if (take("?<") || take("?P<")) {
      while (i_ < text_.size() && peek() != '>') ++i_;
      if (!take('>')) fail("> after the name of a group");
    } else if (peek() == '?') {
      const uint32_t c = peek(1);
      unsupported(at, c == '('   ? "a conditional"
                      : c == '>' ? "an atomic group"
                      : c == 'R' ? "recursion"
                                 : "this kind of group");
    }
    RegexPtr inside = alternatives();
    if (!take(')')) fail(") that ends a group");
    --depth_;
    return kind == Node::Kind::sequence ? inside : assertion(kind, is_negated, inside);
  }

  // The sets that a letter behind a backslash names.
  bool named_set(CharSet& set) {
    const uint32_t c = peek();
    const uint32_t lower = c | 32;
    if (c == 'p' || c == 'P') {
      const size_t at = i_ - 1;
      ++i_;
      std::string name;
      if (!take('{')) fail("{ after \\p");
      for (; i_ < text_.size() && peek() != '}'; ++i_) append_utf8(name, text_[i_]);
      if (!take('}')) fail("} after the name of a property");
      if (!property_set(name, set)) unsupported(at, "the property " + name);
    } else if (lower == 'd' || lower == 'w' || lower == 's') {
      ++i_;
      set = lower == 'd' ? kDigit : lower == 'w' ? kWord : kSpace;
    } else {
      return false;
    }
    if (c < 'a') set = complement(normal(set));
    return true;
  }

  uint32_t hex_digits(int count) {
    uint32_t value = 0;
    for (; count > 0; --count, ++i_) {
      if (hex_value(peek()) < 0) fail("a hexadecimal digit");
      value = value * 16 + hex_value(peek());
    }
    return value;
  }

  uint32_t unicode_escape() {
    uint32_t c = 0;
    if (take('{')) {
      for (; hex_value(peek()) >= 0 && c <= kMaxCodePoint; ++i_) c = c * 16 + hex_value(peek());
      if (!take('}')) fail("} after a code point");
    } else {
      c = hex_digits(4);
      if (c >= 0xD800 && c < 0xDC00 && peek() == '\\' && peek(1) == 'u') {
        i_ += 2;
        const uint32_t low = hex_digits(4);
        if (low < 0xDC00 || low > 0xDFFF) fail("a low surrogate");
        c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
      }
    }
    if (c > kMaxCodePoint || (c >= 0xD800 && c <= 0xDFFF)) fail("a Unicode scalar value");
    return c;
  }

  // A single character behind a backslash.
  uint32_t char_escape() {
    const size_t at = i_ - 1;
    const uint32_t c = peek();
    if (c == kBadCodePoint) fail("a character after the backslash");
    ++i_;
    switch (c) {
      case 'n': return '\n';
      case 'r': return '\r';
      case 't': return '\t';
      case 'f': return '\f';
      case 'v': return '\v';
      case 'x': return hex_digits(2);
      case 'u': return unicode_escape();
      case 'c':
        if ((peek() | 32) < 'a' || (peek() | 32) > 'z') fail("a letter after \\c");
        return text_[i_++] & 31;
      case '0':
        if (peek() < '0' || peek() > '9') return 0;
        unsupported(at, "an octal escape");
      case 'k': unsupported(at, "a backreference");
      default: break;
    }
    if (c >= '1' && c <= '9') unsupported(at, "a backreference");
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
      unsupported(at, std::string("the escape \\") + static_cast<char>(c));
    return c;
  }

  RegexPtr escape() {
    CharSet set;
    if (named_set(set)) return set_node(set);
    if (peek() == 'b' || peek() == 'B') {
      const bool is_inside = text_[i_++] == 'B';
      const auto word = set_node(kWord);
      const auto side = [&](bool before, bool after) {
        return parts_node(Node::Kind::sequence, {assertion(Node::Kind::behind, !before, word),
                                                 assertion(Node::Kind::ahead, !after, word)});
      };
      return parts_node(Node::Kind::choice, {side(true, is_inside), side(false, !is_inside)});
    }
    const uint32_t c = char_escape();
    return literal_set({{c, c}});
  }

  RegexPtr char_class() {
    const bool is_negated = take('^');
    CharSet set;
    while (!take(']')) {
      if (i_ >= text_.size()) fail("] that ends a class");
      CharSet named;
      uint32_t lo;
      if (class_member(named, lo)) {
        set.insert(set.end(), named.begin(), named.end());
        continue;
      }
      uint32_t hi = lo;
      if (peek() == '-' && peek(1) != ']' && peek(1) != kBadCodePoint) {
        const size_t at = i_++;
        if (class_member(named, hi)) {  // [a-\d]: the hyphen is itself
          set.push_back({'-', '-'});
          set.insert(set.end(), named.begin(), named.end());
          hi = lo;
        } else if (hi < lo) {
          i_ = at;
          fail("a range that goes upwards");
        }
      }
      set.push_back({lo, hi});
    }
    set = normal(std::move(set));
    if (ignore_case_) set = fold_case(set);
    return set_node(is_negated ? complement(set) : set);
  }

  bool class_member(CharSet& named, uint32_t& c) {
    if (!take('\\')) return c = text_[i_++], false;
    if (named_set(named)) return true;
    if (take('b')) return c = '\b', false;
    return c = char_escape(), false;
  }

  std::vector<uint32_t> text_;
  size_t i_ = 0;
  int depth_ = 0;
  bool ignore_case_ = false, dot_all_ = false, multiline_ = false, search_ = false;
  RegexPtr last_dollar_;
};
}  // namespace

RegexPtr parse_regex(std::string_view pattern, std::string_view flags) {
  return Parser(pattern, flags).parse();
}

bool has_assertions(const RegexNode& node) {
  if (node.kind == Node::Kind::ahead || node.kind == Node::Kind::behind) return true;
  return std::any_of(node.parts.begin(), node.parts.end(),
                     [](const RegexPtr& part) { return has_assertions(*part); });
}

ExprPtr to_expr(const RegexNode& node) {
  std::vector<ExprPtr> parts;
  for (const auto& part : node.parts) parts.push_back(to_expr(*part));
  switch (node.kind) {
    case Node::Kind::set: return chars(node.set);
    case Node::Kind::choice: return choice(std::move(parts));
    case Node::Kind::repeat: return repeat(parts[0], node.min, node.max);
    default: return sequence(std::move(parts));
  }
}
}  // namespace lmx::grammar
