// csrc/ngram/find.cu: CUDA side of find.h, in two forms with the same results.
// Throughput, from 4096 pairs of query and shard on: a thread per pair runs the finder of search.h,
// about 20 dependent loads. Latency: 16 lanes per pair try 16 pivots at once, so that a bound in
// 2^30 ranks takes 8 rounds of two dependent loads.
#include "find.h"

#include "index.cuh"

namespace lmx::ngram {
namespace {
// ---- launch parameters --------------------------------------------------------------------
constexpr int kThreads = 128;
constexpr int kGroup = 16;
constexpr int64_t kManyPairs = 4096;
// ---- device helpers -----------------------------------------------------------------------
struct Query {
  const int64_t* tokens;
  int64_t size, known;
  int32_t bits;
};
__device__ __forceinline__ Query query_at(const FindParams& p, int64_t q) {
  const Span span = span_at(p.qoff, q, p.num_tokens);
  if (span.size < 0) return {p.qtok, 1, 0, kStatusBadOffsets};
  const int64_t* tokens = p.qtok + span.begin;
  return {tokens, span.size, known_prefix(tokens, span.size, p.index.vocab_size), 0};
}

// The first rank in `r` that is not before the query's range (or, with `past`, behind it), by the
// lanes of a group. All between the ends share min(lo_same, hi_same) tokens with the query.
template <typename Order>
__device__ Range group_bound(const Finder<Order, int64_t>& f, Range r, int64_t lo_same,
                             int64_t hi_same, bool past, unsigned mask, bool& corrupt) {
  const int lane = threadIdx.x % kGroup;
  while (r.lo < r.hi) {
    const int64_t step = ceil_div<int64_t>(r.hi - r.lo, kGroup + 1);
    const int64_t rank = r.lo + step * (lane + 1) - 1;
    const bool tries = rank < r.hi;
    const int64_t position = tries ? f.shard.position(rank) : 0;
    corrupt = __any_sync(mask, position < 0);
    if (corrupt) return {0, 0};
    Compared c{0, false};
    if (tries) c = compare(f.shard, position, f.query, f.size, min(lo_same, hi_same));
    const bool before = tries && (c.less || (past && c.agree == f.size));
    const unsigned ballot =
        __ballot_sync(mask, before) >> (threadIdx.x % kWarpSize / kGroup * kGroup);
    const int count = __popc(ballot & 0xffff);
    const int64_t below = __shfl_sync(mask, c.agree, count > 0 ? count - 1 : 0, kGroup);
    const int64_t above = __shfl_sync(mask, c.agree, count < kGroup ? count : 0, kGroup);
    const int64_t pivot = r.lo + step * (count + 1) - 1;
    r.lo += step * count;
    if (count > 0) lo_same = below;
    if (count < kGroup && pivot < r.hi) r.hi = pivot, hi_same = above;
  }
  return r;
}
// ---- kernels ------------------------------------------------------------------------------
template <typename Order>
__global__ void __launch_bounds__(kThreads) find_kernel(FindParams p) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t num_shards = p.index.num_shards;
  if (i >= p.num_queries * num_shards) return;
  const int64_t q = i / num_shards, s = i % num_shards;
  const Query query = query_at(p, q);
  Shard<Order> shard;
  int32_t bits = query.bits | (shard_at(p.index, s, shard) ? 0 : kStatusCorrupt);
  Finder<Order, int64_t> finder;
  bits |= start_find(p, shard, q, s, query.tokens, query.size, query.known, finder);
  const Range r = finder.run();
  p.rng[i * 2] = r.lo, p.rng[i * 2 + 1] = r.hi;
  set_bits(p.status, q, bits | (finder.corrupt ? kStatusCorrupt : 0));
}

template <typename Order>
__global__ void __launch_bounds__(kThreads) find_group_kernel(FindParams p) {
  const int64_t i = int64_t{blockIdx.x} * (kThreads / kGroup) + threadIdx.x / kGroup;
  const int64_t num_shards = p.index.num_shards;
  if (i >= p.num_queries * num_shards) return;  // the whole group
  const unsigned mask = 0xffffu << (threadIdx.x % kWarpSize / kGroup * kGroup);
  const int64_t q = i / num_shards, s = i % num_shards;
  const Query query = query_at(p, q);
  Shard<Order> shard;
  int32_t bits = query.bits | (shard_at(p.index, s, shard) ? 0 : kStatusCorrupt);
  Finder<Order, int64_t> f;  // its start reads tables and hints; the bounds are ours
  bits |= start_find(p, shard, q, s, query.tokens, query.size, query.known, f);
  const bool done = f.phase == Finder<Order, int64_t>::Phase::done;
  const Range all{f.lo, f.hi};
  bool corrupt = f.corrupt;
  Range low = all, high = all;
  if (!done) {
    low = group_bound(f, all, f.lo_same, f.lo_same, false, mask, corrupt);
    high =
        corrupt ? low : group_bound(f, {low.lo, all.hi}, f.lo_same, f.lo_same, true, mask, corrupt);
  }
  if (threadIdx.x % kGroup != 0) return;
  p.rng[i * 2] = corrupt ? 0 : low.lo;
  p.rng[i * 2 + 1] = corrupt ? 0 : done ? all.hi : high.lo;
  set_bits(p.status, q, bits | (corrupt ? kStatusCorrupt : 0));
}

__global__ void __launch_bounds__(kThreads) sum_kernel(FindParams p) {
  const int64_t q = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (q >= p.num_queries) return;
  int64_t count = 0;
  for (int64_t s = 0; s < p.index.num_shards; ++s) {
    const int64_t* r = p.rng + (q * p.index.num_shards + s) * 2;
    const int64_t sign = p.index.shards[s * kShardColumns + 7];
    count += sign < 0 ? r[0] - r[1] : r[1] - r[0];
  }
  p.cnt[q] = count;
}
}  // namespace
// ---- launcher: 6 orders x 2 forms ---------------------------------------------------------
void find_cuda(const FindParams& p, cudaStream_t stream) {
  const int64_t pairs = p.num_queries * p.index.num_shards;
  if (p.num_queries == 0) return;
  if (pairs > 0) {
    visit_order(p.index, [&](auto order) {
      using Order = decltype(order);
      if (pairs >= kManyPairs)
        launch(find_kernel<Order>, ceil_div<int64_t>(pairs, kThreads), kThreads, 0, stream, p);
      else
        launch(find_group_kernel<Order>, ceil_div<int64_t>(pairs, kThreads / kGroup), kThreads, 0,
               stream, p);
    });
  }
  launch(sum_kernel, ceil_div<int64_t>(p.num_queries, kThreads), kThreads, 0, stream, p);
}
}  // namespace lmx::ngram
