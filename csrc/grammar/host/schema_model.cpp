// grammar/host/schema_model.cpp: nodes, places, emptiness, and plans of objects and arrays.
#include "schema_model.h"

#include <algorithm>
#include <utility>

namespace lmx::grammar {
namespace {
constexpr int kMaxDepth = 5000;         // of required members within one another
constexpr int64_t kMaxWork = 20000000;  // places looked at for emptiness
constexpr size_t kFewNames = 8;
constexpr size_t kMaxValues = 4096;  // of items that must differ
constexpr int kUnset = 1 << 30;

bool says_nothing(std::string_view keyword) {
  static const std::set<std::string_view> kAnnotations{
      "title",         "description", "default",  "examples",        "deprecated",
      "readOnly",      "writeOnly",   "$comment", "contentEncoding", "contentMediaType",
      "contentSchema", "definitions", "$defs",    "$anchor",         "$schema"};
  return kAnnotations.contains(keyword) || keyword.starts_with("x-");
}
}  // namespace

int ObjectSource::find(std::string_view name) const {
  if (!index.empty()) {
    const auto found = index.find(name);
    return found == index.end() ? -1 : found->second;
  }
  for (const auto& [key, node] : properties)
    if (key == name) return node;
  return -1;
}

void ObjectSource::index_names() {
  if (properties.size() > kFewNames)
    for (const auto& [name, node] : properties) index.emplace(name, node);
}

SchemaModel::SchemaModel(std::string_view text, const SchemaOptions& options)
    : options_(options), document_(text, options) {
  nodes_ = {{Node::Kind::everything, nullptr, 0, ""}, {Node::Kind::nothing, nullptr, 0, ""}};
  root_ = place_of({node_of(document_.root())});
}

// ---- nodes -------------------------------------------------------------------------------------
int SchemaModel::node_of(const Json& given) {
  const Json* schema = &given;
  for (int hops = 0; hops < 1000; ++hops) {  // a schema that only refers is what it refers to
    if (schema->is(Json::Kind::boolean)) return schema->truth ? kTrueNode : kFalseNode;
    if (!schema->is(Json::Kind::object)) break;
    if (schema->keys.empty()) return kTrueNode;
    const Json* reference = schema->find("$ref");
    if (!reference || !reference->is(Json::Kind::string)) break;
    const bool is_alone =
        document_.draft() <= 7 ||
        std::all_of(schema->keys.begin(), schema->keys.end(),
                    [](const auto& key) { return key == "$ref" || says_nothing(key); });
    if (!is_alone) break;
    try {
      const Json* target = &document_.resolve(*schema, reference->text);
      if (target == schema) break;
      schema = target;
    } catch (const Refusal&) {  // said where it is read
      break;
    }
  }
  const auto [it, is_new] = node_ids_.try_emplace(schema, static_cast<int>(nodes_.size()));
  if (is_new) nodes_.push_back({Node::Kind::schema, schema, 0, ""});
  return it->second;
}

int SchemaModel::node_of_constant(const Json& value) {
  const auto [it, is_new] = constant_ids_.try_emplace(&value, static_cast<int>(nodes_.size()));
  if (is_new) nodes_.push_back({Node::Kind::constant, &value, 0, ""});
  return it->second;
}

int SchemaModel::node_not(int node, const Json& origin, const char* keyword) {
  if (node == kTrueNode) return kFalseNode;
  if (node == kFalseNode) return kTrueNode;
  if (nodes_[node].kind == Node::Kind::complement) return nodes_[node].target;
  const auto [it, is_new] = complement_ids_.try_emplace({node, 0}, static_cast<int>(nodes_.size()));
  if (is_new) nodes_.push_back({Node::Kind::complement, &origin, node, keyword});
  return it->second;
}

const Shape& SchemaModel::shape_of_node(int n) {
  if (static_cast<size_t>(n) >= node_shapes_.size()) {
    node_shapes_.resize(nodes_.size());
    node_states_.resize(nodes_.size(), State::unknown);
  }
  if (node_states_[n] == State::known) return *node_shapes_[n];
  const Node node = nodes_[n];
  if (node_states_[n] == State::reading) {
    if (num_probes_) throw Refusal{"not known yet"};
    throw UnsatisfiableSchemaError(document_.pointer_to(*node.json) +
                                   ": grammar admits no string: it refers to itself");
  }
  node_states_[n] = State::reading;
  auto shape = std::make_unique<Shape>();
  try {
    switch (node.kind) {
      case Node::Kind::everything: *shape = Shape::all(); break;
      case Node::Kind::nothing: break;
      case Node::Kind::schema: *shape = read(*node.json); break;
      case Node::Kind::constant: *shape = shape_of_constant(*node.json); break;
      case Node::Kind::complement: {
        const Shape of = shape_of_node(node.target);
        const Json* before = std::exchange(current_, node.json);
        const char* before_keyword = std::exchange(current_keyword_, node.keyword);
        try {
          *shape = complement(of);
        } catch (const Refusal& refusal) {
          if (num_probes_) throw;
          drop(*node.json, node.keyword, refusal.reason);
          *shape = Shape::all();
        }
        current_ = before;
        current_keyword_ = before_keyword;
      }
    }
  } catch (...) {
    node_states_[n] = State::unknown;
    throw;
  }
  node_states_[n] = State::known;
  node_shapes_[n] = std::move(shape);
  return *node_shapes_[n];
}

// ---- places ------------------------------------------------------------------------------------
int SchemaModel::place_of(std::vector<int> nodes) {
  std::sort(nodes.begin(), nodes.end());
  nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
  if (nodes.size() > 1 && nodes[0] == kTrueNode) nodes.erase(nodes.begin());
  if (nodes.empty()) nodes = {kTrueNode};
  if (nodes[0] == kFalseNode) nodes = {kFalseNode};
  const auto [it, is_new] =
      place_ids_.try_emplace(std::move(nodes), static_cast<int>(places_.size()));
  if (is_new) {
    places_.push_back(it->first);
    shapes_.emplace_back();
    emptiness_.push_back(0);
    depth_of_.push_back(0);
  }
  return it->second;
}

int SchemaModel::place_with(int place, int node) {
  std::vector<int> nodes = places_[place];
  nodes.push_back(node);
  return place_of(std::move(nodes));
}

const Shape& SchemaModel::shape(int place) {
  const std::vector<int>& nodes = places_[place];
  if (nodes.size() == 1) return shape_of_node(nodes[0]);
  if (!shapes_[place]) {
    const std::vector<int> all = nodes;
    Shape both = shape_of_node(all[0]);
    try {
      for (size_t i = 1; i < all.size(); ++i)
        both = intersection(both, Shape(shape_of_node(all[i])));
    } catch (const Refusal& refusal) {
      if (num_probes_) throw;
      throw UnsupportedSchemaError(name_of_place(place) + ": " + refusal.reason);
    }
    shapes_[place] = std::make_unique<Shape>(std::move(both));
  }
  return *shapes_[place];
}

std::string SchemaModel::name_of_place(int place) const {
  for (const int n : places_[place])
    if (nodes_[n].json) return document_.pointer_to(*nodes_[n].json);
  return "#";
}

int SchemaModel::place_of_member(const ObjectSet& set, std::string_view name) {
  std::vector<int> nodes;
  for (const auto& source : set.sources) {
    bool is_bound = false;
    if (const int node = source->find(name); node >= 0) nodes.push_back(node), is_bound = true;
    for (const auto& [names, node] : source->patterns)
      if (languages_.has(names, name)) nodes.push_back(node), is_bound = true;
    if (!is_bound) nodes.push_back(source->additional);
  }
  return place_of(std::move(nodes));
}

int SchemaModel::place_of_item(const ArraySet& set, size_t i) {
  std::vector<int> nodes;
  for (const auto& source : set.sources)
    nodes.push_back(i < source.prefix.size() ? source.prefix[i] : source.items);
  return place_of(std::move(nodes));
}

// ---- emptiness: the least fixed point, looked for on demand ------------------------------------
// A pending place counts as empty. What was found empty on that assumption is not kept, unless the
// pending place is the one that is being decided.
bool SchemaModel::is_empty(int place) {
  if (emptiness_[place] == 'e') return true;
  if (emptiness_[place] == 'n') return false;
  if (emptiness_[place] == 'p') {
    lowest_ = std::min(lowest_, depth_of_[place]);
    return true;
  }
  if (++work_ > kMaxWork || depth_ >= kMaxDepth)
    throw GrammarLimitError("schema: too many required members within one another");
  const int depth = depth_++, lowest_before = lowest_;
  emptiness_[place] = 'p';
  depth_of_[place] = depth;
  lowest_ = kUnset;
  bool empty = true;
  try {
    const Shape s = shape(place);
    const auto some = [&](const auto& sets) {
      return std::any_of(sets.begin(), sets.end(), [&](const auto& set) {
        if constexpr (std::is_same_v<decltype(set), const StringSet&>)
          return !languages_.is_empty(set);
        else if constexpr (std::is_same_v<decltype(set), const NumberSet&>)
          return !lmx::grammar::is_empty(set);
        else
          return !is_empty(set);
      });
    };
    empty = !s.has_null && !s.booleans && !some(s.numbers) && !some(s.strings) &&
            !some(s.objects) && !some(s.arrays);
  } catch (...) {
    emptiness_[place] = 0;
    --depth_;
    lowest_ = lowest_before;
    throw;
  }
  --depth_;
  if (!empty || lowest_ >= depth) {
    emptiness_[place] = empty ? 'e' : 'n';
    lowest_ = lowest_before;
  } else {
    emptiness_[place] = 0;
    lowest_ = std::min(lowest_, lowest_before);
  }
  return empty;
}

bool SchemaModel::is_empty(const ObjectSet& set) {
  const auto needed = static_cast<int64_t>(set.required.size());
  if (set.max != kUnbounded && (set.max < needed || set.max < set.min)) return true;
  for (const auto name : set.required)
    if (is_empty(place_of_member(set, name))) return true;
  if (set.min <= needed) return false;
  const ObjectPlan p = plan(set);
  return p.others.empty() && static_cast<int64_t>(p.members.size()) < set.min;
}

bool SchemaModel::is_empty(const ArraySet& set) {
  int64_t min = set.min;
  for (const Contains& c : set.contains) min = std::max(min, c.min);
  if (set.max != kUnbounded && min > set.max) return true;
  if (min == 0) return false;
  size_t horizon = 0;
  for (const auto& source : set.sources) horizon = std::max(horizon, source.prefix.size());
  for (size_t i = 0; i <= horizon && static_cast<int64_t>(i) < min; ++i)
    if (is_empty(place_of_item(set, i))) return true;
  for (const Contains& c : set.contains) {
    int64_t fit = 0;
    for (size_t i = 0; i < horizon && fit < c.min; ++i)
      fit += !is_empty(place_with(place_of_item(set, i), c.node));
    if (fit < c.min && is_empty(place_with(place_of_item(set, horizon), c.node))) return true;
  }
  return false;
}

// ---- plans -------------------------------------------------------------------------------------
ObjectPlan SchemaModel::plan(const ObjectSet& set) {
  ObjectPlan out{.min = set.min, .max = set.max};
  std::set<std::string_view> seen;
  std::vector<std::string_view> names;
  const auto declare = [&](std::string_view name) {
    if (seen.insert(name).second) names.push_back(name);
  };
  for (const auto& source : set.sources)
    for (const auto& [name, node] : source->properties) declare(name);
  for (const auto name : set.required) declare(name);
  const std::set<std::string_view> required(set.required.begin(), set.required.end());
  for (const auto name : names)
    if (const int place = place_of_member(set, name); !is_empty(place))
      out.members.push_back({name, place, required.contains(name)});
  out.declared.assign(seen.begin(), seen.end());
  // Further names, by the patterns that they match.
  struct Pattern {
    size_t source;
    int node;
  };
  std::vector<Pattern> patterns;
  std::vector<StringSet> sets;
  bool says_some = false, says_all = false;
  for (size_t s = 0; s < set.sources.size(); ++s) {
    const ObjectSource& source = *set.sources[s];
    for (const auto& [pattern, node] : source.patterns) {
      patterns.push_back({s, node});
      sets.push_back(pattern);
    }
    says_some |= source.is_asserted && (!source.properties.empty() || !source.patterns.empty());
    says_all |= source.covers_all;
  }
  const bool is_closed = options_.strict && says_some && !says_all;
  std::vector<std::vector<int>> kinds{{}};
  if (sets.size() == 1)
    kinds.push_back({0});
  else if (!sets.empty())
    kinds = languages_.combinations(sets);
  for (const auto& kind : kinds) {
    std::vector<int> nodes;
    std::vector<bool> is_bound(set.sources.size());
    for (const int k : kind) nodes.push_back(patterns[k].node), is_bound[patterns[k].source] = true;
    for (size_t s = 0; s < set.sources.size(); ++s)
      if (!is_bound[s]) nodes.push_back(set.sources[s]->additional);
    const int place = place_of(std::move(nodes));
    if ((is_closed && kind.empty()) || is_empty(place)) continue;
    StringSet of;
    for (const int k : kind) of = languages_.intersection(of, sets[k]);
    for (size_t k = 0; k < sets.size(); ++k)
      if (std::find(kind.begin(), kind.end(), static_cast<int>(k)) == kind.end()) {
        const auto without = languages_.complement(sets[k]);
        of = languages_.intersection(of,
                                     without.empty() ? StringSet{.is_finite = true} : without[0]);
      }
    const bool is_any = of.is_free();
    if (!is_any && std::any_of(out.declared.begin(), out.declared.end(),
                               [&](const auto& name) { return languages_.has(of, name); }))
      of = languages_.intersection(
          of, languages_.complement({.is_finite = true, .words = out.declared})[0]);
    if (!languages_.is_empty(of)) out.others.push_back({is_any, std::move(of), place});
  }
  return out;
}

ArrayPlan SchemaModel::plan(const ArraySet& set) {
  ArrayPlan out{
      .contains = set.contains, .min = set.min, .max = set.max, .is_unique = set.is_unique};
  size_t horizon = 0;
  bool says_some = false, says_all = false;
  for (const auto& source : set.sources) {
    horizon = std::max(horizon, source.prefix.size());
    says_some |= !source.prefix.empty();
    says_all |= source.covers_all;
  }
  for (size_t i = 0; i < horizon; ++i) {
    const int place = place_of_item(set, i);
    if (is_empty(place) || (out.max != kUnbounded && static_cast<int64_t>(i) >= out.max)) {
      out.max = static_cast<int64_t>(i);
      return out;
    }
    out.prefix.push_back(place);
  }
  if (set.is_unique && (set.max == kUnbounded || set.max > 1)) find_values(set, horizon, out);
  const int items = place_of_item(set, horizon);
  if (!is_empty(items) && !(options_.strict && says_some && !says_all))
    out.items = items;
  else if (out.max == kUnbounded || out.max > static_cast<int64_t>(horizon))
    out.max = static_cast<int64_t>(horizon);
  return out;
}

// Items that must differ are counted off a list of all values, which has to be finite.
void SchemaModel::find_values(const ArraySet& set, size_t horizon, ArrayPlan& out) {
  const int place = place_of_item(set, horizon);
  const Shape s = shape(place);
  std::set<std::string> texts;
  bool is_finite = s.objects.empty() && s.arrays.empty() && horizon == 0 && set.contains.empty();
  if (s.has_null) texts.insert("null");
  if (s.booleans & 1) texts.insert("false");
  if (s.booleans & 2) texts.insert("true");
  for (const NumberSet& n : s.numbers) {
    is_finite &= n.is_finite;
    for (const auto& value : n.values) texts.insert(value.value.text());
  }
  for (const StringSet& strings : s.strings) {
    is_finite &= strings.is_finite;
    for (const auto& word : strings.words) texts.insert(json_quoted(word));
  }
  if (!is_finite || texts.size() > kMaxValues)
    throw Refusal{"items that must differ have to be of a list of at most 4096 values"};
  out.values.assign(texts.begin(), texts.end());
  const auto most = static_cast<int64_t>(out.values.size());
  if (out.max == kUnbounded || out.max > most) out.max = most;
}

// Without uniqueItems or contains where they cannot be honoured, if lenient.
ArrayPlan SchemaModel::plan_or_drop(int place, const ArraySet& set) {
  try {
    return plan(set);
  } catch (const Refusal& refusal) {
    const std::string message = name_of_place(place) + "/uniqueItems: " + refusal.reason;
    if (!options_.lenient) throw UnsupportedSchemaError(message);
    if (std::find(dropped_.begin(), dropped_.end(), message) == dropped_.end()) {
      dropped_.push_back(message);
      warnings_.push_back(message + "; ignored");
    }
    ArraySet rest = set;
    rest.is_unique = false;
    return plan(rest);
  }
}

// ---- all that an instance can reach ------------------------------------------------------------
std::vector<int> SchemaModel::places_below(int place) {
  std::vector<int> out;
  const Shape s = shape(place);
  for (const ObjectSet& set : s.objects) {
    if (set.is_free() || is_empty(set)) continue;
    const ObjectPlan p = plan(set);
    for (const auto& member : p.members) out.push_back(member.place);
    for (const auto& others : p.others) out.push_back(others.place);
  }
  for (const ArraySet& given : s.arrays) {
    if (given.is_free() || is_empty(given)) continue;
    const ArrayPlan p = plan_or_drop(place, given);
    out.insert(out.end(), p.prefix.begin(), p.prefix.end());
    if (p.items >= 0) out.push_back(p.items);
  }
  return out;
}

void SchemaModel::check_all() {
  if (is_empty(root_)) {
    if (!dropped_.empty()) throw UnsatisfiableSchemaError("#: grammar admits no string");
    throw UnsatisfiableSchemaError(name_of_place(root_) +
                                   ": grammar admits no string: no value fits the schema");
  }
  std::vector<bool> seen(places_.size());
  std::vector<int> queue{root_};
  seen[root_] = true;
  for (size_t i = 0; i < queue.size(); ++i)
    for (const int place : places_below(queue[i])) {
      if (static_cast<size_t>(place) >= seen.size()) seen.resize(places_.size());
      if (!seen[place]) seen[place] = true, queue.push_back(place);
    }
}
}  // namespace lmx::grammar
