// csrc/ngram/host/tables.cpp
#include "tables.h"

#include <nmmintrin.h>

#include <vector>

#include "../../common/philox.h"
#include "../sort_text.h"

namespace lmx::ngram {
__attribute__((target("sse4.2"))) uint32_t crc32c(const void* bytes, size_t size, uint32_t crc) {
  const auto* p = static_cast<const uint8_t*>(bytes);
  uint64_t c = ~crc;
  for (; size >= 8; size -= 8, p += 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    c = _mm_crc32_u64(c, word);
  }
  for (; size > 0; --size, ++p) c = _mm_crc32_u8(static_cast<uint32_t>(c), *p);
  return ~static_cast<uint32_t>(c);
}

namespace {
template <typename F>
auto visit_token(int token_bytes, const F& f) {
  switch (token_bytes) {
    case 1: return f(uint8_t{});
    case 2: return f(uint16_t{});
    default: return f(uint32_t{});
  }
}

// The first tokens of a suffix, from a SEP on filled with ones.
template <typename Token>
uint64_t key_at(const Token* text, int64_t n, int64_t position) {
  constexpr int kTokens = 8 / static_cast<int>(sizeof(Token)), kBits = 64 / kTokens;
  constexpr auto kSep = static_cast<Token>(~Token{0});
  uint64_t key = 0;
  bool ended = false;
  for (int i = 0; i < kTokens; ++i) {
    ended = ended || position + i >= n || text[position + i] == kSep;
    key = key << kBits | (ended ? kSep : text[position + i]);
  }
  return key;
}

// Whether suffix a comes before suffix b, up to the first SEP, then by position.
template <typename Token>
bool in_order(const Token* text, int64_t n, int64_t a, int64_t b) {
  constexpr auto kSep = static_cast<Token>(~Token{0});
  for (int64_t i = 0; a + i < n && b + i < n; ++i) {
    if (text[a + i] != text[b + i]) return text[a + i] < text[b + i];
    if (text[a + i] == kSep) return a < b;
  }
  return false;
}

template <typename Token>
const char* check_text(const Tables& t, int64_t* where) {
  const auto* text = static_cast<const Token*>(t.text);
  constexpr auto kSep = static_cast<Token>(~Token{0});
  if (t.num_tokens < 1 || text[0] != kSep || text[t.num_tokens - 1] != kSep)
    return "the text does not begin and end with a separator";
  int64_t tokens = 0;
  for (int64_t i = 0; i < t.num_tokens; ++i) {
    *where = i;
    if (text[i] == kSep) continue;
    if (static_cast<int64_t>(text[i]) >= t.vocab_size) return "a token outside the vocabulary";
    ++tokens;
  }
  return tokens == t.num_suffixes ? nullptr : "the text has another number of tokens";
}

// All of it: sa is a permutation, and in order: first tokens do not decrease, and where they are
// equal, the suffixes behind them are in order, which the ranks tell.
template <typename Token>
const char* check_all(const Tables& t, int64_t* where) {
  const auto* text = static_cast<const Token*>(t.text);
  constexpr auto kSep = static_cast<Token>(~Token{0});
  if (const char* wrong = check_text<Token>(t, where)) return wrong;
  std::vector<uint32_t> rank(static_cast<size_t>(t.num_tokens), UINT32_MAX);
  for (int64_t r = 0; r < t.num_suffixes; ++r) {
    *where = r;
    const int64_t p = t.sa[r];
    if (p >= t.num_tokens || text[p] == kSep) return "a pointer that leads to no token";
    if (rank[static_cast<size_t>(p)] != UINT32_MAX) return "a pointer that occurs twice";
    rank[static_cast<size_t>(p)] = static_cast<uint32_t>(r);
  }
  auto next = static_cast<uint32_t>(t.num_suffixes);
  for (int64_t i = 0; i < t.num_tokens; ++i)
    if (text[i] == kSep) rank[static_cast<size_t>(i)] = next++;
  for (int64_t r = 0; r + 1 < t.num_suffixes; ++r) {
    *where = r;
    const int64_t a = t.sa[r], b = t.sa[r + 1];
    const bool ordered = text[a] != text[b]
                             ? text[a] < text[b]
                             : rank[static_cast<size_t>(a + 1)] < rank[static_cast<size_t>(b + 1)];
    if (!ordered) return "neighbours out of order";
  }
  return nullptr;
}

template <typename Token>
const char* check_samples(const Tables& t, int64_t samples, int64_t seed, int64_t* where) {
  const auto* text = static_cast<const Token*>(t.text);
  constexpr auto kSep = static_cast<Token>(~Token{0});
  if (t.num_tokens < 1 || text[0] != kSep || text[t.num_tokens - 1] != kSep)
    return "the text does not begin and end with a separator";
  if (t.num_suffixes > t.num_tokens) return "more suffixes than tokens";
  for (int64_t i = 0; i < samples && t.num_suffixes > 0; ++i) {
    const uint64_t draw =
        uint64_t{philox_word(seed, i, 0, 0, 0)} << 32 | philox_word(seed, i, 0, 1, 0);
    const auto r = static_cast<int64_t>(draw % static_cast<uint64_t>(t.num_suffixes));
    *where = r;
    const int64_t a = t.sa[r], b = r + 1 < t.num_suffixes ? int64_t{t.sa[r + 1]} : -1;
    if (a >= t.num_tokens || b >= t.num_tokens || text[a] == kSep || (b >= 0 && text[b] == kSep))
      return "a pointer that leads to no token";
    if (b >= 0 && !in_order(text, t.num_tokens, a, b)) return "neighbours out of order";
  }
  return nullptr;
}

template <typename Token>
const char* check_side(const Tables& t, bool all, int64_t* where) {
  const auto* text = static_cast<const Token*>(t.text);
  for (int64_t y = 0; y <= t.vocab_size + 1; ++y) {
    *where = y;
    if (t.lut[y] < 0 || (y > 0 && t.lut[y] < t.lut[y - 1]))
      return "the table of first tokens falls";
  }
  if (t.lut[t.vocab_size + 1] != t.num_suffixes || t.lut[t.vocab_size] != t.num_suffixes)
    return "the table of first tokens has another end";
  for (int64_t y = 0; all && y < t.vocab_size; ++y)
    for (int64_t r : {t.lut[y], t.lut[y + 1] - 1}) {
      *where = y;
      if (t.lut[y] < t.lut[y + 1] && text[t.sa[r]] != static_cast<Token>(y))
        return "the table of first tokens is wrong";
    }
  for (int64_t k = 0; all && k << kKeyShift < t.num_suffixes; ++k) {
    *where = k;
    if (t.skey[k] != key_at(text, t.num_tokens, t.sa[k << kKeyShift])) return "a key is wrong";
  }
  return nullptr;
}
}  // namespace

void sort_shard(const Tables& t, int32_t* all, Job& job) {
  const auto poll = [&job](int32_t done) { job.tick(done); };
  visit_token(t.token_bytes, [&](auto token) {
    sort_text(static_cast<const decltype(token)*>(t.text), t.num_tokens, t.vocab_size, all, poll);
  });
}

void fill_tables(const Tables& t) {
  visit_token(t.token_bytes, [&](auto token) {
    const auto* text = static_cast<const decltype(token)*>(t.text);
    constexpr auto kSep = static_cast<decltype(token)>(~decltype(token){0});
    std::fill_n(t.lut, t.vocab_size + 2, 0);
    for (int64_t i = 0; i < t.num_tokens; ++i)
      if (text[i] != kSep) ++t.lut[static_cast<int64_t>(text[i]) + 1];
    for (int64_t y = 0; y <= t.vocab_size; ++y) t.lut[y + 1] += t.lut[y];
    for (int64_t k = 0; k << kKeyShift < t.num_suffixes; ++k)
      t.skey[k] = key_at(text, t.num_tokens, t.sa[k << kKeyShift]);
  });
}

const char* check_tables(const Tables& t, int64_t samples, int64_t seed, int64_t* where) {
  *where = 0;
  return visit_token(t.token_bytes, [&](auto token) {
    using Token = decltype(token);
    const char* wrong =
        samples == 0 ? check_all<Token>(t, where) : check_samples<Token>(t, samples, seed, where);
    return wrong ? wrong : check_side<Token>(t, samples == 0, where);
  });
}
}  // namespace lmx::ngram
