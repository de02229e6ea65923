// csrc/ngram/mix.cpp: CPU side of mix.h.
#include "mix.h"

#include "../common/convert.h"
#include "cpu.h"

namespace lmx::ngram::LMX_ISA {
namespace {
template <typename T>
void mix_rows(const MixParams& p) {
  parallel_for(0, p.num_rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T* logits = static_cast<const T*>(p.logits) + r * p.row_stride;
      float* out = p.out + r * p.vocab_size;
      const MixRow row = mix_row(p, r);
      report("ngram_mix", p.status, r, row.bits);
      const double rest = mix_rest(row.lambda);
      const float lse = p.lse[r];
      if (row.lambda == 0.0)
        for (int64_t y = 0; y < p.vocab_size; ++y) out[y] = to_float(logits[y]) - lse;
      else
        for (int64_t y = 0; y < p.vocab_size; ++y)
          out[y] = mix_base(to_float(logits[y]), lse, row, rest);
      if (row.lambda == 0.0) continue;
      for (int64_t i = row.begin; i < row.end; ++i)
        if (is_token(p.tok[i], p.vocab_size) && p.num[i] > 0)
          out[p.tok[i]] = mix_entry(to_float(logits[p.tok[i]]), lse, p.num[i], row, rest);
    }
  });
}
}  // namespace

void mix_cpu(const MixParams& p) {
  switch (p.dtype) {
    case DType::f32: return mix_rows<float>(p);
    case DType::f16: return mix_rows<F16>(p);
    case DType::bf16: return mix_rows<Bf16>(p);
  }
}
}  // namespace lmx::ngram::LMX_ISA
