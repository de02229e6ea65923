// csrc/vocab/mask_gather.cpp: CPU side of mask_gather.h. A copy per row: memory bound.
#include "mask_gather.h"

#include <cstring>
#include <string>

#include "rows_cpu.h"

namespace lmx::vocab::LMX_ISA {
void mask_gather_cpu(const MaskGatherParams& p) {
  check_rows(
      "vocab_mask_gather", p.num_rows, p.status, [&](int64_t row) { return gather_status(p, row); },
      [&](int64_t row) {
        return "expected mask_ids in [-1, " + std::to_string(p.num_masks) + "), got " +
               std::to_string(p.mask_ids[row]);
      });
  parallel_for(0, p.num_rows, 4, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      uint32_t* out = p.out + row * p.mask_words;
      if (p.mask_ids[row] >= 0 && !gather_status(p, row))
        std::memcpy(out, p.pool + p.mask_ids[row] * p.mask_words, p.mask_words * sizeof *out);
      else
        for (int64_t w = 0; w < p.mask_words; ++w) out[w] = gathered_word(p, row, w);
    }
  });
}
}  // namespace lmx::vocab::LMX_ISA
