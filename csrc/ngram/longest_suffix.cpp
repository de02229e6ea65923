// csrc/ngram/longest_suffix.cpp: CPU side of longest_suffix.h.
#include "longest_suffix.h"

#include "cpu.h"

namespace lmx::ngram::LMX_ISA {
namespace {
template <typename Order>
void longest_suffix_queries(const LongestSuffixParams& p) {
  using Token = typename Order::Token;
  int32_t corrupt = 0;
  const auto shards = shards_of<Order>(p.index, corrupt);
  const auto tokens = stored_tokens<Order>(p.qtok, p.num_tokens, p.index.vocab_size);
  const int64_t num_shards = p.index.num_shards;
  parallel_for(0, p.num_queries, 16, [&](int64_t begin, int64_t end) {
    std::vector<Range> space(static_cast<size_t>(2 * num_shards * kInFlight));
    using Search = SuffixSearch<Order, Token>;
    interleave<Search>(
        begin, end,
        [&](Search& search, int64_t q, int slot) {
          const Span span = span_at(p.qoff, q, p.num_tokens);
          const int64_t size = span.size < 0 ? 0 : span.size;
          const Token* last = tokens.data() + span.begin + size;
          const int64_t most = bounded(size, p.max_len);
          Range* ranges = space.data() + 2 * num_shards * slot;
          search.start(shards.data(), num_shards, last, known_suffix(last - most, most),
                       p.min_count, p.prev_len ? p.prev_len[q] : -1, ranges, ranges + num_shards);
        },
        [&](const Search& search, int64_t q, int) {
          p.len[q] = static_cast<int32_t>(search.found);
          p.cnt[q] = search.count;
          for (int64_t s = 0; s < num_shards; ++s) {
            p.rng[(q * num_shards + s) * 2] = search.ranges[s].lo;
            p.rng[(q * num_shards + s) * 2 + 1] = search.ranges[s].hi;
          }
          int32_t bits = corrupt | (search.corrupt ? kStatusCorrupt : 0);
          if (span_at(p.qoff, q, p.num_tokens).size < 0) bits |= kStatusBadOffsets;
          report("ngram_longest_suffix", p.status, q, bits);
        });
  });
}
}  // namespace

void longest_suffix_cpu(const LongestSuffixParams& p) {
  visit_order(p.index, [&](auto order) { longest_suffix_queries<decltype(order)>(p); });
}
}  // namespace lmx::ngram::LMX_ISA
