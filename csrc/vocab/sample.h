// csrc/vocab/sample.h: one draw per row from the law of softmax.h.
//   token[r] = the smallest id, in ascending order, whose cumulative weight exceeds uniforms[r] *
//   total
// with the order of sums of draw.h, so that equal inputs give equal tokens on every backend.
// logprob[r] = ln of the probability that token had in the draw: 0 where it was certain.
// token = -1 and logprob = NaN where nothing is allowed, an allowed logit or the uniform is NaN.
#pragma once
#include "../common/isa.h"
#include "truncate.h"

namespace lmx::vocab {
struct SampleParams {
  Rows rows;
  Shaping shaping;
  const float* uniforms;  // [num_rows], in [0, 1)
  int64_t* token;         // [num_rows]
  float* logprob;         // [num_rows]
  Blocks blocks;          // workspace
  CutSpace cut;           // CUDA workspace; null without truncation
  int32_t* status;        // [num_rows] or null
};
LMX_HD int32_t sample_status(const SampleParams& p, int64_t row) {
  const float u = p.uniforms[row];
  return row_status(p.rows, p.shaping, row) | (u >= 0.f && u < 1.f ? kStatusOk : kStatusBadValue);
}
// From the drawn token's share of the total, so that a certain token has exactly 0.
LMX_HD float draw_logprob(double value, RowTotal t) {
  return static_cast<float>(exact::log(value / t.total));
}
LMX_CPU_KERNEL(sample_cpu, SampleParams)
void sample_cuda(const SampleParams& p, CUstream_st* stream);
}  // namespace lmx::vocab
