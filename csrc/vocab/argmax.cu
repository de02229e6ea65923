// csrc/vocab/argmax.cu: CUDA side of argmax.h. Memory bound: reads the allowed logits once. One
// block of threads per part of 8192 tokens, then one thread per row over its parts.
#include "argmax.h"
#include "rows_cuda.cuh"

namespace lmx::vocab {
namespace {
// ---- launch parameters --------------------------------------------------------------------
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kFinishThreads = 128;
constexpr int64_t kBlocksPerPart = kArgmaxPart / kDrawBlock;
// ---- kernels ------------------------------------------------------------------------------
struct PartShared {
  ValueAt<float> best[kWarps];
};

template <typename T>
__global__ void __launch_bounds__(kThreads) argmax_parts_kernel(ArgmaxParams p) {
  auto& shared = shared_memory<PartShared>();
  const int64_t row = blockIdx.x / p.num_parts, part = blockIdx.x % p.num_parts;
  const bool ok = !row_status(p.rows, row);
  const uint32_t* mask = ok ? row_mask(p.rows, row) : nullptr;
  const T* x = row_logits<T>(p.rows, row);
  const int64_t num_blocks = ceil_div<int64_t>(p.rows.vocab_size, kDrawBlock);
  const int64_t end = min((part + 1) * kBlocksPerPart, num_blocks);
  ValueAt<float> best{-INFINITY, INT32_MAX};
  bool nan = false;
  for (int64_t b = part * kBlocksPerPart + threadIdx.x / kWarpSize; ok && b < end; b += kWarps) {
    float logit[kPerLane];
    load_block(p.rows, x, mask, b, logit);
#pragma unroll
    for (int k = 0; k < kPerLane; ++k) {
      nan |= logit[k] != logit[k];
      const auto id =
          static_cast<int32_t>(b * kDrawBlock + k * kWarpSize + threadIdx.x % kWarpSize);
      if (logit[k] > best.value) best = {logit[k], id};  // ids ascend: the first stays
    }
  }
  best = block_reduce<kThreads>(best, ArgMax{}, shared.best);
  nan = __syncthreads_or(nan);
  if (threadIdx.x != 0) return;
  p.part_top[blockIdx.x] = nan ? NAN : best.value;
  p.part_id[blockIdx.x] = best.index;
}

__global__ void __launch_bounds__(kFinishThreads) argmax_finish_kernel(ArgmaxParams p) {
  const int64_t row = int64_t{blockIdx.x} * kFinishThreads + threadIdx.x;
  if (row >= p.rows.num_rows) return;
  const int32_t bits = row_status(p.rows, row);
  if (bits && p.status) p.status[row] |= bits;
  float best = -INFINITY;
  int64_t token = -1;
  for (int64_t i = row * p.num_parts; i < (row + 1) * p.num_parts; ++i) {
    const float top = p.part_top[i];
    if (top != top) {
      token = -1;
      break;
    }
    if (top > best) best = top, token = p.part_id[i];
  }
  p.token[row] = token;
}
}  // namespace
// ---- launcher: 3 dtypes -------------------------------------------------------------------
void argmax_cuda(const ArgmaxParams& p, cudaStream_t stream) {
  if (p.rows.num_rows == 0) return;
  if (p.num_parts > 0)
    visit_cuda_dtype(p.rows.dtype, [&](auto type) {
      launch(argmax_parts_kernel<decltype(type)>, p.rows.num_rows * p.num_parts, kThreads,
             sizeof(PartShared), stream, p);
    });
  launch(argmax_finish_kernel, ceil_div<int64_t>(p.rows.num_rows, kFinishThreads), kFinishThreads,
         0, stream, p);
}
}  // namespace lmx::vocab
