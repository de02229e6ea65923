// csrc/attention/rope.cu: CUDA side of rope.h. A thread has a vector of pairs of one head, or of
// the elements behind them. Bound by the bytes of query and key.
#include "elements.cuh"
#include "rope.h"

namespace lmx::attention {
namespace {
// ---- launch parameters ------------------------------------------------------------------------
constexpr int kThreads = 128;

// What one thread has of a head: kCount pairs, from pair i on, or kCount elements of the rest.
template <typename T>
struct Work {
  static constexpr int kCount = Sixteen<T>::kCount;
  int pairs, rest;  // threads of a head for each
  LMX_HD explicit Work(const RopeParams& p)
      : pairs(ceil_div(p.rotary_dim / 2, kCount)),
        rest(ceil_div(p.head_dim - p.rotary_dim, kCount)) {}
  LMX_HD int64_t threads(const RopeParams& p) const {
    return int64_t{p.query.num_heads + p.key.num_heads} * (pairs + rest);
  }
};

// ---- device helpers -----------------------------------------------------------------------------
// Up to kCount elements step apart; all of them through a vector where they are neighbours.
template <typename T>
__device__ __forceinline__ Sixteen<T> load_some(const T* from, int count, int step) {
  if (step == 1 && count >= Sixteen<T>::kCount) return load_sixteen(from);
  Sixteen<T> v;
#pragma unroll
  for (int i = 0; i < Sixteen<T>::kCount; ++i)
    v.element[i] = i < count ? from[i * step] : static_cast<T>(0.f);
  return v;
}
template <typename T>
__device__ __forceinline__ void store_some(T* to, const Sixteen<T>& v, int count, int step) {
  if (step == 1 && count >= Sixteen<T>::kCount) return store_sixteen(to, v);
#pragma unroll
  for (int i = 0; i < Sixteen<T>::kCount; ++i)
    if (i < count) to[i * step] = v.element[i];
}

template <typename T>
__device__ __forceinline__ void rotate_some(const RopeParams& p, const T* from, int64_t position,
                                            int i, T* to) {
  const int half = p.rotary_dim / 2, count = half - i;
  const int step = p.interleaved ? 2 : 1, apart = p.interleaved ? 1 : half;
  Sixteen<T> x = load_some(from + i * step, count, step);
  Sixteen<T> y = load_some(from + i * step + apart, count, step);
#pragma unroll
  for (int j = 0; j < Sixteen<T>::kCount; ++j) {
    if (j >= count) continue;
    const float c = p.cos[position * half + i + j], s = p.sin[position * half + i + j];
    const Pair v =
        rotate({static_cast<float>(x.element[j]), static_cast<float>(y.element[j])}, c, s);
    x.element[j] = static_cast<T>(v.x), y.element[j] = static_cast<T>(v.y);
  }
  store_some(to + i * step, x, count, step);
  store_some(to + i * step + apart, y, count, step);
}

// ---- kernel -------------------------------------------------------------------------------------
template <typename T>
__global__ void __launch_bounds__(kThreads) rope_kernel(RopeParams p) {
  const Work<T> work(p);
  const int64_t row = blockIdx.x, all = work.threads(p);
  const int64_t index = int64_t{blockIdx.y} * kThreads + threadIdx.x;
  const bool bad = bad_position(p, row);
  if (bad && p.status && index == 0) p.status[row] |= kStatusBadValue;
  if (index >= all) return;
  int head = static_cast<int>(index / (work.pairs + work.rest));
  int i = static_cast<int>(index % (work.pairs + work.rest)) * Work<T>::kCount;
  const RopeHeads& heads = head < p.query.num_heads ? p.query : p.key;
  if (head >= p.query.num_heads) head -= p.query.num_heads;
  const T* from = static_cast<const T*>(heads.from) + row * heads.row_stride +
                  int64_t{head} * heads.head_stride;
  T* to = static_cast<T*>(heads.to) + (row * heads.num_heads + head) * p.head_dim;
  if (i < work.pairs * Work<T>::kCount) {
    if (!bad) return rotate_some(p, from, p.positions[row], i, to);
    const int count = p.rotary_dim / 2 - i, step = p.interleaved ? 2 : 1;
    const int apart = p.interleaved ? 1 : p.rotary_dim / 2;
    const Sixteen<T> zeros{};
    store_some(to + i * step, zeros, count, step);
    store_some(to + i * step + apart, zeros, count, step);
    return;
  }
  i += p.rotary_dim - work.pairs * Work<T>::kCount;
  const int count = p.head_dim - i;
  store_some(to + i, bad ? Sixteen<T>{} : load_some(from + i, count, 1), count, 1);
}
}  // namespace

// ---- dispatch: 3 dtypes -------------------------------------------------------------------------
void rope_cuda(const RopeParams& p, cudaStream_t stream) {
  visit_cuda_dtype(p.dtype, [&](auto type) {
    using T = decltype(type);
    const int64_t blocks = ceil_div<int64_t>(Work<T>(p).threads(p), kThreads);
    if (p.num_rows == 0 || blocks == 0) return;
    const dim3 grid(static_cast<unsigned>(Grid(p.num_rows).dim.x), static_cast<unsigned>(blocks));
    launch(rope_kernel<T>, grid, kThreads, 0, stream, p);
  });
}
}  // namespace lmx::attention
