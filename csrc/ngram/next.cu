// csrc/ngram/next.cu: CUDA side of next.h. A block per query; its threads share the cells of each
// shard's range out evenly and walk the runs that begin in their part, a doubling search per run:
// in small ranges every load is a thread's own, in large ones the cost is runs * log(run). A run is
// counted by the first shard that holds its token, with the counts of all, so that lists of
// different shards hold different tokens; ntd writes them one behind the other and merges by rank.
#include "next.h"

#include "index.cuh"

namespace lmx::ngram {
namespace {
// ---- launch parameters --------------------------------------------------------------------
constexpr int kThreads = 128;
constexpr int kScanThreads = 1024;
// ---- device helpers -----------------------------------------------------------------------
// Calls f(token, count) for the tokens whose run in shard s begins in this thread's part, counted
// over all shards. The end of documents and eos_id are left to end_count.
template <typename Order, typename F>
__device__ void walk_part(const NextParams& p, int64_t q, int64_t s, int64_t unit, int32_t& bits,
                          const F& f) {
  using N = Next<Order>;
  Cells<Order> cells = cells_of<Order>(p, q, s, unit, bits);
  const int64_t size = cells.size(), stop = size * (threadIdx.x + 1) / kThreads;
  int64_t c = size * threadIdx.x / kThreads;
  if (c < stop && c > 0) {  // a run that began before is another thread's
    const int64_t before = cells.place(c - 1);
    if (cells.place(c) == before) c = cells.end_of_run(c, size, before);
  }
  while (c < stop) {
    const int64_t place = cells.place(c), end = cells.end_of_run(c + 1, size, place);
    const int64_t token = N::token_of(place);
    int64_t count = cells.next.shard.sign * (cells.rank(end) - cells.rank(c));
    bool mine = !N::is_end(place) && token != p.index.eos_id;
    for (int64_t t = 0; mine && t < p.index.num_shards; ++t) {
      if (t == s) continue;
      Cells<Order> other = cells_of<Order>(p, q, t, unit, bits);
      const int64_t there = other.count(place);
      mine = there == 0 || t > s;
      count += other.next.shard.sign * there;
    }
    if (mine && count < 0) bits |= kStatusCorrupt;
    if (mine && count > 0) f(token, count);
    c = end;
  }
  if (cells.next.corrupt) bits |= kStatusCorrupt;
}

// The count listed under eos_id, or -1.
template <typename Order>
__device__ int64_t end_count(const NextParams& p, int64_t q, int64_t unit, int32_t& bits) {
  int64_t count = 0;
  for (int64_t s = 0; s < p.index.num_shards; ++s) {
    Cells<Order> cells = cells_of<Order>(p, q, s, unit, bits);
    int64_t here = cells.count(Next<Order>::place_of(-1));
    if (Order::kForeign) here += cells.count(0);
    if (p.index.eos_id >= 0) here += cells.count(Next<Order>::place_of(p.index.eos_id));
    count += cells.next.shard.sign * here;
    if (cells.next.corrupt) bits |= kStatusCorrupt;
  }
  if (count < 0) bits |= kStatusCorrupt;
  return count > 0 ? count : 0;
}

template <int kCount>
struct ScanShared {
  int64_t warp[kCount / kWarpSize];
};

// ---- next_prob ----------------------------------------------------------------------------
template <typename Order>
__global__ void __launch_bounds__(kThreads) next_prob_kernel(NextProbParams p) {
  const int64_t q = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (q >= p.next.num_queries) return;
  int32_t bits = 0;
  next_prob_of<Order>(p, q, bits);
  set_bits(p.next.status, q, bits);
}

// ---- ntd: count the runs, scan the counts, write the lists, merge them -----------------------
template <typename Order>
__global__ void __launch_bounds__(kThreads) count_runs_kernel(NtdParams p) {
  auto& shared = shared_memory<ScanShared<kThreads>>();
  const int64_t q = blockIdx.x, num_shards = p.next.index.num_shards;
  int64_t* runs = p.runs + q * (num_shards + 1);
  int32_t bits = 0;
  const Support support = support_of<Order>(p.next, q, bits);
  for (int64_t s = 0; s < num_shards; ++s) {
    int64_t mine = 0, total;
    walk_part<Order>(p.next, q, s, support.unit, bits, [&](int64_t, int64_t) { ++mine; });
    block_exclusive_sum<kThreads>(mine, total, shared.warp);
    if (threadIdx.x == 0) runs[s] = total;
  }
  if (threadIdx.x == 0) {
    runs[num_shards] = end_count<Order>(p.next, q, support.unit, bits) > 0;
    p.den[q] = support.den, p.approx[q] = support.unit > 1;
  }
  set_bits(p.next.status, q, bits);
}

// runs becomes the sums before each entry, by one block; rows begin at crow.
__global__ void __launch_bounds__(kScanThreads) scan_runs_kernel(NtdParams p) {
  auto& shared = shared_memory<ScanShared<kScanThreads>>();
  const int64_t lists = p.next.index.num_shards + 1, size = p.next.num_queries * lists;
  int64_t sum = 0;
  for (int64_t first = 0; first < size; first += kScanThreads) {
    const int64_t i = first + threadIdx.x;
    const int64_t mine = i < size ? p.runs[i] : 0;
    int64_t total;
    const int64_t before = sum + block_exclusive_sum<kScanThreads>(mine, total, shared.warp);
    if (i < size) {
      p.runs[i] = before;
      if (i % lists == 0) p.crow[i / lists] = before;
    }
    sum += total;
  }
  if (threadIdx.x == 0) p.runs[size] = sum, p.crow[p.next.num_queries] = sum;
}

template <typename Order>
__global__ void __launch_bounds__(kThreads) write_runs_kernel(NtdParams p) {
  auto& shared = shared_memory<ScanShared<kThreads>>();
  const int64_t q = blockIdx.x, num_shards = p.next.index.num_shards;
  const int64_t* runs = p.runs + q * (num_shards + 1);
  const bool fits = p.crow[q + 1] <= p.capacity;
  if (!fits) {
    if (threadIdx.x == 0) set_bits(p.next.status, q, kStatusTooMany);
    return;  // the whole block
  }
  int32_t bits = 0;
  const Support support = support_of<Order>(p.next, q, bits);
  for (int64_t s = 0; s < num_shards; ++s) {
    int64_t mine = 0, total;
    walk_part<Order>(p.next, q, s, support.unit, bits, [&](int64_t, int64_t) { ++mine; });
    int64_t to = runs[s] + block_exclusive_sum<kThreads>(mine, total, shared.warp);
    walk_part<Order>(p.next, q, s, support.unit, bits, [&](int64_t token, int64_t count) {
      if (to < p.capacity) p.run_tok[to] = token, p.run_num[to] = count;
      ++to;
    });
  }
  const int64_t at = runs[num_shards];
  if (threadIdx.x == 0 && at < runs[num_shards + 1] && at < p.capacity) {
    p.run_tok[at] = p.next.index.eos_id;
    p.run_num[at] = end_count<Order>(p.next, q, support.unit, bits);
  }
}

// Tokens of one list below `token`. A foreign order does not list them ascending.
__device__ int64_t tokens_below(const int64_t* list, int64_t size, int64_t token, bool ascending) {
  int64_t lo = 0, hi = size, count = 0;
  if (!ascending) {
    for (int64_t i = 0; i < size; ++i) count += list[i] < token;
    return count;
  }
  while (lo < hi) {
    const int64_t mid = (lo + hi) >> 1;
    if (list[mid] < token)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

__global__ void __launch_bounds__(kThreads) merge_runs_kernel(NtdParams p) {
  const int64_t q = blockIdx.x, lists = p.next.index.num_shards + 1;
  const int64_t* runs = p.runs + q * lists;
  const int64_t begin = p.crow[q], end = p.crow[q + 1];
  if (end > p.capacity) return;
  const bool ascending = p.next.index.ptr_bytes == 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const int64_t token = p.run_tok[i];
    int64_t to = begin;
    for (int64_t list = 0; list < lists; ++list)
      to += tokens_below(p.run_tok + runs[list], runs[list + 1] - runs[list], token, ascending);
    p.tok[to] = token, p.num[to] = p.run_num[i];
  }
}

__global__ void __launch_bounds__(kThreads) fill_rest_kernel(NtdParams p) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < p.capacity && i >= end_of_rows(p)) p.tok[i] = -1, p.num[i] = 0;
}

// ---- ntd_dense ----------------------------------------------------------------------------
__global__ void __launch_bounds__(kThreads) clear_kernel(NtdDenseParams p) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < p.next.num_queries * p.next.index.vocab_size) p.probs[i] = 0.f;
}

template <typename Order>
__global__ void __launch_bounds__(kThreads) dense_kernel(NtdDenseParams p) {
  const int64_t q = blockIdx.x, vocab_size = p.next.index.vocab_size;
  float* row = p.probs + q * vocab_size;
  int32_t bits = 0;
  const Support support = support_of<Order>(p.next, q, bits);
  const auto put = [&](int64_t token, int64_t count) {
    if (is_token(token, vocab_size))
      row[token] =
          static_cast<float>(static_cast<double>(count) / static_cast<double>(support.den));
  };
  for (int64_t s = 0; s < p.next.index.num_shards; ++s)
    walk_part<Order>(p.next, q, s, support.unit, bits, put);
  if (threadIdx.x == 0) {
    const int64_t end = end_count<Order>(p.next, q, support.unit, bits);
    if (end > 0) put(p.next.index.eos_id, end);
  }
  set_bits(p.next.status, q, bits);
}

// ---- ntd_topk: every thread keeps the best of its part; the winner's looks for its next
// ----------
struct Best {
  int64_t num, tok;
  int64_t thread;
};
struct Larger {
  __device__ Best operator()(Best a, Best b) const {
    const bool b_wins =
        b.num > a.num ||
        (b.num == a.num && (b.tok < a.tok || (b.tok == a.tok && b.thread < a.thread)));
    return b_wins ? b : a;
  }
};
struct BestShared {
  Best best[kThreads / kWarpSize];
};

// The thread's best behind `last`, in the order of count, then token.
template <typename Order>
__device__ Best best_behind(const NextParams& p, int64_t q, int64_t unit, int64_t end, Best last,
                            int32_t& bits) {
  Best best{0, INT64_MAX, threadIdx.x};
  const auto take = [&](int64_t token, int64_t count) {
    const bool behind = count < last.num || (count == last.num && token > last.tok);
    if (behind && (count > best.num || (count == best.num && token < best.tok)))
      best.num = count, best.tok = token;
  };
  for (int64_t s = 0; s < p.index.num_shards; ++s) walk_part<Order>(p, q, s, unit, bits, take);
  if (threadIdx.x == 0 && end > 0) take(p.index.eos_id, end);
  return best;
}

template <typename Order>
__global__ void __launch_bounds__(kThreads) topk_kernel(NtdTopkParams p) {
  auto& shared = shared_memory<BestShared>();
  const int64_t q = blockIdx.x;
  int32_t bits = 0;
  const Support support = support_of<Order>(p.next, q, bits);
  const int64_t end = threadIdx.x == 0 ? end_count<Order>(p.next, q, support.unit, bits) : 0;
  Best mine = best_behind<Order>(p.next, q, support.unit, end, {INT64_MAX, -1, 0}, bits);
  for (int64_t i = 0; i < p.k; ++i) {
    const Best best = block_reduce<kThreads>(mine, Larger{}, shared.best);
    if (threadIdx.x == 0) {
      p.tok[q * p.k + i] = best.num > 0 ? best.tok : -1;
      p.num[q * p.k + i] = best.num;
    }
    if (best.num > 0 && best.thread == threadIdx.x)
      mine = best_behind<Order>(p.next, q, support.unit, end, best, bits);
  }
  set_bits(p.next.status, q, bits);
}
}  // namespace
// ---- launchers: 6 orders x 5 --------------------------------------------------------------
void next_prob_cuda(const NextProbParams& p, cudaStream_t stream) {
  if (p.next.num_queries == 0) return;
  visit_order(p.next.index, [&](auto order) {
    launch(next_prob_kernel<decltype(order)>, ceil_div<int64_t>(p.next.num_queries, kThreads),
           kThreads, 0, stream, p);
  });
}

void ntd_cuda(const NtdParams& p, cudaStream_t stream) {
  const int64_t num_queries = p.next.num_queries;
  constexpr size_t kBytes = sizeof(ScanShared<kThreads>);
  visit_order(p.next.index, [&](auto order) {
    if (num_queries > 0)
      launch(count_runs_kernel<decltype(order)>, num_queries, kThreads, kBytes, stream, p);
  });
  launch(scan_runs_kernel, 1, kScanThreads, sizeof(ScanShared<kScanThreads>), stream, p);
  visit_order(p.next.index, [&](auto order) {
    if (num_queries > 0)
      launch(write_runs_kernel<decltype(order)>, num_queries, kThreads, kBytes, stream, p);
  });
  if (num_queries > 0) launch(merge_runs_kernel, num_queries, kThreads, 0, stream, p);
  if (p.capacity > 0)
    launch(fill_rest_kernel, ceil_div<int64_t>(p.capacity, kThreads), kThreads, 0, stream, p);
}

void ntd_dense_cuda(const NtdDenseParams& p, cudaStream_t stream) {
  const int64_t cells = p.next.num_queries * p.next.index.vocab_size;
  if (cells == 0) return;
  launch(clear_kernel, ceil_div<int64_t>(cells, kThreads), kThreads, 0, stream, p);
  visit_order(p.next.index, [&](auto order) {
    launch(dense_kernel<decltype(order)>, p.next.num_queries, kThreads, 0, stream, p);
  });
}

void ntd_topk_cuda(const NtdTopkParams& p, cudaStream_t stream) {
  if (p.next.num_queries == 0) return;
  visit_order(p.next.index, [&](auto order) {
    launch(topk_kernel<decltype(order)>, p.next.num_queries, kThreads, sizeof(BestShared), stream,
           p);
  });
}
}  // namespace lmx::ngram
