// csrc/layerskip/norm.h: normalisation with the norm weights of each row's group.
//   rmsnorm    out[r, k] = x[r, k] / sqrt(mean of x[r]^2 + eps) gamma[group[r], k]
//   layernorm  out[r, k] = (x[r, k] - mean) / sqrt(variance + eps) gamma[group[r], k] + beta[...]
// Skipped rows are copied. float32 inside, rounded once; same bits on every backend and level.
// Sources: RMSNorm, arXiv 1910.07467, equation 4; layer normalisation, arXiv 1607.06450,
// equation 4.
#pragma once
#include "../common/exact.h"
#include "../common/isa.h"
#include "rows.h"

namespace lmx::layerskip {
struct NormParams {
  Matrix x;  // [num_rows, width]
  Groups groups;
  const void* gamma;  // [num_groups, width], weight_dtype
  const void* beta;   // likewise, or null: rmsnorm has none, layernorm may do without
  Matrix out;         // [num_rows, width], dtype of x
  int64_t width;
  float eps;
  bool centred;  // layernorm
  DType weight_dtype;
  int32_t* status;  // [num_rows] or null
};

// A sum over a row has 32 lanes: lane l adds elements l, l + 32, l + 64, ... in this order, each by
// one fma, from 0; then the lanes are folded in halves: l + (l + 16), l + (l + 8), ... This is a
// warp's butterfly, and four SIMD registers.
constexpr int kNormLanes = 32;

LMX_HD float mean_of(float sum, int64_t width) { return sum / static_cast<float>(width); }
LMX_HD float inverse_deviation(float square_sum, int64_t width, float eps) {
  return 1.f / sqrtf(square_sum / static_cast<float>(width) + eps);
}

LMX_CPU_KERNEL(norm_cpu, NormParams)
void norm_cuda(const NormParams& p, CUstream_st* stream);
}  // namespace lmx::layerskip
