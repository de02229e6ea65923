// csrc/vocab/uniform.cu: CUDA side of uniform.h. One thread per number.
#include "uniform.h"

#include "../common/launch.h"

namespace lmx::vocab {
namespace {
constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) uniform_kernel(UniformParams p) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < p.n) p.uniform[i] = uniform_at(p, i);
}
}  // namespace

void uniform_cuda(const UniformParams& p, cudaStream_t stream) {
  if (p.n == 0) return;
  launch(uniform_kernel, ceil_div<int64_t>(p.n, kThreads), kThreads, 0, stream, p);
}
}  // namespace lmx::vocab
