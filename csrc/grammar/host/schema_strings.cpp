// grammar/host/schema_strings.cpp
#include "schema_strings.h"

#include <algorithm>
#include <array>
#include <set>

#include "json.h"

namespace lmx::grammar {
namespace {
constexpr size_t kMaxStates = 20000, kMaxPositions = 50000, kMaxCombinations = 4096;
constexpr int64_t kImpossible = int64_t{1} << 40;  // of a length
const CharSet kControls{{0, 0x1F}};

std::vector<int> merged(const std::vector<int>& a, const std::vector<int>& b) {
  std::vector<int> out;
  std::set_union(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(out));
  return out;
}
int64_t length_of(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

struct Lengths {
  int64_t shortest, longest;  // longest: kUnbounded
};
int64_t plus(int64_t a, int64_t b) {
  return a < 0 || b < 0 ? kUnbounded : std::min(a + b, kImpossible);
}
int64_t mul(int64_t a, int64_t n) {
  return a == 0 || n == 0      ? 0
         : a < 0 || n < 0      ? kUnbounded
         : a > kImpossible / n ? kImpossible
                               : a * n;
}

// Of the strings of a pattern without assertions, which say nothing here.
Lengths lengths_of(const RegexNode& node) {
  using Kind = RegexNode::Kind;
  switch (node.kind) {
    case Kind::set: return node.set.empty() ? Lengths{kImpossible, 0} : Lengths{1, 1};
    case Kind::sequence: {
      Lengths all{0, 0};
      for (const auto& part : node.parts) {
        const Lengths l = lengths_of(*part);
        all = {std::min(all.shortest + l.shortest, kImpossible), plus(all.longest, l.longest)};
      }
      return all;
    }
    case Kind::choice: {
      Lengths all{kImpossible, 0};
      for (const auto& part : node.parts) {
        const Lengths l = lengths_of(*part);
        if (l.shortest >= kImpossible) continue;
        all.shortest = std::min(all.shortest, l.shortest);
        all.longest =
            all.longest < 0 || l.longest < 0 ? kUnbounded : std::max(all.longest, l.longest);
      }
      return all;
    }
    case Kind::repeat: {
      const Lengths l = lengths_of(*node.parts[0]);
      if (l.shortest >= kImpossible) return {node.min ? kImpossible : 0, 0};
      return {mul(l.shortest, node.min), mul(l.longest, node.max)};
    }
    default: return {0, 0};
  }
}

// A pattern's strings as JSON spells them.
ExprPtr spelled(const RegexNode& node, bool every) {
  if (node.kind == RegexNode::Kind::set) return json_chars(node.set, every);
  std::vector<ExprPtr> parts;
  for (const auto& part : node.parts) parts.push_back(spelled(*part, every));
  if (node.kind == RegexNode::Kind::repeat) return repeat(parts[0], node.min, node.max);
  return node.kind == RegexNode::Kind::choice ? choice(std::move(parts))
                                              : sequence(std::move(parts));
}

ByteDfa table_of(const std::vector<std::string>& words) {
  ByteDfa table;
  table.states.emplace_back();
  for (const std::string& word : words) {
    int32_t at = 0;
    for (const char c : word) {
      const auto b = static_cast<uint8_t>(c);
      int32_t to = table.next(at, b);
      if (to < 0) {
        to = static_cast<int32_t>(table.states.size());
        table.states[at].edges.push_back({b, b, to});
        table.states.emplace_back();
      }
      at = to;
    }
    table.states[at].is_final = true;
  }
  if (words.empty()) table.states.clear();
  return table;
}

// Formats' tables are made once per process: those of addresses and URIs are large.
std::shared_ptr<const ByteDfa> table_of_format(const RegexNode& node, const std::string& pattern) {
  static std::mutex mutex;
  static std::map<std::string, std::shared_ptr<const ByteDfa>> made;
  const std::lock_guard lock(mutex);
  auto& known = made[pattern];
  if (!known) known = std::make_shared<ByteDfa>(to_dfa(node, {}));
  return known;
}

// Some tables at once, and well-formed UTF-8. A table that a text has left is in state -1.
class Product {
 public:
  using Tuple = std::vector<int32_t>;
  Product(std::vector<const ByteDfa*> tables, const std::vector<bool>& is_needed)
      : tables_(std::move(tables)), is_needed_(is_needed) {
    Tuple start{0};
    for (const ByteDfa* t : tables_) start.push_back(t->states.empty() ? -1 : 0);
    if (is_live(start)) intern(start);
    for (size_t i = 0; i < tuples.size(); ++i) explore(static_cast<int32_t>(i));
  }

  bool is_within(int32_t s, size_t table) const {
    const int32_t at = tuples[s][table + 1];
    return at >= 0 && tables_[table]->states[at].is_final;
  }
  bool is_whole(int32_t s) const { return tuples[s][0] == 0; }  // not within a character

  std::vector<Tuple> tuples;
  std::vector<std::vector<ByteEdge>> edges;

 private:
  bool is_live(const Tuple& t) const {
    for (size_t k = 0; k < tables_.size(); ++k)
      if (is_needed_[k] && t[k + 1] < 0) return false;
    return t[0] >= 0;
  }
  int32_t intern(const Tuple& t) {
    const auto [it, is_new] = ids_.try_emplace(t, static_cast<int32_t>(tuples.size()));
    if (is_new) {
      if (tuples.size() >= kMaxStates)
        throw GrammarLimitError("patterns that apply together have more than 20000 states");
      tuples.push_back(t);
      edges.emplace_back();
    }
    return it->second;
  }
  void explore(int32_t s) {
    const Tuple from = tuples[s];
    std::array<bool, 257> cut{};
    for (const int b :
         {0, 0x80, 0x90, 0xA0, 0xC0, 0xC2, 0xE0, 0xE1, 0xED, 0xEE, 0xF0, 0xF1, 0xF4, 0xF5})
      cut[b] = true;
    for (size_t k = 0; k < tables_.size(); ++k)
      if (from[k + 1] >= 0)
        for (const ByteEdge& e : tables_[k]->states[from[k + 1]].edges)
          cut[e.lo] = cut[e.hi + 1] = true;
    for (int b = 0; b < 256;) {
      int hi = b;
      while (hi < 255 && !cut[hi + 1]) ++hi;
      const auto byte = static_cast<uint8_t>(b);
      Tuple to{utf8_step(from[0], byte)};
      for (size_t k = 0; k < tables_.size(); ++k)
        to.push_back(from[k + 1] < 0 ? -1 : tables_[k]->next(from[k + 1], byte));
      if (is_live(to)) {
        const int32_t id = intern(to);
        edges[s].push_back({byte, static_cast<uint8_t>(hi), id});
      }
      b = hi + 1;
    }
  }
  std::vector<const ByteDfa*> tables_;
  std::vector<bool> is_needed_;
  std::map<Tuple, int32_t> ids_;
};

// Four hexadecimal digits between two numbers of as many, by the first digit that differs.
ExprPtr hex_range(uint32_t lo, uint32_t hi, int digits) {
  const auto digit = [](uint32_t from, uint32_t to) {
    CharSet set;
    for (uint32_t d = from; d <= to; ++d) {
      set.push_back({d < 10 ? '0' + d : 'a' + d - 10, d < 10 ? '0' + d : 'a' + d - 10});
      if (d >= 10) set.push_back({'A' + d - 10, 'A' + d - 10});
    }
    return chars(std::move(set));
  };
  if (digits == 1) return digit(lo, hi);
  const int shift = 4 * (digits - 1);
  const uint32_t low = lo >> shift, high = hi >> shift, mask = (1u << shift) - 1;
  std::vector<ExprPtr> parts;
  uint32_t from = low, to = high;
  const auto add = [&](uint32_t first, uint32_t last, uint32_t l, uint32_t h) {
    parts.push_back(sequence({digit(first, last), hex_range(l, h, digits - 1)}));
  };
  if (low == high) return sequence({digit(low, low), hex_range(lo & mask, hi & mask, digits - 1)});
  if (lo & mask) add(low, low, lo & mask, mask), ++from;
  if ((hi & mask) != mask) --to;
  if (from <= to) add(from, to, 0, mask);
  if (to != high) add(high, high, 0, hi & mask);
  return choice(std::move(parts));
}

void add_hex_escapes(const CharSet& set, std::vector<ExprPtr>& parts) {
  const auto unit = [](uint32_t lo, uint32_t hi) {
    return sequence({literal("\\u"), hex_range(lo, hi, 4)});
  };
  for (const CodeRange r : set) {
    if (r.lo <= 0xFFFF) parts.push_back(unit(r.lo, std::min<uint32_t>(r.hi, 0xFFFF)));
    for (uint32_t lo = std::max<uint32_t>(r.lo, 0x10000); lo <= r.hi;) {
      const uint32_t high = 0xD800 + ((lo - 0x10000) >> 10), at = (lo - 0x10000) & 1023;
      const uint32_t left = r.hi - lo;
      uint32_t last_high = high, span = std::min<uint32_t>(1023 - at, left);
      if (at == 0 && left >= 1023) last_high = high + (left + 1) / 1024 - 1, span = 1023;
      parts.push_back(sequence({unit(high, last_high), unit(0xDC00 + at, 0xDC00 + at + span)}));
      lo += (last_high - high) * 1024 + span + 1;
    }
  }
}
}  // namespace

ExprPtr json_chars(const CharSet& set, bool every_escape) {
  static const CharSet kSpecial = normal({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}});
  static const CharSet kRaw = complement(kSpecial);
  std::vector<ExprPtr> parts;
  if (CharSet raw = intersection(set, kRaw); !raw.empty()) parts.push_back(chars(std::move(raw)));
  for (const CodeRange r : intersection(set, kSpecial))
    for (uint32_t c = r.lo; c <= r.hi; ++c) {
      std::string text = json_quoted(std::string(1, static_cast<char>(c)));
      text = text.substr(1, text.size() - 2);
      if (text.size() == 6 && c % 16 >= 10)  // \u00Xd, the last digit in either case
        parts.push_back(sequence({literal(text.substr(0, 5)), hex_range(c % 16, c % 16, 1)}));
      else
        parts.push_back(literal(std::move(text)));
    }
  if (every_escape) {
    if (contains(set, '/')) parts.push_back(literal("\\/"));
    add_hex_escapes(set, parts);
  }
  return choice(std::move(parts));
}

ExprPtr json_literal(std::string_view text, bool every_escape) {
  if (!every_escape) {
    const std::string quoted = json_quoted(text);
    return literal(quoted.substr(1, quoted.size() - 2));
  }
  std::vector<ExprPtr> parts;
  for (size_t i = 0; i < text.size();) {
    const uint32_t c = next_code_point(text, i);
    parts.push_back(json_chars({{c, c}}, true));
  }
  return sequence(std::move(parts));
}

namespace {
// Sorted words from a byte on, as a tree of what they share; each ends with a quote.
ExprPtr word_tree(const std::vector<std::string>& words, size_t begin, size_t end, size_t at) {
  size_t same = words[begin].size();
  for (size_t i = begin + 1; i < end; ++i) {
    size_t k = at;
    while (k < same && k < words[i].size() && words[i][k] == words[begin][k]) ++k;
    same = k;
  }
  while (same > at && same < words[begin].size() && (words[begin][same] & 0xC0) == 0x80) --same;
  const ExprPtr head = literal(words[begin].substr(at, same - at));
  if (end - begin == 1) return head;
  std::vector<ExprPtr> parts;
  for (size_t i = begin; i < end;) {
    const auto next = [&](size_t k) {  // the character there
      size_t j = same;
      next_code_point(words[k], j);
      return std::string_view(words[k]).substr(same, j - same);
    };
    size_t j = i + 1;
    while (j < end && next(j) == next(i)) ++j;
    parts.push_back(word_tree(words, i, j, same));
    i = j;
  }
  return sequence({head, choice(std::move(parts))});
}
}  // namespace

// ---- languages ---------------------------------------------------------------------------------
int Languages::of_regex(std::string_view pattern, std::string_view flags) {
  const auto [it, is_new] = regexes_.try_emplace({std::string(pattern), std::string(flags)}, 0);
  if (!is_new) return it->second;
  try {
    Language made;
    made.node = parse_regex(pattern, flags);
    const Lengths lengths = lengths_of(*made.node);
    made.shortest = lengths.shortest;
    made.longest = lengths.longest;
    made.is_sure = !has_assertions(*made.node);
    made.is_format = flags == kFormatFlags;
    if (made.is_format) made.pattern = pattern;
    languages_.push_back(std::move(made));
  } catch (...) {
    regexes_.erase(it);
    throw;
  }
  return it->second = static_cast<int>(languages_.size()) - 1;
}

int Languages::of_words(const std::vector<std::string>& words) {
  const auto [it, is_new] = lists_.try_emplace(words, static_cast<int>(languages_.size()));
  if (is_new) {
    languages_.emplace_back();
    languages_.back().words = words;
    languages_.back().is_sure = false;
  }
  return it->second;
}

const ByteDfa& Languages::table(int id) {
  Language& l = languages_[id];
  if (!l.table) {
    if (l.is_format)
      l.table = table_of_format(*l.node, l.pattern);
    else
      l.table = std::make_shared<ByteDfa>(l.node ? to_dfa(*l.node, {}) : table_of(l.words));
  }
  return *l.table;
}

bool Languages::has(int id, std::string_view text) {
  if (!languages_[id].node)
    return std::binary_search(languages_[id].words.begin(), languages_[id].words.end(), text);
  const ByteDfa& t = table(id);
  int32_t at = t.states.empty() ? -1 : 0;
  for (size_t i = 0; i < text.size() && at >= 0; ++i)
    at = t.next(at, static_cast<uint8_t>(text[i]));
  return at >= 0 && t.states[at].is_final;
}

bool Languages::has(const StringSet& set, std::string_view text) {
  if (set.is_finite) return std::binary_search(set.words.begin(), set.words.end(), text);
  const int64_t length = length_of(text);
  if (length < set.min || (set.max != kUnbounded && length > set.max)) return false;
  return std::all_of(set.in.begin(), set.in.end(), [&](int l) { return has(l, text); }) &&
         std::none_of(set.out.begin(), set.out.end(), [&](int l) { return has(l, text); });
}

StringSet Languages::intersection(const StringSet& a, const StringSet& b) {
  if (a.is_finite || b.is_finite) {
    StringSet out{.is_finite = true};
    for (const auto& word : (a.is_finite ? a : b).words)
      if (has(a.is_finite ? b : a, word)) out.words.push_back(word);
    return out;
  }
  StringSet out{false, {}, merged(a.in, b.in), merged(a.out, b.out), std::max(a.min, b.min), a.max};
  if (b.max != kUnbounded) out.max = a.max == kUnbounded ? b.max : std::min(a.max, b.max);
  return out;
}

std::vector<StringSet> Languages::complement(const StringSet& a) {
  if (a.is_finite) return {{.out = {of_words(a.words)}}};
  std::vector<StringSet> out;
  for (const int l : a.in) out.push_back({.out = {l}});
  for (const int l : a.out) out.push_back({.in = {l}});
  if (a.min > 0) out.push_back({.max = a.min - 1});
  if (a.max != kUnbounded) out.push_back({.min = a.max + 1});
  return out;
}

// Whether there is one language, whose strings all have the right lengths.
bool Languages::is_implied(const StringSet& set) const {
  if (set.in.size() != 1 || !set.out.empty()) return false;
  const Language& l = languages_[set.in[0]];
  return l.is_sure && l.shortest >= set.min &&
         (set.max == kUnbounded || (l.longest != kUnbounded && l.longest <= set.max));
}

bool Languages::is_empty(const StringSet& set) {
  if (set.is_finite) return set.words.empty();
  if (set.max != kUnbounded && set.min > set.max) return true;
  if (set.in.empty() && set.out.empty()) return false;
  if (is_implied(set)) return languages_[set.in[0]].shortest >= kImpossible;
  if (set.in.size() == 1 && set.out.empty()) {  // its shortest string may do
    const Language& l = languages_[set.in[0]];
    if (l.is_sure && l.shortest >= set.min && (set.max == kUnbounded || l.shortest <= set.max))
      return false;
  }
  const auto table = product(set.in, set.out);
  return table->states.empty() || !string_machine(table, set.min, set.max, false);
}

std::shared_ptr<const ByteDfa> Languages::product(const std::vector<int>& in,
                                                  const std::vector<int>& out) {
  auto& known = products_[{in, out}];
  if (known) return known;
  std::vector<const ByteDfa*> tables;
  std::vector<bool> is_needed;
  for (const int l : in) tables.push_back(&table(l)), is_needed.push_back(true);
  for (const int l : out) tables.push_back(&table(l)), is_needed.push_back(false);
  const Product p(tables, is_needed);
  ByteDfa made;
  for (size_t i = 0; i < p.tuples.size(); ++i) {
    const auto s = static_cast<int32_t>(i);
    bool is_final = p.is_whole(s);
    for (size_t k = 0; k < tables.size(); ++k) is_final &= p.is_within(s, k) == is_needed[k];
    made.states.push_back({p.edges[i], is_final});
  }
  return known = std::make_shared<ByteDfa>(pruned(made));
}

std::vector<std::vector<int>> Languages::combinations(const std::vector<StringSet>& sets) {
  std::vector<std::shared_ptr<const ByteDfa>> kept;
  std::vector<const ByteDfa*> tables;
  for (const StringSet& set : sets) {
    std::vector<int> in = set.in;
    if (set.is_finite) in = {of_words(set.words)};
    if (!set.is_finite && (set.min > 0 || set.max != kUnbounded)) {
      const std::string most = set.max == kUnbounded ? "" : std::to_string(set.max);
      in = merged(in, {of_regex("[^]{" + std::to_string(set.min) + "," + most + "}", "")});
    }
    kept.push_back(product(in, set.is_finite ? std::vector<int>{} : set.out));
    tables.push_back(kept.back().get());
  }
  const Product p(tables, std::vector<bool>(tables.size(), false));
  std::set<std::vector<int>> out;
  for (size_t i = 0; i < p.tuples.size(); ++i) {
    const auto s = static_cast<int32_t>(i);
    if (!p.is_whole(s)) continue;
    std::vector<int> within;
    for (size_t k = 0; k < tables.size(); ++k)
      if (p.is_within(s, k)) within.push_back(static_cast<int>(k));
    out.insert(std::move(within));
    if (out.size() > kMaxCombinations) throw GrammarLimitError("more than 4096 kinds of names");
  }
  return {out.begin(), out.end()};
}

ExprPtr Languages::tail(const StringSet& set, bool every, int char_rule) {
  const ExprPtr quote = literal("\"");
  if (set.is_finite && every) {
    std::vector<ExprPtr> parts;
    for (const auto& word : set.words)
      parts.push_back(sequence({json_literal(word, every), quote}));
    return choice(std::move(parts));
  }
  if (set.is_finite) {
    std::vector<std::string> words;
    for (const auto& word : set.words) words.push_back(json_quoted(word).substr(1));
    std::sort(words.begin(), words.end());
    return word_tree(words, 0, words.size(), 0);
  }
  if (set.in.empty() && set.out.empty())
    return sequence({repeat(rule_ref(char_rule), set.min, set.max), quote});
  if (is_implied(set)) return sequence({spelled(*languages_[set.in[0]].node, every), quote});
  return machine(string_machine(product(set.in, set.out), set.min, set.max, every));
}
}  // namespace lmx::grammar
