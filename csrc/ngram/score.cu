// csrc/ngram/score.cu: CUDA side of score.h. A warp per token: the longest suffix by its lanes,
// then the lanes take the shards. Every token is searched afresh, which costs more loads than a
// stream but lets all of them run at once.
#include "score.h"

#include "index.cuh"

namespace lmx::ngram {
namespace {
constexpr int kThreads = 128;
constexpr int kBlocks = 4;  // at once on a multiprocessor: 128 registers a thread
// ---- device helpers -----------------------------------------------------------------------
template <typename Order>
__device__ Range range_in(const Index& index, int64_t s, const int64_t* string, int64_t size,
                          Shard<Order>& shard) {
  shard_at(index, s, shard);
  Finder<Order, int64_t> finder;
  finder.start(shard, string, size);
  return finder.run();
}

// min(2, tokens that follow), as Distinct of score.h, by one lane; ranges are found again.
template <typename Order>
__device__ int32_t distinct_after(const Index& index, const int64_t* string, int64_t size,
                                  int32_t& bits) {
  int64_t seen = INT64_MIN;
  for (int64_t s = 0; s < index.num_shards; ++s) {
    Shard<Order> shard;
    const Range r = range_in(index, s, string, size, shard);
    if (shard.sign < 0) continue;
    Cells<Order> cells{{shard, size}, r, 1};
    const int64_t count = cells.size();
    for (int64_t c = 0; c < count;) {
      const int64_t place = cells.place(c);
      const int64_t token =
          Next<Order>::is_end(place) ? index.eos_id : Next<Order>::token_of(place);
      int64_t total = 0;
      for (int64_t t = 0; token != seen && t < index.num_shards; ++t) {
        Shard<Order> other;
        const Range range = range_in(index, t, string, size, other);
        Next<Order> next{other, size};
        int64_t here = token == index.eos_id ? next.count_end(range) : 0;
        if (token >= 0) here += next.count(range, next.place_of(token));
        total += other.sign * here;
      }
      if (total > 0) {
        if (seen != INT64_MIN) return 2;
        seen = token;
      }
      if (c == 0 && cells.place(count - 1) == place) break;
      c = cells.end_of_run(c + 1, count, place);
    }
    if (cells.next.corrupt) bits |= kStatusCorrupt;
  }
  return seen != INT64_MIN;
}
// ---- kernel -------------------------------------------------------------------------------
template <typename Order>
__global__ void __launch_bounds__(kThreads, kBlocks) score_kernel(ScoreParams p) {
  const int64_t t = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kWarpSize;
  if (t >= p.num_tokens || p.num_texts == 0) return;  // the whole warp
  const int lane = threadIdx.x % kWarpSize;
  const int64_t text = text_at(p.qoff, p.num_texts, t);
  const Span span = span_at(p.qoff, text, p.num_tokens);
  if (t < span.begin || t >= span.begin + span.size) {  // of no text
    if (lane == 0) p.suffix_len[t] = p.distinct[t] = 0, p.den[t] = p.num[t] = 0;
    return;
  }
  const Index& index = p.index;
  const int64_t* end = p.qtok + t;
  const int64_t bound = bounded(t - span.begin, p.max_len);
  const int64_t most = known_suffix(end - bound, bound, index.vocab_size);
  int32_t bits = 0;
  const int64_t len = warp_longest<Order>(index, end, most, p.min_count, -1, bits);
  int64_t num = 0, den = 0;
  for (int64_t s = lane; s < index.num_shards; s += kWarpSize) {
    Shard<Order> shard;
    const Range r = range_in(index, s, end - len, len, shard);
    Next<Order> next{shard, len};
    int64_t here = index.eos_id >= 0 && *end == index.eos_id ? next.count_end(r) : 0;
    if (is_token(*end, index.vocab_size)) here += next.count(r, next.place_of(*end));
    num += shard.sign * here, den += shard.sign * (r.hi - r.lo);
    if (next.corrupt) bits |= kStatusCorrupt;
  }
  num = warp_sum(num), den = warp_sum(den);
  if (lane == 0) {
    int32_t distinct = den <= 0 ? 0 : num == den ? 1 : 2;
    if (den > 0 && num <= 0) distinct = distinct_after<Order>(index, end - len, len, bits);
    p.suffix_len[t] = static_cast<int32_t>(len), p.den[t] = den, p.num[t] = num;
    p.distinct[t] = distinct;
  }
  set_bits(p.status, text, bits);
}

template <typename Order>
__global__ void __launch_bounds__(kThreads) check_texts_kernel(ScoreParams p) {
  const int64_t q = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (q >= p.num_texts) return;
  int32_t bits = span_at(p.qoff, q, p.num_tokens).size < 0 ? kStatusBadOffsets : 0;
  for (int64_t s = 0; s < p.index.num_shards; ++s) {
    Shard<Order> shard;
    if (!shard_at(p.index, s, shard)) bits |= kStatusCorrupt;
  }
  set_bits(p.status, q, bits);
}
}  // namespace
// ---- launcher: 6 orders x 2 ---------------------------------------------------------------
void score_cuda(const ScoreParams& p, cudaStream_t stream) {
  visit_order(p.index, [&](auto order) {
    using Order = decltype(order);
    if (p.num_tokens > 0)
      launch(score_kernel<Order>, ceil_div<int64_t>(p.num_tokens, kThreads / kWarpSize), kThreads,
             0, stream, p);
    if (p.num_texts > 0)
      launch(check_texts_kernel<Order>, ceil_div<int64_t>(p.num_texts, kThreads), kThreads, 0,
             stream, p);
  });
}
}  // namespace lmx::ngram
