// csrc/vocab/softmax.h: probs[r, v] = the probability of token v after temperature, mask, top-k,
// top-p and min-p, in that order, renormalised; the law that vocab_sample draws from. All 0 where
// nothing is allowed, NaN where an allowed logit is NaN. Temperature below 1e-3: 1 at the argmax.
#pragma once
#include "../common/isa.h"
#include "truncate.h"

namespace lmx::vocab {
struct SoftmaxParams {
  Rows rows;
  Shaping shaping;
  float* probs;     // [num_rows, vocab_size]
  Blocks blocks;    // workspace
  CutSpace cut;     // CUDA workspace; null without truncation
  int32_t* status;  // [num_rows] or null
};
LMX_CPU_KERNEL(softmax_cpu, SoftmaxParams)
void softmax_cuda(const SoftmaxParams& p, CUstream_st* stream);
}  // namespace lmx::vocab
