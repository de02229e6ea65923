// csrc/ngram/sort_text.h: from a shard's text to its suffix array on the CPU, for the op and for
// the builder.
#pragma once
#include <algorithm>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>

#include "sa_build.h"
#include "sais.h"

namespace lmx::ngram {
// The text in symbols without gaps: tokens in use get 0, 1, ..., the k-th SEP the k-th symbol after
// them. As distinct largest symbols, separators give exactly the order of index.h, and their
// suffixes come last. Returns the number of symbols; throws std::invalid_argument where the text
// is not laid out as it should be.
template <typename Token>
int32_t dense_symbols(const Token* text, int64_t n, int64_t vocab_size, int32_t* symbols) {
  constexpr auto kSep = static_cast<Token>(~Token{0});
  const auto refuse = [](const std::string& what) {
    throw std::invalid_argument("lmx::ngram_sa_build: expected " + what);
  };
  if (n < 1 || text[0] != kSep || text[n - 1] != kSep)
    refuse("text that begins and ends with a separator");
  std::vector<int32_t> rank(static_cast<size_t>(vocab_size), 0);
  for (int64_t i = 0; i < n; ++i) {
    if (text[i] == kSep) continue;
    if (static_cast<int64_t>(text[i]) >= vocab_size)
      refuse("tokens below " + std::to_string(vocab_size) + ", got " + std::to_string(text[i]) +
             " at " + std::to_string(i));
    rank[text[i]] = 1;
  }
  int32_t used = 0;
  for (int32_t& r : rank) {
    const int32_t is_used = r;
    r = used;
    used += is_used;
  }
  int32_t next_sep = used;
  for (int64_t i = 0; i < n; ++i) symbols[i] = text[i] == kSep ? next_sep++ : rank[text[i]];
  return next_sep;
}

// The suffixes at tokens come first in the array of all N: `sa` holds N entries, the caller keeps
// the first num_suffixes.
template <typename Token, typename Poll>
void sort_text(const Token* text, int64_t n, int64_t vocab_size, int32_t* sa, const Poll& poll) {
  if (n > kMaxShardTokens)
    throw std::invalid_argument("lmx::ngram_sa_build: expected at most " +
                                std::to_string(kMaxShardTokens) + " tokens a shard, got " +
                                std::to_string(n));
  const std::unique_ptr<int32_t[]> symbols(new int32_t[static_cast<size_t>(n)]);
  const int32_t num_symbols = dense_symbols(text, n, vocab_size, symbols.get());
  SaIs<Poll>(poll).sort(symbols.get(), sa, static_cast<int32_t>(n), num_symbols);
}
}  // namespace lmx::ngram
