// csrc/vocab/mask_gather.cu: CUDA side of mask_gather.h. One thread per word: memory bound.
#include "mask_gather.h"

#include "rows_cuda.cuh"

namespace lmx::vocab {
namespace {
constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) mask_gather_kernel(MaskGatherParams p) {
  // A row has a thread even where it has no words: its status is set all the same.
  const int64_t per_row = p.mask_words > 0 ? p.mask_words : 1;
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t row = i / per_row, w = i % per_row;
  if (row >= p.num_rows) return;
  if (w == 0 && p.status) p.status[row] |= gather_status(p, row);
  if (w < p.mask_words) p.out[i] = gathered_word(p, row, w);
}
}  // namespace

void mask_gather_cuda(const MaskGatherParams& p, cudaStream_t stream) {
  if (p.num_rows == 0) return;
  const int64_t threads = p.num_rows * (p.mask_words > 0 ? p.mask_words : 1);
  launch(mask_gather_kernel, ceil_div<int64_t>(threads, kThreads), kThreads, 0, stream, p);
}
}  // namespace lmx::vocab
