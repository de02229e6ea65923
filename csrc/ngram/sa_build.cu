// csrc/ngram/sa_build.cu: CUDA side of sa_build.h, by prefix doubling (Manber and Myers 1993) that
// leaves out what is sorted already (Larsson and Sadakane 2007).
//
// First all positions are sorted by their first 8 bytes of tokens, everything at or after a SEP
// filled with ones, in position order where equal. A suffix with a SEP there is final: what it ties
// with is equal up to the SEP. Of the others, those that share a rank are sorted again by (rank,
// rank of what follows h tokens later), h doubling. What remains is counted on the device, so all
// rounds that a text may need are launched, and those without work end at once: no wait for the
// host. Sorting is by own radix passes of 8 bits: histograms of 128 chunks, their sums, a stable
// scatter.
#include "index.cuh"
#include "sa_build.h"

namespace lmx::ngram {
namespace {
// ---- launch parameters --------------------------------------------------------------------
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kDigits = 256;
constexpr int kChunks = kSortChunks;

// A list of (key, position) in `from`, sorted into `to`; its size is on the device.
struct Pass {
  const uint64_t* keys;
  const uint32_t* positions;
  uint64_t* keys_to;
  uint32_t* positions_to;
  const uint32_t* count;
  uint32_t* table;  // [kDigits * kChunks]
  int shift;
};
struct Part {
  int64_t begin, end;
};
__device__ __forceinline__ Part part_of(int64_t count, int64_t chunk) {
  return {count * chunk / kChunks, count * (chunk + 1) / kChunks};
}
// ---- radix pass ---------------------------------------------------------------------------
struct HistogramShared {
  uint32_t count[kDigits];
};
__global__ void __launch_bounds__(kThreads) histogram_kernel(Pass p) {
  auto& shared = shared_memory<HistogramShared>();
  shared.count[threadIdx.x] = 0;
  __syncthreads();
  const Part part = part_of(*p.count, blockIdx.x);
  for (int64_t i = part.begin + threadIdx.x; i < part.end; i += kThreads)
    atomicAdd(&shared.count[p.keys[i] >> p.shift & (kDigits - 1)], 1u);
  __syncthreads();
  p.table[threadIdx.x * kChunks + blockIdx.x] = shared.count[threadIdx.x];
}

// table becomes the sums before each entry, by one block; a thread has the chunks of a digit.
struct SumShared {
  uint32_t total[kThreads];
};
__global__ void __launch_bounds__(kThreads) sum_table_kernel(uint32_t* table, int per_thread) {
  auto& shared = shared_memory<SumShared>();
  uint32_t* mine = table + int64_t{threadIdx.x} * per_thread;
  uint32_t sum = 0;
  for (int i = 0; i < per_thread; ++i) sum += mine[i];
  shared.total[threadIdx.x] = sum;
  __syncthreads();
  uint32_t before = 0;
  for (int t = 0; t < static_cast<int>(threadIdx.x); ++t) before += shared.total[t];
  for (int i = 0; i < per_thread; ++i) {
    const uint32_t here = mine[i];
    mine[i] = before;
    before += here;
  }
}

struct ScatterShared {
  uint32_t base[kDigits];            // where the next element of a digit goes
  uint32_t before[kWarps][kDigits];  // elements of a digit in each warp, then in the warps before
};
__global__ void __launch_bounds__(kThreads) scatter_kernel(Pass p) {
  auto& shared = shared_memory<ScatterShared>();
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  shared.base[threadIdx.x] = p.table[threadIdx.x * kChunks + blockIdx.x];
  const Part part = part_of(*p.count, blockIdx.x);
  for (int64_t first = part.begin; first < part.end; first += kThreads) {
    for (int d = lane; d < kDigits; d += kWarpSize) shared.before[warp][d] = 0;
    __syncwarp();
    const int64_t i = first + threadIdx.x;
    const bool live = i < part.end;
    const uint64_t key = live ? p.keys[i] : 0;
    const unsigned digit = live ? key >> p.shift & (kDigits - 1) : kDigits;
    const unsigned peers = __match_any_sync(kFullWarp, digit);
    const int rank = __popc(peers & ((1u << lane) - 1));
    if (live && rank == 0) shared.before[warp][digit] = __popc(peers);
    __syncthreads();
    uint32_t sum = 0;  // thread d adds up digit d
    for (int w = 0; w < kWarps; ++w) {
      const uint32_t here = shared.before[w][threadIdx.x];
      shared.before[w][threadIdx.x] = sum;
      sum += here;
    }
    __syncthreads();
    if (live) {
      const uint32_t to = shared.base[digit] + shared.before[warp][digit] + rank;
      p.keys_to[to] = key;
      p.positions_to[to] = p.positions[i];
    }
    __syncthreads();
    shared.base[threadIdx.x] += sum;
    __syncthreads();
  }
}
// ---- first keys ---------------------------------------------------------------------------
template <typename Token>
__global__ void __launch_bounds__(kThreads)
    first_keys_kernel(SaBuildParams p, uint64_t* keys, uint32_t* positions) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i == 0) *p.count = static_cast<uint32_t>(p.num_tokens);
  if (i >= p.num_tokens) return;
  constexpr auto kSep = static_cast<Token>(~Token{0});
  constexpr int kTokens = 8 / static_cast<int>(sizeof(Token)), kBits = 64 / kTokens;
  const auto* text = static_cast<const Token*>(p.text);
  uint64_t key = 0;
  bool ended = false;
  for (int k = 0; k < kTokens; ++k) {
    ended = ended || i + k >= p.num_tokens || text[i + k] == kSep;
    key = key << kBits | (ended ? kSep : text[i + k]);
  }
  keys[i] = key, positions[i] = static_cast<uint32_t>(i);
}

// Whether a key has a SEP: then its last token is one.
template <typename Token>
__device__ __forceinline__ bool has_sep(uint64_t key) {
  return static_cast<Token>(key) == static_cast<Token>(~Token{0});
}

// The first of sorted keys[lo, hi) that equals keys[i].
__device__ int64_t first_equal(const uint64_t* keys, int64_t lo, int64_t i) {
  int64_t hi = i;
  while (lo < hi) {
    const int64_t mid = (lo + hi) >> 1;
    if (keys[mid] < keys[i])
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

template <typename Token>
__global__ void __launch_bounds__(kThreads)
    first_ranks_kernel(SaBuildParams p, const uint64_t* keys, const uint32_t* positions) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= p.num_tokens) return;
  const int64_t rank = has_sep<Token>(keys[i]) ? i : first_equal(keys, 0, i);
  p.order[i] = positions[i];
  p.rank[positions[i]] = static_cast<uint32_t>(rank);
}
// ---- a round: gather what shares a rank, sort it, give new ranks ------------------------------
__device__ __forceinline__ bool is_shared(const SaBuildParams& p, int64_t i) {
  const uint32_t rank = p.rank[p.order[i]];
  return rank != i || (i + 1 < p.num_tokens && p.rank[p.order[i + 1]] == rank);
}

struct CountShared {
  uint32_t count[kWarps];
};
__global__ void __launch_bounds__(kThreads) count_shared_kernel(SaBuildParams p) {
  auto& shared = shared_memory<CountShared>();
  const Part part = part_of(*p.count > 0 ? p.num_suffixes : 0, blockIdx.x);
  uint32_t mine = 0;
  for (int64_t i = part.begin + threadIdx.x; i < part.end; i += kThreads) mine += is_shared(p, i);
  const uint32_t total = block_reduce<kThreads>(mine, Sum{}, shared.count);
  if (threadIdx.x == 0) p.table[blockIdx.x] = total;
}

__global__ void __launch_bounds__(kThreads) sum_chunks_kernel(SaBuildParams p) {
  if (threadIdx.x != 0) return;  // 128 numbers
  uint32_t sum = 0;
  for (int c = 0; c < kChunks; ++c) {
    const uint32_t here = p.table[c];
    p.table[c] = sum;
    sum += here;
  }
  *p.count = sum;
}

__global__ void __launch_bounds__(kThreads)
    gather_kernel(SaBuildParams p, int64_t h, uint64_t* keys, uint32_t* positions) {
  auto& shared = shared_memory<CountShared>();
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const Part part = part_of(*p.count > 0 ? p.num_suffixes : 0, blockIdx.x);
  int64_t to = p.table[blockIdx.x];
  for (int64_t first = part.begin; first < part.end; first += kThreads) {
    const int64_t i = first + threadIdx.x;
    const bool takes = i < part.end && is_shared(p, i);
    const unsigned ballot = __ballot_sync(kFullWarp, takes);
    if (lane == 0) shared.count[warp] = __popc(ballot);
    __syncthreads();
    int64_t before = __popc(ballot & ((1u << lane) - 1)), total = 0;
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp) before += shared.count[w];
      total += shared.count[w];
    }
    if (takes) {
      const uint32_t position = p.order[i], rank = p.rank[position];
      // No SEP among its first h tokens, so h tokens later the text goes on.
      keys[to + before] = uint64_t{rank} << 32 | p.rank[position + h];
      positions[to + before] = position;
      if (rank == i) p.first[rank] = static_cast<uint32_t>(to + before);
    }
    to += total;
    __syncthreads();
  }
}

__global__ void __launch_bounds__(kThreads)
    new_ranks_kernel(SaBuildParams p, const uint64_t* keys, const uint32_t* positions) {
  const int64_t count = *p.count;
  for (int64_t j = int64_t{blockIdx.x} * kThreads + threadIdx.x; j < count;
       j += int64_t{gridDim.x} * kThreads) {
    const uint32_t rank = static_cast<uint32_t>(keys[j] >> 32), first = p.first[rank];
    p.order[rank + j - first] = positions[j];
    p.rank[positions[j]] = static_cast<uint32_t>(rank + first_equal(keys, first, j) - first);
  }
}

__global__ void __launch_bounds__(kThreads) copy_kernel(SaBuildParams p) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < p.num_suffixes) p.sa[i] = p.order[i];
}
// ---- launchers ----------------------------------------------------------------------------
// Sorts the list in list 0 of the workspace by `digits` of the key's 8 bytes, the lowest first, and
// returns where it then lies.
int sort_list(const SaBuildParams& p, unsigned digits, cudaStream_t stream) {
  int at = 0;
  for (int digit = 0; digit < 8; ++digit) {
    if (!(digits >> digit & 1)) continue;
    const Pass pass{p.keys[at], p.positions[at], p.keys[!at], p.positions[!at],
                    p.count,    p.table,         8 * digit};
    launch(histogram_kernel, kChunks, kThreads, sizeof(HistogramShared), stream, pass);
    launch(sum_table_kernel, 1, kThreads, sizeof(SumShared), stream, p.table, kChunks);
    launch(scatter_kernel, kChunks, kThreads, sizeof(ScatterShared), stream, pass);
    at = !at;
  }
  return at;
}

template <typename Token>
void build(const SaBuildParams& p, cudaStream_t stream) {
  const int64_t n = p.num_tokens, blocks = ceil_div<int64_t>(n, kThreads);
  launch(first_keys_kernel<Token>, blocks, kThreads, 0, stream, p, p.keys[0], p.positions[0]);
  int at = sort_list(p, 0xff, stream);
  launch(first_ranks_kernel<Token>, blocks, kThreads, 0, stream, p, p.keys[at], p.positions[at]);
  int bytes = 1;  // of a rank
  while (bytes < 4 && int64_t{1} << (8 * bytes) < n) ++bytes;
  const unsigned digits = ((1u << bytes) - 1) * 0x11;
  for (int64_t h = 8 / static_cast<int64_t>(sizeof(Token)); h < n; h *= 2) {
    launch(count_shared_kernel, kChunks, kThreads, sizeof(CountShared), stream, p);
    launch(sum_chunks_kernel, 1, kThreads, 0, stream, p);
    launch(gather_kernel, kChunks, kThreads, sizeof(CountShared), stream, p, h, p.keys[0],
           p.positions[0]);
    at = sort_list(p, digits, stream);
    launch(new_ranks_kernel, kChunks, kThreads, 0, stream, p, p.keys[at], p.positions[at]);
  }
  if (p.num_suffixes > 0)
    launch(copy_kernel, ceil_div<int64_t>(p.num_suffixes, kThreads), kThreads, 0, stream, p);
}
}  // namespace

void sa_build_cuda(const SaBuildParams& p, cudaStream_t stream) {
  if (p.num_tokens == 0) return;
  switch (p.token_bytes) {
    case 1: return build<uint8_t>(p, stream);
    case 2: return build<uint16_t>(p, stream);
    default: return build<uint32_t>(p, stream);
  }
}
}  // namespace lmx::ngram
