// csrc/attention/attend_f16.cu: the kernels of attend.cuh for one dtype.
#include "attend.cuh"

namespace lmx::attention {
void attend_f16(const PagedParams& p, const Split& split, cudaStream_t stream) {
  attend<__half>(p, split, stream);
}
}  // namespace lmx::attention
