// grammar/host/analyse.cpp: least fixed points over the automaton, each by a queue: linear time.
#include <algorithm>

#include "program.h"

namespace lmx::grammar {
namespace {
// Edges backwards, and where a rule is called.
struct Reverse {
  struct Call {
    int32_t from, to;
  };
  std::vector<std::vector<int32_t>> empty, symbol;  // sources; symbol: of bytes and tokens
  std::vector<std::vector<Call>> calls_of;          // by rule
  std::vector<std::vector<std::pair<int32_t, int32_t>>> calls_to;  // by target: source, rule

  explicit Reverse(const Program& p)
      : empty(p.nfa.size()),
        symbol(p.nfa.size()),
        calls_of(p.rules.size()),
        calls_to(p.nfa.size()) {
    for (size_t i = 0; i < p.nfa.size(); ++i) {
      const auto s = static_cast<int32_t>(i);
      for (const int32_t t : p.nfa[i].empty) empty[t].push_back(s);
      for (const ByteEdge& e : p.nfa[i].bytes) symbol[e.to].push_back(s);
      for (const TokenEdge& e : p.nfa[i].tokens) symbol[e.to].push_back(s);
      for (const CallEdge& e : p.nfa[i].calls) {
        calls_of[e.rule].push_back({s, e.to});
        calls_to[e.to].push_back({s, e.rule});
      }
    }
  }
};

// Rules that derive the empty string; each call of one gets an empty edge beside it.
void bypass_nullable(Program& p) {
  const Reverse back(p);
  std::vector<bool> done(p.nfa.size(), false);  // its rule's end is reached without a byte
  std::vector<int32_t> queue;
  const auto reach = [&](int32_t s) {
    if (!done[s]) done[s] = true, queue.push_back(s);
  };
  std::vector<std::vector<int32_t>> starts(p.nfa.size());
  for (size_t r = 0; r < p.rules.size(); ++r) {
    starts[p.rules[r].start].push_back(static_cast<int32_t>(r));
    reach(p.rules[r].final);
  }
  while (!queue.empty()) {
    const int32_t s = queue.back();
    queue.pop_back();
    for (const int32_t from : back.empty[s]) reach(from);
    for (const auto& [from, rule] : back.calls_to[s])
      if (p.rules[rule].nullable) reach(from);
    for (const int32_t r : starts[s]) {
      p.rules[r].nullable = true;
      for (const auto call : back.calls_of[r])
        if (done[call.to]) reach(call.from);
    }
  }
  for (NfaState& state : p.nfa)
    for (const CallEdge& call : state.calls)
      if (p.rules[call.rule].nullable) state.empty.push_back(call.to);
  for (ProgramRule& rule : p.rules)
    if (rule.body >= 0 && p.rules[rule.body].nullable) rule.min = 0;
}

// Which states can reach their rule's end: at all, and by way of at least one byte or token.
struct Completion {
  std::vector<bool> any, some;

  explicit Completion(const Program& p) : any(p.nfa.size()), some(p.nfa.size()) {
    const Reverse back(p);
    std::vector<std::vector<int32_t>> starts(p.nfa.size());
    std::vector<int32_t> queue;  // 2 s, or 2 s + 1 for `some`
    const auto mark = [&](int32_t s, bool with_symbol) {
      auto& set = with_symbol ? some : any;
      if (!set[s]) set[s] = true, queue.push_back(2 * s + with_symbol);
    };
    for (size_t r = 0; r < p.rules.size(); ++r) {
      starts[p.rules[r].start].push_back(static_cast<int32_t>(r));
      mark(p.rules[r].final, false);
    }
    while (!queue.empty()) {
      const int32_t s = queue.back() / 2;
      const bool with_symbol = queue.back() % 2;
      queue.pop_back();
      for (const int32_t from : back.empty[s]) mark(from, with_symbol);
      if (with_symbol) {
        mark(s, false);
        for (const int32_t r : starts[s])
          for (const auto call : back.calls_of[r])
            if (any[call.to]) mark(call.from, true);
        continue;
      }
      for (const int32_t from : back.symbol[s]) mark(from, true);
      for (const auto& [from, rule] : back.calls_to[s])
        if (some[p.rules[rule].start]) mark(from, true);
    }
  }
};

void prune(Program& p) {
  const Completion can(p);
  const ProgramRule& root = p.rules[p.root];
  if (!root.nullable && !can.some[root.start])
    throw GrammarError("grammar admits no string: rule " + root.name + " never ends");
  for (NfaState& state : p.nfa) {
    const auto dead = [&](const auto& e) { return !can.any[e.to]; };
    std::erase_if(state.empty, [&](int32_t to) { return !can.any[to]; });
    std::erase_if(state.bytes, dead);
    std::erase_if(state.tokens, dead);
    std::erase_if(state.calls,
                  [&](const CallEdge& e) { return dead(e) || !can.some[p.rules[e.rule].start]; });
  }
}

// First bytes from a state, and whether its rule may end there without one.
struct First {
  std::vector<std::bitset<256>> bytes;
  std::vector<bool> ends;

  explicit First(const Program& p) : bytes(p.nfa.size()), ends(p.nfa.size()) {
    std::vector<std::vector<int32_t>> users(p.nfa.size());  // whoever inherits the first bytes
    std::vector<std::vector<int32_t>> empty(p.nfa.size());
    std::vector<int32_t> queue, ending;
    std::vector<bool> queued(p.nfa.size(), true);
    for (size_t i = 0; i < p.nfa.size(); ++i) {
      const auto s = static_cast<int32_t>(i);
      for (const ByteEdge& e : p.nfa[i].bytes)
        for (int b = e.lo; b <= e.hi; ++b) bytes[i].set(b);
      for (const int32_t t : p.nfa[i].empty) users[t].push_back(s), empty[t].push_back(s);
      for (const CallEdge& e : p.nfa[i].calls) users[p.rules[e.rule].start].push_back(s);
      queue.push_back(s);
    }
    while (!queue.empty()) {
      const int32_t s = queue.back();
      queue.pop_back();
      queued[s] = false;
      for (const int32_t user : users[s])
        if ((bytes[user] | bytes[s]) != bytes[user]) {
          bytes[user] |= bytes[s];
          if (!queued[user]) queued[user] = true, queue.push_back(user);
        }
    }
    for (const ProgramRule& rule : p.rules)
      if (!ends[rule.final]) ends[rule.final] = true, ending.push_back(rule.final);
    while (!ending.empty()) {
      const int32_t s = ending.back();
      ending.pop_back();
      for (const int32_t from : empty[s])
        if (!ends[from]) ends[from] = true, ending.push_back(from);
    }
  }
};
}  // namespace

void analyse(Program& program, const Budget&) {
  bypass_nullable(program);
  prune(program);
}

// The rule that a state belongs to is found from the rules' starts; states that a rebuilt left
// recursion shares among rules are visited for each of them.
void find_follow(Program& p) {
  const First first(p);
  std::vector<std::vector<int32_t>> inherits(p.rules.size());  // follow[r] goes into these
  std::vector<int32_t> seen(p.nfa.size(), -1), stack;
  for (size_t r = 0; r < p.rules.size(); ++r) {
    const auto visit = [&](int32_t s) {
      if (seen[s] != static_cast<int32_t>(r)) seen[s] = static_cast<int32_t>(r), stack.push_back(s);
    };
    visit(p.rules[r].start);
    while (!stack.empty()) {
      const NfaState& state = p.nfa[stack.back()];
      stack.pop_back();
      for (const int32_t t : state.empty) visit(t);
      for (const ByteEdge& e : state.bytes) visit(e.to);
      for (const TokenEdge& e : state.tokens) visit(e.to);
      for (const CallEdge& e : state.calls) {
        visit(e.to);
        p.rules[e.rule].follow |= first.bytes[e.to];
        if (first.ends[e.to]) inherits[r].push_back(e.rule);
      }
    }
  }
  std::vector<int32_t> queue(p.rules.size());
  for (size_t r = 0; r < p.rules.size(); ++r) queue[r] = static_cast<int32_t>(r);
  while (!queue.empty()) {
    const int32_t r = queue.back();
    queue.pop_back();
    for (const int32_t callee : inherits[r])
      if ((p.rules[callee].follow | p.rules[r].follow) != p.rules[callee].follow) {
        p.rules[callee].follow |= p.rules[r].follow;
        queue.push_back(callee);
      }
  }
}
}  // namespace lmx::grammar
