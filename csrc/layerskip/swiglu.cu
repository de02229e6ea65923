// csrc/layerskip/swiglu.cu: CUDA side of swiglu.h: a block's weight rows are half of gate and half
// of up, so that rows of x are loaded once for both.
#include "multiply.cuh"
#include "swiglu.h"

namespace lmx::layerskip {
namespace {
struct SwigluEpilogue {
  static constexpr int kMatrices = 2;
  Matrix out;
  const float *gate_scale, *up_scale;
  int64_t n;

  __device__ __forceinline__ void finish(int64_t row, int64_t group, int64_t column,
                                         const float (&sums)[2]) const {
    const int64_t i = group * n + column;
    const float gate = gate_scale ? sums[0] * gate_scale[i] : sums[0];
    const float up = up_scale ? sums[1] * up_scale[i] : sums[1];
    write_float(out.data, out.dtype, row * out.stride + column, swiglu(gate, up));
  }
  __device__ __forceinline__ void skip(int64_t row, int64_t column) const {
    write_float(out.data, out.dtype, row * out.stride + column, 0.f);
  }
};
}  // namespace

void swiglu_cuda(const SwigluParams& p, cudaStream_t stream) {
  const SwigluEpilogue epilogue{
      .out = p.out, .gate_scale = p.gate.scale, .up_scale = p.up.scale, .n = p.gate.n};
  multiply_cuda<SwigluEpilogue>({p.gate, p.up}, p.x, p.plan, p.num_rows, p.partial, p.status,
                                epilogue, stream);
}
}  // namespace lmx::layerskip
