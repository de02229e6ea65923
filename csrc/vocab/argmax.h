// csrc/vocab/argmax.h: token[r] = the allowed token with the largest logit, the lowest id of
// equals. -1 where nothing is allowed, all allowed logits are -inf, or one of them is NaN.
#pragma once
#include "../common/isa.h"
#include "rows.h"

namespace lmx::vocab {
struct ArgmaxParams {
  Rows rows;
  int64_t* token;     // [num_rows]
  float* part_top;    // CUDA workspace [num_rows, num_parts]
  int32_t* part_id;   // CUDA workspace [num_rows, num_parts]
  int64_t num_parts;  // argmax_parts(vocab_size)
  int32_t* status;    // [num_rows] or null
};
// Tokens per part: a row's split depends on its own length alone.
constexpr int64_t kArgmaxPart = 8192;
inline int64_t argmax_parts(int64_t vocab_size) { return ceil_div(vocab_size, kArgmaxPart); }

LMX_CPU_KERNEL(argmax_cpu, ArgmaxParams)
void argmax_cuda(const ArgmaxParams& p, CUstream_st* stream);
}  // namespace lmx::vocab
