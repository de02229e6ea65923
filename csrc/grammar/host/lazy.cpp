// grammar/host/lazy.cpp
#include "lazy.h"

#include <algorithm>
#include <map>

namespace lmx::grammar {
namespace {
constexpr size_t kMaxRules = 100000;

// The states and rules that a body has added.
class Fragment {
 public:
  Fragment(Program& program, size_t num_states, size_t num_rules)
      : p_(program), s0_(num_states), r0_(num_rules) {}

  void settle() {
    find_nullable();
    bypass();
    prune();
    find_first();
    find_follow();
    for (size_t r = r0_; r < p_.rules.size(); ++r) {
      ProgramRule& rule = p_.rules[r];
      if (is_inner(r)) rule.rank = rule.machine ? kLeafRank : static_cast<int32_t>(r) + 1;
    }
  }

 private:
  NfaState& state(size_t i) { return p_.nfa[s0_ + i]; }
  size_t size() const { return p_.nfa.size() - s0_; }
  size_t local(int32_t s) const { return static_cast<size_t>(s) - s0_; }
  // Made by lowering a body, not declared beforehand.
  bool is_inner(size_t r) const { return r >= r0_ && p_.rules[r].name.starts_with('('); }
  bool is_made(size_t r) const { return p_.rules[r].start >= static_cast<int32_t>(s0_); }

  // ---- the empty text --------------------------------------------------------------------------
  // What empty edges, and calls of rules that may be empty, reach from a state.
  std::vector<int32_t> closure(int32_t from) {
    std::vector<int32_t> out{from};
    std::vector<bool> seen(size());
    seen[local(from)] = true;
    const auto reach = [&](int32_t to) {
      if (!seen[local(to)]) seen[local(to)] = true, out.push_back(to);
    };
    for (size_t i = 0; i < out.size(); ++i) {
      const NfaState& s = p_.nfa[out[i]];
      for (const int32_t to : s.empty) reach(to);
      for (const CallEdge& e : s.calls)
        if (p_.rules[e.rule].nullable) reach(e.to);
    }
    return out;
  }

  void find_nullable() {
    for (bool changes = true; changes;) {
      changes = false;
      for (size_t r = p_.rules.size(); r-- > r0_;) {
        ProgramRule& rule = p_.rules[r];
        if (rule.nullable || rule.machine || !is_made(r)) continue;
        if (rule.body >= 0) {
          rule.nullable = rule.min == 0 || p_.rules[rule.body].nullable;
        } else {
          const auto reached = closure(rule.start);
          rule.nullable = std::find(reached.begin(), reached.end(), rule.final) != reached.end();
        }
        changes |= rule.nullable;
      }
    }
  }

  void bypass() {
    for (size_t i = 0; i < size(); ++i)
      for (const CallEdge& e : state(i).calls)
        if (p_.rules[e.rule].nullable) state(i).empty.push_back(e.to);
    for (size_t r = r0_; r < p_.rules.size(); ++r)
      if (p_.rules[r].body >= 0 && p_.rules[p_.rules[r].body].nullable) p_.rules[r].min = 0;
  }

  // ---- states that lead nowhere ----------------------------------------------------------------
  void prune() {
    std::vector<std::vector<int32_t>> back(size());
    for (size_t i = 0; i < size(); ++i) {
      const auto s = static_cast<int32_t>(i);
      for (const int32_t to : state(i).empty) back[local(to)].push_back(s);
      for (const ByteEdge& e : state(i).bytes) back[local(e.to)].push_back(s);
      for (const CallEdge& e : state(i).calls) back[local(e.to)].push_back(s);
    }
    std::vector<bool> ends(size());
    std::vector<int32_t> queue;
    for (size_t r = 0; r < p_.rules.size(); ++r)
      if (is_made(r))
        ends[local(p_.rules[r].final)] = true, queue.push_back(p_.rules[r].final - s0_);
    while (!queue.empty()) {
      const int32_t s = queue.back();
      queue.pop_back();
      for (const int32_t from : back[s])
        if (!ends[from]) ends[from] = true, queue.push_back(from);
    }
    for (size_t i = 0; i < size(); ++i) {
      const auto dead = [&](const auto& e) { return !ends[local(e.to)]; };
      std::erase_if(state(i).empty, [&](int32_t to) { return !ends[local(to)]; });
      std::erase_if(state(i).bytes, dead);
      std::erase_if(state(i).calls, dead);
    }
  }

  // ---- bytes at the edges ----------------------------------------------------------------------
  std::bitset<256> first_of(int32_t r) {
    const ProgramRule& rule = p_.rules[r];
    return rule.first.any() || !is_made(r) ? rule.first : first_[local(rule.start)];
  }

  void find_first() {
    first_.assign(size(), {});
    ends_.assign(size(), false);
    for (size_t r = r0_; r < p_.rules.size(); ++r) {
      ProgramRule& rule = p_.rules[r];
      for (int b = 0; b < 256 && rule.machine; ++b)
        rule.first[b] = rule.machine->next(0, static_cast<uint8_t>(b)) >= 0;
    }
    for (size_t r = 0; r < p_.rules.size(); ++r)
      if (is_made(r)) ends_[local(p_.rules[r].final)] = true;
    for (size_t i = 0; i < size(); ++i)
      for (const ByteEdge& e : state(i).bytes)
        for (int b = e.lo; b <= e.hi; ++b) first_[i].set(b);
    for (bool changes = true; changes;) {
      changes = false;
      for (size_t i = size(); i-- > 0;) {
        std::bitset<256> first = first_[i];
        bool ends = ends_[i];
        for (const int32_t to : state(i).empty)
          first |= first_[local(to)], ends |= ends_[local(to)];
        for (const CallEdge& e : state(i).calls) first |= first_of(e.rule);
        changes |= first != first_[i] || ends != ends_[i];
        first_[i] = first;
        ends_[i] = ends;
      }
    }
  }

  void find_follow() {
    std::vector<std::pair<int32_t, int32_t>> inherits;  // caller, callee
    std::vector<int32_t> seen(size(), -1), stack;
    for (size_t r = 0; r < p_.rules.size(); ++r) {
      if (!is_made(r)) continue;
      const auto visit = [&](int32_t s) {
        if (seen[local(s)] != static_cast<int32_t>(r))
          seen[local(s)] = static_cast<int32_t>(r), stack.push_back(s);
      };
      visit(p_.rules[r].start);
      while (!stack.empty()) {
        const NfaState& s = p_.nfa[stack.back()];
        stack.pop_back();
        for (const int32_t to : s.empty) visit(to);
        for (const ByteEdge& e : s.bytes) visit(e.to);
        for (const CallEdge& e : s.calls) {
          visit(e.to);
          if (!is_inner(e.rule)) continue;
          p_.rules[e.rule].follow |= first_[local(e.to)];
          if (ends_[local(e.to)]) inherits.push_back({static_cast<int32_t>(r), e.rule});
        }
      }
    }
    for (bool changes = true; changes;) {
      changes = false;
      for (const auto& [caller, callee] : inherits) {
        const auto both = p_.rules[callee].follow | p_.rules[caller].follow;
        changes |= both != p_.rules[callee].follow;
        p_.rules[callee].follow = both;
      }
    }
  }

  Program& p_;
  size_t s0_, r0_;
  std::vector<std::bitset<256>> first_;
  std::vector<bool> ends_;
};

// ---- machines as rules -------------------------------------------------------------------------
class Writer {
 public:
  explicit Writer(Grammar& grammar) : grammar_(grammar) {}

  ExprPtr written(const ExprPtr& e) {
    if (e->kind == Kind::machine) return rule_ref(start_of(e->machine));
    if (e->parts.empty()) return e;
    std::vector<ExprPtr> parts;
    bool changes = false;
    for (const auto& part : e->parts) {
      parts.push_back(written(part));
      changes |= parts.back() != part;
    }
    if (e->kind == Kind::graph) return written_graph(*e, parts);
    if (!changes) return e;
    auto copy = std::make_shared<Expr>(*e);
    copy->parts = std::move(parts);
    return copy;
  }

 private:
  // A rule per state: what leads on, and the rest.
  ExprPtr written_graph(const Expr& e, const std::vector<ExprPtr>& parts) {
    int num_states = 2;
    for (const auto link : e.links) num_states = std::max({num_states, link.from + 1, link.to + 1});
    const int first = static_cast<int>(grammar_.rules.size());
    const std::string name = "graph" + std::to_string(++num_graphs_) + "-";
    std::vector<std::vector<ExprPtr>> ways(num_states);
    for (size_t i = 0; i < parts.size(); ++i)
      ways[e.links[i].from].push_back(sequence({parts[i], rule_ref(first + e.links[i].to)}));
    ways[1].push_back(literal(""));
    for (int s = 0; s < num_states; ++s)
      grammar_.rules.push_back({name + std::to_string(s), choice(ways[s])});
    return rule_ref(first);
  }

  int start_of(const std::shared_ptr<ByteMachine>& machine) {
    const auto [it, is_new] = starts_.try_emplace(machine.get(), 0);
    if (is_new) it->second = write(*machine->clone());
    return it->second;
  }

  int write(ByteMachine& machine) {
    std::map<int32_t, int> rule_of;
    std::vector<int32_t> queue;
    ways_.clear();
    const std::string name = "automaton" + std::to_string(starts_.size()) + "-";
    const auto need = [&](int32_t s) {
      const auto [it, is_new] = rule_of.try_emplace(s, static_cast<int>(grammar_.rules.size()));
      if (is_new) {
        if (grammar_.rules.size() > kMaxRules)
          throw GrammarLimitError("grammar: more than 100000 rules when it is written out");
        grammar_.rules.push_back({name + std::to_string(queue.size()), nullptr});
        queue.push_back(s);
      }
      return it->second;
    };
    const int start = need(0);
    for (size_t i = 0; i < queue.size(); ++i) {
      std::vector<ExprPtr> parts;
      for (const auto& [target, set] : Ways(ways(machine, queue[i], 0)))
        parts.push_back(sequence({chars(set), rule_ref(need(target))}));
      if (machine.is_final(queue[i])) parts.push_back(literal(""));
      grammar_.rules[rule_of[queue[i]]].body = choice(std::move(parts));
    }
    return start;
  }

  using Ways = std::map<int32_t, CharSet>;  // code points, or their last bits, by where they lead

  // What leads on from a state within a character, by the bits that are still to come.
  const Ways& ways(ByteMachine& machine, int32_t from, int utf8) {
    const auto found = ways_.find({from, utf8});
    if (found != ways_.end()) return found->second;
    constexpr int kBitsLeft[kUtf8States] = {0, 6, 12, 18, 12, 12, 18, 18};
    Ways out;
    for (int b = 0; b < 256; ++b) {
      const auto byte = static_cast<uint8_t>(b);
      const int after = utf8_step(utf8, byte);
      const int32_t next = after < 0 ? -1 : machine.next(from, byte);
      if (next < 0) continue;
      const int bits = utf8 ? b & 63 : b < 0x80 ? b : b & (b < 0xE0 ? 31 : b < 0xF0 ? 15 : 7);
      const uint32_t above = static_cast<uint32_t>(bits) << kBitsLeft[after];
      const auto add = [&](int32_t to, CodeRange r) {
        auto& set = out[to];
        if (!set.empty() && set.back().hi + 1 == above + r.lo)
          set.back().hi = above + r.hi;
        else
          set.push_back({above + r.lo, above + r.hi});
      };
      if (after == 0) {
        add(next, {0, 0});
        continue;
      }
      for (const auto& [to, set] : ways(machine, next, after))
        for (const CodeRange r : set) add(to, r);
    }
    return ways_[{from, utf8}] = std::move(out);
  }

  Grammar& grammar_;
  int num_graphs_ = 0;
  std::map<const ByteMachine*, int> starts_;
  std::map<std::pair<int32_t, int>, Ways> ways_;
};
}  // namespace

int32_t add_rule(Program& program, std::string name, int32_t rank, const std::bitset<256>& first,
                 const std::bitset<256>& follow) {
  program.rules.emplace_back();
  ProgramRule& rule = program.rules.back();
  rule.name = std::move(name);
  rule.rank = rank;
  rule.first = first;
  rule.follow = follow;
  return static_cast<int32_t>(program.rules.size()) - 1;
}

void settle(Program& program, size_t num_states, size_t num_rules) {
  Fragment(program, num_states, num_rules).settle();
}

Grammar written_out(const Grammar& given) {
  Grammar grammar = given.factory ? given.factory->grammar() : given;
  Writer writer(grammar);
  for (size_t r = 0; r < grammar.rules.size(); ++r)
    if (const ExprPtr body = grammar.rules[r].body) {
      const ExprPtr written = writer.written(body);
      grammar.rules[r].body = written;
    }
  return grammar;
}
}  // namespace lmx::grammar
