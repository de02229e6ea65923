// csrc/vocab/rows.h: what every vocabulary op reads, and how a row is checked.
//
// A row is `vocab_size` logits and a set of allowed tokens. A NaN among the allowed logits makes
// the row's results NaN or -1; logits of -inf are as good as masked. Source of the mask layout:
// XGrammar, DLPack int32 bitmask; bit j % 32 of word j / 32 is token j, 1 = allowed. Tokens past
// the mask's last word are not allowed.
#pragma once
#include "../common/draw.h"
#include "../common/exact.h"
#include "../common/status.h"
struct CUstream_st;  // cudaStream_t without a CUDA header

namespace lmx::vocab {
struct Rows {
  const void* logits;       // [num_rows, vocab_size], dtype; the last dimension is contiguous
  int64_t row_stride;       // elements from one row to the next
  const uint32_t* bitmask;  // [num_masks, mask_words], or null: all tokens are allowed
  const int32_t* mask_ids;  // [num_rows]: -1 = all allowed; null: row r has mask r
  int64_t num_rows;
  int64_t vocab_size;
  int64_t num_masks;
  int64_t mask_words;
  DType dtype;
};

// Sampling parameters, each null (off) or one value per row.
struct Shaping {
  const float* temperature;  // >= 0, finite; below exact::kMinTemperature: the argmax
  const int32_t* top_k;      // >= 0; 0 = off
  const float* top_p;        // in (0, 1]; 1 = off
  const float* min_p;        // in [0, 1]; 0 = off
};

LMX_HD int32_t row_status(const Rows& r, int64_t row) {
  if (!r.bitmask || !r.mask_ids) return kStatusOk;
  const int32_t id = r.mask_ids[row];
  return id >= -1 && id < r.num_masks ? kStatusOk : kStatusBadMask;
}

LMX_HD int32_t row_status(const Rows& r, const Shaping& s, int64_t row) {
  // Written so that a NaN fails.
  const bool ok =
      (!s.temperature || (s.temperature[row] >= 0.f && s.temperature[row] < INFINITY)) &&
      (!s.top_k || s.top_k[row] >= 0) &&
      (!s.top_p || (s.top_p[row] > 0.f && s.top_p[row] <= 1.f)) &&
      (!s.min_p || (s.min_p[row] >= 0.f && s.min_p[row] <= 1.f));
  return row_status(r, row) | (ok ? kStatusOk : kStatusBadValue);
}

// The mask words of a row with status ok; null: all allowed.
LMX_HD const uint32_t* row_mask(const Rows& r, int64_t row) {
  if (!r.bitmask) return nullptr;
  const int64_t id = r.mask_ids ? r.mask_ids[row] : row;
  return id < 0 ? nullptr : r.bitmask + id * r.mask_words;
}

// Word w of a row's mask; `words` as row_mask gave it.
LMX_HD uint32_t mask_word(const Rows& r, const uint32_t* words, int64_t w) {
  if (!words) return ~0u;
  return w < r.mask_words ? words[w] : 0u;
}

LMX_HD bool is_greedy(const Shaping& s, int64_t row) {
  return s.temperature && s.temperature[row] < exact::kMinTemperature;
}
// log2(e) / temperature. A greedy row's weights are those of temperature 1.
LMX_HD float row_scale(const Shaping& s, int64_t row) {
  return exact::weight_scale(s.temperature && !is_greedy(s, row) ? s.temperature[row] : 1.f);
}

// ---- the result of one pass over the rows -------------------------------------------------------
// Per block of 256 tokens: the weights of its allowed tokens, relative to the block's own `top`,
// summed as draw.h says. Everything else (lse, softmax, draws) follows from these and from no other
// order of sums.
struct Blocks {
  float* top;  // [num_rows, num_blocks]; -inf: no weight; NaN: a NaN logit
  float* sum;  // [num_rows, num_blocks]
  int64_t num_blocks;
  float* row_top;     // [num_rows]: a RowTotal per row, for kernels that follow on the device
  double* row_total;  // [num_rows]
};

// A row's total: sum of all weights = total * 2^top. top = -inf: nothing allowed; NaN: a NaN logit.
struct RowTotal {
  float top;
  double total;
};

LMX_HD double block_value(float block_top, float block_sum, float row_top) {
  return static_cast<double>(block_sum) * exact::pow2(block_top - row_top);
}

// The total of chunk g: its blocks one after the other.
LMX_HD double chunk_value(const float* top, const float* sum, int64_t num_blocks, int64_t g,
                          float row_top) {
  const int64_t end = (g + 1) * kDrawChunk < num_blocks ? (g + 1) * kDrawChunk : num_blocks;
  double total = 0.0;
  for (int64_t b = g * kDrawChunk; b < end; ++b) total += block_value(top[b], sum[b], row_top);
  return total;
}

// What turns a weight of a block into a probability; 0 where that would be below the least normal
// float.
LMX_HD float probability_factor(float block_top, RowTotal t) {
  const double f = exact::pow2(block_top - t.top) / t.total;
  return f >= 1.1754943508222875e-38 ? static_cast<float>(f) : 0.f;
}

// ln of the sum of e^(logit / temperature).
LMX_HD float lse_of(RowTotal t) {
  if (t.top == -INFINITY || t.top != t.top) return t.top;
  return static_cast<float>(exact::log(t.total) + static_cast<double>(t.top) * exact::kLn2);
}

// ln of the share that a logit of this row has in the total. Small shares, which may underflow, by
// their exponent; large ones by their weight, so that a certain token has exactly 0 and none has
// more.
LMX_HD float log_share(float x, float scale, RowTotal t) {
  if (t.top == -INFINITY) return -INFINITY;
  const float capped = exact::cap_logit(x, scale);
  const double share = static_cast<double>(exact::weight(capped, scale, t.top)) / t.total;
  if (share >= 0.5) return static_cast<float>(exact::log(share));
  const double y = static_cast<double>(capped) * static_cast<double>(scale);
  return static_cast<float>((y - static_cast<double>(t.top)) * exact::kLn2 - exact::log(t.total));
}
}  // namespace lmx::vocab
