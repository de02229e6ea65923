// csrc/ngram/find.cpp: CPU side of find.h.
#include "find.h"

#include "cpu.h"

namespace lmx::ngram::LMX_ISA {
namespace {
// One finder goes through the shards of a query.
template <typename Order>
struct Lookup {
  using Token = typename Order::Token;
  Finder<Order, Token> finder;
  const FindParams* p;
  const Shard<Order>* shards;
  const Token* query;
  int64_t q, s, size, known, count;
  int32_t bits;

  void start(const FindParams& params, const Shard<Order>* all, const Token* tokens, int64_t item) {
    p = &params, shards = all, q = item, s = 0, count = 0;
    const Span span = span_at(params.qoff, item, params.num_tokens);
    bits = span.size < 0 ? kStatusBadOffsets : 0;
    query = tokens + span.begin;
    size = span.size < 0 ? 1 : span.size;
    known = span.size < 0 ? 0 : known_prefix(query, size);
    if (p->index.num_shards > 0) next_shard();
  }
  void next_shard() { bits |= start_find(*p, shards[s], q, s, query, size, known, finder); }
  bool step() {
    if (s >= p->index.num_shards) return false;
    if (finder.step()) return true;
    int64_t* rng = p->rng + (q * p->index.num_shards + s) * 2;
    rng[0] = finder.lo, rng[1] = finder.hi;
    count += shards[s].sign * (finder.hi - finder.lo);
    if (finder.corrupt) bits |= kStatusCorrupt;
    if (++s == p->index.num_shards) return false;
    next_shard();
    return true;
  }
};
}  // namespace

void find_cpu(const FindParams& p) {
  visit_order(p.index, [&](auto order) {
    using Order = decltype(order);
    int32_t bits = 0;
    const auto shards = shards_of<Order>(p.index, bits);
    const auto tokens = stored_tokens<Order>(p.qtok, p.num_tokens, p.index.vocab_size);
    parallel_for(0, p.num_queries, 64, [&](int64_t begin, int64_t end) {
      interleave<Lookup<Order>>(
          begin, end,
          [&](Lookup<Order>& lookup, int64_t q, int) {
            lookup.start(p, shards.data(), tokens.data(), q);
          },
          [&](const Lookup<Order>& lookup, int64_t q, int) {
            p.cnt[q] = lookup.count;
            report("ngram_find", p.status, q, bits | lookup.bits);
          });
    });
  });
}
}  // namespace lmx::ngram::LMX_ISA
