// csrc/ngram/next.cu: CUDA side of next_prob and ntd of next.h. ntd counts the runs of each shard,
// writes the lists one behind the other and merges them by rank.
#include "next.cuh"

namespace lmx::ngram {
namespace {
// ---- launch parameters --------------------------------------------------------------------
constexpr int kThreads = kNextThreads;
constexpr int kScanThreads = 1024;
// ---- device helpers -----------------------------------------------------------------------
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
// First (`writes` false) the runs of each shard are counted into runs, then, where a row fits, they
// are written from there on: counted by each thread, written behind those of the threads before.
template <typename Order>
__global__ void __launch_bounds__(kThreads, kNextBlocks) runs_kernel(NtdParams p, bool writes) {
  auto& shared = shared_memory<ScanShared<kThreads>>();
  const int64_t q = blockIdx.x, num_shards = p.next.index.num_shards;
  int64_t* runs = p.runs + q * (num_shards + 1);
  if (writes && p.crow[q + 1] > p.capacity) {
    if (threadIdx.x == 0) set_bits(p.next.status, q, kStatusTooMany);
    return;  // the whole block
  }
  int32_t bits = 0;
  const Support support = support_of<Order>(p.next, q, bits);
  for (int64_t s = 0; s < num_shards; ++s) {
    int64_t to = 0;
#pragma unroll 1
    for (int pass = 0; pass <= static_cast<int>(writes); ++pass) {
      int64_t mine = 0, total;
      walk_part<Order>(p.next, q, s, support.unit, bits, [&](int64_t token, int64_t count) {
        if (pass == 1 && to + mine < p.capacity)
          p.run_tok[to + mine] = token, p.run_num[to + mine] = count;
        ++mine;
      });
      if (pass == 1) break;
      const int64_t before = block_exclusive_sum<kThreads>(mine, total, shared.warp);
      if (writes)
        to = runs[s] + before;
      else if (threadIdx.x == 0)
        runs[s] = total;
    }
  }
  if (threadIdx.x == 0) {
    const int64_t end = end_count<Order>(p.next, q, support.unit, bits);
    if (!writes)
      runs[num_shards] = end > 0, p.den[q] = support.den, p.approx[q] = support.unit > 1;
    else if (end > 0 && runs[num_shards] < p.capacity)
      p.run_tok[runs[num_shards]] = p.next.index.eos_id, p.run_num[runs[num_shards]] = end;
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
}  // namespace
// ---- launchers: 6 orders x 2 --------------------------------------------------------------
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
      launch(runs_kernel<decltype(order)>, num_queries, kThreads, kBytes, stream, p, false);
  });
  launch(scan_runs_kernel, 1, kScanThreads, sizeof(ScanShared<kScanThreads>), stream, p);
  visit_order(p.next.index, [&](auto order) {
    if (num_queries > 0)
      launch(runs_kernel<decltype(order)>, num_queries, kThreads, kBytes, stream, p, true);
  });
  if (num_queries > 0) launch(merge_runs_kernel, num_queries, kThreads, 0, stream, p);
  if (p.capacity > 0)
    launch(fill_rest_kernel, ceil_div<int64_t>(p.capacity, kThreads), kThreads, 0, stream, p);
}
}  // namespace lmx::ngram
