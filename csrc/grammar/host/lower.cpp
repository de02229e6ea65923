// grammar/host/lower.cpp: from expressions to one nondeterministic automaton.
#include <algorithm>
#include <functional>
#include <map>

#include "lazy.h"
#include "regex.h"

namespace lmx::grammar {
namespace {
constexpr int64_t kUnroll = 8;         // a count up to it becomes copies
constexpr int64_t kUnrollSize = 256;   // unless they are longer than this
constexpr int64_t kInline = 8;         // a rule of up to this many symbols is copied to its callers
constexpr int64_t kInlineOnce = 1000;  // one that is called once, up to this many

class Lowering {
 public:
  Lowering(const Grammar& grammar, const Budget& budget, Program& program)
      : grammar_(grammar), budget_(budget), program_(program) {}

  // One rule alone; `rule_of` gives the rules that it calls.
  Lowering(const Grammar& grammar, const Budget& budget, Program& program,
           const std::function<int32_t(int)>& rule_of)
      : grammar_(grammar), budget_(budget), program_(program), rule_of_call_(&rule_of) {}

  void run_one(int32_t rule, const Expr& body) {
    const int32_t start = program_.new_state(), final = program_.new_state();
    program_.rules[rule].start = start;
    program_.rules[rule].final = final;
    add(body, start, final);
    finish();
  }

  void run() {
    measure();
    rule_of_.assign(grammar_.rules.size(), -1);
    program_.root = need_rule(grammar_.root);
    finish();
  }

 private:
  void finish() {
    for (size_t i = 0; i < queue_.size(); ++i) {  // grows as rules are called
      const auto [r, body] = queue_[i];
      const int32_t start = program_.new_state(), final = program_.new_state();
      program_.rules[r].start = start;
      program_.rules[r].final = final;
      if (program_.rules[r].machine)
        add_first_bytes(*program_.rules[r].machine, start, final);
      else if (program_.rules[r].body >= 0)
        add_counted(r, start, final);
      else
        add(*body, start, final);
    }
  }

  // ---- which rules are copied to where they are called -----------------------------------------
  static void visit_calls(const Expr& e, const auto& f) {
    if (e.kind == Kind::rule) f(e.rule);
    for (const auto& part : e.parts) visit_calls(*part, f);
  }

  // Finds sizes from callees to callers; a rule on the path from itself is recursive.
  void measure() {
    const size_t n = grammar_.rules.size();
    uses_.assign(n, 0);
    size_.assign(n, 0);
    inlined_.assign(n, false);
    std::vector<std::vector<int>> calls(n);
    for (size_t r = 0; r < n; ++r)
      visit_calls(*grammar_.rules[r].body, [&](int callee) {
        ++uses_[callee];
        calls[r].push_back(callee);
      });
    std::vector<char> color(n, 0);  // 1: on the path, 2: done
    std::vector<bool> recursive(n, false);
    for (size_t root = 0; root < n; ++root) {
      if (color[root]) continue;
      std::vector<std::pair<int, size_t>> path{{static_cast<int>(root), 0}};
      color[root] = 1;
      while (!path.empty()) {
        auto& [r, next] = path.back();
        if (next < calls[r].size()) {
          const int callee = calls[r][next++];
          if (color[callee] == 1)
            recursive[callee] = true;  // enough to break every cycle of copies
          else if (color[callee] == 0)
            color[callee] = 1, path.push_back({callee, 0});
          continue;
        }
        color[r] = 2;
        size_[r] = size_of(*grammar_.rules[r].body);
        inlined_[r] = !recursive[r] && r != grammar_.root &&
                      (size_[r] <= kInline || (uses_[r] == 1 && size_[r] <= kInlineOnce));
        path.pop_back();
      }
    }
  }

  int64_t size_of(const Expr& e) const {
    int64_t size = 0;
    for (const auto& part : e.parts) size += size_of(*part);
    switch (e.kind) {
      case Kind::literal: return static_cast<int64_t>(e.text.size());
      case Kind::chars: return 1;
      case Kind::rule: return !rule_of_call_ && inlined_[e.rule] ? size_[e.rule] : 1;
      case Kind::machine: return 1;
      case Kind::repeat:
        return is_unrolled(e, size) ? std::max<int64_t>({1, e.min, e.max}) * size : 1;
      case Kind::regex: return static_cast<int64_t>(e.text.size()) + 1;
      case Kind::sequence:
      case Kind::graph:
      case Kind::choice: return size;
      default: return 100 + size;
    }
  }

  static bool is_unrolled(const Expr& e, int64_t size) {
    const int64_t copies = std::max(e.min, e.max);
    return copies <= 1 || (copies <= kUnroll && copies * size <= kUnrollSize);
  }

  // ---- rules -------------------------------------------------------------------------------
  int32_t new_rule(std::string name, ExprPtr body) {
    const auto r = static_cast<int32_t>(program_.rules.size());
    program_.rules.emplace_back();
    program_.rules[r].name = std::move(name);
    queue_.push_back({r, std::move(body)});
    return r;
  }
  int32_t need_rule(int written) {
    if (rule_of_call_) return (*rule_of_call_)(written);
    if (rule_of_[written] < 0)
      rule_of_[written] = new_rule(grammar_.rules[written].name, grammar_.rules[written].body);
    return rule_of_[written];
  }

  // For analysis a counted rule is body+ or body*; its states are made by the count (states.h).
  void add_counted(int32_t r, int32_t start, int32_t final) {
    const ProgramRule& rule = program_.rules[r];
    program_.nfa[start].calls.push_back({rule.body, final});
    program_.nfa[final].calls.push_back({rule.body, final});
    if (rule.min == 0) program_.nfa[start].empty.push_back(final);
    program_.has_counters = true;
  }

  // ---- expressions -------------------------------------------------------------------------
  void count_edge() {
    if (++edges_ > budget_.max_edges)
      throw GrammarLimitError("grammar: more than " + std::to_string(budget_.max_edges) + " edges");
  }
  void add_empty(int32_t from, int32_t to) {
    count_edge();
    program_.nfa[from].empty.push_back(to);
  }

  void add(const Expr& e, int32_t from, int32_t to) {
    count_edge();
    switch (e.kind) {
      case Kind::literal: return add_literal(e.text, from, to);
      case Kind::chars: return add_chars(program_, e.set, from, to);
      case Kind::sequence:
        for (size_t i = 0; i < e.parts.size(); ++i) {
          const int32_t next = i + 1 == e.parts.size() ? to : program_.new_state();
          add(*e.parts[i], from, next);
          from = next;
        }
        return;
      case Kind::choice:
        for (const auto& part : e.parts) add(*part, from, to);
        return;
      case Kind::repeat: return add_repeat(e, from, to);
      case Kind::rule: return add_call(e.rule, from, to);
      case Kind::regex: return add_regex(e, from, to);
      case Kind::graph: return add_graph(e, from, to);
      case Kind::machine: {
        const int32_t r = new_rule("(automaton)", nullptr);
        program_.rules[r].machine = e.machine->clone();
        program_.nfa[from].calls.push_back({r, to});
        return;
      }
      case Kind::substring: return add_substring(e, from, to);
      case Kind::dispatch: return add_dispatch(e, from, to);
      case Kind::tokens:
      case Kind::not_tokens:
        program_.nfa[from].tokens.push_back({static_cast<int32_t>(program_.token_sets.size()), to});
        program_.token_sets.push_back({e.ids, e.kind == Kind::not_tokens});
        return;
    }
  }

  void add_literal(const std::string& text, int32_t from, int32_t to) {
    if (text.empty()) return add_empty(from, to);
    for (size_t i = 0; i < text.size(); ++i) {
      count_edge();
      const int32_t next = i + 1 == text.size() ? to : program_.new_state();
      const auto b = static_cast<uint8_t>(text[i]);
      program_.nfa[from].bytes.push_back({b, b, next});
      from = next;
    }
  }

  void add_call(int written, int32_t from, int32_t to) {
    if (!rule_of_call_ && inlined_[written]) return add(*grammar_.rules[written].body, from, to);
    program_.nfa[from].calls.push_back({need_rule(written), to});
  }

  void add_repeat(const Expr& e, int32_t from, int32_t to) {
    const Expr& part = *e.parts[0];
    if (!is_unrolled(e, size_of(part))) {
      const int32_t counted = new_rule("(counted)", nullptr);  // before its body: see lazy.h
      const bool is_rule = part.kind == Kind::rule;
      const int32_t body = is_rule ? need_rule(part.rule) : new_rule("(repeated)", e.parts[0]);
      program_.rules[counted].body = body;
      program_.rules[counted].min = e.min;
      program_.rules[counted].max = e.max;
      program_.nfa[from].calls.push_back({counted, to});
      return;
    }
    for (int64_t i = 0; i < e.min; ++i) {
      const int32_t next = program_.new_state();
      add(part, from, next);
      from = next;
    }
    if (e.max == kUnbounded) {
      const int32_t loop = program_.new_state(), end = program_.new_state();
      add_empty(from, loop);
      add(part, loop, end);
      add_empty(end, loop);
      add_empty(loop, to);
      return;
    }
    for (int64_t i = e.min; i < e.max; ++i) {
      const int32_t next = program_.new_state();
      add_empty(from, to);
      add(part, from, next);
      from = next;
    }
    add_empty(from, to);
  }

  void add_regex(const Expr& e, int32_t from, int32_t to) {
    const RegexPtr node = parse_regex(e.text, e.flags);
    if (!has_assertions(*node)) return add(*to_expr(*node), from, to);
    const ByteDfa dfa = to_dfa(*node, budget_);
    const auto first = static_cast<int32_t>(program_.nfa.size());
    program_.nfa.resize(program_.nfa.size() + dfa.states.size());
    if (dfa.states.empty()) return;  // it matches nothing
    add_empty(from, first);
    for (size_t i = 0; i < dfa.states.size(); ++i) {
      const auto state = first + static_cast<int32_t>(i);
      for (const ByteEdge edge : dfa.states[i].edges)
        program_.nfa[state].bytes.push_back({edge.lo, edge.hi, first + edge.to});
      if (dfa.states[i].is_final) add_empty(state, to);
    }
  }

  // Chunks in a row: one may begin anywhere and end anywhere.
  void add_substring(const Expr& e, int32_t from, int32_t to) {
    const int32_t begin = program_.new_state();
    add_empty(from, begin);
    add_empty(begin, to);
    int32_t at = program_.new_state();
    add_empty(begin, at);
    for (const auto& chunk : e.strings) {
      const int32_t next = program_.new_state();
      add_literal(chunk, at, next);
      add_empty(begin, next);
      add_empty(next, to);
      at = next;
    }
  }

  void add_graph(const Expr& e, int32_t from, int32_t to) {
    std::vector<int32_t> states{from, to};
    const auto state = [&](int i) {
      while (states.size() <= static_cast<size_t>(i)) states.push_back(program_.new_state());
      return states[i];
    };
    for (size_t i = 0; i < e.parts.size(); ++i) {
      const int32_t begin = state(e.links[i].from), end = state(e.links[i].to);
      add(*e.parts[i], begin, end);
    }
  }

  // For analysis an automaton is its first byte.
  void add_first_bytes(ByteMachine& machine, int32_t start, int32_t final) {
    for (int b = 0; b < 256; ++b)
      if (const auto byte = static_cast<uint8_t>(b); machine.next(0, byte) >= 0)
        program_.nfa[start].bytes.push_back({byte, byte, final});
  }

  void add_dispatch(const Expr& e, int32_t from, int32_t to);

  const Grammar& grammar_;
  const Budget& budget_;
  Program& program_;
  std::vector<int> uses_;
  std::vector<int64_t> size_;
  std::vector<bool> inlined_;
  std::vector<int32_t> rule_of_;  // of a written rule; -1 before its first call
  std::vector<std::pair<int32_t, ExprPtr>> queue_;
  const std::function<int32_t(int)>* rule_of_call_ = nullptr;
  int64_t edges_ = 0;
};

// ---- free text with tags: Aho and Corasick's automaton (1975), times the reader of UTF-8
// ---------
struct Tags {
  struct Node {
    std::map<uint8_t, int> child;
    int fail = 0, tag = -1;  // tag: the word that ends here
  };
  std::vector<Node> nodes{1};

  explicit Tags(const std::vector<std::string>& words) {
    for (size_t i = 0; i < words.size(); ++i) {
      int at = 0;
      for (const char c : words[i]) {
        auto& child = nodes[at].child;
        const auto [it, is_new] = child.try_emplace(c, static_cast<int>(nodes.size()));
        at = it->second;
        if (is_new) nodes.emplace_back();
      }
      nodes[at].tag = static_cast<int>(i);
    }
    std::vector<int> queue{0};
    for (size_t q = 0; q < queue.size(); ++q)
      for (const auto& [c, to] : nodes[queue[q]].child) {
        nodes[to].fail = queue[q] == 0 ? 0 : step(nodes[queue[q]].fail, c);
        queue.push_back(to);
      }
  }
  int step(int at, uint8_t c) const {
    while (true) {
      const auto found = nodes[at].child.find(c);
      if (found != nodes[at].child.end()) return found->second;
      if (at == 0) return 0;
      at = nodes[at].fail;
    }
  }
};

void check_words(const std::vector<std::string>& words) {
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i].empty()) throw GrammarError("TagDispatch: expected tags and excludes, got \"\"");
    for (size_t j = 0; j < words.size(); ++j)
      if (i != j && words[j].find(words[i]) != std::string::npos)
        throw GrammarError("TagDispatch: \"" + words[i] + "\" is a part of \"" + words[j] + "\"");
  }
}

void Lowering::add_dispatch(const Expr& e, int32_t from, int32_t to) {
  std::vector<std::string> words = e.strings;
  words.insert(words.end(), e.excludes.begin(), e.excludes.end());
  check_words(words);
  const Tags tags(words);
  std::map<std::pair<int, int>, int32_t> state_of;
  std::vector<std::pair<int, int>> queue;
  const auto need = [&](int node, int utf8) {
    const auto [it, is_new] = state_of.try_emplace({node, utf8}, 0);
    if (is_new) it->second = program_.new_state(), queue.push_back({node, utf8});
    return it->second;
  };
  std::vector<int32_t> entry;
  for (const auto& part : e.parts) {
    entry.push_back(program_.new_state());
    const int32_t after = e.loop ? need(0, 0) : to;
    add(*part, entry.back(), after);
  }
  add_empty(from, need(0, 0));
  for (size_t q = 0; q < queue.size(); ++q) {
    const auto [node, utf8] = queue[q];
    const int32_t state = state_of[{node, utf8}];
    if (utf8 == 0) add_empty(state, to);
    for (int b = 0; b < 256; ++b) {
      const int next = tags.step(node, static_cast<uint8_t>(b));
      const int next_utf8 = utf8_step(utf8, static_cast<uint8_t>(b));
      const int tag = tags.nodes[next].tag;
      if (next_utf8 < 0 || tag >= static_cast<int>(e.strings.size())) continue;
      const int32_t target = tag >= 0 ? entry[tag] : need(next, next_utf8);
      auto& edges = program_.nfa[state].bytes;
      if (!edges.empty() && edges.back().to == target && edges.back().hi + 1 == b)
        edges.back().hi = static_cast<uint8_t>(b);
      else
        edges.push_back({static_cast<uint8_t>(b), static_cast<uint8_t>(b), target}), count_edge();
    }
  }
}
}  // namespace

void lower(const Grammar& grammar, const Budget& budget, Program& program) {
  Lowering(grammar, budget, program).run();
}

void lower_rule(int32_t rule, const Expr& body, const std::function<int32_t(int)>& rule_of,
                const Budget& budget, Program& program) {
  Lowering({}, budget, program, rule_of).run_one(rule, body);
}

// The set as a small tree over bytes whose equal ends are one state.
void add_chars(Program& program, const CharSet& set, int32_t from, int32_t to) {
  const std::vector<ByteRanges> all = utf8_ranges(set);
  using Span = std::vector<ByteRanges>;
  std::map<Span, int32_t> made;
  const auto build = [&](const auto& self, const Span& span, int32_t at) -> void {
    for (size_t i = 0; i < span.size();) {
      const ByteRange first = span[i][0];
      Span rest;
      for (; i < span.size() && span[i][0] == first; ++i)
        if (span[i].size() > 1) rest.emplace_back(span[i].begin() + 1, span[i].end());
      int32_t next = to;
      if (!rest.empty()) {
        const auto [it, is_new] = made.try_emplace(rest, 0);
        if (is_new) {
          const int32_t fresh = program.new_state();
          it->second = fresh;
          self(self, rest, fresh);
        }
        next = made[rest];
      }
      program.nfa[at].bytes.push_back({first.lo, first.hi, next});
    }
  };
  build(build, all, from);
}

Program compile(const Grammar& grammar, const Budget& budget) {
  if (grammar.factory) return grammar.factory->program(budget);
  Program program;
  lower(grammar, budget, program);
  analyse(program, budget);
  remove_left_recursion(program);
  find_follow(program);
  return program;
}
}  // namespace lmx::grammar
