// grammar/host/states.cpp
#include "states.h"

#include <algorithm>
#include <array>

#include "lazy.h"

namespace lmx::grammar {
namespace {
// Groups what edges of one kind lead to by label.
template <typename Edge, typename Label>
void group_edges(const std::vector<Edge>& edges, Label label, const auto& f) {
  std::vector<Edge> sorted = edges;
  std::sort(sorted.begin(), sorted.end(), [&](const Edge& a, const Edge& b) {
    return a.*label < b.*label || (a.*label == b.*label && a.to < b.to);
  });
  for (size_t i = 0; i < sorted.size();) {
    const size_t begin = i;
    std::vector<int32_t> targets;
    for (; i < sorted.size() && sorted[i].*label == sorted[begin].*label; ++i)
      targets.push_back(sorted[i].to);
    f(sorted[begin].*label, targets);
  }
}
}  // namespace

size_t States::KeyHash::operator()(const std::vector<int32_t>& key) const {
  uint64_t h = 0x9E3779B97F4A7C15ull ^ key.size();
  for (const int32_t k : key) {
    h = (h ^ static_cast<uint32_t>(k)) * 0xFF51AFD7ED558CCDull;
    h ^= h >> 32;
  }
  return h;
}

States::States(Program program, const Budget& budget)
    : program_(std::move(program)),
      budget_(budget),
      start_of_(program_.rules.size(), kNone),
      states_of_(program_.rules.size(), 0),
      mark_(program_.nfa.size(), 0) {
  bytes_ = program_.nfa.size() * sizeof(NfaState);
}

// The rule's automaton is made now if it was not needed before.
void States::make_rule(int32_t r) {
  program_.source->make(program_, r);
  start_of_.resize(program_.rules.size(), kNone);
  states_of_.resize(program_.rules.size(), 0);
  bytes_ += (program_.nfa.size() - mark_.size()) * sizeof(NfaState);
  mark_.resize(program_.nfa.size(), 0);
}

int32_t States::start_of(int32_t r) {
  if (start_of_[r] == kNone) {
    if (program_.rules[r].start == kNone) make_rule(r);
    const ProgramRule& rule = program_.rules[r];
    std::vector<int32_t> start{rule.start};
    start_of_[r] =
        rule.machine ? intern_machine(r, 0, true)
        : rule.body >= 0
            ? intern_counted(r, rule.min, rule.max == kUnbounded ? kManyTimes : rule.max, true)
            : intern_subset(r, start, true);
  }
  return start_of_[r];
}

int32_t States::new_state(int32_t rule, std::vector<int32_t>&& key) {
  if (++states_of_[rule] > budget_.max_states)
    throw GrammarLimitError("grammar: rule " + program_.rules[rule].name + " has more than " +
                            std::to_string(budget_.max_states) + " states");
  const auto id = static_cast<int32_t>(states_.size());
  bytes_ += sizeof(State) + 8 * key.size() + 64;
  ids_.emplace(std::move(key), id);
  states_.emplace_back();
  states_.back().rule = rule;
  return id;
}

// What empty edges reach, without states that lead nowhere else.
void States::close(int32_t r, std::vector<int32_t>& set) {
  const ProgramRule& rule = program_.rules[r];
  const auto is_alive = [&](int32_t s) { return rule.alive.empty() || rule.alive[s]; };
  ++epoch_;
  std::vector<int32_t> queue;
  for (const int32_t s : set)
    if (mark_[s] != epoch_ && is_alive(s)) mark_[s] = epoch_, queue.push_back(s);
  set.clear();
  for (size_t i = 0; i < queue.size(); ++i) {
    const NfaState& state = program_.nfa[queue[i]];
    for (const int32_t t : state.empty)
      if (mark_[t] != epoch_ && is_alive(t)) mark_[t] = epoch_, queue.push_back(t);
    if (queue[i] == rule.final || !state.bytes.empty() || !state.calls.empty() ||
        !state.tokens.empty())
      set.push_back(queue[i]);
  }
  std::sort(set.begin(), set.end());
}

int32_t States::intern_subset(int32_t rule, std::vector<int32_t>& set, bool is_start) {
  close(rule, set);
  if (set.empty()) return kNone;
  std::vector<int32_t> key{rule, is_start};
  key.insert(key.end(), set.begin(), set.end());
  if (const auto found = ids_.find(key); found != ids_.end()) return found->second;
  const int32_t id = new_state(rule, std::move(key));
  State& state = states_[id];
  state.subset = static_cast<int32_t>(subsets_.size());
  state.is_start = is_start;
  const int32_t final = program_.rules[rule].final;
  state.is_final = !is_start && std::binary_search(set.begin(), set.end(), final);
  const NfaState& last = program_.nfa[final];
  state.is_end = state.is_final && set.size() == 1 && last.bytes.empty() && last.calls.empty() &&
                 last.tokens.empty();
  subsets_.push_back(set);
  return id;
}

int32_t States::intern_counted(int32_t rule, int64_t needed, int64_t allowed, bool is_start) {
  const auto few = [](int64_t n) { return static_cast<int32_t>(std::min<int64_t>(n, kManyTimes)); };
  std::vector<int32_t> key{rule, is_start, few(needed), few(allowed)};
  if (const auto found = ids_.find(key); found != ids_.end()) return found->second;
  const int32_t id = new_state(rule, std::move(key));
  State& state = states_[id];
  state.needed = few(needed);
  state.allowed = few(allowed);
  state.is_start = is_start;
  state.is_final = !is_start && state.needed == 0;
  state.is_end = state.is_final && state.allowed == 0;
  return id;
}

int32_t States::clamped(int32_t id, int32_t longest) {
  if (!is_counted(id)) return id;
  const State& state = states_[id];
  const auto cap = [&](int32_t n) { return n > longest ? kManyTimes : n; };
  return intern_counted(state.rule, cap(state.needed), cap(state.allowed), state.is_start);
}

int32_t States::intern_machine(int32_t rule, int32_t machine_state, bool is_start) {
  std::vector<int32_t> key{rule, is_start, -1, machine_state};
  if (const auto found = ids_.find(key); found != ids_.end()) return found->second;
  const int32_t id = new_state(rule, std::move(key));
  State& state = states_[id];
  state.machine_state = machine_state;
  state.is_start = is_start;
  state.is_final = !is_start && program_.rules[rule].machine->is_final(machine_state);
  return id;
}

void States::expand_machine(State& state) {
  ByteMachine& machine = *program_.rules[state.rule].machine;
  auto next = std::make_unique<int32_t[]>(256);
  for (int b = 0; b < 256; ++b) {
    const int32_t to = machine.next(state.machine_state, static_cast<uint8_t>(b));
    next[b] = to < 0 ? kNone : intern_machine(state.rule, to, false);
    state.live[b] = to >= 0;
  }
  state.has_bytes = state.live.any();
  state.is_end = state.is_final && !state.has_bytes;
  if (!state.has_bytes) return;
  state.next = std::move(next);
  bytes_ += 256 * sizeof(int32_t);
}

void States::expand(State& state) {
  if (program_.rules[state.rule].machine)
    expand_machine(state);
  else if (program_.rules[state.rule].body >= 0)
    expand_counted(state);
  else
    expand_subset(state);
  state.is_expanded = true;
}

void States::expand_counted(State& state) {
  if (state.allowed == 0) return;
  const auto less = [](int32_t n) { return n == kManyTimes || n == 0 ? n : n - 1; };
  const int32_t to = intern_counted(state.rule, less(state.needed), less(state.allowed), false);
  state.calls.push_back({program_.rules[state.rule].body, to});
}

void States::expand_subset(State& state) {
  const int32_t rule = state.rule;
  const std::vector<int32_t> set = subsets_[state.subset];  // a copy: the vector grows
  std::vector<ByteEdge> bytes;
  std::vector<CallEdge> calls;
  std::vector<TokenEdge> tokens;
  for (const int32_t s : set) {
    const NfaState& from = program_.nfa[s];
    bytes.insert(bytes.end(), from.bytes.begin(), from.bytes.end());
    calls.insert(calls.end(), from.calls.begin(), from.calls.end());
    tokens.insert(tokens.end(), from.tokens.begin(), from.tokens.end());
  }
  const auto intern = [&](std::vector<int32_t>& targets) {
    return intern_subset(rule, targets, false);
  };
  group_edges(calls, &CallEdge::rule, [&](int32_t callee, std::vector<int32_t>& targets) {
    if (const int32_t to = intern(targets); to != kNone) state.calls.push_back({callee, to});
  });
  group_edges(tokens, &TokenEdge::set, [&](int32_t label, std::vector<int32_t>& targets) {
    if (const int32_t to = intern(targets); to != kNone) state.tokens.push_back({label, to});
  });
  if (bytes.empty()) return;
  state.next = std::make_unique<int32_t[]>(256);
  std::fill_n(state.next.get(), 256, kNone);
  bytes_ += 256 * sizeof(int32_t);
  std::array<bool, 257> cut{};
  for (const ByteEdge& e : bytes) cut[e.lo] = cut[e.hi + 1] = true;
  std::array<int, 257> segment{};
  for (int b = 1; b <= 256; ++b) segment[b] = segment[b - 1] + cut[b];
  std::vector<std::vector<int32_t>> targets(segment[255] + 1);
  for (const ByteEdge& e : bytes)
    for (int s = segment[e.lo]; s <= segment[e.hi]; ++s) targets[s].push_back(e.to);
  for (int b = 0, s = -1, to = kNone; b < 256; ++b) {
    if (segment[b] != s) {
      s = segment[b];
      to = targets[s].empty() ? kNone : intern(targets[s]);
    }
    state.next[b] = to;
    state.live[b] = to != kNone;
  }
  state.has_bytes = state.live.any();
}
}  // namespace lmx::grammar
