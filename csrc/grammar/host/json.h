// grammar/host/json.h: JSON texts as trees. Members keep their order, numbers their spelling.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lmx::grammar {
struct Json {
  enum class Kind : uint8_t { null, boolean, number, string, array, object };
  Kind kind = Kind::null;
  bool truth = false;             // of a boolean
  std::string text;               // of a string, decoded; of a number, as it is written
  std::vector<Json> items;        // of an array; of an object, its values
  std::vector<std::string> keys;  // of an object

  bool is(Kind k) const { return kind == k; }
  const Json* find(std::string_view key) const;  // a member's value, or null
};

// Throws GrammarSyntaxError with line and column. Of equal keys the last one counts. At most 2,000
// brackets may be open.
Json parse_json(std::string_view text);
// `s` as JSON writes it, with quotes; only what must be escaped is.
std::string json_quoted(std::string_view s);
// The tree as text without white space.
std::string json_text(const Json& value);
const char* name_of(Json::Kind kind);
}  // namespace lmx::grammar
