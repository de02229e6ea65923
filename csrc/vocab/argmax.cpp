// csrc/vocab/argmax.cpp: CPU side of argmax.h. Memory bound: one read of the allowed logits.
#include "argmax.h"

#include "rows_cpu.h"

namespace lmx::vocab::LMX_ISA {
namespace {
// The largest logit of blocks [begin, end) and the first block that has it; NaN if one is NaN.
struct Best {
  float top = -INFINITY;
  int64_t block = -1;
};

template <typename T>
Best best_block(const RowView<T>& row, int64_t begin, int64_t end) {
  alignas(64) float buffer[kDrawBlock];
  Best best;
  for (int64_t b = begin; b < end; ++b) {
    const float* x = load_block(row, b, buffer);
    if (!x) continue;
    const float top = block_max(x);
    if (top != top) return {top, b};
    if (top > best.top) best = {top, b};
  }
  return best;
}

template <typename T>
void argmax_rows(const ArgmaxParams& p) {
  for_rows(p.rows.num_rows, p.num_parts, [&](int64_t r, const auto& each_part) {
    p.token[r] = -1;
    if (row_status(p.rows, r)) return;
    const RowView<T> row(p.rows, r);
    constexpr int64_t kBlocks = kArgmaxPart / kDrawBlock;
    each_part([&](int64_t part) {
      const Best best =
          best_block(row, part * kBlocks, std::min((part + 1) * kBlocks, row.num_blocks()));
      p.part_top[r * p.num_parts + part] = best.top;
      p.part_id[r * p.num_parts + part] = static_cast<int32_t>(best.block);
    });
    Best best;
    for (int64_t part = 0; part < p.num_parts; ++part) {
      const float top = p.part_top[r * p.num_parts + part];
      if (top != top) return;
      if (top > best.top) best = {top, p.part_id[r * p.num_parts + part]};
    }
    if (best.block < 0) return;
    alignas(64) float buffer[kDrawBlock];
    const float* x = load_block(row, best.block, buffer);
    p.token[r] = best.block * kDrawBlock + (std::find(x, x + kDrawBlock, best.top) - x);
  });
}
}  // namespace

void argmax_cpu(const ArgmaxParams& p) {
  check_rows(
      "vocab_argmax", p.rows.num_rows, p.status,
      [&](int64_t row) { return row_status(p.rows, row); },
      [&](int64_t row) { return complaint(p.rows, {}, row); });
  visit_dtype(p.rows.dtype, [&](auto type) { argmax_rows<decltype(type)>(p); });
}
}  // namespace lmx::vocab::LMX_ISA
