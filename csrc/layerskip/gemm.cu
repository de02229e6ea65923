// csrc/layerskip/gemm.cu: CUDA side of gemm.h; multiply.cuh has the sums. For few rows bound by the
// weights' bytes, each read once.
#include "multiply.cuh"

namespace lmx::layerskip {
namespace {
struct GemmEpilogue {
  static constexpr int kMatrices = 1;
  Matrix out, residual;
  const void* bias;
  const float *row_scale, *weight_scale;
  int64_t n;
  DType bias_dtype;
  Activation activation;
  Skipped skipped;

  __device__ __forceinline__ void finish(int64_t row, int64_t group, int64_t column,
                                         const float (&sums)[1]) const {
    float v = sums[0];
    if (weight_scale) v *= weight_scale[group * n + column];
    if (bias) v += read_float(bias, bias_dtype, group * n + column);
    visit_activation(activation, [&](auto act) { v = act(v); });
    if (row_scale || residual.data) {
      const float kept =
          residual.data ? read_float(residual.data, residual.dtype, row * residual.stride + column)
                        : 0.f;
      v = lmx::layerskip::finish(v, row_scale ? row_scale[row] : 1.f, kept);
    }
    write_float(out.data, out.dtype, row * out.stride + column, v);
  }

  __device__ __forceinline__ void skip(int64_t row, int64_t column) const {
    const int64_t to = row * out.stride + column, from = row * residual.stride + column;
    if (skipped == Skipped::keep) return;
    if (skipped == Skipped::zero)
      write_float(out.data, out.dtype, to, 0.f);
    else if (residual.dtype != out.dtype)
      write_float(out.data, out.dtype, to, read_float(residual.data, residual.dtype, from));
    else if (out.dtype == DType::f32)  // all bits, those of a NaN too
      static_cast<uint32_t*>(out.data)[to] = static_cast<const uint32_t*>(residual.data)[from];
    else
      static_cast<uint16_t*>(out.data)[to] = static_cast<const uint16_t*>(residual.data)[from];
  }
};
}  // namespace

void gemm_cuda(const GemmParams& p, cudaStream_t stream) {
  const GemmEpilogue epilogue{.out = p.out,
                              .residual = p.residual,
                              .bias = p.bias,
                              .row_scale = p.row_scale,
                              .weight_scale = p.weights.scale,
                              .n = p.weights.n,
                              .bias_dtype = p.bias_dtype,
                              .activation = p.activation,
                              .skipped = p.skipped};
  multiply_cuda<GemmEpilogue>({p.weights}, p.x, p.plan, p.num_rows, p.partial, p.status, epilogue,
                              stream);
}
}  // namespace lmx::layerskip
