// grammar/host/regex_dfa.cpp: automata of patterns with assertions.
//
// A state is a set of branches, at least one of which must work out. A branch is a conjunction: the
// position in the pattern itself, which must reach its end when the text ends; positions in bodies
// of lookaheads, each of which must reach its own end some time; and sets of positions in bodies of
// negative lookaheads, none of which ever may. Beside the branches a state keeps, for each
// lookbehind, where in its body a match that began anywhere before may be.
#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "regex.h"

namespace lmx::grammar {
namespace {
using Node = RegexNode;
constexpr size_t kMaxNfa = 100000;
constexpr size_t kMaxBranches = 4096;
using States = std::vector<int32_t>;  // sorted

struct Look {
  bool is_ahead, is_negated;
  int32_t start, final;
};
struct Assertion {
  int32_t look, to;
};

struct Branch {
  int32_t main;
  States ahead;                // positions that have to come to their end
  std::vector<States> never;  // sets of which none may
  auto operator<=>(const Branch&) const = default;
};

struct Macro {  // a state of the result
  std::vector<Branch> branches;
  std::vector<States> behind;
  auto operator<=>(const Macro&) const = default;
};

class Builder {
 public:
  explicit Builder(const Budget& budget) : budget_(budget) {}

  ByteDfa build(const Node& root) {
    start_ = new_state();
    final_ = new_state();
    add(root, start_, final_, 0);
    asserted_.resize(p_.nfa.size());
    find_classes();
    for (const Look& look : looks_)
      if (!look.is_ahead) behind_.push_back(look);
    explore();
    return pruned();
  }

 private:
  // ---- the pattern as an automaton with assertions on empty edges -------------------------------
  int32_t new_state() {
    if (p_.nfa.size() >= kMaxNfa)
      throw GrammarLimitError("regex: a pattern with assertions has more than 100000 positions");
    asserted_.emplace_back();
    return p_.new_state();
  }
  enum Inside { kBehind = 1, kNotAhead = 2 };

  void add(const Node& node, int32_t from, int32_t to, int inside) {
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

  void add_repeat(const Node& node, int32_t from, int32_t to, int inside) {
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

  void add_look(const Node& node, int32_t from, int32_t to, int inside) {
    const bool is_ahead = node.kind == Node::Kind::ahead;
    if (inside && is_ahead)
      throw UnsupportedRegexError(inside & kBehind
                                      ? "regex: a lookahead inside a lookbehind is not supported"
                                      : "regex: a lookahead inside a negative one is not supported");
    if (inside & kBehind)
      throw UnsupportedRegexError("regex: a lookbehind inside a lookbehind is not supported");
    const Look look{is_ahead, node.is_negated, new_state(), new_state()};
    add(*node.parts[0], look.start, look.final,
        inside | (is_ahead ? (node.is_negated ? kNotAhead : 0) : kBehind));
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

  // ---- empty edges -------------------------------------------------------------------------
  bool holds(const Assertion& a, const std::vector<States>& behind) const {
    const States& at = behind[index_[a.look]];
    return std::binary_search(at.begin(), at.end(), looks_[a.look].final) !=
           looks_[a.look].is_negated;
  }

  // All positions that empty edges reach, across lookbehinds that hold here.
  States closed(States set, const std::vector<States>& behind) const {
    std::set<int32_t> seen(set.begin(), set.end());
    for (size_t i = 0; i < set.size(); ++i) {
      const auto reach = [&](int32_t to) {
        if (seen.insert(to).second) set.push_back(to);
      };
      for (const int32_t to : p_.nfa[set[i]].empty) reach(to);
      for (const Assertion& a : asserted_[set[i]])
        if (!looks_[a.look].is_ahead && holds(a, behind)) reach(a.to);
    }
    return {seen.begin(), seen.end()};
  }

  bool is_ahead_final(int32_t state) const {
    return std::any_of(looks_.begin(), looks_.end(), [&](const Look& look) {
      return look.is_ahead && look.final == state;
    });
  }

  // Adds `never`, or says that it has happened already.
  bool forbid(Branch& branch, const Look& look, const std::vector<States>& behind) const {
    States set = closed({look.start}, behind);
    if (std::binary_search(set.begin(), set.end(), look.final)) return false;
    branch.never.push_back(std::move(set));
    return true;
  }

  // Moves one position of a branch across an assertion; false if it fails here.
  bool cross(Branch& branch, const Assertion& a, const std::vector<States>& behind,
             std::vector<int32_t>& open) const {
    const Look& look = looks_[a.look];
    if (!look.is_ahead) return holds(a, behind);
    if (look.is_negated) return forbid(branch, look, behind);
    open.push_back(look.start);
    return true;
  }

  struct Draft {
    Branch branch;
    bool main_open;
    std::vector<int32_t> open;  // positions whose empty edges are still to be taken
    auto operator<=>(const Draft&) const = default;
  };

  // The branches that a draft can become: every position at a place that reads a byte, or done.
  void settle(Draft first, const std::vector<States>& behind, std::set<Branch>& out) const {
    std::set<Draft> seen;
    std::vector<Draft> queue;
    const auto push = [&](Draft d) {
      std::sort(d.open.begin(), d.open.end());
      if (seen.insert(d).second) queue.push_back(std::move(d));
      if (seen.size() > kMaxBranches) throw GrammarLimitError("regex: too many assertions at once");
    };
    push(std::move(first));
    while (!queue.empty()) {
      const Draft d = queue.back();
      queue.pop_back();
      if (!d.main_open && d.open.empty()) {
        Branch b = d.branch;
        tidy(b);
        out.insert(std::move(b));
        if (out.size() > kMaxBranches) throw GrammarLimitError("regex: too many branches");
        continue;
      }
      const int32_t at = d.main_open ? d.branch.main : d.open.back();
      Draft rest = d;
      if (d.main_open)
        rest.main_open = false;
      else
        rest.open.pop_back();
      const auto go = [&](int32_t to, Draft next) {
        if (d.main_open)
          next.branch.main = to, next.main_open = true;
        else
          next.open.push_back(to);
        push(std::move(next));
      };
      if (!d.main_open && is_ahead_final(at)) push(rest);  // it has come to its end
      if (!p_.nfa[at].bytes.empty() || (d.main_open && at == final_)) {
        Draft stay = rest;
        if (!d.main_open) stay.branch.ahead.push_back(at);
        push(std::move(stay));
      }
      for (const int32_t to : p_.nfa[at].empty) go(to, rest);
      for (const Assertion& a : asserted_[at]) {
        Draft next = rest;
        if (cross(next.branch, a, behind, next.open)) go(a.to, std::move(next));
      }
    }
  }

  static void tidy(Branch& b) {
    std::sort(b.ahead.begin(), b.ahead.end());
    b.ahead.erase(std::unique(b.ahead.begin(), b.ahead.end()), b.ahead.end());
    std::sort(b.never.begin(), b.never.end());
    b.never.erase(std::unique(b.never.begin(), b.never.end()), b.never.end());
  }

  // ---- steps -------------------------------------------------------------------------------
  States read(const States& from, uint8_t b) const {
    std::set<int32_t> to;
    for (const int32_t s : from)
      for (const ByteEdge& e : p_.nfa[s].bytes)
        if (e.lo <= b && b <= e.hi) to.insert(e.to);
    return {to.begin(), to.end()};
  }

  std::vector<States> read_behind(const std::vector<States>& from, uint8_t b) const {
    std::vector<States> to;
    for (size_t j = 0; j < behind_.size(); ++j) {
      States next = from.empty() ? States{} : read(from[j], b);
      next.push_back(behind_[j].start);  // a match may begin here too
      to.push_back(closed(std::move(next), {}));
    }
    return to;
  }

  void read_branch(const Branch& branch, uint8_t b, const std::vector<States>& behind,
                   std::set<Branch>& out) const {
    Branch next{0, {}, {}};
    for (const States& set : branch.never) {
      const States after = closed(read(set, b), behind);
      for (const int32_t s : after)
        if (is_ahead_final(s)) return;
      if (!after.empty()) next.never.push_back(after);
    }
    std::vector<std::vector<int32_t>> ways{{}};  // one target for each position
    States positions{branch.main};
    positions.insert(positions.end(), branch.ahead.begin(), branch.ahead.end());
    for (const int32_t s : positions) {
      std::vector<std::vector<int32_t>> longer;
      for (const int32_t to : read({s}, b))
        for (const auto& way : ways) {
          longer.push_back(way);
          longer.back().push_back(to);
        }
      ways.swap(longer);
      if (ways.size() > kMaxBranches) throw GrammarLimitError("regex: too many branches");
    }
    for (auto& way : ways) {
      next.main = way[0];
      settle({next, true, {way.begin() + 1, way.end()}}, behind, out);
    }
  }

  int32_t intern(const std::set<Branch>& branches, std::vector<States> behind) {
    if (branches.empty()) return -1;
    Macro macro{{branches.begin(), branches.end()}, std::move(behind)};
    const auto [it, is_new] = ids_.try_emplace(macro, static_cast<int32_t>(macros_.size()));
    if (is_new) {
      macros_.push_back(std::move(macro));
      if (static_cast<int64_t>(macros_.size()) > budget_.max_states)
        throw GrammarLimitError("regex: more than " + std::to_string(budget_.max_states) +
                                " states");
    }
    return it->second;
  }

  void explore() {
    std::set<Branch> first;
    std::vector<States> behind;
    for (const Look& look : behind_) behind.push_back(closed({look.start}, {}));
    settle({{start_, {}, {}}, true, {}}, behind, first);
    intern(first, std::move(behind));
    for (size_t i = 0; i < macros_.size(); ++i) {
      dfa_.states.emplace_back();
      const Macro from = macros_[i];
      dfa_.states[i].is_final =
          std::any_of(from.branches.begin(), from.branches.end(),
                      [&](const Branch& b) { return b.main == final_ && b.ahead.empty(); });
      for (size_t k = 0; k < classes_.size(); ++k) {
        const uint8_t lo = classes_[k];
        const auto hi = static_cast<uint8_t>(k + 1 < classes_.size() ? classes_[k + 1] - 1 : 255);
        std::vector<States> behind_next = read_behind(from.behind, lo);
        std::set<Branch> next;
        for (const Branch& b : from.branches) read_branch(b, lo, behind_next, next);
        if (const int32_t to = intern(next, std::move(behind_next)); to >= 0)
          dfa_.states[i].edges.push_back({lo, hi, to});
      }
    }
  }

  // Without the states that lead to no end. No state is left where nothing matches.
  ByteDfa pruned() {
    const size_t n = dfa_.states.size();
    std::vector<std::vector<int32_t>> back(n);
    std::vector<int32_t> queue, number(n, -1);
    for (size_t i = 0; i < n; ++i) {
      for (const ByteEdge& e : dfa_.states[i].edges) back[e.to].push_back(static_cast<int32_t>(i));
      if (dfa_.states[i].is_final) queue.push_back(static_cast<int32_t>(i)), number[i] = 0;
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
      ByteDfa::State state{{}, dfa_.states[i].is_final};
      for (ByteEdge e : dfa_.states[i].edges)
        if (number[e.to] >= 0) state.edges.push_back({e.lo, e.hi, number[e.to]});
      out.states.push_back(std::move(state));
    }
    return out;
  }

  const Budget& budget_;
  Program p_;
  std::vector<std::vector<Assertion>> asserted_;
  std::vector<Look> looks_, behind_;
  std::vector<int32_t> index_;  // of a look: its number among the lookbehinds
  int32_t num_behind_ = 0, start_ = 0, final_ = 0;
  std::vector<uint8_t> classes_;
  std::map<Macro, int32_t> ids_;
  std::vector<Macro> macros_;
  ByteDfa dfa_;
};
}  // namespace

ByteDfa to_dfa(const RegexNode& node, const Budget& budget) { return Builder(budget).build(node); }
}  // namespace lmx::grammar
