// grammar/host/schema_model.h: which values may stand at a place of an instance.
//
// A node is a schema, a constant, or what a schema is not; a place is a set of nodes that all
// apply. Places are found by their nodes, so that schemas that refer to themselves have finitely
// many.
#pragma once
#include <map>
#include <set>

#include "schema_document.h"
#include "schema_sets.h"
#include "schema_strings.h"

namespace lmx::grammar {
// What an object's text is made of: members that may be there, in order, and further ones.
struct ObjectPlan {
  struct Member {
    std::string_view name;
    int place;
    bool is_required;
  };
  struct Others {
    bool is_any;      // any name but the declared ones; else `names`
    StringSet names;  // without those
    int place;
  };
  std::vector<Member> members{};
  std::vector<Others> others{};
  std::vector<std::string> declared{};  // sorted: no further name is one of these
  int64_t min = 0, max = kUnbounded;
};

struct ArrayPlan {
  std::vector<int> prefix{};  // places
  int items = -1;             // of what follows; -1: nothing may
  std::vector<Contains> contains{};
  int64_t min = 0, max = kUnbounded;
  bool is_unique = false;
  std::vector<std::string> values{};  // of items that must differ: all there are, as JSON
  int place_at(int64_t i) const {
    return i < static_cast<int64_t>(prefix.size()) ? prefix[static_cast<size_t>(i)] : items;
  }
};

class SchemaModel {
 public:
  SchemaModel(std::string_view text, const SchemaOptions& options);

  const SchemaOptions& options() const { return options_; }
  const std::vector<std::string>& warnings() const { return warnings_; }
  const std::vector<std::string>& dropped() const { return dropped_; }  // if lenient
  Languages& languages() { return languages_; }
  int root() const { return root_; }

  const Shape& shape(int place);  // as written: parts may be empty
  bool is_empty(int place);
  bool is_empty(const ObjectSet& set);
  bool is_empty(const ArraySet& set);
  ObjectPlan plan(const ObjectSet& set);
  ArrayPlan plan(const ArraySet& set);  // throws Refusal
  ArrayPlan plan_or_drop(int place, const ArraySet& set);
  int place_with(int place, int node);  // where a node applies too
  int node_not(int node, const Json& origin, const char* keyword);
  int node_not(int node) { return node_not(node, document_.root(), "maxContains"); }
  std::string name_of_place(int place) const;
  // Reads every schema that an instance can reach.
  void check_all();

 private:
  struct Node {
    enum class Kind { everything, nothing, schema, constant, complement };
    Kind kind;
    const Json* json;     // of a complement: where it was asked for
    int target;           // of a complement
    const char* keyword;  // likewise
  };
  enum class State : char { unknown, reading, known };

  // ---- nodes and places
  int node_of(const Json& schema);
  int node_of_constant(const Json& value);
  int place_of(std::vector<int> nodes);
  int place_of_member(const ObjectSet& set, std::string_view name);
  int place_of_item(const ArraySet& set, size_t i);
  const Shape& shape_of_node(int node);
  std::vector<int> places_below(int place);
  void find_values(const ArraySet& set, size_t horizon, ArrayPlan& out);

  // ---- sets (schema_algebra.cpp)
  Shape intersection(const Shape& a, const Shape& b);
  Shape complement(const Shape& a);
  Shape exactly_one(const std::vector<Shape>& shapes);
  template <typename Set>
  void exactly_one_of(const std::vector<Shape>& shapes, std::vector<Set> Shape::* member,
                      Shape& out);
  template <typename Set>
  std::vector<Set> intersections(const std::vector<Set>& a, const std::vector<Set>& b);
  ObjectSet intersection(const ObjectSet& a, const ObjectSet& b);
  ArraySet intersection(const ArraySet& a, const ArraySet& b);
  StringSet intersection(const StringSet& a, const StringSet& b) {
    return languages_.intersection(a, b);
  }
  NumberSet intersection(const NumberSet& a, const NumberSet& b);
  std::vector<ObjectSet> complement(const ObjectSet& a);
  std::vector<ArraySet> complement(const ArraySet& a);
  std::vector<StringSet> complement(const StringSet& a) { return languages_.complement(a); }
  std::vector<NumberSet> complement(const NumberSet& a) { return lmx::grammar::complement(a); }
  bool is_surely_empty(const StringSet& a) { return languages_.is_empty(a); }
  bool is_surely_empty(const NumberSet& a) { return lmx::grammar::is_empty(a); }
  bool is_surely_empty(const ObjectSet& a);
  bool is_surely_empty(const ArraySet& a);
  template <typename Set>
  bool is_known_empty(const Set& set);

  // ---- keywords (schema_read.cpp)
  class Reader;
  friend class Reader;
  Shape read(const Json& schema);
  Shape shape_of_constant(const Json& value);
  void drop(const Json& schema, const std::string& keyword, const std::string& reason);
  void warn(const Json& schema, const std::string& keyword, const std::string& reason);

  SchemaOptions options_;
  SchemaDocument document_;
  Languages languages_;
  std::vector<std::string> warnings_, dropped_;
  std::set<std::pair<const Json*, std::string>> warned_;
  std::vector<Node> nodes_;
  std::unordered_map<const Json*, int> node_ids_, constant_ids_;
  std::map<std::pair<int, int>, int> complement_ids_;
  std::vector<std::unique_ptr<Shape>> node_shapes_;
  std::vector<State> node_states_;
  std::map<std::vector<int>, int> place_ids_;
  std::vector<std::vector<int>> places_;
  std::vector<std::unique_ptr<Shape>> shapes_;  // by place; null: not known, or its one node's
  // Of is_empty: by place, 'e'mpty, 'n'ot empty, 'p'ending or 0; and where pending ones began.
  std::vector<char> emptiness_;
  std::vector<int> depth_of_;
  int depth_ = 0, lowest_ = 0;
  int64_t work_ = 0;
  int num_probes_ = 0;
  const Json* current_ = nullptr;
  const char* current_keyword_ = "not";
  int root_ = 0;
};
}  // namespace lmx::grammar
