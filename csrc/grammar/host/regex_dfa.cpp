// grammar/host/regex_dfa.cpp: automata of patterns. Without assertions a state is a set of
// positions in the pattern (Thompson, 1968).
//
// With assertions a state is a set of branches, one of which must work out when the text ends. A
// branch is a set of positions in the pattern under the same obligations: for each lookahead
// crossed, the positions in its body, one of which must reach the body's end some time; and the
// positions in bodies of negative lookaheads, none of which ever may. Beside the branches a state
// keeps, for each lookbehind, where in its body a match that began anywhere before may be.
#include <algorithm>
#include <array>
#include <chrono>
#include <ctime>
#include <iterator>
#include <map>
#include <set>

#include "regex.h"

namespace lmx::grammar {
namespace {
using Node = RegexNode;
constexpr size_t kMaxNfa = 20000;  // with assertions
constexpr size_t kMaxPlainNfa = 50000, kMaxPlainStates = 20000;
constexpr int64_t kMaxSize = 20000000;
constexpr std::chrono::seconds kMaxTime{5};
constexpr size_t kMaxBranches = 1000;
using States = std::vector<int32_t>;  // sorted

std::chrono::nanoseconds thread_time() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
}

struct Look {
  bool is_ahead, is_negated;
  int32_t start, final;
};
struct Assertion {
  int32_t look, to;
};

struct Duty {
  std::vector<States> need;  // sorted; of each, one position has to come to its end
  States never;              // none of these may
  auto operator<=>(const Duty&) const = default;
};
using Branches = std::map<Duty, States>;  // positions in the pattern, by what they still owe

struct Macro {  // a state of the result
  std::vector<std::pair<Duty, States>> branches;
  std::vector<States> behind;
  auto operator<=>(const Macro&) const = default;
};

class Builder {
 public:
  explicit Builder(const Budget& budget) : budget_(budget) {}

  ByteDfa build(const Node& root) {
    is_plain_ = !has_assertions(root);
    start_ = new_state();
    final_ = new_state();
    add(root, start_, final_, false);
    mark_.assign(p_.nfa.size(), 0);
    if (is_plain_) {
      explore_plain();
      return pruned(dfa_);
    }
    asserted_.resize(p_.nfa.size());
    ends_ahead_.assign(p_.nfa.size(), false);
    for (const Look& look : looks_)
      if (look.is_ahead) ends_ahead_[look.final] = true;
    find_classes();
    for (const Look& look : looks_)
      if (!look.is_ahead) behind_.push_back(look);
    explore();
    return pruned(dfa_);
  }

 private:
  // ---- the pattern as an automaton with assertions on empty edges -------------------------------
  int32_t new_state() {
    if (p_.nfa.size() >= (is_plain_ ? kMaxPlainNfa : kMaxNfa))
      throw GrammarLimitError(
          is_plain_ ? "regex: a pattern has more than 50000 positions"
                    : "regex: a pattern with assertions has more than 20000 positions");
    asserted_.emplace_back();
    return p_.new_state();
  }
  void add(const Node& node, int32_t from, int32_t to, bool inside) {
    switch (node.kind) {
      case Node::Kind::set:
        add_chars(p_, node.set, from, to);
        asserted_.resize(p_.nfa.size());
        return;
      case Node::Kind::sequence:
        for (const auto& part : node.parts) {
          const int32_t next = new_state();
          add(*part, from, next, inside);
          from = next;
        }
        return p_.nfa[from].empty.push_back(to);
      case Node::Kind::choice:
        for (const auto& part : node.parts) add(*part, from, to, inside);
        return;
      case Node::Kind::repeat: return add_repeat(node, from, to, inside);
      default: return add_look(node, from, to, inside);
    }
  }

  void add_repeat(const Node& node, int32_t from, int32_t to, bool inside) {
    const auto again = [&] {
      const int32_t next = new_state();
      add(*node.parts[0], from, next, inside);
      from = next;
    };
    for (int64_t i = 0; i < node.min; ++i) again();
    if (node.max == kUnbounded) {
      const int32_t loop = new_state(), end = new_state();
      p_.nfa[from].empty.push_back(loop);
      add(*node.parts[0], loop, end, inside);
      p_.nfa[end].empty.push_back(loop);
      return p_.nfa[loop].empty.push_back(to);
    }
    for (int64_t i = node.min; i < node.max; ++i) {
      p_.nfa[from].empty.push_back(to);
      again();
    }
    p_.nfa[from].empty.push_back(to);
  }

  void add_look(const Node& node, int32_t from, int32_t to, bool inside) {
    const bool is_ahead = node.kind == Node::Kind::ahead;
    if (inside)
      throw UnsupportedRegexError(
          "regex: an assertion inside a lookahead or lookbehind (\\b is two "
          "of them) is not supported");
    const Look look{is_ahead, node.is_negated, new_state(), new_state()};
    add(*node.parts[0], look.start, look.final, true);
    asserted_[from].push_back({static_cast<int32_t>(looks_.size()), to});
    index_.push_back(is_ahead ? -1 : num_behind_++);
    looks_.push_back(look);
  }

  // Bytes that no edge tells apart.
  void find_classes() {
    std::array<bool, 257> cut{};
    for (const NfaState& state : p_.nfa)
      for (const ByteEdge& e : state.bytes) cut[e.lo] = cut[e.hi + 1] = true;
    for (int b = 0; b < 256; ++b)
      if (b == 0 || cut[b]) classes_.push_back(static_cast<uint8_t>(b));
  }

  // ---- without assertions ------------------------------------------------------------------
  int32_t intern_plain(States& set) {
    close(set);
    std::erase_if(set, [&](int32_t s) { return s != final_ && p_.nfa[s].bytes.empty(); });
    const auto [it, is_new] = plain_ids_.try_emplace(set, static_cast<int32_t>(plain_.size()));
    if (is_new) {
      if (plain_.size() >= kMaxPlainStates)
        throw GrammarLimitError("regex: a pattern has more than 20000 states");
      plain_.push_back(set);
      dfa_.states.push_back({{}, has(set, final_)});
    }
    return it->second;
  }

  void explore_plain() {
    States first{start_};
    intern_plain(first);
    for (size_t at = 0; at < plain_.size(); ++at) {
      std::array<bool, 257> cut{};
      for (const int32_t s : plain_[at])
        for (const ByteEdge& e : p_.nfa[s].bytes) cut[e.lo] = cut[e.hi + 1] = true;
      for (int b = 0, end = 0; b < 256; b = end) {
        for (end = b + 1; end < 256 && !cut[end];) ++end;
        States to = read(plain_[at], static_cast<uint8_t>(b));
        if (to.empty()) continue;
        const int32_t id = intern_plain(to);
        dfa_.states[at].edges.push_back(
            {static_cast<uint8_t>(b), static_cast<uint8_t>(end - 1), id});
      }
    }
  }

  // ---- positions ---------------------------------------------------------------------------
  // All that empty edges reach. Bodies hold no assertions, so only the pattern itself has any.
  void close(States& set) {
    ++epoch_;
    for (const int32_t s : set) mark_[s] = epoch_;
    for (size_t i = 0; i < set.size(); ++i)
      for (const int32_t to : p_.nfa[set[i]].empty)
        if (mark_[to] != epoch_) mark_[to] = epoch_, set.push_back(to);
    std::sort(set.begin(), set.end());
  }

  // What a byte leads to. Positions that read no byte need not be kept, but ends must.
  States read(const States& from, uint8_t b) {
    States to;
    ++epoch_;
    for (const int32_t s : from)
      for (const ByteEdge& e : p_.nfa[s].bytes)
        if (e.lo <= b && b <= e.hi && mark_[e.to] != epoch_)
          mark_[e.to] = epoch_, to.push_back(e.to);
    return to;
  }

  static bool has(const States& set, int32_t state) {
    return std::binary_search(set.begin(), set.end(), state);
  }
  bool has_end(const States& set) const {
    return std::any_of(set.begin(), set.end(), [&](int32_t s) { return ends_ahead_[s]; });
  }

  // ---- branches ----------------------------------------------------------------------------
  // The duty after an assertion on the way; false if it fails here.
  bool cross(Duty& duty, const Assertion& a, const std::vector<States>& behind) {
    const Look& look = looks_[a.look];
    if (!look.is_ahead) return has(behind[index_[a.look]], look.final) != look.is_negated;
    States body{look.start};
    close(body);
    if (has(body, look.final)) return !look.is_negated;  // its body matches nothing at once
    if (!look.is_negated) {
      duty.need.push_back(std::move(body));
      std::sort(duty.need.begin(), duty.need.end());
      duty.need.erase(std::unique(duty.need.begin(), duty.need.end()), duty.need.end());
      return true;
    }
    States both;
    std::set_union(duty.never.begin(), duty.never.end(), body.begin(), body.end(),
                   std::back_inserter(both));
    duty.never.swap(both);
    return true;
  }

  // Takes empty edges and assertions of positions under a duty; adds what reads a byte, or is done.
  void settle(const Duty& duty, const States& positions, const std::vector<States>& behind,
              Branches& out) {
    std::map<Duty, std::set<int32_t>> seen;
    std::vector<std::pair<Duty, int32_t>> queue;
    const auto reach = [&](const Duty& d, int32_t s) {
      if (seen[d].insert(s).second) queue.push_back({d, s});
      if (seen.size() > kMaxBranches) throw GrammarLimitError("regex: too many assertions at once");
    };
    for (const int32_t s : positions) reach(duty, s);
    for (size_t i = 0; i < queue.size(); ++i) {
      const auto [d, s] = queue[i];
      for (const int32_t to : p_.nfa[s].empty) reach(d, to);
      for (const Assertion& a : asserted_[s]) {
        Duty next = d;
        if (cross(next, a, behind)) reach(next, a.to);
      }
    }
    for (const auto& [d, set] : seen)
      for (const int32_t s : set)
        if (s == final_ || !p_.nfa[s].bytes.empty()) out[d].push_back(s);
  }

  // The duty after a byte; false if it can no longer be met.
  bool read_duty(const Duty& from, uint8_t b, Duty& to) {
    to.never = read(from.never, b);
    close(to.never);
    if (has_end(to.never)) return false;
    for (const States& body : from.need) {
      States after = read(body, b);
      if (after.empty()) return false;
      close(after);
      if (!has_end(after)) to.need.push_back(std::move(after));
    }
    std::sort(to.need.begin(), to.need.end());
    to.need.erase(std::unique(to.need.begin(), to.need.end()), to.need.end());
    return true;
  }

  std::vector<States> read_behind(const std::vector<States>& from, uint8_t b) {
    std::vector<States> to;
    for (size_t j = 0; j < behind_.size(); ++j) {
      States next = read(from[j], b);
      if (std::find(next.begin(), next.end(), behind_[j].start) == next.end())
        next.push_back(behind_[j].start);  // a match may begin here too
      close(next);
      to.push_back(std::move(next));
    }
    return to;
  }

  int32_t intern(Branches& branches, std::vector<States> behind) {
    Macro macro{{}, std::move(behind)};
    for (auto& [duty, set] : branches) {
      std::sort(set.begin(), set.end());
      set.erase(std::unique(set.begin(), set.end()), set.end());
      macro.branches.push_back({duty, set});
    }
    if (macro.branches.empty()) return -1;
    if (branches.size() > kMaxBranches) throw GrammarLimitError("regex: too many branches");
    const auto [it, is_new] = ids_.try_emplace(macro, static_cast<int32_t>(macros_.size()));
    if (is_new) {
      for (const auto& branch : macro.branches)
        size_ += static_cast<int64_t>(branch.second.size() + branch.first.never.size()) + 1;
      macros_.push_back(std::move(macro));
      if (static_cast<int64_t>(macros_.size()) > budget_.max_states || size_ > kMaxSize)
        throw GrammarLimitError("regex: a pattern with assertions has more than " +
                                std::to_string(budget_.max_states) + " states, or too large ones");
    }
    return it->second;
  }

  void explore() {
    Branches first;
    std::vector<States> behind;
    for (const Look& look : behind_) {
      behind.push_back({look.start});
      close(behind.back());
    }
    settle({}, {start_}, behind, first);
    intern(first, std::move(behind));
    // a backstop, in time of this thread: a loaded machine changes no result
    const auto deadline = thread_time() + kMaxTime;
    for (size_t i = 0; i < macros_.size(); ++i) {
      if (thread_time() > deadline)
        throw GrammarLimitError("regex: a pattern with assertions takes more than 5 seconds");
      dfa_.states.emplace_back();
      const Macro from = macros_[i];
      dfa_.states[i].is_final =
          std::any_of(from.branches.begin(), from.branches.end(), [&](const auto& branch) {
            return branch.first.need.empty() && has(branch.second, final_);
          });
      for (size_t k = 0; k < classes_.size(); ++k) {
        const uint8_t lo = classes_[k];
        const auto hi = static_cast<uint8_t>(k + 1 < classes_.size() ? classes_[k + 1] - 1 : 255);
        std::vector<States> behind_next = read_behind(from.behind, lo);
        Branches next;
        for (const auto& [duty, set] : from.branches) {
          Duty after;
          const States positions = read(set, lo);
          if (!positions.empty() && read_duty(duty, lo, after))
            settle(after, positions, behind_next, next);
        }
        if (const int32_t to = intern(next, std::move(behind_next)); to >= 0)
          dfa_.states[i].edges.push_back({lo, hi, to});
      }
    }
  }

  const Budget& budget_;
  Program p_;
  bool is_plain_ = false;
  std::map<States, int32_t> plain_ids_;
  std::vector<States> plain_;
  std::vector<std::vector<Assertion>> asserted_;
  std::vector<Look> looks_, behind_;
  std::vector<int32_t> index_;  // of a look: its number among the lookbehinds
  int32_t num_behind_ = 0, start_ = 0, final_ = 0;
  std::vector<uint8_t> classes_;
  std::vector<bool> ends_ahead_;
  std::vector<int32_t> mark_;
  int32_t epoch_ = 0;
  int64_t size_ = 0;  // of all states
  std::map<Macro, int32_t> ids_;
  std::vector<Macro> macros_;
  ByteDfa dfa_;
};
}  // namespace

int32_t ByteDfa::next(int32_t state, uint8_t b) const {
  for (const ByteEdge& e : states[state].edges)
    if (e.lo <= b && b <= e.hi) return e.to;
  return -1;
}

ByteDfa pruned(const ByteDfa& dfa) {
  const size_t n = dfa.states.size();
  std::vector<std::vector<int32_t>> back(n);
  std::vector<int32_t> queue, number(n, -1);
  for (size_t i = 0; i < n; ++i) {
    for (const ByteEdge& e : dfa.states[i].edges) back[e.to].push_back(static_cast<int32_t>(i));
    if (dfa.states[i].is_final) queue.push_back(static_cast<int32_t>(i)), number[i] = 0;
  }
  while (!queue.empty()) {
    const int32_t s = queue.back();
    queue.pop_back();
    for (const int32_t from : back[s])
      if (number[from] < 0) number[from] = 0, queue.push_back(from);
  }
  ByteDfa out;
  if (n == 0 || number[0] < 0) return out;
  int32_t count = 0;
  for (int32_t& at : number)
    if (at >= 0) at = count++;
  for (size_t i = 0; i < n; ++i) {
    if (number[i] < 0) continue;
    ByteDfa::State state{{}, dfa.states[i].is_final};
    for (const ByteEdge& e : dfa.states[i].edges)
      if (number[e.to] >= 0) state.edges.push_back({e.lo, e.hi, number[e.to]});
    out.states.push_back(std::move(state));
  }
  return out;
}

ByteDfa to_dfa(const RegexNode& node, const Budget& budget) { return Builder(budget).build(node); }
}  // namespace lmx::grammar
