// csrc/attention/attend_f32.cu: the kernels of attend.cuh for one dtype.
#include "attend.cuh"

namespace lmx::attention {
void attend_f32(const PagedParams& p, const Split& split, cudaStream_t stream) {
  attend<float>(p, split, stream);
}
}  // namespace lmx::attention
