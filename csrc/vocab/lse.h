// csrc/vocab/lse.h: with z = logits / temperature,
//   lse_all[r]    = ln sum of e^z over all tokens
//   lse_masked[r] = ln sum of e^z over the allowed ones
// -inf where nothing has weight, NaN where a logit that counts is NaN. e^(lse_masked - lse_all) is
// the probability that the model itself gives to the allowed set (grammar-aligned decoding, arXiv
// 2405.21047).
#pragma once
#include "../common/isa.h"
#include "rows.h"

namespace lmx::vocab {
struct LseParams {
  Rows rows;
  Shaping shaping;    // temperature alone
  float* lse_all;     // [num_rows]
  float* lse_masked;  // [num_rows]
  Blocks masked;      // workspace
  Blocks all;         // workspace; null where there is no mask
  int32_t* status;    // [num_rows] or null
};
// A sum at temperature 0 would be infinite.
LMX_HD int32_t lse_status(const LseParams& p, int64_t row) {
  return row_status(p.rows, p.shaping, row) |
         (is_greedy(p.shaping, row) ? kStatusBadValue : kStatusOk);
}
LMX_CPU_KERNEL(lse_cpu, LseParams)
void lse_cuda(const LseParams& p, CUstream_st* stream);
}  // namespace lmx::vocab
