// csrc/vocab/mask.h: token bitmasks, int32 [num_masks, mask_words]; bit j % 32 of word j / 32 is
// token j, 1 = allowed. Layout: XGrammar (arXiv 2411.15100), section 3.
#pragma once
#include "../common/isa.h"
#include "rows.h"

namespace lmx::vocab {
// logits[r, v] = -inf where v is not allowed, also past the mask's last word. Rows.logits is
// written.
struct MaskApplyParams {
  Rows rows;
  int32_t* status;  // [num_rows] or null; a bad row is left alone
};
LMX_CPU_KERNEL(mask_apply_cpu, MaskApplyParams)
void mask_apply_cuda(const MaskApplyParams& p, CUstream_st* stream);

// Between bools and bits. Bits at and past vocab_size are written as 0 and not read.
struct MaskBoolParams {
  uint8_t* allowed;  // [num_rows, vocab_size], bool
  uint32_t* words;   // [num_rows, mask_words]
  int64_t num_rows;
  int64_t vocab_size;
  int64_t mask_words;  // ceil(vocab_size / 32)
};
LMX_HD uint32_t word_of_bools(const MaskBoolParams& p, int64_t row, int64_t w) {
  const uint8_t* allowed = p.allowed + row * p.vocab_size + w * 32;
  const int64_t n = p.vocab_size - w * 32 < 32 ? p.vocab_size - w * 32 : 32;
  uint32_t word = 0;
  for (int64_t j = 0; j < n; ++j) word |= static_cast<uint32_t>(allowed[j] != 0) << j;
  return word;
}
LMX_CPU_KERNEL(mask_from_bool_cpu, MaskBoolParams)
void mask_from_bool_cuda(const MaskBoolParams& p, CUstream_st* stream);
LMX_CPU_KERNEL(mask_to_bool_cpu, MaskBoolParams)
void mask_to_bool_cuda(const MaskBoolParams& p, CUstream_st* stream);

// words[i] &= other[i], or |=.
struct MaskCombineParams {
  uint32_t* words;        // [num_words]
  const uint32_t* other;  // [num_words]
  int64_t num_words;
  bool is_or;
};
LMX_CPU_KERNEL(mask_combine_cpu, MaskCombineParams)
void mask_combine_cuda(const MaskCombineParams& p, CUstream_st* stream);

// count[r] = the number of allowed tokens below vocab_size.
struct MaskCountParams {
  const uint32_t* words;  // [num_rows, mask_words]
  int32_t* count;         // [num_rows]
  int64_t num_rows;
  int64_t mask_words;
  int64_t vocab_size;
};
// The part of word w that lies below vocab_size.
LMX_HD uint32_t word_below(uint32_t word, int64_t w, int64_t vocab_size) {
  const int64_t n = vocab_size - w * 32;
  return n >= 32 ? word : n <= 0 ? 0u : word & ((1u << n) - 1);
}
LMX_CPU_KERNEL(mask_popcount_cpu, MaskCountParams)
void mask_popcount_cuda(const MaskCountParams& p, CUstream_st* stream);
}  // namespace lmx::vocab
