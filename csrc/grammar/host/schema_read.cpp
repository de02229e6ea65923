// grammar/host/schema_read.cpp: keywords. What a schema object says of its own is one set per type;
// references and combinations of other schemas are intersected with it, in the order of the text.
#include <algorithm>

#include "schema_keywords.h"
#include "schema_model.h"

namespace lmx::grammar {
namespace {
using JsonKind = Json::Kind;

enum TypeBit {
  kNull = 1,
  kBoolean = 2,
  kNumber = 4,
  kInteger = 8,
  kString = 16,
  kObject = 32,
  kArray = 64
};
constexpr unsigned kAllTypes = 127;
constexpr size_t kMaxWarnings = 100;  // of what is ignored; finding a pointer takes a while
constexpr size_t kMaxBranchSets = 6;  // branches of anyOf beside unevaluated..., taken in every set
}  // namespace

// Of one schema object.
class SchemaModel::Reader {
 public:
  Reader(SchemaModel& model, const Json& schema)
      : m_(model), s_(schema), object_(std::make_shared<ObjectSource>()) {}

  Shape read() {
    if (!s_.is(JsonKind::object))
      throw UnsupportedSchemaError(m_.document_.pointer_to(s_) +
                                   ": expected a schema, an object or a boolean, got " +
                                   name_of(s_.kind));
    const Json* reference = s_.find("$ref");
    const bool is_alone = reference && m_.document_.draft() <= 7;  // its siblings do not count
    has_unevaluated_ = s_.find("unevaluatedProperties") || s_.find("unevaluatedItems");
    for (size_t i = 0; i < s_.keys.size(); ++i) {
      const auto found = kKeywords.find(s_.keys[i]);
      const Keyword k = found == kKeywords.end() ? Keyword::annotation : found->second;
      if (is_alone && k != Keyword::reference) continue;
      if (found == kKeywords.end() && !s_.keys[i].starts_with("x-"))
        m_.warn(s_, s_.keys[i], "unknown keyword, ignored");
      if (k == Keyword::annotation) continue;
      try {
        apply(k, s_.items[i]);
      } catch (const Refusal& refusal) {
        if (m_.num_probes_) throw;
        m_.drop(s_, s_.keys[i], refusal.reason);
      }
    }
    Shape out = std::move(before_);
    if (has_before_)
      combine(out, own());
    else
      out = own();
    for (const Shape& part : after_) combine(out, part);
    if (has_unevaluated_) apply_unevaluated(out);
    return out;
  }

 private:
  // ---- values of keywords ----------------------------------------------------------------------
  static void expect(const Json& value, JsonKind kind, const char* what) {
    if (!value.is(kind))
      throw Refusal{std::string("expected ") + what + ", got " + name_of(value.kind)};
  }
  static int64_t count(const Json& value) {
    expect(value, JsonKind::number, "a non-negative integer");
    const Decimal d = parse_decimal(value.text);
    if (d.is_negative || !d.is_integer())
      throw Refusal{"expected a non-negative integer, got " + value.text};
    if (d.whole().size() > 9) return 2147483647;
    return std::stoll(d.whole());
  }
  static Decimal number(const Json& value) {
    expect(value, JsonKind::number, "a number");
    try {
      return parse_decimal(value.text);
    } catch (const GrammarLimitError& e) {
      throw Refusal{e.what()};
    }
  }
  static const std::vector<Json>& schemas(const Json& value) {
    expect(value, JsonKind::array, "an array of schemas");
    if (value.items.empty()) throw Refusal{"expected at least one schema"};
    return value.items;
  }
  std::vector<std::string_view> names(const Json& value) const {
    expect(value, JsonKind::array, "an array of strings");
    std::vector<std::string_view> out;
    for (const Json& name : value.items) {
      expect(name, JsonKind::string, "an array of strings");
      if (std::find(out.begin(), out.end(), name.text) == out.end()) out.push_back(name.text);
    }
    return out;
  }
  int node(const Json& schema) const {
    if (!schema.is(JsonKind::object) && !schema.is(JsonKind::boolean))
      throw Refusal{std::string("expected a schema, an object or a boolean, got ") +
                    name_of(schema.kind)};
    return m_.node_of(schema);
  }
  // Of a schema that applies to the same value.
  Shape in_place(const Json& schema) { return m_.shape_of_node(node(schema)); }

  // ---- keywords --------------------------------------------------------------------------------
  void apply(Keyword k, const Json& v) {
    switch (k) {
      case Keyword::type: return apply_type(v);
      case Keyword::constant: return add(m_.shape_of_constant(v));
      case Keyword::enumeration: return apply_enum(v);
      case Keyword::format: return apply_format(v);
      case Keyword::pattern: return apply_pattern(v);
      case Keyword::min_length: string_.min = std::max(string_.min, count(v)); return;
      case Keyword::max_length: string_.max = count(v); return;
      case Keyword::minimum:
      case Keyword::maximum: return apply_bound(v, k == Keyword::minimum, false);
      case Keyword::exclusive_minimum:
      case Keyword::exclusive_maximum: {
        const bool is_low = k == Keyword::exclusive_minimum;
        if (!v.is(JsonKind::boolean)) return apply_bound(v, is_low, true);
        auto& bound = is_low ? number_.low : number_.high;
        const Json* value = s_.find(is_low ? "minimum" : "maximum");
        if (v.truth && value) bound = Bound{number(*value), true};
        return;
      }
      case Keyword::multiple_of: {
        const Decimal m = number(v);
        if (m.is_negative || m.is_zero())
          throw Refusal{"expected a positive number, got " + v.text};
        NumberSet of;
        try {
          of.multiple = scaled(m, kMaxMultiple);
        } catch (const GrammarLimitError& e) {
          throw Refusal{e.what()};
        }
        number_ = m_.intersection(number_, of);
        return;
      }
      case Keyword::all_of:
        for (const Json& schema : schemas(v)) add(in_place(schema));
        return;
      case Keyword::any_of: return apply_any_of(v);
      case Keyword::one_of: {
        std::vector<Shape> shapes;
        for (const Json& schema : schemas(v)) shapes.push_back(in_place(schema));
        const Origin here(m_, s_, "oneOf");
        try {
          return add(m_.exactly_one(shapes));
        } catch (const Refusal& refusal) {
          if (m_.options_.lenient) {
            Shape any;
            for (const Shape& s : shapes) unite(any, s);
            add(any);
          }
          throw Refusal{"its branches overlap, and " + refusal.reason};
        }
      }
      case Keyword::negation: {
        const Origin here(m_, s_, "not");
        return add(m_.complement(in_place(v)));
      }
      case Keyword::condition: return apply_condition(v);
      case Keyword::reference:
      case Keyword::dynamic_reference:
      case Keyword::recursive_reference: {
        expect(v, JsonKind::string, "a string");
        const auto& d = m_.document_;
        return add(m_.shape_of_node(m_.node_of(k == Keyword::reference ? d.resolve(s_, v.text)
                                               : k == Keyword::dynamic_reference
                                                   ? d.resolve_dynamic(s_, v.text)
                                                   : d.resolve_recursive(s_, v.text))));
      }
      default:
        return k >= Keyword::items && k <= Keyword::contains ? apply_array(k, v)
                                                             : apply_object(k, v);
    }
  }

  void apply_type(const Json& v) {
    static const std::unordered_map<std::string_view, unsigned> kTypes{
        {"null", kNull},       {"boolean", kBoolean}, {"number", kNumber | kInteger},
        {"integer", kInteger}, {"string", kString},   {"object", kObject},
        {"array", kArray}};
    unsigned types = 0;
    const auto take = [&](const Json& name) {
      expect(name, JsonKind::string, "the name of a type");
      const auto found = kTypes.find(name.text);
      if (found == kTypes.end()) {
        if (name.text == "any" && m_.document_.draft() == 4) return void(types = kAllTypes);
        throw Refusal{"unknown type \"" + name.text + "\""};
      }
      types |= found->second;
    };
    if (v.is(JsonKind::array))
      for (const Json& name : v.items) take(name);
    else
      take(v);
    types_ &= types;
  }

  void apply_enum(const Json& v) {
    expect(v, JsonKind::array, "an array");
    Shape any;
    StringSet words{.is_finite = true};
    NumberSet values{.is_finite = true};
    for (const Json& value : v.items) {
      if (value.is(JsonKind::string)) {
        words.words.push_back(value.text);
        continue;
      }
      Shape one = m_.shape_of_constant(value);
      if (value.is(JsonKind::number)) {
        if (!values.has(one.numbers[0].values[0].value))
          values.values.push_back(one.numbers[0].values[0]);
        continue;
      }
      unite(any, one);
    }
    std::sort(words.words.begin(), words.words.end());
    words.words.erase(std::unique(words.words.begin(), words.words.end()), words.words.end());
    if (!words.words.empty()) any.strings.push_back(std::move(words));
    if (!values.values.empty()) any.numbers.push_back(std::move(values));
    add(any);
  }

  void apply_format(const Json& v) {
    expect(v, JsonKind::string, "a string");
    if (m_.options_.formats == "off") return;
    const char* pattern = format_pattern(v.text);
    if (!pattern) {
      if (m_.options_.formats == "strict") throw Refusal{"unknown format \"" + v.text + "\""};
      return m_.warn(s_, "format", "unknown format \"" + v.text + "\", ignored");
    }
    string_ = m_.intersection(string_, {.in = {m_.languages_.of_regex(pattern, kFormatFlags)}});
  }

  int language(std::string_view pattern) const {
    try {
      return m_.languages_.of_regex(pattern, kPatternFlags);
    } catch (const GrammarError& e) {
      throw Refusal{e.what()};
    }
  }
  void apply_pattern(const Json& v) {
    expect(v, JsonKind::string, "a string");
    string_ = m_.intersection(string_, {.in = {language(v.text)}});
  }

  void apply_bound(const Json& v, bool is_low, bool is_open) {
    NumberSet of;
    (is_low ? of.low : of.high) = Bound{number(v), is_open};
    number_ = m_.intersection(number_, of);
  }

  void apply_any_of(const Json& v) {
    Shape any;
    std::vector<Shape> shapes;
    for (const Json& schema : schemas(v)) shapes.push_back(in_place(schema));
    for (const Shape& s : shapes) unite(any, s);
    // What one branch evaluates counts where another one holds too.
    if (has_unevaluated_ && shapes.size() <= kMaxBranchSets)
      for (unsigned set = 3; set < 1u << shapes.size(); ++set) {
        if ((set & (set - 1)) == 0) continue;
        Shape all = Shape::all();
        for (size_t i = 0; i < shapes.size(); ++i)
          if (set >> i & 1) combine(all, shapes[i]);
        any.objects.insert(any.objects.end(), all.objects.begin(), all.objects.end());
        any.arrays.insert(any.arrays.end(), all.arrays.begin(), all.arrays.end());
      }
    add(any);
  }

  void apply_condition(const Json& v) {
    const Json *yes = s_.find("then"), *no = s_.find("else");
    if (!yes && !no) return;
    const Shape condition = in_place(v);
    const Origin here(m_, s_, "if");
    Shape holds = condition, fails = m_.complement(condition);
    if (yes) combine(holds, in_place(*yes));
    if (no) combine(fails, in_place(*no));
    unite(holds, fails);
    add(holds);
  }

  // ---- objects ---------------------------------------------------------------------------------
  void apply_object(Keyword k, const Json& v) {
    if (k == Keyword::dependent_required || k == Keyword::dependent_schemas ||
        k == Keyword::dependencies)
      return apply_dependencies(k, v);
    if (k == Keyword::unevaluated_properties || k == Keyword::unevaluated_items) {
      node(v);
      return;
    }
    begin_own();
    switch (k) {
      case Keyword::properties:
        expect(v, JsonKind::object, "an object");
        for (size_t i = 0; i < v.items.size(); ++i)
          object_->properties.push_back({v.keys[i], node(v.items[i])});
        return;
      case Keyword::required:
        if (v.is(JsonKind::boolean) &&
            m_.document_.draft() == 4)  // of draft 3; says nothing since then
          return m_.warn(s_, "required", "expected an array of strings, got boolean; ignored");
        members_.required = names(v);
        return;
      case Keyword::additional_properties:
        object_->additional = node(v);
        object_->covers_all = true;
        return;
      case Keyword::pattern_properties:
        expect(v, JsonKind::object, "an object");
        for (size_t i = 0; i < v.items.size(); ++i)
          object_->patterns.push_back({{.in = {language(v.keys[i])}}, node(v.items[i])});
        return;
      case Keyword::property_names: return apply_property_names(v);
      case Keyword::min_properties: members_.min = std::max(members_.min, count(v)); return;
      default: members_.max = count(v); return;
    }
  }

  // Names of the right kind may have any value, others none.
  void apply_property_names(const Json& v) {
    const Shape of = in_place(v);
    auto source = std::make_shared<ObjectSource>();
    for (const StringSet& set : of.strings) source->patterns.push_back({set, kTrueNode});
    source->additional = kFalseNode;
    source->is_asserted = false;
    if (of.strings.size() != 1 || !of.strings[0].is_free()) names_ = source;
  }

  void apply_dependencies(Keyword k, const Json& v) {
    expect(v, JsonKind::object, "an object");
    for (size_t i = 0; i < v.items.size(); ++i) {
      const Json& needed = v.items[i];
      const bool is_list = k == Keyword::dependent_required || needed.is(JsonKind::array);
      if (k == Keyword::dependent_schemas && is_list) throw Refusal{"expected schemas"};
      if (needed.is(JsonKind::boolean) && needed.truth) continue;
      auto absent = std::make_shared<ObjectSource>();
      absent->is_asserted = false;
      absent->properties.push_back({v.keys[i], kFalseNode});
      Shape either = Shape::all();
      Shape present = Shape::all();
      present.objects = {{.required = {v.keys[i]}}};
      if (needed.is(JsonKind::string)) {  // draft 3's short form
        present.objects[0].required.push_back(needed.text);
      } else if (is_list) {
        for (const auto name : names(needed))
          if (name != v.keys[i]) present.objects[0].required.push_back(name);
        if (present.objects[0].required.size() == 1) continue;
      } else {
        combine(present, in_place(needed));
      }
      either.objects = {{.sources = {absent}}};
      either.objects.insert(either.objects.end(), present.objects.begin(), present.objects.end());
      add(either);
    }
  }

  // ---- arrays ----------------------------------------------------------------------------------
  void apply_array(Keyword k, const Json& v) {
    begin_own();
    switch (k) {
      case Keyword::items:
        if (v.is(JsonKind::array)) {  // until 2019-09
          for (const Json& schema : v.items) array_.prefix.push_back(node(schema));
          const Json* more = s_.find("additionalItems");
          if (more) array_.items = node(*more);
          array_.covers_all |= more != nullptr;
          return;
        }
        array_.items = node(v);
        array_.covers_all = true;
        return;
      case Keyword::prefix_items:
        for (const Json& schema : schemas(v)) array_.prefix.push_back(node(schema));
        return;
      case Keyword::additional_items: return;  // beside an array of items only
      case Keyword::min_items: elements_.min = std::max(elements_.min, count(v)); return;
      case Keyword::max_items: elements_.max = count(v); return;
      case Keyword::unique_items:
        expect(v, JsonKind::boolean, "a boolean");
        elements_.is_unique |= v.truth;
        return;
      default: {
        Contains c{node(v), 1, kUnbounded};
        if (const Json* min = s_.find("minContains")) c.min = count(*min);
        if (const Json* max = s_.find("maxContains")) c.max = count(*max);
        if (c.min > 0 || c.max != kUnbounded) elements_.contains.push_back(c);
      }
    }
  }

  // ---- putting together ------------------------------------------------------------------------
  // Where complements that are asked for come from, for their errors.
  struct Origin {
    Origin(SchemaModel& m, const Json& schema, const char* keyword)
        : model(m), before(m.current_), before_keyword(m.current_keyword_) {
      m.current_ = &schema;
      m.current_keyword_ = keyword;
    }
    ~Origin() {
      model.current_ = before;
      model.current_keyword_ = before_keyword;
    }
    SchemaModel& model;
    const Json* before;
    const char* before_keyword;
  };

  void combine(Shape& a, const Shape& b) { a = m_.intersection(a, b); }
  static void unite(Shape& a, const Shape& b) {
    a.has_null |= b.has_null;
    a.booleans |= b.booleans;
    const auto join = [](auto& to, const auto& from) {
      for (const auto& set : from) {
        if (!to.empty() && to[0].is_free()) return;
        if (set.is_free())
          to = {set};
        else
          to.push_back(set);
      }
    };
    join(a.numbers, b.numbers);
    join(a.strings, b.strings);
    join(a.objects, b.objects);
    join(a.arrays, b.arrays);
  }
  void begin_own() { has_begun_ = true; }
  // Members keep the order of the text: what is combined before the object's own keywords comes
  // first.
  void add(const Shape& part) {
    if (has_begun_)
      after_.push_back(part);
    else if (has_before_)
      combine(before_, part);
    else
      before_ = part, has_before_ = true;
  }

  Shape own() {
    Shape out;
    out.has_null = types_ & kNull;
    out.booleans = types_ & kBoolean ? 3 : 0;
    if (types_ & (kNumber | kInteger)) {
      NumberSet n = number_;
      if (!(types_ & kNumber)) n = m_.intersection(n, {.multiple = {1, 0}});
      out.numbers = {n};
    }
    if (types_ & kString) out.strings = {string_};
    if (types_ & kObject) {
      ObjectSet set = members_;
      const bool says_some = !object_->properties.empty() || !object_->patterns.empty() ||
                             object_->additional != kTrueNode || object_->covers_all;
      object_->index_names();
      if (says_some) set.sources.push_back(object_);
      if (names_) set.sources.push_back(names_);
      out.objects = {set};
    }
    if (types_ & kArray) {
      ArraySet set = elements_;
      if (!array_.prefix.empty() || array_.items != kTrueNode || array_.covers_all)
        set.sources.push_back(array_);
      out.arrays = {set};
    }
    return out;
  }

  void apply_unevaluated(Shape& out) {
    if (const Json* v = s_.find("unevaluatedProperties"))
      for (ObjectSet& set : out.objects) {
        auto rest = std::make_shared<ObjectSource>();
        rest->additional = node(*v);
        rest->covers_all = true;
        bool is_all = false;
        std::set<std::string_view> seen;
        for (const auto& source : set.sources) {
          if (!source->is_asserted) continue;
          is_all |= source->covers_all;
          for (const auto& [name, n] : source->properties)
            if (seen.insert(name).second) rest->properties.push_back({name, kTrueNode});
          for (const auto& [names, n] : source->patterns)
            rest->patterns.push_back({names, kTrueNode});
        }
        rest->index_names();
        if (!is_all && rest->additional != kTrueNode) set.sources.push_back(rest);
      }
    if (const Json* v = s_.find("unevaluatedItems"))
      for (ArraySet& set : out.arrays) {
        ArraySource rest{.items = node(*v), .covers_all = true};
        size_t horizon = 0;
        bool is_all = false;
        for (const auto& source : set.sources) {
          is_all |= source.covers_all;
          horizon = std::max(horizon, source.prefix.size());
        }
        if (is_all || rest.items == kTrueNode) continue;
        if (!set.contains.empty() && m_.document_.draft() >= 2020)
          return m_.drop(s_, "unevaluatedItems", "beside contains it is not expressible");
        rest.prefix.assign(horizon, kTrueNode);
        set.sources.push_back(rest);
      }
  }

  SchemaModel& m_;
  const Json& s_;
  unsigned types_ = kAllTypes;
  NumberSet number_;
  StringSet string_;
  std::shared_ptr<ObjectSource> object_, names_;
  ObjectSet members_;
  ArraySource array_;
  ArraySet elements_;
  bool has_begun_ = false, has_before_ = false, has_unevaluated_ = false;
  Shape before_;
  std::vector<Shape> after_;
};

Shape SchemaModel::read(const Json& schema) { return Reader(*this, schema).read(); }

Shape SchemaModel::shape_of_constant(const Json& value) {
  Shape out;
  switch (value.kind) {
    case JsonKind::null: out.has_null = true; break;
    case JsonKind::boolean: out.booleans = value.truth ? 2 : 1; break;
    case JsonKind::number: {
      NumberSet set{.is_finite = true};
      try {
        set.values = {{parse_decimal(value.text), value.text}};
      } catch (const GrammarLimitError& e) {
        throw Refusal{e.what()};
      }
      out.numbers = {set};
      break;
    }
    case JsonKind::string: out.strings = {{.is_finite = true, .words = {value.text}}}; break;
    case JsonKind::object: {
      auto source = std::make_shared<ObjectSource>();
      ObjectSet set;
      for (size_t i = 0; i < value.items.size(); ++i) {
        source->properties.push_back({value.keys[i], node_of_constant(value.items[i])});
        set.required.push_back(value.keys[i]);
      }
      source->additional = kFalseNode;
      source->covers_all = true;
      source->index_names();
      set.sources = {source};
      out.objects = {set};
      break;
    }
    case JsonKind::array: {
      ArraySource source{.items = kFalseNode, .covers_all = true};
      for (const Json& item : value.items) source.prefix.push_back(node_of_constant(item));
      const auto n = static_cast<int64_t>(value.items.size());
      out.arrays = {{.sources = {source}, .min = n, .max = n}};
      break;
    }
  }
  return out;
}

void SchemaModel::warn(const Json& schema, const std::string& keyword, const std::string& reason) {
  if (warnings_.size() < kMaxWarnings && warned_.insert({&schema, keyword}).second)
    warnings_.push_back(document_.pointer_to(schema) + "/" + keyword + ": " + reason);
}

// A keyword that cannot be honoured: an error, or with lenient a warning.
void SchemaModel::drop(const Json& schema, const std::string& keyword, const std::string& reason) {
  const std::string message = document_.pointer_to(schema) + "/" + keyword + ": " + reason;
  if (!options_.lenient) throw UnsupportedSchemaError(message);
  if (!warned_.insert({&schema, keyword + "!"}).second) return;
  dropped_.push_back(message);
  warnings_.push_back(message + "; ignored");
}
}  // namespace lmx::grammar
