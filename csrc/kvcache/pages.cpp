// csrc/kvcache/pages.cpp: CPU side of pages.h.
#include "pages.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "../common/parallel.h"

namespace lmx::kvcache::LMX_ISA {
namespace {
// Large pages are split, so that one of them can be several threads' work.
constexpr int64_t kPieceBytes = 1 << 18;

void check_pairs(const PagesParams& p) {
  for (int64_t i = 0; i < p.count; ++i) {
    if (!bad_pair(p, i)) continue;
    if (p.status) {
      p.status[i] |= kStatusBadPage;
      continue;
    }
    const int32_t* ids = bad_id(p, p.from_ids, i) ? p.from_ids : p.to_ids;
    throw std::invalid_argument(std::string(p.op) + ": expected page ids in [1, " +
                                std::to_string(p.num_pages) + "), got " + std::to_string(ids[i]) +
                                " at " + std::to_string(i));
  }
}
}  // namespace

void pages_cpu(const PagesParams& p) {
  check_pairs(p);
  const int64_t pieces = std::max<int64_t>(ceil_div(p.page_bytes, kPieceBytes), 1);
  const int64_t grain = kPieceBytes / (p.page_bytes + 1) + 1;
  parallel_for(0, p.count * pieces, grain, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t i = item / pieces, at = item % pieces * kPieceBytes;
      if (bad_pair(p, i)) continue;
      std::memcpy(p.to + to_at(p, i) + at, p.from + from_at(p, i) + at,
                  std::min(kPieceBytes, p.page_bytes - at));
    }
  });
}
}  // namespace lmx::kvcache::LMX_ISA
