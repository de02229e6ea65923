// csrc/vocab/lse.cu: CUDA side of lse.h: the blocks' pass, then one thread per row.
#include "blocks.h"
#include "lse.h"
#include "rows_cuda.cuh"

namespace lmx::vocab {
namespace {
constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads) lse_kernel(LseParams p) {
  const int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (row >= p.rows.num_rows) return;
  const int32_t bits = lse_status(p, row);
  if (bits && p.status) p.status[row] |= bits;
  const Blocks& all = p.rows.bitmask ? p.all : p.masked;
  p.lse_all[row] = bits ? -INFINITY : lse_of({all.row_top[row], all.row_total[row]});
  p.lse_masked[row] = bits ? -INFINITY : lse_of({p.masked.row_top[row], p.masked.row_total[row]});
}
}  // namespace

void lse_cuda(const LseParams& p, cudaStream_t stream) {
  if (p.rows.num_rows == 0) return;
  const Blocks& allowed = p.masked;
  const Blocks all = p.rows.bitmask ? p.all : Blocks{};
  blocks_cuda({.rows = p.rows, .shaping = p.shaping, .allowed = allowed, .all = all, .cut = {}},
              stream);
  totals_cuda(allowed, p.rows.num_rows, stream);
  if (p.rows.bitmask) totals_cuda(all, p.rows.num_rows, stream);
  launch(lse_kernel, ceil_div<int64_t>(p.rows.num_rows, kThreads), kThreads, 0, stream, p);
}
}  // namespace lmx::vocab
