// csrc/vocab/logprobs.h: logprob[r] = ln softmax(logits[r])[targets[r]]; 0 where targets[r] = -1.
// Fused: no [num_rows, vocab_size] temporary. NaN where the row has a NaN.
#pragma once
#include "../common/isa.h"
#include "rows.h"

namespace lmx::vocab {
struct LogprobsParams {
  Rows rows;               // no mask
  const int64_t* targets;  // [num_rows], in [-1, vocab_size)
  float* logprob;          // [num_rows]
  Blocks blocks;           // workspace
  int32_t* status;         // [num_rows] or null
};
LMX_HD int32_t target_status(const LogprobsParams& p, int64_t row) {
  return p.targets[row] >= -1 && p.targets[row] < p.rows.vocab_size ? kStatusOk : kStatusBadToken;
}
LMX_CPU_KERNEL(logprobs_cpu, LogprobsParams)
void logprobs_cuda(const LogprobsParams& p, CUstream_st* stream);
}  // namespace lmx::vocab
