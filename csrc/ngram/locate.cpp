// csrc/ngram/locate.cpp: CPU side of locate.h.
#include "locate.h"

#include "cpu.h"

namespace lmx::ngram::LMX_ISA {
void locate_cpu(const LocateParams& p) {
  visit_order(p.index, [&](auto order) {
    parallel_for(0, p.num_queries, 16, [&](int64_t begin, int64_t end) {
      for (int64_t q = begin; q < end; ++q) {
        int32_t bits = 0;
        for (int64_t i = 0; i < p.k; ++i) bits |= locate_one<decltype(order)>(p, q, i);
        report("ngram_locate", p.status, q, bits);
      }
    });
  });
}
}  // namespace lmx::ngram::LMX_ISA
