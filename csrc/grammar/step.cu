// csrc/grammar/step.cu: CUDA side of step.h. One thread per row; a token is a few dependent loads,
// bound by latency, and far below one launch.
#include "step.h"

#include "../common/launch.h"

namespace lmx::grammar {
namespace {
constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads) step_kernel(StepParams p) {
  const int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (row >= p.num_rows) return;
  int32_t next;
  const int32_t bits = step_row(p, row, next);
  p.next[row] = next;
  if (p.status) p.status[row] |= bits;
}
}  // namespace

void step_cuda(const StepParams& p, cudaStream_t stream) {
  if (p.num_rows == 0) return;
  launch(step_kernel, ceil_div<int64_t>(p.num_rows, kThreads), kThreads, 0, stream, p);
}
}  // namespace lmx::grammar
