// grammar/host/schema_objects.cpp: objects. In the schema's order, and without counts, an object is
// one automaton over its members; else what has been read is a word of numbers, and each word has
// a rule of its own, made when it is reached.
#include <algorithm>

#include "schema_emit.h"

namespace lmx::grammar {
ExprPtr SchemaWriter::object(const ObjectSet& set, int depth) {
  const bool any_order = model_.options().any_order;
  const int id = static_cast<int>(objects_.size());
  objects_.emplace_back();
  Object made;
  made.plan = model_.plan(set);
  const ObjectPlan& plan = made.plan;
  for (const auto& m : plan.members) {
    made.keys.push_back(
        sequence({literal("\""), json_literal(m.name, model_.options().every_escape), literal("\""),
                  colon()}));
    made.num_required += m.is_required;
  }
  for (const auto& o : plan.others) {
    ExprPtr name;
    if (!o.is_any)
      name = string(o.names);
    else if (plan.declared.empty())
      name = rule_ref(kString);
    else
      name = sequence({literal("\""), machine(other_string_machine(plan.declared))});
    made.others.push_back(sequence({name, colon()}));
  }
  const auto num_members = static_cast<int64_t>(plan.members.size());
  const bool has_min = plan.min > made.num_required;
  const bool has_max = plan.max != kUnbounded && (!plan.others.empty() || plan.max < num_members);
  made.is_counted = has_min || has_max;
  const bool is_shuffled = any_order && num_members + !plan.others.empty() > 1;
  const bool is_simple = !made.is_counted && !is_shuffled;
  objects_[id] = std::move(made);
  if (is_simple) return object_in_order(id, depth);
  std::vector<int64_t> word(any_order ? 1 + (num_members + 62) / 63 : 2, 0);
  return sequence({literal("{"), members_after(id, depth, word, true)});
}

ExprPtr SchemaWriter::member(const Object& object, size_t i, int depth) {
  return sequence(
      {object.keys[i], rule_ref(rule_of_place(object.plan.members[i].place, depth + 1))});
}
ExprPtr SchemaWriter::other(const Object& object, size_t i, int depth) {
  return sequence(
      {object.others[i], rule_ref(rule_of_place(object.plan.others[i].place, depth + 1))});
}

// States: nothing read and member i next (A), something read and member i next (B), after a comma
// (C). X is where member i begins, whichever way it was reached.
ExprPtr SchemaWriter::object_in_order(int id, int depth) {
  const Object object = objects_[id];
  const auto n = static_cast<int>(object.plan.members.size());
  const bool has_others = !object.others.empty();
  std::vector<ExprPtr> parts;
  std::vector<Expr::Link> links;
  const auto add = [&](int from, int to, ExprPtr part) {
    parts.push_back(std::move(part));
    links.push_back({from, to});
  };
  const auto a = [&](int i) { return 2 + 4 * i; };
  const auto b = [&](int i) { return 3 + 4 * i; };
  const auto c = [&](int i) { return 4 + 4 * i; };
  const auto x = [&](int i) { return 5 + 4 * i; };
  const ExprPtr nothing = literal(""), separator = comma(depth), end = close('}', depth);
  int last_required = -1;
  for (int i = 0; i < n; ++i)
    if (object.plan.members[i].is_required) last_required = i;
  add(0, a(0), open('{', depth));
  if (last_required < 0)
    add(0, 1, has_gaps() ? sequence({literal("{"), gap(), literal("}")}) : literal("{}"));
  for (int i = 0; i < n; ++i) {
    add(a(i), x(i), nothing);
    add(c(i), x(i), nothing);
    add(x(i), b(i + 1), member(object, i, depth));
    if (!object.plan.members[i].is_required)
      add(a(i), a(i + 1), nothing), add(c(i), c(i + 1), nothing);
  }
  for (int i = 1; i <= n; ++i) {
    if (i < n || has_others) add(b(i), c(i), separator);
    if (last_required < i) add(b(i), 1, end);
  }
  if (has_others) {
    if (n == 0) add(b(0), c(0), separator), add(b(0), 1, end);
    add(a(n), x(n), nothing);
    add(c(n), x(n), nothing);
    for (size_t i = 0; i < object.others.size(); ++i) add(x(n), b(n), other(object, i, depth));
  }
  return graph(std::move(parts), std::move(links));
}

// ---- words -------------------------------------------------------------------------------------
// In the schema's order: the next member, and how many were read. In any order: how many further
// ones were read, and which members, 63 to a number.
ExprPtr SchemaWriter::members_after(int id, int depth, const std::vector<int64_t>& word,
                                    bool is_first) {
  const Object object = objects_[id];
  const ObjectPlan& plan = object.plan;
  const bool any_order = model_.options().any_order;
  const auto n = static_cast<int64_t>(plan.members.size());
  const auto is_read = [&](int64_t i) {
    return any_order ? (word[1 + i / 63] >> (i % 63) & 1) != 0 : i < word[0];
  };
  int64_t read = any_order ? word[0] : word[1], missing = 0, left = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (any_order) read += is_read(i);
    if (is_read(i)) continue;
    ++left;
    missing += plan.members[i].is_required;
  }
  const int64_t cap = plan.max == kUnbounded ? plan.min : plan.max + 1;  // more make no difference
  const auto fits = [&](int64_t total, int64_t still_missing, int64_t still_left) {
    if (plan.max != kUnbounded && total + still_missing > plan.max) return false;
    return !object.others.empty() || total + still_left >= plan.min;
  };
  std::vector<ExprPtr> more, out;
  const auto go_on = [&](ExprPtr part, std::vector<int64_t> next) {
    const int rule = rule_of(Kind::members, id, depth, std::move(next));
    more.push_back(sequence({std::move(part), rule_ref(rule)}));
  };
  for (int64_t i = 0, skipped = 0; i < n; ++i) {
    if (is_read(i)) continue;
    const bool is_required = plan.members[i].is_required;
    const int64_t still_left = any_order ? left - 1 : n - i - 1;
    if (fits(read + 1, missing - is_required, still_left)) {
      std::vector<int64_t> next = word;
      if (any_order)
        next[1 + i / 63] |= int64_t{1} << (i % 63);
      else
        next = {i + 1, std::min(read + 1, cap)};
      go_on(member(object, static_cast<size_t>(i), depth), std::move(next));
    }
    skipped += is_required;
    if (!any_order && skipped) break;
  }
  if (!object.others.empty() && (any_order || missing == 0) && fits(read + 1, missing, left)) {
    std::vector<int64_t> next = word;
    if (any_order)
      next[0] = object.is_counted ? std::min(next[0] + 1, cap) : 0;
    else
      next = {n, std::min(read + 1, cap)};
    for (size_t i = 0; i < object.others.size(); ++i) go_on(other(object, i, depth), next);
  }
  if (!more.empty()) {
    const ExprPtr before = is_first ? (model_.options().indent >= 0 ? line(depth + 1)
                                       : has_gaps()                 ? gap()
                                                                    : literal(""))
                                    : comma(depth);
    out.push_back(sequence({before, choice(std::move(more))}));
  }
  if (missing == 0 && read >= plan.min) {
    const bool is_bare = is_first && model_.options().indent >= 0;
    out.push_back(is_bare ? literal("}") : close('}', depth));
  }
  return choice(std::move(out));
}

ExprPtr SchemaWriter::rest_of_object(int rule) {
  const Rule r = rules_[rule];
  return members_after(r.what, r.depth, r.word, false);
}
}  // namespace lmx::grammar
