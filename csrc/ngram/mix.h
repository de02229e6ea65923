// csrc/ngram/mix.h: a model's distribution and the infinity-gram one, interpolated.
//   out[r, y] = ln(lambda * num_y / total + (1 - lambda) * exp(logits[r, y] - lse[r]))
// The row's tokens and counts are crow, tok, num of next.h; entries that are no token of the
// vocabulary (the end of a document without eos_id) are left out, and `total` is what remains.
// lambda = lam_sparse where exactly one entry stands in the row, else lam_dense; 0 where no token
// remains, or where suffix_len[r] < min_suffix_len. With lambda 0 the row is logits - lse, rounded
// once; with lambda 1 it is ln(num_y / total), -inf for tokens without a count.
// Source: infini-gram, arXiv 2401.17377, section 5.
#pragma once
#include "../common/exact.h"
#include "../common/isa.h"
#include "index.h"

struct CUstream_st;
namespace lmx::ngram {
struct MixParams {
  const void* logits;         // [num_rows, vocab_size], dtype
  const float* lse;           // [num_rows]
  const int64_t* crow;        // [num_rows + 1]
  const int64_t *tok, *num;   // [num_entries]
  const int32_t* suffix_len;  // [num_rows] or null
  int64_t num_rows, vocab_size, row_stride, num_entries, min_suffix_len;
  double lam_sparse, lam_dense;
  float* out;       // [num_rows, vocab_size]
  int32_t* status;  // [num_rows] or null
  DType dtype;
};

struct MixRow {
  int64_t begin, end;  // entries
  double total;
  double lambda;
  int32_t bits;
};
LMX_HD MixRow mix_row(const MixParams& p, int64_t row) {
  MixRow r{0, 0, 0.0, 0.0, 0};
  const Span span = span_at(p.crow, row, p.num_entries);
  if (span.size < 0) {
    r.bits = kStatusBadOffsets;
    return r;
  }
  r.begin = span.begin, r.end = span.begin + span.size;
  int64_t total = 0;
  for (int64_t i = r.begin; i < r.end; ++i) {
    if (p.num[i] < 0) r.bits = kStatusBadValue;
    if (is_token(p.tok[i], p.vocab_size) && p.num[i] > 0) total += p.num[i];
  }
  const bool is_short = p.suffix_len && p.suffix_len[row] < p.min_suffix_len;
  r.total = static_cast<double>(total);
  if (total > 0 && !is_short && !r.bits) r.lambda = span.size == 1 ? p.lam_sparse : p.lam_dense;
  return r;
}

// ln of (1 - lambda), which scales the model's share.
LMX_HD double mix_rest(double lambda) {
  return lambda < 1.0 ? exact::log(1.0 - lambda) : -INFINITY;
}

// e^x for x <= 0, by 2^(x log2 e); below e^-87 it is 0.
LMX_HD double mix_exp(double x) {
  if (!(x > -87.0)) return 0.0;
  const double t = x * 1.4426950408889634074;
  const double n = t < 0.0 ? static_cast<double>(static_cast<int64_t>(t - 0.5)) : 0.0;
  const double f = (t - n) * 0.69314718055994530942;  // within ln 2 / 2
  double p = 1.0;                                     // the Taylor series to f^12 / 12!
  for (int k = 12; k > 0; --k) p = 1.0 + p * f / k;
  return p * exact::pow2(static_cast<float>(n));
}

// ln(e^a + e^b), a finite.
LMX_HD double mix_add(double a, double b) {
  const double top = a > b ? a : b, low = a > b ? b : a;
  return top + exact::log(1.0 + mix_exp(low - top));
}

// Every token before its own count is added.
LMX_HD float mix_base(float logit, float lse, const MixRow& row, double rest) {
  if (row.lambda == 0.0) return logit - lse;
  return row.lambda < 1.0 ? static_cast<float>(static_cast<double>(logit) - lse + rest) : -INFINITY;
}
// A token that has a count.
LMX_HD float mix_entry(float logit, float lse, int64_t num, const MixRow& row, double rest) {
  const double mine = exact::log(row.lambda * (static_cast<double>(num) / row.total));
  if (row.lambda >= 1.0) return static_cast<float>(mine);
  const double model = static_cast<double>(logit) - lse + rest;
  if (model != model) return static_cast<float>(model);
  return static_cast<float>(mix_add(mine, model));
}

LMX_CPU_KERNEL(mix_cpu, MixParams)
void mix_cuda(const MixParams& p, CUstream_st* stream);
}  // namespace lmx::ngram
