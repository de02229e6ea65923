// grammar/host/charset.cpp
#include "charset.h"

#include <algorithm>

namespace lmx::grammar {
namespace {
constexpr uint32_t kSurrogateLo = 0xD800, kSurrogateHi = 0xDFFF;

// Spells a range whose ends have the same length, cutting it where a lead byte's tail is not whole.
void spell(uint32_t lo, uint32_t hi, int length, std::vector<ByteRanges>& out) {
  for (int tail = 1; tail < length; ++tail) {
    const uint32_t mask = (1u << (6 * tail)) - 1;
    if ((lo & ~mask) == (hi & ~mask)) continue;
    if (lo & mask) {
      spell(lo, lo | mask, length, out);
      return spell((lo | mask) + 1, hi, length, out);
    }
    if ((hi & mask) != mask) {
      spell(lo, (hi & ~mask) - 1, length, out);
      return spell(hi & ~mask, hi, length, out);
    }
  }
  std::string first, last;
  append_utf8(first, lo);
  append_utf8(last, hi);
  ByteRanges ranges;
  for (int i = 0; i < length; ++i)
    ranges.push_back({static_cast<uint8_t>(first[i]), static_cast<uint8_t>(last[i])});
  out.push_back(std::move(ranges));
}
}  // namespace

CharSet normal(CharSet set) {
  std::sort(set.begin(), set.end(), [](auto a, auto b) { return a.lo < b.lo; });
  CharSet joined;
  for (const CodeRange r : set) {
    if (r.lo > r.hi) continue;
    if (!joined.empty() && r.lo <= joined.back().hi + 1)
      joined.back().hi = std::max(joined.back().hi, r.hi);
    else
      joined.push_back(r);
  }
  CharSet out;
  for (const CodeRange r : joined) {
    if (r.lo < kSurrogateLo) out.push_back({r.lo, std::min(r.hi, kSurrogateLo - 1)});
    if (r.hi > kSurrogateHi) out.push_back({std::max(r.lo, kSurrogateHi + 1), r.hi});
  }
  return out;
}

CharSet complement(const CharSet& set) {
  CharSet out;
  uint32_t next = 0;
  for (const CodeRange r : set) {
    if (r.lo > next) out.push_back({next, r.lo - 1});
    next = r.hi + 1;
  }
  if (next <= kMaxCodePoint) out.push_back({next, kMaxCodePoint});
  return normal(std::move(out));
}

CharSet intersection(const CharSet& a, const CharSet& b) {
  CharSet out;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    const uint32_t lo = std::max(a[i].lo, b[j].lo), hi = std::min(a[i].hi, b[j].hi);
    if (lo <= hi) out.push_back({lo, hi});
    (a[i].hi < b[j].hi ? i : j)++;
  }
  return out;
}

bool contains(const CharSet& set, uint32_t code_point) {
  const auto after = std::upper_bound(set.begin(), set.end(), code_point,
                                      [](uint32_t c, const CodeRange& r) { return c < r.lo; });
  return after != set.begin() && code_point <= std::prev(after)->hi;
}

void append_utf8(std::string& text, uint32_t c) {
  if (c < 0x80) {
    text += static_cast<char>(c);
  } else if (c < 0x800) {
    text += static_cast<char>(0xC0 | c >> 6);
    text += static_cast<char>(0x80 | (c & 63));
  } else if (c < 0x10000) {
    text += static_cast<char>(0xE0 | c >> 12);
    text += static_cast<char>(0x80 | (c >> 6 & 63));
    text += static_cast<char>(0x80 | (c & 63));
  } else {
    text += static_cast<char>(0xF0 | c >> 18);
    text += static_cast<char>(0x80 | (c >> 12 & 63));
    text += static_cast<char>(0x80 | (c >> 6 & 63));
    text += static_cast<char>(0x80 | (c & 63));
  }
}

int utf8_step(int state, uint8_t b) {
  const bool tail = b >= 0x80 && b < 0xC0;
  switch (state) {
    case 0:
      if (b < 0x80) return 0;
      if (b >= 0xC2 && b <= 0xDF) return 1;
      if (b == 0xE0) return 4;
      if (b == 0xED) return 5;
      if (b >= 0xE1 && b <= 0xEF) return 2;
      if (b == 0xF0) return 6;
      if (b == 0xF4) return 7;
      return b >= 0xF1 && b <= 0xF3 ? 3 : -1;
    case 1: return tail ? 0 : -1;
    case 2: return tail ? 1 : -1;
    case 3: return tail ? 2 : -1;
    case 4: return tail && b >= 0xA0 ? 1 : -1;
    case 5: return tail && b < 0xA0 ? 1 : -1;
    case 6: return tail && b >= 0x90 ? 2 : -1;
    default: return tail && b < 0x90 ? 2 : -1;
  }
}

uint32_t next_code_point(std::string_view text, size_t& i) {
  uint32_t c = 0;
  int state = 0;
  for (size_t j = i; j < text.size();) {
    const auto b = static_cast<uint8_t>(text[j]);
    c = state ? c << 6 | (b & 63) : b < 0x80 ? b : b & (b < 0xE0 ? 31 : b < 0xF0 ? 15 : 7);
    state = utf8_step(state, b);
    ++j;
    if (state < 0) break;
    if (state == 0) {
      i = j;
      return c;
    }
  }
  return kBadCodePoint;
}

size_t find_bad_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();)
    if (next_code_point(text, i) == kBadCodePoint) return i;
  return std::string_view::npos;
}

std::vector<ByteRanges> utf8_ranges(const CharSet& set) {
  constexpr uint32_t kLast[] = {0x7F, 0x7FF, 0xFFFF, kMaxCodePoint};
  std::vector<ByteRanges> out;
  for (const CodeRange r : set) {
    uint32_t lo = r.lo;
    for (int length = 1; length <= 4 && lo <= r.hi; ++length) {
      if (lo > kLast[length - 1]) continue;
      const uint32_t hi = std::min(r.hi, kLast[length - 1]);
      spell(lo, hi, length, out);
      lo = hi + 1;
    }
  }
  return out;
}
}  // namespace lmx::grammar
