// grammar/host/schema_arrays.cpp: arrays. Where items must differ, or some must be of a kind, what
// has been read is a word of numbers with a rule of its own, as in objects.
#include <algorithm>

#include "schema_emit.h"

namespace lmx::grammar {
namespace {
constexpr size_t kMaxContains = 4;
constexpr size_t kMaxWords = 20000;  // states of counts that are looked at ahead
}  // namespace

ExprPtr SchemaWriter::array(const ArraySet& set, int place, int depth) {
  const ArrayPlan plan = model_.plan_or_drop(place, set);
  if (plan.values.empty() && plan.contains.empty()) return array_in_order(plan, depth);
  const int id = static_cast<int>(arrays_.size());
  arrays_.push_back(plan);
  finishes_.emplace_back();
  std::vector<int64_t> word;
  if (!plan.values.empty())
    word.assign((plan.values.size() + 62) / 63, 0);
  else
    word.assign(1 + plan.contains.size(), 0);
  return sequence({literal("["), elements_after(id, depth, word, true)});
}

// States: item i next (S), after i items (T).
ExprPtr SchemaWriter::array_in_order(const ArrayPlan& plan, int depth) {
  std::vector<ExprPtr> parts;
  std::vector<Expr::Link> links;
  const auto add = [&](int from, int to, ExprPtr part) {
    parts.push_back(std::move(part));
    links.push_back({from, to});
  };
  const auto s = [](int64_t i) { return static_cast<int>(2 + 2 * i); };
  const auto t = [](int64_t i) { return static_cast<int>(3 + 2 * i); };
  const auto item = [&](int64_t i) { return rule_ref(rule_of_place(plan.place_at(i), depth + 1)); };
  const ExprPtr end = close(']', depth), separator = comma(depth);
  const bool has_items = plan.items >= 0;
  const int64_t most = plan.max == kUnbounded ? -1 : plan.max;
  if (plan.min == 0)
    add(0, 1, has_gaps() ? sequence({literal("["), gap(), literal("]")}) : literal("[]"));
  if (most == 0) return choice(parts);
  add(0, s(0), open('[', depth));
  // One by one up to the last item of the prefix, and at least one.
  int64_t n = std::max<int64_t>(static_cast<int64_t>(plan.prefix.size()), has_items ? 1 : 0);
  if (most >= 0) n = std::min(n, most);
  for (int64_t i = 0; i < n; ++i) {
    add(s(i), t(i + 1), item(i));
    if (i + 1 < n) add(t(i + 1), s(i + 1), separator);
    if (i + 1 >= plan.min) add(t(i + 1), 1, end);
  }
  if (has_items && (most < 0 || most > n)) {
    const ExprPtr more = sequence({separator, item(n)});
    const int64_t low = std::max<int64_t>(plan.min - n, 1), high = most < 0 ? kUnbounded : most - n;
    add(t(n), 1, sequence({repeat(more, low, high), end}));
  }
  return graph(std::move(parts), std::move(links));
}

// ---- words -------------------------------------------------------------------------------------
// Of items that differ: which values were read, 63 to a number. Else: how many items, and how many
// of each kind that is asked for; each capped where more make no difference.
bool SchemaWriter::may_close(const ArrayPlan& plan, const std::vector<int64_t>& word) const {
  if (!plan.values.empty()) {
    int64_t read = 0;
    for (const int64_t w : word) read += __builtin_popcountll(static_cast<uint64_t>(w));
    return read >= plan.min;
  }
  if (word[0] < plan.min) return false;
  for (size_t k = 0; k < plan.contains.size(); ++k)
    if (word[1 + k] < plan.contains[k].min) return false;
  return true;
}

// Words and places after one more item, which is of some of the kinds.
std::vector<std::pair<std::vector<int64_t>, int>> SchemaWriter::contains_steps(
    const ArrayPlan& plan, const std::vector<int64_t>& word) {
  std::vector<std::pair<std::vector<int64_t>, int>> out;
  const auto horizon = static_cast<int64_t>(plan.prefix.size());
  const int64_t cap = std::max({horizon, plan.min, plan.max + 1});
  if (plan.max != kUnbounded && word[0] >= plan.max) return out;
  const int at = plan.place_at(word[0]);
  if (at < 0) return out;
  if (plan.contains.size() > kMaxContains)
    throw GrammarLimitError("contains: more than 4 of them apply together");
  for (unsigned kinds = 0; kinds < 1u << plan.contains.size(); ++kinds) {
    std::vector<int64_t> next = word;
    next[0] = std::min(word[0] + 1, cap);
    int place = at;
    bool fits = true;
    for (size_t k = 0; k < plan.contains.size() && fits; ++k) {
      const Contains& c = plan.contains[k];
      const bool is_counted = c.max != kUnbounded;
      if (kinds >> k & 1) {
        fits = is_counted ? word[1 + k] < c.max : word[1 + k] < c.min;
        ++next[1 + k];
        place = model_.place_with(place, c.node);
      } else if (is_counted) {
        place = model_.place_with(place, model_.node_not(c.node));
      }
    }
    if (fits && !model_.is_empty(place)) out.push_back({std::move(next), place});
  }
  return out;
}

// Whether the array can still end well. Words that are being looked at count as unable.
bool SchemaWriter::may_finish(int id, const std::vector<int64_t>& from) {
  auto& known = finishes_[id];
  if (const auto found = known.find(from); found != known.end()) return found->second;
  std::vector<std::vector<int64_t>> words{from};
  std::map<std::vector<int64_t>, size_t> index{{from, 0}};
  std::vector<std::vector<size_t>> back(1);
  for (size_t i = 0; i < words.size(); ++i) {
    for (auto& [next, place] : contains_steps(arrays_[id], words[i])) {
      const auto [it, is_new] = index.try_emplace(next, words.size());
      if (is_new) words.push_back(next), back.emplace_back();
      back[it->second].push_back(i);
      if (words.size() > kMaxWords) throw GrammarLimitError("contains: more than 20000 counts");
    }
  }
  std::vector<size_t> queue;
  for (size_t i = 0; i < words.size(); ++i) {
    const bool may = may_close(arrays_[id], words[i]);
    known[words[i]] = may;
    if (may) queue.push_back(i);
  }
  while (!queue.empty()) {
    const size_t i = queue.back();
    queue.pop_back();
    for (const size_t j : back[i])
      if (!known[words[j]]) known[words[j]] = true, queue.push_back(j);
  }
  return known[from];
}

std::vector<std::pair<std::vector<int64_t>, ExprPtr>> SchemaWriter::next_elements(
    int id, int depth, const std::vector<int64_t>& word) {
  const ArrayPlan plan = arrays_[id];
  std::vector<std::pair<std::vector<int64_t>, ExprPtr>> out;
  if (plan.values.empty()) {
    for (auto& [next, place] : contains_steps(plan, word))
      if (may_finish(id, next)) out.push_back({next, rule_ref(rule_of_place(place, depth + 1))});
    return out;
  }
  int64_t read = 0;
  for (const int64_t w : word) read += __builtin_popcountll(static_cast<uint64_t>(w));
  if (plan.max != kUnbounded && read >= plan.max) return out;
  for (size_t i = 0; i < plan.values.size(); ++i) {
    if (word[i / 63] >> (i % 63) & 1) continue;
    std::vector<int64_t> next = word;
    next[i / 63] |= int64_t{1} << (i % 63);
    out.push_back({std::move(next), literal(plan.values[i])});
  }
  return out;
}

ExprPtr SchemaWriter::elements_after(int id, int depth, const std::vector<int64_t>& word,
                                     bool is_first) {
  std::vector<ExprPtr> more, out;
  for (auto& [next, item] : next_elements(id, depth, word))
    more.push_back(sequence({item, rule_ref(rule_of(Kind::elements, id, depth, next))}));
  const bool has_lines = model_.options().indent >= 0;
  if (!more.empty()) {
    const ExprPtr before = !is_first    ? comma(depth)
                           : has_lines  ? line(depth + 1)
                           : has_gaps() ? gap()
                                        : literal("");
    out.push_back(sequence({before, choice(std::move(more))}));
  }
  if (may_close(arrays_[id], word))
    out.push_back(is_first && has_lines ? literal("]") : close(']', depth));
  return choice(std::move(out));
}

ExprPtr SchemaWriter::rest_of_array(int rule) {
  const Rule r = rules_[rule];
  return elements_after(r.what, r.depth, r.word, false);
}
}  // namespace lmx::grammar
