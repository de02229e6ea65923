// csrc/layerskip/gather.cpp: CPU side of gather.h.
#include "gather.h"

#include <cstring>

#include "rows_cpu.h"

namespace lmx::layerskip::LMX_ISA {
void gather_cpu(const GatherParams& p) {
  check_rows(
      p.scatter ? "skip_scatter" : "skip_gather", p.num_rows, p.status,
      [&](int64_t i) { return bad_number(p, i); },
      [&](int64_t i) {
        return "expected perm[" + std::to_string(i) + "] in [0, " + std::to_string(p.limit) +
               "), got " + std::to_string(p.perm[i]);
      });
  const auto* from = static_cast<const char*>(p.from);
  auto* to = static_cast<char*>(p.to);
  const int64_t grain = (1 << 16) / (p.row_bytes + 1) + 1;
  if (p.scatter) {  // one thread: of rows with the same number the last one stays
    for (int64_t i = 0; i < p.num_rows; ++i)
      if (!bad_number(p, i))
        std::memcpy(to + p.perm[i] * p.to_stride, from + i * p.from_stride, p.row_bytes);
    return;
  }
  parallel_for(0, p.num_rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (bad_number(p, i))
        std::memset(to + i * p.to_stride, 0, p.row_bytes);
      else
        std::memcpy(to + i * p.to_stride, from + p.perm[i] * p.from_stride, p.row_bytes);
    }
  });
}
}  // namespace lmx::layerskip::LMX_ISA
