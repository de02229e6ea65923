// csrc/vocab/mask_gather.h: rows of a mask pool as a bitmask.
//   out[r, w] = pool[mask_ids[r], w], all ones below vocab_size where mask_ids[r] is -1
// A bad id gives a row of zeros (nothing is allowed) and sets the row's status.
#pragma once
#include "../common/isa.h"
#include "../common/status.h"
#include "mask.h"
struct CUstream_st;

namespace lmx::vocab {
struct MaskGatherParams {
  const uint32_t* pool;     // [num_masks, mask_words]
  const int32_t* mask_ids;  // [num_rows]: -1 = all allowed
  uint32_t* out;            // [num_rows, mask_words]
  int32_t* status;          // [num_rows] or null
  int64_t num_rows;
  int64_t num_masks;
  int64_t mask_words;
  int64_t vocab_size;  // bits from here on are 0 in a row of ones
};
LMX_HD int32_t gather_status(const MaskGatherParams& p, int64_t row) {
  const int32_t id = p.mask_ids[row];
  return id >= -1 && id < p.num_masks ? kStatusOk : kStatusBadMask;
}
LMX_HD uint32_t gathered_word(const MaskGatherParams& p, int64_t row, int64_t w) {
  if (gather_status(p, row)) return 0u;
  const int64_t id = p.mask_ids[row];
  return id < 0 ? word_below(~0u, w, p.vocab_size) : p.pool[id * p.mask_words + w];
}
LMX_CPU_KERNEL(mask_gather_cpu, MaskGatherParams)
void mask_gather_cuda(const MaskGatherParams& p, CUstream_st* stream);
}  // namespace lmx::vocab
