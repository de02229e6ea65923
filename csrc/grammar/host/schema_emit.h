// grammar/host/schema_emit.h: rules of a schema, one per place of an instance, made on demand.
#pragma once
#include <map>
#include <mutex>

#include "lazy.h"
#include "schema_model.h"

namespace lmx::grammar {
// Numbers rules and writes their bodies. The first rules are the same for every schema.
class SchemaWriter {
 public:
  enum Common { kGap, kString, kChar, kInteger, kNumber, kNumCommon };
  // What a rule is: a value; or the rest of an object or array, where what has been read matters.
  enum class Kind { common, value, members, elements };

  explicit SchemaWriter(SchemaModel& model);
  int root() { return rule_of_place(model_.root(), 0); }
  size_t num_rules() const { return rules_.size(); }
  Kind kind(int rule) const { return rules_[rule].kind; }
  std::string name(int rule) const;
  ExprPtr body(int rule);

 private:
  struct Rule {
    Kind kind;
    int what;   // a place; an object or array by number
    int depth;  // of lines, if there are any
    std::vector<int64_t> word;
  };
  int rule_of_place(int place, int depth);
  int rule_of(Kind kind, int what, int depth, std::vector<int64_t> word);
  ExprPtr value(int place, int depth);
  ExprPtr common(int rule) const;
  ExprPtr number(const NumberSet& set) const;
  ExprPtr string(const StringSet& set);

  // ---- layout
  ExprPtr open(char bracket, int depth) const;  // and what comes before the first member
  ExprPtr comma(int depth) const;
  ExprPtr colon() const;
  ExprPtr close(char bracket, int depth) const;  // after a member
  ExprPtr gap() const { return rule_ref(kGap); }
  ExprPtr line(int depth) const;
  bool has_gaps() const { return model_.options().indent < 0 && !model_.options().gap.empty(); }

  // ---- objects (schema_objects.cpp)
  struct Object {
    ObjectPlan plan;
    std::vector<ExprPtr> keys;  // of members: with colon; and of others
    std::vector<ExprPtr> others;
    int64_t num_required = 0;
    bool is_counted = false;
  };
  ExprPtr object(const ObjectSet& set, int depth);
  ExprPtr object_in_order(int id, int depth);
  ExprPtr member(const Object& object, size_t i, int depth);
  ExprPtr other(const Object& object, size_t i, int depth);
  ExprPtr members_after(int id, int depth, const std::vector<int64_t>& word, bool is_first);
  ExprPtr rest_of_object(int rule);

  // ---- arrays (schema_arrays.cpp)
  ExprPtr array(const ArraySet& set, int place, int depth);
  ExprPtr array_in_order(const ArrayPlan& plan, int depth);
  ExprPtr elements_after(int id, int depth, const std::vector<int64_t>& word, bool is_first);
  std::vector<std::pair<std::vector<int64_t>, ExprPtr>> next_elements(
      int id, int depth, const std::vector<int64_t>& word);
  std::vector<std::pair<std::vector<int64_t>, int>> contains_steps(
      const ArrayPlan& plan, const std::vector<int64_t>& word);
  bool may_close(const ArrayPlan& plan, const std::vector<int64_t>& word) const;
  bool may_finish(int id, const std::vector<int64_t>& word);
  ExprPtr rest_of_array(int rule);

  SchemaModel& model_;
  std::vector<Rule> rules_;
  std::map<std::tuple<Kind, int, int, std::vector<int64_t>>, int> ids_;
  std::vector<Object> objects_;
  std::vector<ArrayPlan> arrays_;
  std::vector<std::map<std::vector<int64_t>, bool>> finishes_;  // by array
};
}  // namespace lmx::grammar
