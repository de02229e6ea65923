// csrc/vocab/uniform.cpp: CPU side of uniform.h.
#include "uniform.h"

#include "../common/parallel.h"

namespace lmx::vocab::LMX_ISA {
void uniform_cpu(const UniformParams& p) {
  constexpr int64_t kGrain = 4096;
  parallel_for(0, p.n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) p.uniform[i] = uniform_at(p, i);
  });
}
}  // namespace lmx::vocab::LMX_ISA
