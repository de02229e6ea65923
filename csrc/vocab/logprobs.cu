// csrc/vocab/logprobs.cu: CUDA side of logprobs.h: the blocks' pass, then one thread per row.
#include "blocks.h"
#include "logprobs.h"
#include "rows_cuda.cuh"

namespace lmx::vocab {
namespace {
constexpr int kThreads = 128;

template <typename T>
__global__ void __launch_bounds__(kThreads) logprobs_kernel(LogprobsParams p) {
  const int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (row >= p.rows.num_rows) return;
  const int64_t target = p.targets[row];
  const int32_t bits = target_status(p, row);
  if (bits && p.status) p.status[row] |= bits;
  float logprob = target == -1 ? 0.f : NAN;
  if (target >= 0 && !bits)
    logprob = log_share(static_cast<float>(row_logits<T>(p.rows, row)[target]), row_scale({}, row),
                        {p.blocks.row_top[row], p.blocks.row_total[row]});
  p.logprob[row] = logprob;
}
}  // namespace

void logprobs_cuda(const LogprobsParams& p, cudaStream_t stream) {
  if (p.rows.num_rows == 0) return;
  blocks_cuda({.rows = p.rows, .shaping = {}, .allowed = p.blocks, .all = {}, .cut = {}}, stream);
  totals_cuda(p.blocks, p.rows.num_rows, stream);
  visit_cuda_dtype(p.rows.dtype, [&](auto type) {
    launch(logprobs_kernel<decltype(type)>, ceil_div<int64_t>(p.rows.num_rows, kThreads), kThreads,
           0, stream, p);
  });
}
}  // namespace lmx::vocab
