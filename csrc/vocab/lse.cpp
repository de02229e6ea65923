// csrc/vocab/lse.cpp: CPU side of lse.h.
#include "lse.h"

#include "rows_cpu.h"

namespace lmx::vocab::LMX_ISA {
namespace {
template <typename T>
void lse_rows(const LseParams& p) {
  const int64_t num_chunks = ceil_div<int64_t>(p.masked.num_blocks, kDrawChunk);
  Rows unmasked = p.rows;
  unmasked.bitmask = nullptr;
  for_rows(p.rows.num_rows, num_chunks, [&](int64_t r, const auto& each_chunk) {
    if (lse_status(p, r)) {
      p.lse_all[r] = p.lse_masked[r] = -INFINITY;
      return;
    }
    const float scale = row_scale(p.shaping, r);
    const RowView<T> row(p.rows, r);
    p.lse_masked[r] = lse_of(blocks_total(row, p.masked, r, scale, each_chunk));
    p.lse_all[r] = p.lse_masked[r];
    if (row.mask) {
      const RowView<T> all(unmasked, r);  // the row is in cache now
      p.lse_all[r] = lse_of(blocks_total(all, p.all, r, scale, each_chunk));
    }
  });
}

std::string lse_complaint(const LseParams& p, int64_t row) {
  const std::string words = complaint(p.rows, p.shaping, row);
  return words.empty()
             ? "expected temperature[" + std::to_string(row) + "] of at least 0.001, got " +
                   std::to_string(p.shaping.temperature[row])
             : words;
}
}  // namespace

void lse_cpu(const LseParams& p) {
  check_rows(
      "vocab_lse", p.rows.num_rows, p.status, [&](int64_t row) { return lse_status(p, row); },
      [&](int64_t row) { return lse_complaint(p, row); });
  visit_dtype(p.rows.dtype, [&](auto type) { lse_rows<decltype(type)>(p); });
}
}  // namespace lmx::vocab::LMX_ISA
