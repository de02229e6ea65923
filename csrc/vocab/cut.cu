// csrc/vocab/cut.cu: CUDA side of truncate.h. One block of threads per row finds the row's cut.
//
// First a bound that keeps all that matters leaves a few candidates. Up to 1024, each thread weighs
// what stands before its own candidate, and one of them finds that it is the last one kept. Where
// they are more, the key of the last one is built bit by bit, each bit by weighing the tokens at or
// above it: over shared memory up to 4096 candidates, else over the row, from L2. (A histogram was
// ruled out: logits crowd into few bins, whose atomics would queue.)
#include "blocks.h"
#include "rows_cuda.cuh"

namespace lmx::vocab {
namespace {
// ---- launch parameters --------------------------------------------------------------------
constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kCapacity = 4096;  // candidates held in shared memory
constexpr int kPairwise = 1024;  // candidates compared each with each: at most one a thread
static_assert(kPairwise <= kThreads);

struct CutShared {
  float logit[kCapacity];
  int32_t id[kCapacity];
  uint64_t fold[kWarps];
  int32_t count;
  RowTotal total;
  Cut cut;
};
// ---- device helpers -----------------------------------------------------------------------
// A logit below which no token can be the last one that top-p keeps: tokens below it weigh less
// than half of 1 - top_p together. Only a filter: it need not be exact.
__device__ float top_p_floor(RowTotal t, float top_p, float scale, int64_t vocab_size) {
  const double floor = (1.0 - top_p) * t.total / (2.0 * static_cast<double>(vocab_size));
  const double exponent = static_cast<double>(t.top) + exact::log(floor) / exact::kLn2;
  return uncapped_bound((exponent - 1.0) / static_cast<double>(scale), scale);
}

// Unsigned order of the keys = order of the floats; -0 and +0 are one key.
__device__ __forceinline__ uint32_t key_of(float x) {
  const auto bits = exact::bits_as<uint32_t>(x + 0.f);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float logit_of(uint32_t key) {
  return exact::bits_as<float>(key >> 31 ? key & 0x7fffffffu : ~key);
}

// The tokens a search looks at: shared candidates, or the row's allowed tokens with key >= floor.
template <typename T>
struct Tokens {
  const Rows& rows;
  const T* x;
  const uint32_t* mask;
  CutShared& shared;
  int32_t num_shared;  // -1: read the row
  uint32_t floor;

  // Calls f(logit, id) for this thread's share.
  template <typename F>
  __device__ void each(const F& f) const {
    if (num_shared >= 0) {
      for (int i = threadIdx.x; i < num_shared; i += kThreads) f(shared.logit[i], shared.id[i]);
      return;
    }
    const int64_t num_blocks = ceil_div<int64_t>(rows.vocab_size, kDrawBlock);
    for (int64_t b = threadIdx.x / kWarpSize; b < num_blocks; b += kWarps) {
      float logit[kPerLane];
      load_block(rows, x, mask, b, logit);
#pragma unroll
      for (int k = 0; k < kPerLane; ++k)
        if (logit[k] > -INFINITY && key_of(logit[k]) >= floor)
          f(logit[k],
            static_cast<int32_t>(b * kDrawBlock + k * kWarpSize + threadIdx.x % kWarpSize));
    }
  }
  // The sum of f(logit, id) over all of them; every thread gets it. Integers: any order gives it.
  template <typename F>
  __device__ uint64_t sum(const F& f) const {
    uint64_t mine = 0;
    each([&](float logit, int32_t id) { mine += f(logit, id); });
    return block_reduce<kThreads>(mine, Sum{}, shared.fold);
  }
};

// The largest value whose bits `reached` accepts, built from bit `top_bit` down; reached(0) must
// hold and reached must be monotone.
template <typename F>
__device__ uint32_t search_bits(int top_bit, const F& reached) {
  uint32_t value = 0;
  for (int bit = top_bit; bit >= 0; --bit) {
    const uint32_t trial = value | 1u << bit;
    if (reached(trial)) value = trial;
  }
  return value;
}

// The cut after which f adds up to at least `needed`, by comparing each candidate with each.
template <typename T, typename F>
__device__ Cut find_cut_pairwise(const Tokens<T>& tokens, Cut before, uint64_t needed, const F& f) {
  CutShared& s = tokens.shared;
  const int mine = threadIdx.x;
  if (mine < tokens.num_shared && keeps(before, s.logit[mine], s.id[mine])) {
    const Cut here{s.logit[mine], s.id[mine]};
    uint64_t above = 0;  // what stands before this candidate
    for (int i = 0; i < tokens.num_shared; ++i)
      if (i != mine && keeps(here, s.logit[i], s.id[i])) above += f(s.logit[i]);
    if (above < needed && above + f(here.logit) >= needed) s.cut = here;
  }
  __syncthreads();
  return s.cut;
}

// The same, by building the key and then the id of the last token kept, bit by bit.
template <typename T, typename F>
__device__ Cut find_cut_bitwise(const Tokens<T>& tokens, Cut before, uint64_t needed, const F& f) {
  const auto over = [&](const auto& accepts) {
    return tokens.sum([&](float logit, int32_t id) {
      return keeps(before, logit, id) && accepts(logit, id) ? f(logit) : uint64_t{0};
    });
  };
  const uint32_t key = search_bits(31, [&](uint32_t trial) {
    return over([&](float logit, int32_t) { return key_of(logit) >= trial; }) >= needed;
  });
  const float last = logit_of(key);
  const uint64_t left = needed - over([&](float logit, int32_t) { return logit > last; });
  const uint64_t equals = (left + f(last) - 1) / f(last);  // tokens of that logit, lowest ids first
  // The largest id bound that still has fewer than `equals` of them below it is the last one's own.
  const uint32_t id = search_bits(23, [&](uint32_t trial) {
    return tokens.sum([&](float logit, int32_t i) {
      return logit == last && static_cast<uint32_t>(i) < trial ? uint64_t{1} : uint64_t{0};
    }) < equals;
  });
  return {last, static_cast<int32_t>(id)};
}

// The cut after which f adds up to at least `needed` over the tokens that `before` keeps; f must
// depend on the logit alone. `before` itself if they do not reach it.
template <typename T, typename F>
__device__ Cut find_cut(const Tokens<T>& tokens, Cut before, uint64_t needed, const F& f) {
  const uint64_t all = tokens.sum(
      [&](float logit, int32_t id) { return keeps(before, logit, id) ? f(logit) : uint64_t{0}; });
  if (all < needed) return before;
  const bool few = tokens.num_shared >= 0 && tokens.num_shared <= kPairwise;
  return few ? find_cut_pairwise(tokens, before, needed, f)
             : find_cut_bitwise(tokens, before, needed, f);
}

// A key at or below that of the k-th best token: the k-th largest of the threads' maxima.
__device__ uint32_t kth_of_maxima(float largest, int64_t k) {
  if (k > kThreads) return 0;
  const uint32_t mine = largest > -INFINITY ? key_of(largest) : 0;
  return search_bits(31, [&](uint32_t trial) { return __syncthreads_count(mine >= trial) >= k; });
}

template <typename T>
__device__ void gather(Tokens<T>& tokens, uint32_t floor) {
  CutShared& s = tokens.shared;
  tokens.num_shared = -1;
  tokens.floor = floor;
  if (threadIdx.x == 0) s.count = 0;
  __syncthreads();
  tokens.each([&](float logit, int32_t id) {
    const int32_t slot = atomicAdd(&s.count, 1);
    if (slot < kCapacity) s.logit[slot] = logit, s.id[slot] = id;
  });
  __syncthreads();
  const int32_t count = s.count;
  if (count <= kCapacity) tokens.num_shared = count;
  __syncthreads();
}

template <typename T>
__device__ Cut row_cut(const CutParams& p, int64_t row, CutShared& shared) {
  const Limits limits(p.shaping, row, p.rows.vocab_size);
  const float scale = row_scale(p.shaping, row);
  Tokens<T> tokens{p.rows, row_logits<T>(p.rows, row), row_mask(p.rows, row), shared, -1, 0};
  float mine = -INFINITY;
  tokens.each([&](float logit, int32_t) { mine = logit > mine ? logit : mine; });
  const auto best = block_reduce<kThreads>(uint64_t{key_of(mine)}, Max{}, shared.fold);
  const float largest = logit_of(static_cast<uint32_t>(best));
  if (largest == -INFINITY) return {};
  RowTotal total{-INFINITY, 0.0};
  if (limits.top_k == 0 && limits.top_p < 1.f) {
    const int64_t first = row * p.blocks.num_blocks;
    if (threadIdx.x < kWarpSize) {
      const RowTotal t =
          warp_row_total(p.blocks.top + first, p.blocks.sum + first, p.blocks.num_blocks, nullptr);
      if (threadIdx.x == 0) shared.total = t;
    }
    __syncthreads();
    total = shared.total;
    if (!(total.top > -INFINITY)) return {};  // the row is NaN, or nothing in it has weight
  }
  Cut cut;
  if (limits.top_k > 0) {
    gather(tokens, kth_of_maxima(mine, limits.top_k));
    cut = find_cut(tokens, cut, limits.top_k, [](float) { return uint64_t{1}; });
  }
  if (limits.top_p < 1.f) {
    const float row_top = exact::weight_top(largest, scale);
    const auto mass = [&](float logit) { return weight_mass(logit, scale, row_top); };
    const auto kept_mass = [&] {
      return tokens.sum([&](float x, int32_t id) { return keeps(cut, x, id) ? mass(x) : 0ull; });
    };
    if (limits.top_k == 0)
      gather(tokens, key_of(top_p_floor(total, limits.top_p, scale, p.rows.vocab_size)));
    const uint64_t all = limits.top_k > 0 ? kept_mass() : total_mass(total);
    const uint64_t needed = needed_mass(limits.top_p, all);
    if (limits.top_k == 0 && kept_mass() < needed)  // top_p is within rounding of 1
      gather(tokens, key_of(-INFINITY));
    cut = find_cut(tokens, cut, needed, mass);
  }
  const float bound = limits.min_p > 0.f ? min_p_logit(largest, limits.min_p, scale) : -INFINITY;
  return bound > cut.logit ? Cut{bound, INT32_MAX} : cut;
}
// ---- kernel -------------------------------------------------------------------------------
template <typename T>
__global__ void __launch_bounds__(kThreads) cut_kernel(CutParams p) {
  auto& shared = shared_memory<CutShared>();
  const int64_t row = blockIdx.x;
  const bool off =
      row_status(p.rows, p.shaping, row) || Limits(p.shaping, row, p.rows.vocab_size).none();
  const Cut cut = off ? Cut{} : row_cut<T>(p, row, shared);
  if (threadIdx.x != 0) return;
  p.cut.logit[row] = cut.logit;
  p.cut.id[row] = cut.id;
}
}  // namespace
// ---- launcher: 3 dtypes -------------------------------------------------------------------
void cut_cuda(const CutParams& p, cudaStream_t stream) {
  if (p.rows.num_rows == 0) return;
  visit_cuda_dtype(p.rows.dtype, [&](auto type) {
    launch(cut_kernel<decltype(type)>, p.rows.num_rows, kThreads, sizeof(CutShared), stream, p);
  });
}
}  // namespace lmx::vocab
