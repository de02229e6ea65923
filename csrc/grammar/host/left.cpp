// grammar/host/left.cpp: turns left recursion around, and orders rules by who calls whom first.
//
// Let C be a set of rules that call one another before any byte. A string of A in C is read along
// its left spine, bottom up: first the part of some B in C that does not begin with a rule of C,
// then, again and again, what follows a call of the member just finished at the start of another
// one, until A itself is finished. So all members share one automaton with a node per member:
//   begin --(B's beginnings that do not call C)--> node(B)
//   node(B) --(D's continuation of a call of B at its start)--> node(D)
// and A ends at node(A). Calls of C further inside are ordinary calls. This adds no rule, and
// linear size.
#include <algorithm>
#include <unordered_map>

#include "program.h"

namespace lmx::grammar {
namespace {
// States reached from `start` by empty edges.
std::vector<int32_t> closure(const Program& p, int32_t start) {
  std::vector<int32_t> states{start};
  std::unordered_map<int32_t, bool> seen{{start, true}};
  for (size_t i = 0; i < states.size(); ++i)
    for (const int32_t t : p.nfa[states[i]].empty)
      if (seen.try_emplace(t, true).second) states.push_back(t);
  return states;
}

std::vector<std::vector<int32_t>> left_calls(const Program& p) {
  std::vector<std::vector<int32_t>> calls(p.rules.size());
  for (size_t r = 0; r < p.rules.size(); ++r) {
    for (const int32_t s : closure(p, p.rules[r].start))
      for (const CallEdge& e : p.nfa[s].calls) calls[r].push_back(e.rule);
    std::sort(calls[r].begin(), calls[r].end());
    calls[r].erase(std::unique(calls[r].begin(), calls[r].end()), calls[r].end());
  }
  return calls;
}

// Tarjan's components (1972), callees before callers, without recursion.
std::vector<std::vector<int32_t>> components(const std::vector<std::vector<int32_t>>& calls) {
  const auto n = static_cast<int32_t>(calls.size());
  std::vector<int32_t> index(n, -1), low(n), stack;
  std::vector<bool> on_stack(n);
  std::vector<std::vector<int32_t>> out;
  int32_t counter = 0;
  struct Visit {
    int32_t rule;
    size_t next;
  };
  for (int32_t root = 0; root < n; ++root) {
    if (index[root] >= 0) continue;
    std::vector<Visit> path;
    const auto enter = [&](int32_t r) {
      index[r] = low[r] = counter++;
      stack.push_back(r);
      on_stack[r] = true;
      path.push_back({r, 0});
    };
    enter(root);
    while (!path.empty()) {
      const int32_t r = path.back().rule;
      if (path.back().next < calls[r].size()) {
        const int32_t callee = calls[r][path.back().next++];
        if (index[callee] < 0)
          enter(callee);
        else if (on_stack[callee])
          low[r] = std::min(low[r], index[callee]);
        continue;
      }
      path.pop_back();
      if (!path.empty()) low[path.back().rule] = std::min(low[path.back().rule], low[r]);
      if (low[r] != index[r]) continue;
      out.emplace_back();
      int32_t member;
      do {
        member = stack.back();
        stack.pop_back();
        on_stack[member] = false;
        out.back().push_back(member);
      } while (member != r);
    }
  }
  return out;
}

// A counted rule within left recursion is written out: copies of calls.
void unroll(Program& p, int32_t r) {
  constexpr int64_t kMaxCopies = 200000;
  ProgramRule& rule = p.rules[r];
  if (rule.body < 0) return;
  if (std::max(rule.min, rule.max) > kMaxCopies)
    throw GrammarLimitError("grammar: a left-recursive repetition of more than 200000");
  const int32_t final = rule.final, body = rule.body;
  int32_t at = p.new_state();
  rule.start = at;
  for (int64_t i = 0; i < std::max(rule.min, rule.max); ++i) {
    if (i >= rule.min) p.nfa[at].empty.push_back(final);
    const int32_t next = p.new_state();
    p.nfa[at].calls.push_back({body, next});
    if (p.rules[body].nullable) p.nfa[at].empty.push_back(next);
    at = next;
  }
  if (p.rules[r].max == kUnbounded) p.nfa[at].calls.push_back({body, at});
  p.nfa[at].empty.push_back(final);
  p.nfa[final] = {};
  p.rules[r].body = -1;
}

class Rebuild {
 public:
  Rebuild(Program& p, const std::vector<int32_t>& members) : p_(p), members_(members) {}

  void run() {
    for (const int32_t r : members_) unroll(p_, r);
    const int32_t begin = p_.new_state();
    std::unordered_map<int32_t, int32_t> node;
    for (const int32_t r : members_) node[r] = p_.new_state();
    first_ = begin;
    for (const int32_t r : members_) copy_rule(r, begin, node);
    for (const int32_t r : members_) {
      p_.rules[r].start = begin;
      p_.rules[r].final = node[r];
    }
    for (const int32_t r : members_) mark_alive(p_.rules[r]);
  }

 private:
  void copy_rule(int32_t r, int32_t begin, const std::unordered_map<int32_t, int32_t>& node) {
    const int32_t start = p_.rules[r].start, final = p_.rules[r].final;
    std::unordered_map<int32_t, int32_t> copy;
    std::vector<int32_t> queue;
    const auto copied = [&](int32_t s) {
      const auto [it, is_new] = copy.try_emplace(s, 0);
      if (is_new) it->second = p_.new_state(), queue.push_back(s);
      return it->second;
    };
    for (const int32_t s : closure(p_, start)) {
      const NfaState state = p_.nfa[s];  // a copy: the vector grows
      for (const ByteEdge& e : state.bytes) {
        const int32_t to = copied(e.to);
        p_.nfa[begin].bytes.push_back({e.lo, e.hi, to});
      }
      for (const TokenEdge& e : state.tokens) {
        const int32_t to = copied(e.to);
        p_.nfa[begin].tokens.push_back({e.set, to});
      }
      for (const CallEdge& e : state.calls) {
        const int32_t to = copied(e.to);
        if (const auto at = node.find(e.rule); at != node.end())
          p_.nfa[at->second].empty.push_back(to);
        else
          p_.nfa[begin].calls.push_back({e.rule, to});
      }
    }
    for (size_t i = 0; i < queue.size(); ++i) {
      NfaState state = p_.nfa[queue[i]];
      for (int32_t& t : state.empty) t = copied(t);
      for (ByteEdge& e : state.bytes) e.to = copied(e.to);
      for (CallEdge& e : state.calls) e.to = copied(e.to);
      for (TokenEdge& e : state.tokens) e.to = copied(e.to);
      p_.nfa[copy[queue[i]]] = std::move(state);
    }
    if (const auto end = copy.find(final); end != copy.end())
      p_.nfa[end->second].empty.push_back(node.at(r));
  }

  // The members' ends differ, so each has its own states that lead to one.
  void mark_alive(ProgramRule& rule) {
    const auto last = static_cast<int32_t>(p_.nfa.size());
    std::vector<std::vector<int32_t>> back(last - first_);
    for (int32_t s = first_; s < last; ++s) {
      const auto from = [&](int32_t to) { back[to - first_].push_back(s); };
      for (const int32_t t : p_.nfa[s].empty) from(t);
      for (const ByteEdge& e : p_.nfa[s].bytes) from(e.to);
      for (const CallEdge& e : p_.nfa[s].calls) from(e.to);
      for (const TokenEdge& e : p_.nfa[s].tokens) from(e.to);
    }
    rule.alive.assign(last, false);
    std::vector<int32_t> queue{rule.final};
    rule.alive[rule.final] = true;
    while (!queue.empty()) {
      const int32_t s = queue.back();
      queue.pop_back();
      for (const int32_t from : back[s - first_])
        if (!rule.alive[from]) rule.alive[from] = true, queue.push_back(from);
    }
  }

  Program& p_;
  const std::vector<int32_t>& members_;
  int32_t first_ = 0;
};
}  // namespace

void remove_left_recursion(Program& program) {
  const auto calls = left_calls(program);
  for (const auto& members : components(calls)) {
    const int32_t r = members[0];
    if (members.size() > 1 || std::binary_search(calls[r].begin(), calls[r].end(), r))
      Rebuild(program, members).run();
  }
  const auto order = components(left_calls(program));  // callees first, and no cycle is left
  for (size_t i = 0; i < order.size(); ++i)
    program.rules[order[i][0]].rank = static_cast<int32_t>(order.size() - i);
}
}  // namespace lmx::grammar
