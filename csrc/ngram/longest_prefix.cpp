// csrc/ngram/longest_prefix.cpp: CPU side of longest_prefix.h.
#include "longest_prefix.h"

#include "cpu.h"

namespace lmx::ngram::LMX_ISA {
namespace {
template <typename Order>
struct Prefix {
  using Token = typename Order::Token;
  Finder<Order, Token> finder;
  const std::vector<Shard<Order>>* shards;
  const Token* query;
  int64_t size, best;
  size_t s;
  bool corrupt;

  void start(const std::vector<Shard<Order>>& all, const Token* from, int64_t known) {
    shards = &all, query = from, size = known, best = 0, s = 0, corrupt = false;
    if (!all.empty()) finder.start(all[0], query, size);
  }
  bool step() {
    if (s >= shards->size()) return false;
    if (finder.step()) return true;
    best = std::max(best, prefix_found(finder, corrupt));
    if (++s == shards->size()) return false;
    finder.start((*shards)[s], query, size);
    return true;
  }
};

template <typename Order>
void longest_prefix_texts(const LongestPrefixParams& p) {
  int32_t bits = 0;
  const auto shards = shards_of<Order>(p.index, bits);
  for (const auto& shard : shards)
    if (shard.sign < 0) bits |= kStatusBadValue;
  const auto tokens = stored_tokens<Order>(p.qtok, p.num_tokens, p.index.vocab_size);
  // How far each start may reach: to the end of its text, or to a token that occurs nowhere.
  std::vector<int64_t> reach(static_cast<size_t>(p.num_tokens), 0);
  for (int64_t q = 0; q < p.num_queries; ++q) {
    const Span span = span_at(p.qoff, q, p.num_tokens);
    report("ngram_longest_prefix", p.status, q, bits | (span.size < 0 ? kStatusBadOffsets : 0));
    int64_t left = 0;
    for (int64_t i = span.begin + span.size - 1; i >= span.begin; --i) {
      left = tokens[static_cast<size_t>(i)] == Shard<Order>::kSep ? 0 : left + 1;
      reach[static_cast<size_t>(i)] = bits & kStatusBadValue ? 0 : left;
    }
  }
  parallel_for(0, p.num_tokens, 64, [&](int64_t begin, int64_t end) {
    interleave<Prefix<Order>>(
        begin, end,
        [&](Prefix<Order>& prefix, int64_t i, int) {
          prefix.start(shards, tokens.data() + i, reach[static_cast<size_t>(i)]);
        },
        [&](const Prefix<Order>& prefix, int64_t i, int) {
          p.len[i] = static_cast<int32_t>(prefix.best);
          if (prefix.corrupt)
            report("ngram_longest_prefix", p.status, text_at(p.qoff, p.num_queries, i),
                   kStatusCorrupt);
        });
  });
}
}  // namespace

void longest_prefix_cpu(const LongestPrefixParams& p) {
  visit_order(p.index, [&](auto order) { longest_prefix_texts<decltype(order)>(p); });
}
}  // namespace lmx::ngram::LMX_ISA
