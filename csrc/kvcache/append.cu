// csrc/kvcache/append.cu: CUDA side of append.h. A thread per token checks its slots and writes its
// positions and scores; then a warp per token and layer moves the rows.
#include "append.h"

#include "rows.cuh"

namespace lmx::kvcache {
namespace {
// ---- launch parameters ----------------------------------------------------------------
constexpr int kCheckThreads = 128;

// ---- kernel ---------------------------------------------------------------------------
__global__ void __launch_bounds__(kCheckThreads) check_tokens_kernel(AppendParams p) {
  const int64_t token = int64_t{blockIdx.x} * kCheckThreads + threadIdx.x;
  if (token >= p.rows.num_tokens) return;
  const int32_t bits = token_status(p, token);
  p.bad[token] = bits;
  if (bits && p.status) p.status[token] |= bits;
  if (!bits) store_meta(p, token);
}
}  // namespace

// ---- launcher -------------------------------------------------------------------------
void append_cuda(const AppendParams& p, cudaStream_t stream) {
  if (p.rows.num_tokens == 0) return;
  launch(check_tokens_kernel, ceil_div<int64_t>(p.rows.num_tokens, kCheckThreads), kCheckThreads, 0,
         stream, p);
  move_rows<false>(p, stream);
}
}  // namespace lmx::kvcache
