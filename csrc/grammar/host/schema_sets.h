// grammar/host/schema_sets.h: sets of JSON values, kept apart by type.
//
// Of each type a set is a union of conjunctions. So union and intersection are taken type by type,
// and so is the complement, where it can be expressed. Children are not looked into: they are
// numbers of nodes of the model.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "decimal.h"
#include "grammar.h"

namespace lmx::grammar {
constexpr int kTrueNode = 0, kFalseNode = 1;  // every value, no value

struct Bound {
  Decimal value;
  bool is_open;
  bool operator==(const Bound&) const = default;
};

struct NumberSet {
  struct Value {
    Decimal value;
    std::string text;  // as the schema writes it
    bool operator==(const Value&) const = default;
  };
  bool is_finite = false;
  std::vector<Value> values{};  // if it is finite; nothing else counts then
  std::optional<Bound> low{}, high{};
  Scaled multiple{0, 0};  // mantissa 0: none; integers are multiples of 1
  std::vector<Scaled> not_multiples{};

  bool is_free() const {
    return !is_finite && !low && !high && !multiple.mantissa && not_multiples.empty();
  }
  bool is_integer() const { return multiple.mantissa && multiple.scale == 0; }
  bool has(const Decimal& d) const;
};

struct StringSet {
  bool is_finite = false;
  std::vector<std::string> words{};  // sorted; nothing else counts then
  std::vector<int> in{}, out{};      // languages; sorted
  int64_t min = 0, max = kUnbounded;
  bool is_free() const {
    return !is_finite && in.empty() && out.empty() && min == 0 && max == kUnbounded;
  }
};

// What one schema object says of members. A name is bound by properties and patterns that match it,
// or else by `additional`.
struct ObjectSource {
  std::vector<std::pair<std::string_view, int>> properties;  // name, node
  std::unordered_map<std::string_view, int> index;           // by name, if there are many
  std::vector<std::pair<StringSet, int>> patterns;           // names, node
  int additional = kTrueNode;
  bool covers_all = false;                // for unevaluatedProperties: additional was given
  bool is_asserted = true;                // false: of a complement, which evaluates nothing
  int find(std::string_view name) const;  // -1: not among the properties
  void index_names();
};
using ObjectSourcePtr = std::shared_ptr<const ObjectSource>;

struct ObjectSet {
  std::vector<ObjectSourcePtr> sources{};
  std::vector<std::string_view> required{};
  int64_t min = 0, max = kUnbounded;
  bool is_free() const {
    return sources.empty() && required.empty() && min == 0 && max == kUnbounded;
  }
};

struct ArraySource {
  std::vector<int> prefix{};
  int items = kTrueNode;
  bool covers_all = false;
};
struct Contains {
  int node;
  int64_t min, max;
};
struct ArraySet {
  std::vector<ArraySource> sources{};
  std::vector<Contains> contains{};
  int64_t min = 0, max = kUnbounded;
  bool is_unique = false;
  bool is_free() const {
    return sources.empty() && contains.empty() && min == 0 && max == kUnbounded && !is_unique;
  }
};

struct Shape {
  bool has_null = false;
  unsigned booleans = 0;  // bit 0: false, bit 1: true
  std::vector<NumberSet> numbers{};
  std::vector<StringSet> strings{};
  std::vector<ObjectSet> objects{};
  std::vector<ArraySet> arrays{};

  static Shape all() { return {true, 3, {{}}, {{}}, {{}}, {{}}}; }
  bool says_nothing() const {  // of no type is there a member
    return !has_null && !booleans && numbers.empty() && strings.empty() && objects.empty() &&
           arrays.empty();
  }
};

// ---- numbers (schema_numbers.cpp) --------------------------------------------------------------
constexpr int64_t kMaxMultiple = 1000000;
NumberSet intersection(const NumberSet& a, const NumberSet& b);
std::vector<NumberSet> complement(const NumberSet& a);
bool is_empty(const NumberSet& a);
// Its spellings. Not for one that is empty or free.
std::shared_ptr<ByteMachine> number_machine(const NumberSet& a, bool integer_fraction);
}  // namespace lmx::grammar
