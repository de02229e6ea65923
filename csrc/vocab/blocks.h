// csrc/vocab/blocks.h: CUDA only. The pass over the rows that lse, softmax, logprobs and sample
// begin with.
#pragma once
#include "truncate.h"

namespace lmx::vocab {
struct BlocksParams {
  Rows rows;
  Shaping shaping;
  Blocks allowed;  // over the allowed tokens that the cut keeps
  Blocks all;      // over all tokens, from the same load; null where nobody asks
  CutSpace cut;    // null: no cut
};
void blocks_cuda(const BlocksParams& p, CUstream_st* stream);

// Fills blocks.row_top and row_total.
void totals_cuda(const Blocks& blocks, int64_t num_rows, CUstream_st* stream);

// The cut of every row. Needs the blocks of the allowed tokens where a row uses top-p without
// top-k.
struct CutParams {
  Rows rows;
  Shaping shaping;
  Blocks blocks;
  CutSpace cut;
};
void cut_cuda(const CutParams& p, CUstream_st* stream);

// The blocks of the tokens that each row keeps, and the cuts; `cut` is null where no row can have
// one.
inline void shaped_blocks(const Rows& rows, const Shaping& shaping, const Blocks& blocks,
                          CutSpace cut, CUstream_st* stream) {
  if (cut.logit) {
    if (shaping.top_p)  // the cut asks for the total before it
      blocks_cuda({.rows = rows, .shaping = shaping, .allowed = blocks, .all = {}, .cut = {}},
                  stream);
    cut_cuda({.rows = rows, .shaping = shaping, .blocks = blocks, .cut = cut}, stream);
  }
  blocks_cuda({.rows = rows, .shaping = shaping, .allowed = blocks, .all = {}, .cut = cut}, stream);
}
}  // namespace lmx::vocab
