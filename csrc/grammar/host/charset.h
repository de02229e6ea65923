// grammar/host/charset.h: sets of Unicode scalar values, and their UTF-8 spellings.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lmx::grammar {
constexpr uint32_t kMaxCodePoint = 0x10FFFF;
constexpr uint32_t kBadCodePoint = 0xFFFFFFFF;

struct CodeRange {
  uint32_t lo, hi;  // both included
  bool operator==(const CodeRange&) const = default;
};
using CharSet = std::vector<CodeRange>;  // normal: sorted, disjoint, not adjacent, no surrogates

CharSet normal(CharSet set);
CharSet complement(const CharSet& set);  // of a normal one
CharSet intersection(const CharSet& a, const CharSet& b);
bool contains(const CharSet& set, uint32_t code_point);

void append_utf8(std::string& text, uint32_t code_point);
// The code point at text[i], and i behind it; kBadCodePoint, and i unchanged, if the bytes there
// are not well-formed UTF-8.
uint32_t next_code_point(std::string_view text, size_t& i);
// The offset of the first byte that is not well-formed UTF-8, or npos.
size_t find_bad_utf8(std::string_view text);

struct ByteRange {
  uint8_t lo, hi;
  auto operator<=>(const ByteRange&) const = default;
};
using ByteRanges = std::vector<ByteRange>;  // one after the other: a product of ranges
// The well-formed spellings of a normal set: disjoint, in byte order, at most four bytes long. Two
// of them that share some first bytes have the same range there.
std::vector<ByteRanges> utf8_ranges(const CharSet& set);

// States of the reader of UTF-8: what may come before the next code point begins.
constexpr int kUtf8States = 8;
// The state after `byte`, or -1 where it makes the text ill-formed. State 0 is between code points.
int utf8_step(int state, uint8_t byte);
}  // namespace lmx::grammar
