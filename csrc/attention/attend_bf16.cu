// csrc/attention/attend_bf16.cu: the kernels of attend.cuh for one dtype.
#include "attend.cuh"

namespace lmx::attention {
void attend_bf16(const PagedParams& p, const Split& split, cudaStream_t stream) {
  attend<__nv_bfloat16>(p, split, stream);
}
}  // namespace lmx::attention
