// csrc/ngram/next.cuh: how the kernels of next.cu and next_rows.cu read a distribution. A block per
// query; its threads share the cells of each shard's range out evenly and walk the runs that begin
// in their part, a doubling search per run: in small ranges every load is a thread's own, in large
// ones the cost is runs * log(run). A run is counted by the first shard that holds its token, with
// the counts of all, so that lists of different shards hold different tokens.
#pragma once
#include "index.cuh"
#include "next.h"

namespace lmx::ngram {
constexpr int kNextThreads = 128;
constexpr int kNextBlocks = 4;  // at once on a multiprocessor: 128 registers a thread

// Calls f(token, count) for the tokens whose run in shard s begins in this thread's part, counted
// over all shards. The end of documents and eos_id are left to end_count.
template <typename Order, typename F>
__device__ __forceinline__ void walk_part(const NextParams& p, int64_t q, int64_t s, int64_t unit,
                                          int32_t& bits, const F& f) {
  using N = Next<Order>;
  Cells<Order> cells = cells_of<Order>(p, q, s, unit, bits);
  const int64_t size = cells.size(), stop = size * (threadIdx.x + 1) / kNextThreads;
  int64_t c = size * threadIdx.x / kNextThreads;
  if (c >= stop) return;
  bool mine = c == 0;  // a run that began before is another thread's
  if (!mine) --c;
  while (c < stop) {
    const int64_t place = cells.place(c), end = cells.end_of_run(c + 1, size, place);
    const int64_t token = N::token_of(place);
    int64_t count = cells.next.shard.sign * (cells.rank(end) - cells.rank(c));
    mine = mine && !N::is_end(place) && token != p.index.eos_id;
    for (int64_t t = 0; mine && t < p.index.num_shards; ++t) {
      if (t == s) continue;
      Cells<Order> other = cells_of<Order>(p, q, t, unit, bits);
      const int64_t there = other.count(place);
      mine = there == 0 || t > s;
      count += other.next.shard.sign * there;
    }
    if (mine && count < 0) bits |= kStatusCorrupt;
    if (mine && count > 0) f(token, count);
    mine = true, c = end;
  }
  if (cells.next.corrupt) bits |= kStatusCorrupt;
}

// The count listed under eos_id, or -1: of separators, of the text's end, of the token itself.
template <typename Order>
__device__ __forceinline__ int64_t end_count(const NextParams& p, int64_t q, int64_t unit,
                                             int32_t& bits) {
  int64_t count = 0;
  for (int64_t s = 0; s < p.index.num_shards; ++s) {
    Cells<Order> cells = cells_of<Order>(p, q, s, unit, bits);
    int64_t here = 0;
    const int64_t tokens = p.index.eos_id >= 0 ? 2 : 1;
#pragma unroll 1
    for (int64_t i = Order::kForeign ? -1 : 0; i < tokens; ++i)
      here += cells.count(i < 0 ? 0 : Next<Order>::place_of(i == 0 ? -1 : p.index.eos_id));
    count += cells.next.shard.sign * here;
    if (cells.next.corrupt) bits |= kStatusCorrupt;
  }
  if (count < 0) bits |= kStatusCorrupt;
  return count > 0 ? count : 0;
}
}  // namespace lmx::ngram
