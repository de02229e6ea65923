// csrc/vocab/uniform.cpp: CPU side of uniform.h.
#include "uniform.h"

#include <stdexcept>
#include <string>

#include "../common/parallel.h"

namespace lmx::vocab::LMX_ISA {
void uniform_cpu(const UniformParams& p) {
  for (int64_t i = 0; i < p.n; ++i)
    if (!fits_counter(p, i))
      throw std::invalid_argument(
          "lmx::vocab_uniform: expected positions in [0, 2^56), indices and "
          "hi in [0, 2^32), got positions[" +
          std::to_string(i) + "] = " + std::to_string(p.positions[i]) +
          (p.indices ? ", indices " + std::to_string(p.indices[i]) : "") +
          (p.hi ? ", hi " + std::to_string(p.hi[i]) : ""));
  constexpr int64_t kGrain = 4096;
  parallel_for(0, p.n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) p.uniform[i] = uniform_at(p, i);
  });
}
}  // namespace lmx::vocab::LMX_ISA
