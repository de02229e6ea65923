// csrc/layerskip/norm.cu: CUDA side of norm.h. A warp's lanes are those of the sum's tree. Memory
// bound for many rows, a warp each. Few rows are bound by latency: the block's warps then all take
// one row's sums, and a share of its output each.
#include "../common/warp.cuh"
#include "norm.h"
#include "rows.cuh"

namespace lmx::layerskip {
namespace {
// ---- launch parameters --------------------------------------------------------------------
constexpr int kWarps = 4, kThreads = kWarps * kWarpSize;
constexpr int64_t kManyRows = 2048;        // enough warps for every multiprocessor
constexpr int kSumBatch = 16, kBatch = 8;  // elements of a lane that are loaded together
static_assert(kNormLanes == kWarpSize);

// ---- kernel -------------------------------------------------------------------------------
// term(element, sum so far) over the row, by the tree of norm.h; every lane gets it.
template <typename T, typename Term>
__device__ __forceinline__ float row_sum(const T* x, int64_t width, const Term& term) {
  float sum = 0.f;
  for (int64_t i = threadIdx.x % kWarpSize; i < width; i += kSumBatch * kWarpSize) {
    T batch[kSumBatch];
#pragma unroll
    for (int j = 0; j < kSumBatch; ++j)
      if (i + j * kWarpSize < width) batch[j] = x[i + j * kWarpSize];
#pragma unroll
    for (int j = 0; j < kSumBatch; ++j)
      if (i + j * kWarpSize < width) sum = term(static_cast<float>(batch[j]), sum);
  }
  return warp_sum(sum);
}

// `share` of a block's warps have a row together: 1 or kWarps.
template <typename T, typename W>
__global__ void __launch_bounds__(kThreads) norm_kernel(NormParams p, int share) {
  const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  const int64_t row = (int64_t{blockIdx.x} * kWarps + warp) / share;
  if (row >= p.groups.num_rows) return;
  const T* x = static_cast<const T*>(p.x.data) + row * p.x.stride;
  T* out = static_cast<T*>(p.out.data) + row * p.out.stride;
  const int64_t group = group_of(p.groups, row);
  const int first = warp % share * kWarpSize + lane, step = share * kWarpSize;
  if (p.status && first == 0 && bad_group(p.groups, row)) p.status[row] |= kStatusBadGroup;
  if (group < 0) {
    for (int64_t i = first; i < p.width; i += step) out[i] = x[i];
    return;
  }
  float mean = 0.f;
  if (p.centred)
    mean = mean_of(row_sum(x, p.width, [](float v, float sum) { return exact::fma(v, 1.f, sum); }),
                   p.width);
  const float squares = row_sum(
      x, p.width, [mean](float v, float sum) { return exact::fma(v - mean, v - mean, sum); });
  const float scale = inverse_deviation(squares, p.width, p.eps);
  const W* gamma = static_cast<const W*>(p.gamma) + group * p.width;
  const W* beta = p.beta ? static_cast<const W*>(p.beta) + group * p.width : nullptr;
  for (int64_t begin = first; begin < p.width; begin += kBatch * step) {
    T v[kBatch];
    W weight[kBatch], shift[kBatch];
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      const int64_t i = begin + j * step;
      if (i >= p.width) continue;
      v[j] = x[i];
      weight[j] = gamma[i];
      if (beta) shift[j] = beta[i];
    }
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      const int64_t i = begin + j * step;
      if (i >= p.width) continue;
      const float y = (static_cast<float>(v[j]) - mean) * scale, w = static_cast<float>(weight[j]);
      out[i] = static_cast<T>(beta ? exact::fma(y, w, static_cast<float>(shift[j])) : y * w);
    }
  }
}
}  // namespace

// ---- launcher: 3 dtypes of x and 3 of the norm's weights = 9 instantiations ---------------------
void norm_cuda(const NormParams& p, cudaStream_t stream) {
  if (p.groups.num_rows == 0) return;
  const int share = p.groups.num_rows < kManyRows ? kWarps : 1;
  const int64_t blocks = ceil_div<int64_t>(p.groups.num_rows * share, kWarps);
  visit_cuda_dtype(p.x.dtype, [&](auto x) {
    visit_cuda_dtype(p.weight_dtype, [&](auto w) {
      launch(norm_kernel<decltype(x), decltype(w)>, blocks, kThreads, 0, stream, p, share);
    });
  });
}
}  // namespace lmx::layerskip
