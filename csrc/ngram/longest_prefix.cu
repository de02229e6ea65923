// csrc/ngram/longest_prefix.cu: CUDA side of longest_prefix.h. A thread per start: one search for
// all that follows, then two compares with its neighbours.
#include "longest_prefix.h"

#include "index.cuh"

namespace lmx::ngram {
namespace {
constexpr int kThreads = 128;

template <typename Order>
__global__ void __launch_bounds__(kThreads) longest_prefix_kernel(LongestPrefixParams p) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= p.num_tokens || p.num_queries == 0) return;
  const int64_t text = text_at(p.qoff, p.num_queries, i);
  const Span span = span_at(p.qoff, text, p.num_tokens);
  const int64_t left = span.begin + span.size - i;
  int32_t bits = 0;
  int64_t best = 0;
  if (span.size > 0 && i >= span.begin && left > 0) {
    const int64_t size = known_prefix(p.qtok + i, left, p.index.vocab_size);
    for (int64_t s = 0; s < p.index.num_shards; ++s) {
      Shard<Order> shard;
      bool corrupt = !shard_at(p.index, s, shard);
      if (shard.sign < 0) bits |= kStatusBadValue;
      Finder<Order, int64_t> finder;
      finder.start(shard, p.qtok + i, size);
      finder.run();
      best = max(best, prefix_found(finder, corrupt));
      if (corrupt) bits |= kStatusCorrupt;
    }
  }
  p.len[i] = bits & kStatusBadValue ? 0 : static_cast<int32_t>(best);
  set_bits(p.status, text, bits);
}

// Rows whose offsets are wrong; they have no token of their own to say so.
template <typename Order>
__global__ void __launch_bounds__(kThreads) check_rows_kernel(LongestPrefixParams p) {
  const int64_t q = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (q >= p.num_queries) return;
  int32_t bits = span_at(p.qoff, q, p.num_tokens).size < 0 ? kStatusBadOffsets : 0;
  for (int64_t s = 0; s < p.index.num_shards; ++s) {
    Shard<Order> shard;
    if (!shard_at(p.index, s, shard)) bits |= kStatusCorrupt;
    if (shard.sign < 0) bits |= kStatusBadValue;
  }
  set_bits(p.status, q, bits);
}
}  // namespace
// ---- launcher: 6 orders x 2 ---------------------------------------------------------------
void longest_prefix_cuda(const LongestPrefixParams& p, cudaStream_t stream) {
  visit_order(p.index, [&](auto order) {
    using Order = decltype(order);
    if (p.num_tokens > 0)
      launch(longest_prefix_kernel<Order>, ceil_div<int64_t>(p.num_tokens, kThreads), kThreads, 0,
             stream, p);
    if (p.num_queries > 0)
      launch(check_rows_kernel<Order>, ceil_div<int64_t>(p.num_queries, kThreads), kThreads, 0,
             stream, p);
  });
}
}  // namespace lmx::ngram
