// grammar/host/unicode_data.h: tables of the Unicode character database, as tools/unicode_data.py
// encodes them.
#pragma once
namespace lmx::grammar {
struct UnicodeSet {
  const char* name;
  const char* ranges;
};
extern const UnicodeSet kUnicodeSets[];  // ended by a null name
extern const char* const kCasePairs;
}  // namespace lmx::grammar
