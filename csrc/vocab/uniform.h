// csrc/vocab/uniform.h: uniform[i] in [0, 1), a multiple of 2^-24: the random number of (seed, base
// position, purpose, index, hi) as philox.h defines it. Source: Philox4x32-10, Salmon et al. 2011.
#pragma once
#include "../common/isa.h"
#include "../common/philox.h"
struct CUstream_st;

namespace lmx::vocab {
struct UniformParams {
  const int64_t* seeds;      // [n]
  const int64_t* positions;  // [n], the number of tokens committed, in [0, 2^56)
  const int64_t* indices;    // [n] or null = 0, in [0, 2^32)
  const int64_t* hi;         // [n] or null = 0, in [0, 2^32)
  float* uniform;            // [n]
  int64_t n;
  uint32_t purpose;  // 0 .. 255
};
LMX_HD float uniform_at(const UniformParams& p, int64_t i) {
  return uniform_from_word(philox_word(p.seeds[i], p.positions[i], p.purpose,
                                       p.indices ? static_cast<uint32_t>(p.indices[i]) : 0u,
                                       p.hi ? static_cast<uint32_t>(p.hi[i]) : 0u));
}
// Whether the numbers fit the counter; beyond it two draws could be one.
LMX_HD bool fits_counter(const UniformParams& p, int64_t i) {
  const auto fits = [](const int64_t* v, int64_t at, int bits) { return !v || v[at] >> bits == 0; };
  return fits(p.positions, i, 56) && fits(p.indices, i, 32) && fits(p.hi, i, 32);
}
LMX_CPU_KERNEL(uniform_cpu, UniformParams)
void uniform_cuda(const UniformParams& p, CUstream_st* stream);
}  // namespace lmx::vocab
