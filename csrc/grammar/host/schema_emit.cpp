// grammar/host/schema_emit.cpp: values, layout, and the grammar of a schema.
#include "schema_emit.h"

#include <algorithm>

#include "json.h"

namespace lmx::grammar {
namespace {
constexpr size_t kMaxWrittenRules = 20000;
constexpr std::string_view kSpace = " \t\n\r", kValueStart = "\"{[-0123456789tfn";

std::bitset<256> bytes_of(std::string_view a, std::string_view b = "") {
  std::bitset<256> set;
  for (const char c : a) set.set(static_cast<uint8_t>(c));
  for (const char c : b) set.set(static_cast<uint8_t>(c));
  return set;
}

// Rules that are the same for all schemas of one kind of white space.
struct Declared {
  const char* name;
  int32_t rank;
  std::bitset<256> first, follow;
};
Declared declared(SchemaWriter::Kind kind, int rule) {
  using W = SchemaWriter;
  const std::bitset<256> any = ~std::bitset<256>();
  static const auto kAfterValue = bytes_of(kSpace, ",}]"), kAfterKey = bytes_of(kSpace, ",}]:");
  if (kind == W::Kind::value) return {"", kBodyRank, bytes_of(kValueStart), kAfterValue};
  if (kind != W::Kind::common) return {"", kBodyRank, bytes_of(kSpace, ",}]"), kAfterValue};
  switch (rule) {
    case W::kGap: return {"gap", kLeafRank, bytes_of(kSpace), bytes_of(kValueStart, ",:}]")};
    case W::kString: return {"string", kTokenRank, bytes_of("\""), kAfterKey};
    case W::kChar: return {"char", kLeafRank, any, any};
    default:
      return {rule == W::kInteger ? "integer" : "number", kTokenRank, bytes_of("-0123456789"),
              kAfterValue};
  }
}

// Makes the rules of one program.
class SchemaSource : public RuleSource {
 public:
  SchemaSource(std::shared_ptr<SchemaModel> model, std::shared_ptr<std::mutex> mutex,
               const Budget& budget)
      : model_(std::move(model)), mutex_(std::move(mutex)), budget_(budget), writer_(*model_) {}

  Program begin() {
    const std::lock_guard lock(*mutex_);
    Program program = common_rules();
    for (int i = 0; i < SchemaWriter::kNumCommon; ++i) link(i, i);
    program.root = rule_of(program, writer_.root());
    return program;
  }

  void make(Program& program, int32_t rule) override {
    const std::lock_guard lock(*mutex_);
    const size_t states = program.nfa.size(), rules = program.rules.size();
    try {
      const ExprPtr body = writer_.body(written_[rule]);
      lower_rule(rule, *body, [&](int w) { return rule_of(program, w); }, budget_, program);
      settle(program, states, rules);
    } catch (...) {  // as before: it may be asked for again
      for (size_t r = rules; r < program.rules.size() && r < written_.size(); ++r)
        if (written_[r] >= 0) program_rule_[written_[r]] = -1;
      program.rules[rule].start = program.rules[rule].final = -1;
      program.nfa.resize(states);
      program.rules.resize(rules);
      throw;
    }
  }

 private:
  void link(int written, int32_t rule) {
    if (program_rule_.size() <= static_cast<size_t>(written)) program_rule_.resize(written + 1, -1);
    if (written_.size() <= static_cast<size_t>(rule)) written_.resize(rule + 1, -1);
    program_rule_[written] = rule;
    written_[rule] = written;
  }

  int32_t rule_of(Program& program, int w) {
    if (static_cast<size_t>(w) >= program_rule_.size() || program_rule_[w] < 0) {
      const Declared d = declared(writer_.kind(w), w);
      link(w, add_rule(program, writer_.name(w), d.rank, d.first, d.follow));
    }
    return program_rule_[w];
  }

  // Lowered once per kind of white space.
  Program common_rules() {
    static std::mutex mutex;
    static std::map<std::string, Program> made;
    const std::lock_guard lock(mutex);
    const std::string& gap = model_->options().gap;
    if (const auto found = made.find(gap); found != made.end()) return found->second;
    Program program;
    for (int i = 0; i < SchemaWriter::kNumCommon; ++i) {
      const Declared d = declared(SchemaWriter::Kind::common, i);
      add_rule(program, d.name, d.rank, d.first, d.follow);
    }
    for (int i = 0; i < SchemaWriter::kNumCommon; ++i)
      lower_rule(i, *writer_.body(i), [](int w) { return w; }, budget_, program);
    settle(program, 0, 0);
    if (made.size() < 64) made.emplace(gap, program);
    return program;
  }

  std::shared_ptr<SchemaModel> model_;
  std::shared_ptr<std::mutex> mutex_;  // of the model
  Budget budget_;
  SchemaWriter writer_;
  std::vector<int32_t> program_rule_;  // by written rule
  std::vector<int> written_;           // by the program's rule
};

class SchemaFactory : public RuleFactory {
 public:
  SchemaFactory(std::string_view text, const SchemaOptions& options)
      : model_(std::make_shared<SchemaModel>(text, options)),
        key_("schema\n" + options.key() + "\n" + std::string(text)) {
    model_->check_all();
  }
  const SchemaModel& model() const { return *model_; }

  Program program(const Budget& budget) const override {
    auto source = std::make_shared<SchemaSource>(model_, mutex_, budget);
    Program program = source->begin();
    program.source = source;
    return program;
  }

  Grammar grammar() const override {
    const std::lock_guard lock(*mutex_);
    SchemaWriter writer(*model_);
    Grammar out;
    out.root = writer.root();
    for (size_t r = 0; r < writer.num_rules(); ++r) {
      if (r > kMaxWrittenRules)
        throw GrammarLimitError("schema: more than 20000 rules when it is written out");
      const auto rule = static_cast<int>(r);
      ExprPtr body = writer.body(rule);
      out.rules.push_back({writer.name(rule), std::move(body)});
    }
    out.rules[out.root].name = "root";
    out.warnings = model_->warnings();
    return out;
  }
  std::string key() const override { return key_; }

 private:
  std::shared_ptr<SchemaModel> model_;
  std::shared_ptr<std::mutex> mutex_ = std::make_shared<std::mutex>();
  std::string key_;
};
}  // namespace

// ---- rules -------------------------------------------------------------------------------------
SchemaWriter::SchemaWriter(SchemaModel& model) : model_(model) {
  for (int i = 0; i < kNumCommon; ++i) rules_.push_back({Kind::common, i, 0, {}});
}

int SchemaWriter::rule_of(Kind kind, int what, int depth, std::vector<int64_t> word) {
  if (model_.options().indent < 0) depth = 0;
  const auto [it, is_new] =
      ids_.try_emplace({kind, what, depth, word}, static_cast<int>(rules_.size()));
  if (is_new) rules_.push_back({kind, what, depth, std::move(word)});
  return it->second;
}

int SchemaWriter::rule_of_place(int place, int depth) {
  return rule_of(Kind::value, place, depth, {});
}

std::string SchemaWriter::name(int rule) const {
  const Rule& r = rules_[rule];
  if (r.kind == Kind::common) return declared(r.kind, rule).name;
  const char* kind = r.kind == Kind::value     ? "value"
                     : r.kind == Kind::members ? "members"
                                               : "elements";
  return kind + std::to_string(rule);
}

ExprPtr SchemaWriter::body(int rule) {
  const Rule r = rules_[rule];
  switch (r.kind) {
    case Kind::common: return common(rule);
    case Kind::value: return value(r.what, r.depth);
    case Kind::members: return rest_of_object(rule);
    default: return rest_of_array(rule);
  }
}

ExprPtr SchemaWriter::common(int rule) const {
  static const CharSet kDigits{{'0', '9'}};
  const auto digits = [](int64_t min) { return repeat(chars(kDigits), min, kUnbounded); };
  const auto integer = [&] {
    return sequence({repeat(literal("-"), 0, 1),
                     choice({literal("0"), sequence({chars({{'1', '9'}}), digits(0)})})});
  };
  switch (rule) {
    case kGap: return regex(model_.options().gap, "");
    case kString:
    case kChar: {
      // A high surrogate is followed by a low one, and a low one by nothing else.
      const ExprPtr escaped = regex(
          "\\\\(?:[\"\\\\/bfnrt]|u(?:[0-9A-Ca-cE-Fe-f][0-9A-Fa-f]{3}|[Dd][0-7][0-9A-Fa-f]{2}|"
          "[Dd][89ABab][0-9A-Fa-f]{2}\\\\u[Dd][C-Fc-f][0-9A-Fa-f]{2}))",
          "");
      const ExprPtr one =
          choice({chars(complement({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}})), escaped});
      if (rule == kChar) return one;
      return sequence({literal("\""), repeat(one, 0, kUnbounded), literal("\"")});
    }
    case kInteger:
      if (!model_.options().integer_fraction) return integer();
      return sequence(
          {integer(), repeat(sequence({literal("."), repeat(literal("0"), 1, kUnbounded)}), 0, 1)});
    default:
      return sequence({integer(), repeat(sequence({literal("."), digits(1)}), 0, 1),
                       repeat(sequence({chars({{'e', 'e'}, {'E', 'E'}}),
                                        repeat(chars({{'+', '+'}, {'-', '-'}}), 0, 1), digits(1)}),
                              0, 1)});
  }
}

// ---- values ------------------------------------------------------------------------------------
ExprPtr SchemaWriter::value(int place, int depth) {
  const Shape s = model_.shape(place);
  std::vector<ExprPtr> parts;
  if (s.has_null) parts.push_back(literal("null"));
  if (s.booleans & 1) parts.push_back(literal("false"));
  if (s.booleans & 2) parts.push_back(literal("true"));
  for (const NumberSet& set : s.numbers)
    if (!lmx::grammar::is_empty(set)) parts.push_back(number(set));
  for (const StringSet& set : s.strings)
    if (!model_.languages().is_empty(set)) parts.push_back(string(set));
  for (const ObjectSet& set : s.objects)
    if (!model_.is_empty(set)) parts.push_back(object(set, depth));
  for (const ArraySet& set : s.arrays)
    if (!model_.is_empty(set)) parts.push_back(array(set, place, depth));
  if (parts.empty()) throw GrammarError("schema: a place without values was reached");
  return choice(std::move(parts));
}

ExprPtr SchemaWriter::number(const NumberSet& set) const {
  if (set.is_finite) {
    std::vector<ExprPtr> parts;
    for (const auto& v : set.values) {
      parts.push_back(literal(v.value.text()));
      if (v.text != v.value.text()) parts.push_back(literal(v.text));
    }
    return choice(std::move(parts));
  }
  if (set.is_free()) return rule_ref(kNumber);
  const bool is_any_integer = !set.low && !set.high && set.not_multiples.empty() &&
                              set.multiple.mantissa == 1 && set.multiple.scale == 0;
  if (is_any_integer) return rule_ref(kInteger);
  return machine(number_machine(set, model_.options().integer_fraction));
}

ExprPtr SchemaWriter::string(const StringSet& set) {
  if (set.is_free()) return rule_ref(kString);
  return sequence(
      {literal("\""), model_.languages().tail(set, model_.options().every_escape, kChar)});
}

// ---- layout ------------------------------------------------------------------------------------
ExprPtr SchemaWriter::line(int depth) const {
  return literal("\n" + std::string(static_cast<size_t>(depth * model_.options().indent), ' '));
}
ExprPtr SchemaWriter::open(char bracket, int depth) const {
  const ExprPtr it = literal(std::string(1, bracket));
  if (model_.options().indent >= 0) return sequence({it, line(depth + 1)});
  return has_gaps() ? sequence({it, gap()}) : it;
}
ExprPtr SchemaWriter::comma(int depth) const {
  const ExprPtr it = literal(model_.options().item_separator);
  if (model_.options().indent >= 0) return sequence({it, line(depth + 1)});
  return has_gaps() ? sequence({gap(), it, gap()}) : it;
}
ExprPtr SchemaWriter::colon() const {
  const ExprPtr it = literal(model_.options().key_separator);
  return has_gaps() ? sequence({gap(), it, gap()}) : it;
}
ExprPtr SchemaWriter::close(char bracket, int depth) const {
  const ExprPtr it = literal(std::string(1, bracket));
  if (model_.options().indent >= 0) return sequence({line(depth), it});
  return has_gaps() ? sequence({gap(), it}) : it;
}

// ---- the grammar -------------------------------------------------------------------------------
std::string SchemaOptions::key() const {
  std::string out = std::string() + (any_order ? 'a' : 's') + (strict ? 's' : '-') +
                    (lenient ? 'l' : '-') + (integer_fraction ? 'f' : '-') +
                    (every_escape ? 'e' : '-') + formats + "|" + json_quoted(gap) +
                    json_quoted(item_separator) + json_quoted(key_separator) +
                    std::to_string(indent);
  for (const auto& [uri, text] : registry) out += json_quoted(uri) + json_quoted(text);
  return out;
}

Grammar schema_grammar(std::string_view text, const SchemaOptions& options) {
  const auto factory = std::make_shared<SchemaFactory>(text, options);
  Grammar out;
  out.warnings = factory->model().warnings();
  out.factory = factory;
  return out;
}

std::vector<std::string> explain_schema(std::string_view text, SchemaOptions options) {
  options.lenient = true;
  return SchemaFactory(text, options).model().dropped();
}
}  // namespace lmx::grammar
