// csrc/vocab/logprobs.cpp: CPU side of logprobs.h.
#include "logprobs.h"

#include "rows_cpu.h"

namespace lmx::vocab::LMX_ISA {
namespace {
template <typename T>
void logprobs_rows(const LogprobsParams& p) {
  const int64_t num_chunks = ceil_div<int64_t>(p.blocks.num_blocks, kDrawChunk);
  for_rows(p.rows.num_rows, num_chunks, [&](int64_t r, const auto& each_chunk) {
    const int64_t target = p.targets[r];
    p.logprob[r] = target == -1 ? 0.f : NAN;
    if (target == -1 || target_status(p, r)) return;
    const RowView<T> row(p.rows, r);
    const float scale = row_scale({}, r);
    const RowTotal total = blocks_total(row, p.blocks, r, scale, each_chunk);
    p.logprob[r] = log_share(to_float(row.x[target]), scale, total);
  });
}
}  // namespace

void logprobs_cpu(const LogprobsParams& p) {
  check_rows(
      "vocab_logprobs", p.rows.num_rows, p.status,
      [&](int64_t row) { return target_status(p, row); },
      [&](int64_t row) {
        return "expected targets[" + std::to_string(row) + "] in [-1, " +
               std::to_string(p.rows.vocab_size) + "), got " + std::to_string(p.targets[row]);
      });
  visit_dtype(p.rows.dtype, [&](auto type) { logprobs_rows<decltype(type)>(p); });
}
}  // namespace lmx::vocab::LMX_ISA
