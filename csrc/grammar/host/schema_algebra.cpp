// grammar/host/schema_algebra.cpp: intersection, complement, and what belongs to exactly one.
#include <algorithm>
#include <limits>

#include "schema_model.h"

namespace lmx::grammar {
namespace {
constexpr size_t kMaxProducts = 256;  // sets of a type that an intersection makes
constexpr size_t kMaxPairs = 500000;  // of oneOf's branches that are compared

template <typename Set>
void simplify(std::vector<Set>& sets) {  // one that is free holds all others
  for (const Set& set : sets)
    if (set.is_free()) {
      sets = {Set{}};
      return;
    }
}
}  // namespace

NumberSet SchemaModel::intersection(const NumberSet& a, const NumberSet& b) {
  try {
    return lmx::grammar::intersection(a, b);
  } catch (const GrammarLimitError& e) {
    throw Refusal{e.what()};
  }
}

ObjectSet SchemaModel::intersection(const ObjectSet& a, const ObjectSet& b) {
  ObjectSet out = a;
  for (const auto& source : b.sources)
    if (std::find(out.sources.begin(), out.sources.end(), source) == out.sources.end())
      out.sources.push_back(source);
  for (const auto name : b.required)
    if (std::find(out.required.begin(), out.required.end(), name) == out.required.end())
      out.required.push_back(name);
  out.min = std::max(a.min, b.min);
  if (b.max != kUnbounded) out.max = a.max == kUnbounded ? b.max : std::min(a.max, b.max);
  return out;
}

ArraySet SchemaModel::intersection(const ArraySet& a, const ArraySet& b) {
  ArraySet out = a;
  out.sources.insert(out.sources.end(), b.sources.begin(), b.sources.end());
  out.contains.insert(out.contains.end(), b.contains.begin(), b.contains.end());
  out.min = std::max(a.min, b.min);
  if (b.max != kUnbounded) out.max = a.max == kUnbounded ? b.max : std::min(a.max, b.max);
  out.is_unique |= b.is_unique;
  return out;
}

// Objects and arrays are left alone where their emptiness cannot be told yet: it hangs on a schema
// that is being read, or on a place that is being decided.
template <typename Set>
bool SchemaModel::is_known_empty(const Set& set) {
  const int depth = depth_, lowest = lowest_;
  ++num_probes_;
  lowest_ = std::numeric_limits<int>::max();
  bool empty = false;
  try {
    empty = is_empty(set) && lowest_ == std::numeric_limits<int>::max();
  } catch (const Refusal&) {
  } catch (const UnsupportedSchemaError&) {
  }
  --num_probes_;
  depth_ = depth;
  lowest_ = lowest;
  return empty;
}

bool SchemaModel::is_surely_empty(const ObjectSet& set) {
  const auto needed = std::max(set.min, static_cast<int64_t>(set.required.size()));
  return (set.max != kUnbounded && set.max < needed) || is_known_empty(set);
}

bool SchemaModel::is_surely_empty(const ArraySet& set) {
  return (set.max != kUnbounded && set.max < set.min) || is_known_empty(set);
}

template <typename Set>
std::vector<Set> SchemaModel::intersections(const std::vector<Set>& a, const std::vector<Set>& b) {
  if (a.size() == 1 && a[0].is_free()) return b;
  if (b.size() == 1 && b[0].is_free()) return a;
  std::vector<Set> out;
  for (const Set& x : a)
    for (const Set& y : b) {
      Set both = intersection(x, y);
      if (a.size() * b.size() > 1 && is_surely_empty(both)) continue;
      out.push_back(std::move(both));
      if (out.size() > std::max({kMaxProducts, a.size(), b.size()}))
        throw Refusal{"more than 256 combinations of alternatives"};
    }
  return out;
}

Shape SchemaModel::intersection(const Shape& a, const Shape& b) {
  return {a.has_null && b.has_null,
          a.booleans & b.booleans,
          intersections(a.numbers, b.numbers),
          intersections(a.strings, b.strings),
          intersections(a.objects, b.objects),
          intersections(a.arrays, b.arrays)};
}

// ---- complement --------------------------------------------------------------------------------
std::vector<ObjectSet> SchemaModel::complement(const ObjectSet& a) {
  std::vector<ObjectSet> out;
  for (const auto& source : a.sources) {
    if (!source->patterns.empty() || source->additional != kTrueNode)
      throw Refusal{
          "the complement of an object with additionalProperties, patternProperties or "
          "propertyNames is not expressible"};
    for (const auto& [name, node] : source->properties) {
      if (node == kTrueNode) continue;
      auto wrong = std::make_shared<ObjectSource>();
      wrong->is_asserted = false;
      wrong->properties.push_back({name, node_not(node, *current_, current_keyword_)});
      out.push_back({.sources = {wrong}, .required = {name}});
    }
  }
  for (const auto name : a.required) {
    auto absent = std::make_shared<ObjectSource>();
    absent->is_asserted = false;
    absent->properties.push_back({name, kFalseNode});
    out.push_back({.sources = {absent}});
  }
  if (a.min > 0) out.push_back({.max = a.min - 1});
  if (a.max != kUnbounded) out.push_back({.min = a.max + 1});
  return out;
}

std::vector<ArraySet> SchemaModel::complement(const ArraySet& a) {
  std::vector<ArraySet> out;
  if (a.is_unique) throw Refusal{"the complement of uniqueItems is not expressible"};
  for (const ArraySource& source : a.sources) {
    for (size_t i = 0; i < source.prefix.size(); ++i) {
      if (source.prefix[i] == kTrueNode) continue;
      ArraySource wrong{.prefix = std::vector<int>(i + 1, kTrueNode)};
      wrong.prefix[i] = node_not(source.prefix[i], *current_, current_keyword_);
      out.push_back({.sources = {wrong}, .min = static_cast<int64_t>(i) + 1});
    }
    if (source.items == kTrueNode) continue;
    const auto before = static_cast<int64_t>(source.prefix.size());
    if (source.items == kFalseNode)
      out.push_back({.min = before + 1});
    else if (before == 0)
      out.push_back(
          {.contains = {{node_not(source.items, *current_, current_keyword_), 1, kUnbounded}}});
    else
      throw Refusal{"the complement of items after prefixItems is not expressible"};
  }
  for (const Contains& c : a.contains) {
    if (c.min > 0) out.push_back({.contains = {{c.node, 0, c.min - 1}}});
    if (c.max != kUnbounded) out.push_back({.contains = {{c.node, c.max + 1, kUnbounded}}});
  }
  if (a.min > 0) out.push_back({.max = a.min - 1});
  if (a.max != kUnbounded) out.push_back({.min = a.max + 1});
  return out;
}

Shape SchemaModel::complement(const Shape& a) {
  Shape out{!a.has_null, 3 ^ a.booleans, {{}}, {{}}, {{}}, {{}}};
  const auto without = [&](const auto& sets, auto& rest) {
    for (const auto& set : sets) rest = intersections(rest, complement(set));
    simplify(rest);
  };
  without(a.numbers, out.numbers);
  without(a.strings, out.strings);
  without(a.objects, out.objects);
  without(a.arrays, out.arrays);
  return out;
}

// ---- oneOf -------------------------------------------------------------------------------------
template <typename Set>
void SchemaModel::exactly_one_of(const std::vector<Shape>& shapes, std::vector<Set> Shape::* member,
                                 Shape& out) {
  size_t pairs = 0;
  for (size_t i = 0; i < shapes.size(); ++i)
    for (const Set& set : shapes[i].*member) {
      std::vector<Set> rest{set};
      for (size_t j = 0; j < shapes.size() && !rest.empty(); ++j) {
        if (i == j) continue;
        for (const Set& other : shapes[j].*member) {
          if (++pairs > kMaxPairs) throw Refusal{"too many branches to compare"};
          if (is_surely_empty(intersection(set, other))) continue;
          rest = intersections(rest, complement(other));
          std::erase_if(rest, [&](const Set& s) { return is_surely_empty(s); });
        }
      }
      (out.*member).insert((out.*member).end(), rest.begin(), rest.end());
    }
}

Shape SchemaModel::exactly_one(const std::vector<Shape>& shapes) {
  Shape out;
  int nulls = 0, falses = 0, trues = 0;
  std::unordered_map<std::string, int> count;  // of words in finite sets
  for (const Shape& s : shapes) {
    nulls += s.has_null;
    falses += s.booleans & 1;
    trues += s.booleans >> 1;
    std::set<std::string_view> once;
    for (const StringSet& set : s.strings)
      for (const auto& word : set.words)
        if (once.insert(word).second) ++count[word];
  }
  out.has_null = nulls == 1;
  out.booleans = (falses == 1) | (trues == 1) << 1;
  // Words of one list are no longer in another's; so the lists need not be compared.
  std::vector<Shape> rest = shapes;
  StringSet words{.is_finite = true};
  for (Shape& s : rest) {
    std::vector<StringSet> infinite;
    for (StringSet& set : s.strings)
      if (set.is_finite) {
        for (auto& word : set.words)
          if (count[word] == 1) words.words.push_back(word);
      } else {
        infinite.push_back(set);
      }
    s.strings = std::move(infinite);
  }
  std::sort(words.words.begin(), words.words.end());
  words.words.erase(std::unique(words.words.begin(), words.words.end()), words.words.end());
  if (!count.empty()) {
    std::vector<std::string> listed;
    for (const auto& [word, n] : count) listed.push_back(word);
    std::sort(listed.begin(), listed.end());
    std::erase_if(words.words, [&](const std::string& word) {
      return std::any_of(rest.begin(), rest.end(), [&](const Shape& s) {
        return std::any_of(s.strings.begin(), s.strings.end(),
                           [&](const StringSet& set) { return languages_.has(set, word); });
      });
    });
    const StringSet unlisted = languages_.complement({.is_finite = true, .words = listed})[0];
    for (Shape& s : rest)
      for (StringSet& set : s.strings)
        if (std::any_of(listed.begin(), listed.end(),
                        [&](const std::string& word) { return languages_.has(set, word); }))
          set = intersection(set, unlisted);
    if (!words.words.empty()) out.strings.push_back(words);
  }
  exactly_one_of(rest, &Shape::numbers, out);
  exactly_one_of(rest, &Shape::strings, out);
  exactly_one_of(rest, &Shape::objects, out);
  exactly_one_of(rest, &Shape::arrays, out);
  return out;
}
}  // namespace lmx::grammar
