// csrc/attention/merge.h: join attention over two disjoint sets of keys. Per row and head, with
// m = max(lse_a, lse_b), wa = e^(lse_a - m), wb = e^(lse_b - m):
//   out = (wa out_a + wb out_b) / (wa + wb),   lse = m + ln(wa + wb)
// A side with lse = -inf has no keys, and its out is not looked at; without keys on both sides out
// is 0 and lse -inf. A NaN in an lse makes out and lse NaN.
// Source: Ye et al. 2025 (arXiv 2501.01005), section 2.2.
#pragma once
#include "../common/exact.h"
#include "../common/isa.h"
struct CUstream_st;

namespace lmx::attention {
struct MergeParams {
  const void *out_a, *out_b;   // [num_rows, head_dim], dtype, contiguous
  const float *lse_a, *lse_b;  // [num_rows]
  void* out;                   // [num_rows, head_dim]
  float* lse;                  // [num_rows]
  int64_t num_rows;            // tokens times heads
  int64_t head_dim;
  DType dtype;
};

struct MergeWeights {
  float a, b, lse;  // a + b = 1; 0: the side is not looked at
};
LMX_HD MergeWeights merge_weights(float lse_a, float lse_b) {
  if (lse_a != lse_a || lse_b != lse_b) return {lse_a + lse_b, lse_a + lse_b, lse_a + lse_b};
  const float m = lse_a > lse_b ? lse_a : lse_b;
  if (m == -INFINITY) return {0.f, 0.f, m};
  if (m == INFINITY) return {m - m, m - m, m - m};
  const auto side = [m](float lse) {
    return lse == m ? 1.f : lse == -INFINITY ? 0.f : exact::weight(lse - m, exact::kLog2E, 0.f);
  };
  const float a = side(lse_a), b = side(lse_b), sum = a + b;
  const double log = exact::log(static_cast<double>(sum));
  return {a / sum, b / sum, static_cast<float>(static_cast<double>(m) + log)};
}
LMX_HD float merged(const MergeWeights& w, float a, float b) {
  if (w.b == 0.f) return w.a == 0.f ? 0.f : a;
  return w.a == 0.f ? b : exact::fma(w.a, a, w.b * b);
}

LMX_CPU_KERNEL(merge_cpu, MergeParams)
void merge_cuda(const MergeParams& p, CUstream_st* stream);
}  // namespace lmx::attention
