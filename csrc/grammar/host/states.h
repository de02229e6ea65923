// grammar/host/states.h: deterministic states of a program, made when they are first reached.
//
// A state belongs to a rule. It has at most one successor per byte, per called rule and per token
// set. A state of an automaton is a set of the program's states; one of a counted rule, body{m,n},
// is the pair (bodies still needed, bodies still allowed).
#pragma once
#include <bitset>
#include <deque>
#include <memory>
#include <unordered_map>

#include "program.h"

namespace lmx::grammar {
constexpr int32_t kNone = -1;
constexpr int32_t kManyTimes = 1 << 30;  // of a count: more than any token can use up

struct State {
  int32_t rule = 0;
  int32_t needed = 0, allowed = 0;  // of a counted rule
  int32_t subset = kNone;           // of an automaton
  int32_t machine_state = kNone;    // of a rule that is given as a ByteMachine
  bool is_expanded = false;
  bool is_final = false;  // its rule may end here
  bool is_start = false;  // nothing has been read: not final, since a call yields some byte
  bool is_end = false;    // final, and nothing else
  bool has_bytes = false;
  std::unique_ptr<int32_t[]> next;  // [256], kNone where there is no way
  std::bitset<256> live;            // bytes with a way
  std::vector<CallEdge> calls;
  std::vector<TokenEdge> tokens;
};

class States {
 public:
  States(Program program, const Budget& budget);

  const Program& program() const { return program_; }
  int32_t start_of(int32_t rule);
  const State& get(int32_t id) {  // expanded
    State& state = states_[id];
    if (!state.is_expanded) expand(state);
    return state;
  }
  bool is_counted(int32_t id) const { return program_.rules[states_[id].rule].body >= 0; }
  // The state whose counts are capped: what no token of `longest` bytes can tell from this one.
  int32_t clamped(int32_t id, int32_t longest);
  size_t size() const { return states_.size(); }
  size_t memory_bytes() const { return bytes_; }

 private:
  struct KeyHash {
    size_t operator()(const std::vector<int32_t>& key) const;
  };
  void expand(State& state);
  void expand_counted(State& state);
  void expand_subset(State& state);
  void expand_machine(State& state);
  void make_rule(int32_t rule);
  int32_t intern_machine(int32_t rule, int32_t machine_state, bool is_start);
  int32_t intern_subset(int32_t rule, std::vector<int32_t>& targets, bool is_start);
  int32_t intern_counted(int32_t rule, int64_t needed, int64_t allowed, bool is_start);
  int32_t new_state(int32_t rule, std::vector<int32_t>&& key);
  void close(int32_t rule, std::vector<int32_t>& set);

  Program program_;
  Budget budget_;
  std::deque<State> states_;  // references stay valid
  std::vector<std::vector<int32_t>> subsets_;
  std::unordered_map<std::vector<int32_t>, int32_t, KeyHash> ids_;
  std::vector<int32_t> start_of_, states_of_;  // by rule; states_of_ counts
  std::vector<int32_t> mark_;                  // by state of the program
  int32_t epoch_ = 0;
  size_t bytes_ = 0;
};
}  // namespace lmx::grammar
