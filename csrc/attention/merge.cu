// csrc/attention/merge.cu: CUDA side of merge.h. A warp has a row, 16 bytes a lane and step. Bound
// by the bytes of three rows.
#include "elements.cuh"
#include "merge.h"

namespace lmx::attention {
namespace {
// ---- launch parameters ------------------------------------------------------------------------
constexpr int kThreads = 128, kRows = kThreads / 32;

// ---- kernel -------------------------------------------------------------------------------------
template <typename T>
__global__ void __launch_bounds__(kThreads) merge_kernel(MergeParams p) {
  constexpr int kCount = Sixteen<T>::kCount;
  const int64_t row = int64_t{blockIdx.x} * kRows + threadIdx.x / 32;
  if (row >= p.num_rows) return;
  const MergeWeights w = merge_weights(p.lse_a[row], p.lse_b[row]);
  const int lane = threadIdx.x % 32;
  if (lane == 0) p.lse[row] = w.lse;
  const T* a = static_cast<const T*>(p.out_a) + row * p.head_dim;
  const T* b = static_cast<const T*>(p.out_b) + row * p.head_dim;
  T* out = static_cast<T*>(p.out) + row * p.head_dim;
  for (int64_t d = lane * kCount; d < p.head_dim; d += 32 * kCount) {
    if (d + kCount > p.head_dim) {
      for (int64_t i = d; i < p.head_dim; ++i)
        out[i] = static_cast<T>(merged(w, static_cast<float>(a[i]), static_cast<float>(b[i])));
      continue;
    }
    Sixteen<T> x = load_sixteen(a + d);
    const Sixteen<T> y = load_sixteen(b + d);
#pragma unroll
    for (int i = 0; i < kCount; ++i)
      x.element[i] = static_cast<T>(
          merged(w, static_cast<float>(x.element[i]), static_cast<float>(y.element[i])));
    store_sixteen(out + d, x);
  }
}
}  // namespace

// ---- dispatch: 3 dtypes -------------------------------------------------------------------------
void merge_cuda(const MergeParams& p, cudaStream_t stream) {
  if (p.num_rows == 0) return;
  visit_cuda_dtype(p.dtype, [&](auto type) {
    launch(merge_kernel<decltype(type)>, ceil_div<int64_t>(p.num_rows, kRows), kThreads, 0, stream,
           p);
  });
}
}  // namespace lmx::attention
