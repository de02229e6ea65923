// grammar/host/tags.cpp
#include "tags.h"

#include <algorithm>

#include "json.h"
#include "lazy.h"

namespace lmx::grammar {
namespace {
using Kind_ = Json::Kind;

// What ends an enclosing tag: free text within must not run over it.
struct Ends {
  std::vector<std::string> strings;
  std::vector<int32_t> tokens;
};

class TagReader {
 public:
  TagReader(const SchemaOptions& options, const TokenOf& token_of)
      : options_(options), token_of_(token_of) {}

  Grammar read(const Json& root) {
    grammar_.rules.push_back({"root", nullptr});
    const Json* inner = is_type(root, "structural_tag") ? &need(root, "format", "#") : &root;
    const std::string path = inner == &root ? "#" : "#/format";
    grammar_.rules[0].body = format(*inner, path, {});
    return std::move(grammar_);
  }

 private:
  [[noreturn]] static void fail(const std::string& path, const std::string& what) {
    throw GrammarSyntaxError("structural tag: " + path + ": " + what);
  }
  static bool is_type(const Json& v, std::string_view type) {
    const Json* t = v.find("type");
    return t && t->is(Kind_::string) && t->text == type;
  }

  // ---- members of a format ---------------------------------------------------------------------
  static const Json& need(const Json& v, const char* key, const std::string& path) {
    const Json* found = v.find(key);
    if (!found) fail(path, std::string("expected the member ") + key);
    return *found;
  }
  static std::string text(const Json& v, const std::string& path) {
    if (!v.is(Kind_::string)) fail(path, std::string("expected a string, got ") + name_of(v.kind));
    return v.text;
  }
  static const std::vector<Json>& list(const Json& v, const char* key, const std::string& path) {
    const Json& found = need(v, key, path);
    if (!found.is(Kind_::array))
      fail(path + "/" + key, std::string("expected an array, got ") + name_of(found.kind));
    return found.items;
  }
  static bool flag(const Json& v, const char* key, bool otherwise, const std::string& path) {
    const Json* found = v.find(key);
    if (!found || found->is(Kind_::null)) return otherwise;
    if (!found->is(Kind_::boolean)) fail(path + "/" + key, "expected a boolean");
    return found->truth;
  }
  static int64_t number(const Json& v, const char* key, int64_t otherwise,
                        const std::string& path) {
    const Json* found = v.find(key);
    if (!found || found->is(Kind_::null)) return otherwise;
    const bool is_integer = found->is(Kind_::number) && found->text.size() < 10 &&
                            found->text.find_first_not_of("-0123456789") == std::string::npos;
    if (!is_integer) fail(path + "/" + key, "expected an integer");
    return std::stoll(found->text);
  }
  static std::vector<std::string> strings(const Json& v, const char* key, const std::string& path) {
    std::vector<std::string> out;
    const Json* found = v.find(key);
    if (!found || found->is(Kind_::null)) return out;
    if (found->is(Kind_::string)) return {found->text};
    if (!found->is(Kind_::array)) fail(path + "/" + key, "expected an array of strings");
    for (const Json& item : found->items) out.push_back(text(item, path + "/" + key));
    return out;
  }
  int32_t token(const Json& v, const std::string& path) const {
    if (v.is(Kind_::object) && is_type(v, "token")) return token(need(v, "token", path), path);
    if (v.is(Kind_::number)) return static_cast<int32_t>(std::stoll(v.text));
    return token_of_(text(v, path));
  }
  std::vector<int32_t> tokens(const Json& v, const char* key, const std::string& path) const {
    std::vector<int32_t> out;
    const Json* found = v.find(key);
    if (!found || found->is(Kind_::null)) return out;
    if (!found->is(Kind_::array)) fail(path + "/" + key, "expected an array of tokens");
    for (const Json& item : found->items) out.push_back(token(item, path + "/" + key));
    std::sort(out.begin(), out.end());
    return out;
  }
  static ExprPtr token_expr(Kind kind, std::vector<int32_t> ids) {
    auto e = std::make_shared<Expr>();
    e->kind = kind;
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    e->ids = std::move(ids);
    return e;
  }

  // ---- formats ---------------------------------------------------------------------------------
  ExprPtr format(const Json& v, const std::string& path, const Ends& ends) {
    if (++depth_ > 500) fail(path, "formats nested more than 500 deep");
    if (!v.is(Kind_::object)) fail(path, std::string("expected an object, got ") + name_of(v.kind));
    const std::string type = text(need(v, "type", path), path + "/type");
    ExprPtr out = plain(type, v, path);
    if (!out) out = combined(type, v, path, ends);
    if (!out) out = of_tokens(type, v, path, ends);
    if (!out) fail(path, "unknown type \"" + type + "\"");
    --depth_;
    return out;
  }

  ExprPtr plain(const std::string& type, const Json& v, const std::string& path) {
    if (type == "const_string") return literal(text(need(v, "value", path), path));
    if (type == "json_schema") {
      const Json* style = v.find("style");
      if (style && text(*style, path) != "json")
        fail(path + "/style", "expected json; others are not supported");
      SchemaOptions options = options_;
      options.any_order |= flag(v, "any_order", false, path);
      return embedded(schema_grammar(json_text(need(v, "json_schema", path)), options));
    }
    if (type == "grammar")
      return embedded(parse_ebnf(text(need(v, "grammar", path), path), "root"));
    if (type == "regex") return regex(text(need(v, "pattern", path), path), "");
    return nullptr;
  }

  // The rules of another grammar, behind ours.
  ExprPtr embedded(const Grammar& given) {
    const Grammar g = written_out(given);
    const auto shift = static_cast<int>(grammar_.rules.size());
    const std::string prefix = "part" + std::to_string(++num_parts_) + "-";
    for (const Rule& rule : g.rules)
      grammar_.rules.push_back({prefix + rule.name, renumbered(rule.body, shift)});
    grammar_.warnings.insert(grammar_.warnings.end(), g.warnings.begin(), g.warnings.end());
    return rule_ref(g.root + shift);
  }

  std::vector<ExprPtr> formats(const Json& v, const char* key, const std::string& path,
                               const Ends& ends) {
    std::vector<ExprPtr> out;
    const auto& items = list(v, key, path);
    if (items.empty()) fail(path + "/" + key, "expected at least one format");
    for (size_t i = 0; i < items.size(); ++i)
      out.push_back(format(items[i], path + "/" + key + "/" + std::to_string(i), ends));
    return out;
  }

  ExprPtr combined(const std::string& type, const Json& v, const std::string& path,
                   const Ends& ends) {
    if (type == "any_text") return any_text(v, path, ends);
    if (type == "sequence") return sequence(formats(v, "elements", path, ends));
    if (type == "or") return choice(formats(v, "elements", path, ends));
    if (type == "optional" || type == "plus" || type == "star" || type == "repeat") {
      const ExprPtr content = format(need(v, "content", path), path + "/content", ends);
      if (type == "optional") return repeat(content, 0, 1);
      if (type == "plus") return repeat(content, 1, kUnbounded);
      if (type == "star") return repeat(content, 0, kUnbounded);
      const int64_t min = number(v, "min", 0, path), max = number(v, "max", kUnbounded, path);
      if (min < 0 || max < -1 || (max >= 0 && min > max)) fail(path, "expected 0 <= min <= max");
      return repeat(content, min, max);
    }
    if (type == "tag") return tag(v, path);
    if (type == "triggered_tags") return triggered_tags(v, path, ends);
    if (type == "tags_with_separator") return separated_tags(v, path);
    if (type == "dispatch") return dispatch(v, path, ends);
    return nullptr;
  }

  static std::vector<std::string> with(std::vector<std::string> excludes, const Ends& ends) {
    for (const auto& end : ends.strings)
      if (!end.empty() && std::find(excludes.begin(), excludes.end(), end) == excludes.end())
        excludes.push_back(end);
    return excludes;
  }

  ExprPtr any_text(const Json& v, const std::string& path, const Ends& ends) {
    const auto excludes = with(strings(v, "excludes", path), ends);
    if (v.find("max_tokens") && !v.find("max_tokens")->is(Kind_::null))
      fail(path + "/max_tokens", "not supported: use any_tokens");
    const int64_t max_chars = number(v, "max_chars", kUnbounded, path);
    if (max_chars != kUnbounded) {
      if (!excludes.empty()) fail(path + "/max_chars", "not supported where text is excluded");
      return repeat(chars({{0, kMaxCodePoint}}), 0, max_chars);
    }
    auto e = std::make_shared<Expr>();
    e->kind = Kind::dispatch;
    e->excludes = excludes;
    return e;
  }

  // ---- tags ------------------------------------------------------------------------------------
  ExprPtr edge(const Json& v, const std::string& path) const {  // of a tag: text, or one token
    if (v.is(Kind_::string)) return literal(v.text);
    return token_expr(Kind::tokens, {token(v, path)});
  }

  // Content and end.
  ExprPtr rest_of_tag(const Json& v, const std::string& path) {
    const Json& end = need(v, "end", path);
    Ends ends;
    std::vector<ExprPtr> parts;
    const auto take = [&](const Json& one) {
      if (one.is(Kind_::string))
        ends.strings.push_back(one.text);
      else
        ends.tokens.push_back(token(one, path + "/end"));
      parts.push_back(edge(one, path + "/end"));
    };
    if (end.is(Kind_::array))
      for (const Json& one : end.items) take(one);
    else
      take(end);
    if (parts.empty()) fail(path + "/end", "expected at least one end");
    const ExprPtr content = format(need(v, "content", path), path + "/content", ends);
    return sequence({content, choice(std::move(parts))});
  }
  ExprPtr tag(const Json& v, const std::string& path) {
    const ExprPtr begin = edge(need(v, "begin", path), path + "/begin");
    return sequence({begin, rest_of_tag(v, path)});
  }

  // Tags by the one trigger that each begins with: what follows the trigger.
  std::vector<std::vector<ExprPtr>> by_trigger(const Json& v,
                                               const std::vector<std::string>& triggers,
                                               const std::string& path) {
    std::vector<std::vector<ExprPtr>> out(triggers.size());
    const auto& tags = list(v, "tags", path);
    for (size_t i = 0; i < tags.size(); ++i) {
      const std::string here = path + "/tags/" + std::to_string(i);
      const std::string begin = text(need(tags[i], "begin", here), here + "/begin");
      size_t found = triggers.size();
      for (size_t k = 0; k < triggers.size(); ++k) {
        if (!begin.starts_with(triggers[k])) continue;
        if (found < triggers.size()) fail(here + "/begin", "it begins with more than one trigger");
        found = k;
      }
      if (found == triggers.size()) fail(here + "/begin", "it begins with no trigger");
      out[found].push_back(
          sequence({literal(begin.substr(triggers[found].size())), rest_of_tag(tags[i], here)}));
    }
    return out;
  }

  ExprPtr triggered_tags(const Json& v, const std::string& path, const Ends& ends) {
    const auto triggers = strings(v, "triggers", path);
    if (triggers.empty()) fail(path + "/triggers", "expected at least one trigger");
    const bool stops = flag(v, "stop_after_first", false, path);
    const auto rests = by_trigger(v, triggers, path);
    auto free = std::make_shared<Expr>();
    free->kind = Kind::dispatch;
    free->excludes = with(strings(v, "excludes", path), ends);
    free->loop = !stops;
    std::vector<ExprPtr> first;
    for (size_t k = 0; k < triggers.size(); ++k) {
      if (rests[k].empty()) fail(path + "/triggers", "no tag begins with \"" + triggers[k] + "\"");
      free->strings.push_back(triggers[k]);
      free->parts.push_back(choice(rests[k]));
      first.push_back(sequence({literal(triggers[k]), free->parts.back()}));
    }
    if (!flag(v, "at_least_one", false, path)) return free;
    return stops ? choice(std::move(first)) : sequence({choice(std::move(first)), free});
  }

  ExprPtr separated_tags(const Json& v, const std::string& path) {
    std::vector<ExprPtr> tags;
    const auto& items = list(v, "tags", path);
    for (size_t i = 0; i < items.size(); ++i)
      tags.push_back(tag(items[i], path + "/tags/" + std::to_string(i)));
    if (tags.empty()) fail(path + "/tags", "expected at least one tag");
    const ExprPtr one = choice(std::move(tags));
    const ExprPtr separator = literal(text(need(v, "separator", path), path + "/separator"));
    const ExprPtr all = flag(v, "stop_after_first", false, path)
                            ? one
                            : sequence({one, repeat(sequence({separator, one}), 0, kUnbounded)});
    return flag(v, "at_least_one", false, path) ? all : repeat(all, 0, 1);
  }

  ExprPtr dispatch(const Json& v, const std::string& path, const Ends& ends) {
    auto e = std::make_shared<Expr>();
    e->kind = Kind::dispatch;
    e->loop = flag(v, "loop", true, path);
    e->excludes = with(strings(v, "excludes", path), ends);
    const auto& rules = list(v, "rules", path);
    for (size_t i = 0; i < rules.size(); ++i) {
      const std::string here = path + "/rules/" + std::to_string(i);
      if (!rules[i].is(Kind_::array) || rules[i].items.size() != 2)
        fail(here, "expected [text, format]");
      e->strings.push_back(text(rules[i].items[0], here));
      e->parts.push_back(format(rules[i].items[1], here + "/1", ends));
    }
    return e;
  }

  // ---- tokens ----------------------------------------------------------------------------------
  ExprPtr of_tokens(const std::string& type, const Json& v, const std::string& path,
                    const Ends& ends) {
    if (type == "token") return token_expr(Kind::tokens, {token(v, path)});
    const auto others = [&](const char* key, std::vector<int32_t> more) {
      std::vector<int32_t> ids = tokens(v, key, path);
      ids.insert(ids.end(), more.begin(), more.end());
      return token_expr(Kind::not_tokens, std::move(ids));
    };
    if (type == "exclude_token") return others("exclude_tokens", {});
    if (type == "any_tokens") {
      const int64_t most = number(v, "max_tokens", kUnbounded, path);
      return repeat(others("exclude_tokens", ends.tokens), 0, most);
    }
    if (type != "token_dispatch" && type != "token_triggered_tags") return nullptr;
    std::vector<int32_t> triggers;
    std::vector<ExprPtr> parts;
    bool loop = flag(v, "loop", true, path);
    if (type == "token_dispatch") {
      const auto& rules = list(v, "rules", path);
      for (size_t i = 0; i < rules.size(); ++i) {
        const std::string here = path + "/rules/" + std::to_string(i);
        if (!rules[i].is(Kind_::array) || rules[i].items.size() != 2)
          fail(here, "expected [token, format]");
        triggers.push_back(token(rules[i].items[0], here));
        parts.push_back(sequence({token_expr(Kind::tokens, {triggers.back()}),
                                  format(rules[i].items[1], here + "/1", ends)}));
      }
    } else {
      triggers = tokens(v, "trigger_tokens", path);
      const auto& tags = list(v, "tags", path);
      for (size_t i = 0; i < tags.size(); ++i) {
        const std::string here = path + "/tags/" + std::to_string(i);
        const int32_t begin = token(need(tags[i], "begin", here), here + "/begin");
        if (std::find(triggers.begin(), triggers.end(), begin) == triggers.end())
          fail(here + "/begin", "it is no trigger");
        parts.push_back(tag(tags[i], here));
      }
      loop = !flag(v, "stop_after_first", false, path);
    }
    if (parts.empty()) fail(path, "expected at least one tag or rule");
    std::vector<int32_t> stops = triggers;
    stops.insert(stops.end(), ends.tokens.begin(), ends.tokens.end());
    const ExprPtr one = choice(std::move(parts));
    const ExprPtr free = repeat(others("exclude_tokens", stops), 0, kUnbounded);
    if (flag(v, "at_least_one", false, path))
      return loop ? sequence({one, repeat(choice({one, others("exclude_tokens", stops)}), 0,
                                          kUnbounded)})
                  : one;
    if (loop) return repeat(choice({one, others("exclude_tokens", stops)}), 0, kUnbounded);
    return sequence({free, repeat(one, 0, 1)});
  }

  const SchemaOptions& options_;
  const TokenOf& token_of_;
  Grammar grammar_;
  int num_parts_ = 0, depth_ = 0;
};
}  // namespace

Grammar structural_tag(std::string_view text, const SchemaOptions& options,
                       const TokenOf& token_of) {
  const Json root = parse_json(text);
  return TagReader(options, token_of).read(root);
}
}  // namespace lmx::grammar
