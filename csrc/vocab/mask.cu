// csrc/vocab/mask.cu: CUDA side of mask.h. All memory bound.
#include "mask.h"

#include "rows_cuda.cuh"

namespace lmx::vocab {
namespace {
// ---- launch parameters --------------------------------------------------------------------
constexpr int kThreads = 256;
int64_t grid_of(int64_t threads) { return ceil_div<int64_t>(threads, kThreads); }
__device__ __forceinline__ int64_t global_thread() {
  return int64_t{blockIdx.x} * kThreads + threadIdx.x;
}
// Threads a row; at least one, also without tokens: the row's status is set all the same.
LMX_HD int64_t groups_of(int64_t vocab_size, int count) {
  return vocab_size > 0 ? ceil_div<int64_t>(vocab_size, count) : 1;
}
// ---- kernels ------------------------------------------------------------------------------
// One thread per kCount logits: 16 bytes where rows are aligned to that, else one logit. All
// allowed: nothing is read or written. None: no load.
template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads) mask_apply_kernel(MaskApplyParams p) {
  struct alignas(kCount * sizeof(T)) Group {
    T logit[kCount];
  };
  const Rows& r = p.rows;
  const int64_t groups = groups_of(r.vocab_size, kCount);
  const int64_t row = global_thread() / groups, first = global_thread() % groups * kCount;
  if (row >= r.num_rows) return;
  const int32_t bits = row_status(r, row);
  if (bits) {
    if (p.status && first == 0) p.status[row] |= bits;
    return;
  }
  if (first >= r.vocab_size) return;
  const uint32_t allowed = mask_word(r, row_mask(r, row), first / 32) >> first % 32;
  constexpr uint32_t kAll = (1u << kCount) - 1;
  if ((allowed & kAll) == kAll) return;
  T* x = const_cast<T*>(row_logits<T>(r, row)) + first;
  if (first + kCount > r.vocab_size) {
    for (int j = 0; first + j < r.vocab_size; ++j)
      if (!(allowed >> j & 1)) x[j] = static_cast<T>(-INFINITY);
    return;
  }
  Group g;
  if (allowed & kAll) g = *reinterpret_cast<const Group*>(x);
#pragma unroll
  for (int j = 0; j < kCount; ++j)
    if (!(allowed >> j & 1)) g.logit[j] = static_cast<T>(-INFINITY);
  *reinterpret_cast<Group*>(x) = g;
}

__global__ void __launch_bounds__(kThreads) mask_from_bool_kernel(MaskBoolParams p) {
  const int64_t i = global_thread();
  if (i < p.num_rows * p.mask_words)
    p.words[i] = word_of_bools(p, i / p.mask_words, i % p.mask_words);
}

__global__ void __launch_bounds__(kThreads) mask_to_bool_kernel(MaskBoolParams p) {
  const int64_t i = global_thread();
  if (i >= p.num_rows * p.vocab_size) return;
  const int64_t row = i / p.vocab_size, v = i % p.vocab_size;
  p.allowed[i] = p.words[row * p.mask_words + v / 32] >> v % 32 & 1;
}

__global__ void __launch_bounds__(kThreads) mask_combine_kernel(MaskCombineParams p) {
  const int64_t i = global_thread();
  if (i < p.num_words) p.words[i] = p.is_or ? p.words[i] | p.other[i] : p.words[i] & p.other[i];
}

struct CountShared {
  int32_t count[kThreads / kWarpSize];
};
__global__ void __launch_bounds__(kThreads) mask_popcount_kernel(MaskCountParams p) {
  auto& shared = shared_memory<CountShared>();
  const uint32_t* words = p.words + int64_t{blockIdx.x} * p.mask_words;
  int32_t count = 0;
  for (int64_t w = threadIdx.x; w < p.mask_words; w += kThreads)
    count += __popc(word_below(words[w], w, p.vocab_size));
  count = block_reduce<kThreads>(count, Sum{}, shared.count);
  if (threadIdx.x == 0) p.count[blockIdx.x] = count;
}

template <typename T>
void launch_apply(const MaskApplyParams& p, cudaStream_t stream) {
  constexpr int kVector = 16 / sizeof(T);
  const Rows& r = p.rows;
  const bool aligned =
      reinterpret_cast<uintptr_t>(r.logits) % 16 == 0 && r.row_stride % kVector == 0;
  const int64_t per_row = groups_of(r.vocab_size, aligned ? kVector : 1);
  launch(aligned ? mask_apply_kernel<T, kVector> : mask_apply_kernel<T, 1>,
         grid_of(r.num_rows * per_row), kThreads, 0, stream, p);
}
}  // namespace
// ---- launchers: mask_apply 3 dtypes x 2 = 6 instantiations ----------------------------------
void mask_apply_cuda(const MaskApplyParams& p, cudaStream_t stream) {
  if (p.rows.num_rows == 0) return;
  visit_cuda_dtype(p.rows.dtype, [&](auto type) { launch_apply<decltype(type)>(p, stream); });
}

void mask_from_bool_cuda(const MaskBoolParams& p, cudaStream_t stream) {
  const int64_t words = p.num_rows * p.mask_words;
  if (words > 0) launch(mask_from_bool_kernel, grid_of(words), kThreads, 0, stream, p);
}

void mask_to_bool_cuda(const MaskBoolParams& p, cudaStream_t stream) {
  const int64_t bools = p.num_rows * p.vocab_size;
  if (bools > 0) launch(mask_to_bool_kernel, grid_of(bools), kThreads, 0, stream, p);
}

void mask_combine_cuda(const MaskCombineParams& p, cudaStream_t stream) {
  if (p.num_words > 0) launch(mask_combine_kernel, grid_of(p.num_words), kThreads, 0, stream, p);
}

void mask_popcount_cuda(const MaskCountParams& p, cudaStream_t stream) {
  if (p.num_rows > 0)
    launch(mask_popcount_kernel, p.num_rows, kThreads, sizeof(CountShared), stream, p);
}
}  // namespace lmx::vocab
