// csrc/ngram/longest_suffix.cu: CUDA side of longest_suffix.h. A warp per context: its lanes try 32
// lengths at once, so that up to 1024 tokens take three rounds; then the lanes take the shards for
// the ranges.
#include "longest_suffix.h"

#include "index.cuh"

namespace lmx::ngram {
namespace {
// ---- launch parameters --------------------------------------------------------------------
constexpr int kThreads = 128;
constexpr int kBlocks = 4;  // at once on a multiprocessor: 128 registers a thread
// ---- kernel -------------------------------------------------------------------------------
template <typename Order>
__global__ void __launch_bounds__(kThreads, kBlocks) longest_suffix_kernel(LongestSuffixParams p) {
  const int64_t q = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kWarpSize;
  if (q >= p.num_queries) return;  // the whole warp
  const int lane = threadIdx.x % kWarpSize;
  const Span span = span_at(p.qoff, q, p.num_tokens);
  int32_t bits = span.size < 0 ? kStatusBadOffsets : 0;
  const int64_t size = span.size < 0 ? 0 : span.size;
  const int64_t* end = p.qtok + span.begin + size;
  const int64_t bound = bounded(size, p.max_len);
  const int64_t most = known_suffix(end - bound, bound, p.index.vocab_size);
  const int64_t prev = p.prev_len ? p.prev_len[q] : -1;
  const int64_t found = warp_longest<Order>(p.index, end, most, p.min_count, prev, bits);
  int64_t count = 0;
  for (int64_t s = lane; s < p.index.num_shards; s += kWarpSize) {
    Shard<Order> shard;
    if (!shard_at(p.index, s, shard)) bits |= kStatusCorrupt;
    Finder<Order, int64_t> finder;
    finder.start(shard, end - found, found);
    const Range r = finder.run();
    int64_t* rng = p.rng + (q * p.index.num_shards + s) * 2;
    rng[0] = r.lo, rng[1] = r.hi;
    count += shard.sign * (r.hi - r.lo);
  }
  count = warp_sum(count);
  set_bits(p.status, q, bits);
  if (lane == 0) p.len[q] = static_cast<int32_t>(found), p.cnt[q] = count;
}
}  // namespace
// ---- launcher: 6 orders -------------------------------------------------------------------
void longest_suffix_cuda(const LongestSuffixParams& p, cudaStream_t stream) {
  if (p.num_queries == 0) return;
  visit_order(p.index, [&](auto order) {
    launch(longest_suffix_kernel<decltype(order)>,
           ceil_div<int64_t>(p.num_queries, kThreads / kWarpSize), kThreads, 0, stream, p);
  });
}
}  // namespace lmx::ngram
