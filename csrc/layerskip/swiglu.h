// csrc/layerskip/swiglu.h: out[r, n] = silu(g) u with g = x[r] . gate[group[r], n] and u = x[r] .
// up[group[r], n], both in float32, rounded once; 0 for skipped rows. Rows as in gemm.h.
// Source: Shazeer 2020, arXiv 2002.05202, equation 6.
#pragma once
#include "gemm.h"

namespace lmx::layerskip {
struct SwigluParams {
  Matrix x;          // [num_rows, k]
  Weights gate, up;  // one n, k, format and dtype
  Plan plan;
  int64_t num_rows;
  Matrix out;       // [num_rows, n]
  float* partial;   // CUDA workspace of 2 partial_floats(...), or null
  int32_t* status;  // [num_rows] or null
};
LMX_HD float swiglu(float gate, float up) { return activation::silu(gate) * up; }

LMX_CPU_KERNEL_AMX(swiglu_cpu, SwigluParams)
void swiglu_cuda(const SwigluParams& p, CUstream_st* stream);
}  // namespace lmx::layerskip
