// grammar/host/unicode.cpp: named sets of code points, and letter case.
#include <algorithm>
#include <cctype>
#include <map>

#include "regex.h"
#include "unicode_data.h"

namespace lmx::grammar {
namespace {
uint32_t read_number(const char*& at) {
  uint32_t value = 0;
  for (int shift = 0;; shift += 5) {
    const char c = *at++;
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'Z' ? c - 'A' + 10
                      : c >= 'a' && c <= 'z' ? c - 'a' + 36
                      : c == '+'             ? 62
                                             : 63;
    value |= static_cast<uint32_t>(digit & 31) << shift;
    if (digit < 32) return value;
  }
}

CharSet decoded(const char* at) {
  CharSet set;
  for (uint32_t next = 0; *at;) {
    const uint32_t lo = next + read_number(at), hi = lo + read_number(at);
    set.push_back({lo, hi});
    next = hi + 1;
  }
  return set;
}

// Names are compared without case, spaces, hyphens and underscores.
std::string plain(std::string_view name) {
  std::string out;
  for (const char c : name)
    if (c != '_' && c != '-' && c != ' ') out += static_cast<char>(std::tolower(c));
  return out;
}

// Long names of general categories; a name of one letter is every category that begins with it.
const std::map<std::string, std::string>& categories() {
  static const std::map<std::string, std::string> names{{"letter", "l"},
                                                        {"uppercaseletter", "lu"},
                                                        {"lowercaseletter", "ll"},
                                                        {"titlecaseletter", "lt"},
                                                        {"modifierletter", "lm"},
                                                        {"otherletter", "lo"},
                                                        {"mark", "m"},
                                                        {"nonspacingmark", "mn"},
                                                        {"spacingmark", "mc"},
                                                        {"enclosingmark", "me"},
                                                        {"number", "n"},
                                                        {"decimalnumber", "nd"},
                                                        {"letternumber", "nl"},
                                                        {"othernumber", "no"},
                                                        {"punctuation", "p"},
                                                        {"punct", "p"},
                                                        {"connectorpunctuation", "pc"},
                                                        {"dashpunctuation", "pd"},
                                                        {"openpunctuation", "ps"},
                                                        {"closepunctuation", "pe"},
                                                        {"initialpunctuation", "pi"},
                                                        {"finalpunctuation", "pf"},
                                                        {"otherpunctuation", "po"},
                                                        {"symbol", "s"},
                                                        {"mathsymbol", "sm"},
                                                        {"currencysymbol", "sc"},
                                                        {"modifiersymbol", "sk"},
                                                        {"othersymbol", "so"},
                                                        {"separator", "z"},
                                                        {"spaceseparator", "zs"},
                                                        {"lineseparator", "zl"},
                                                        {"paragraphseparator", "zp"},
                                                        {"other", "c"},
                                                        {"control", "cc"},
                                                        {"format", "cf"},
                                                        {"privateuse", "co"}};
  return names;
}

bool category_set(const std::string& name, CharSet& set) {
  const auto long_name = categories().find(name);
  const std::string code = long_name == categories().end() ? name : long_name->second;
  if (code.empty() || code.size() > 2) return false;
  set.clear();
  for (const UnicodeSet* s = kUnicodeSets; s->name; ++s)
    if (std::string_view(s->name).size() == 2 && plain(s->name).substr(0, code.size()) == code)
      for (const CodeRange r : decoded(s->ranges)) set.push_back(r);
  return !set.empty();
}

bool other_set(const std::string& name, CharSet& set) {
  for (const UnicodeSet* s = kUnicodeSets; s->name; ++s)
    if (std::string_view(s->name).size() > 2 && plain(s->name) == name)
      return set = decoded(s->ranges), true;
  return false;
}
}  // namespace

bool property_set(std::string_view text, CharSet& set) {
  const size_t equals = text.find('=');
  bool found = false;
  if (equals != std::string_view::npos) {
    const std::string key = plain(text.substr(0, equals)), value = plain(text.substr(equals + 1));
    if (key == "gc" || key == "generalcategory") found = category_set(value, set);
    if (key == "sc" || key == "script") found = value.size() > 2 && other_set(value, set);
  } else {
    const std::string name = plain(text);
    if (name == "any")
      found = true, set = {{0, kMaxCodePoint}};
    else if (name == "ascii")
      found = true, set = {{0, 127}};
    else
      found = category_set(name, set) || other_set(name, set);
  }
  if (found) set = normal(std::move(set));
  return found;
}

CharSet fold_case(const CharSet& set) {
  static const auto pairs = [] {
    std::vector<std::pair<uint32_t, uint32_t>> all;
    uint32_t at = 0;
    for (const char* p = kCasePairs; *p;) {
      at += read_number(p);
      all.push_back({at, read_number(p)});
    }
    return all;
  }();
  CharSet out = set;
  for (int round = 0; round < 2; ++round) {  // a partner's partner too
    const CharSet now = normal(out);
    for (const auto& [a, b] : pairs) {
      if ((a < 128) != (b < 128)) continue;  // as ECMAScript: K is not the sign of kelvins
      if (contains(now, a)) out.push_back({b, b});
      if (contains(now, b)) out.push_back({a, a});
    }
  }
  return normal(std::move(out));
}
}  // namespace lmx::grammar
