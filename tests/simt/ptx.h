// tests/simt/ptx.h: the host twin of csrc/common/ptx.cuh, same names and meaning.
#pragma once
#include "simt.h"

namespace lmx::ptx {

template <int kBytes>
void cp_async(void* shared, const void* global, bool valid = true, SIMT_SITE) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  simt::copy_later(shared, valid ? global : nullptr, kBytes, site);
}
inline void cp_async16(void* shared, const void* global, bool valid = true, SIMT_SITE) {
  cp_async<16>(shared, global, valid, site);
}
inline void cp_async_commit() { simt::commit_copies(); }
template <int kGroupsLeft>
void cp_async_wait(SIMT_SITE) {
  simt::wait_copies(kGroupsLeft, site);
}

SIMT_UNCHECKED inline uint4 load_streaming(const void* p, SIMT_SITE) {
  simt::touch_global(p, sizeof(uint4), simt::Access::constant, site);
  return *static_cast<const uint4*>(p);
}
SIMT_UNCHECKED inline void store_streaming(void* p, uint4 v, SIMT_SITE) {
  simt::touch_global(p, sizeof(uint4), simt::Access::write, site);
  *static_cast<uint4*>(p) = v;
}

inline float max_nan(float a, float b) { return a != a || b != b ? a + b : a > b ? a : b; }

template <int kCount, bool kTrans = false>
void ldmatrix(uint32_t (&r)[kCount], const void* row, SIMT_SITE) {
  static_assert(kCount == 1 || kCount == 2 || kCount == 4);
  simt::load_matrices(r, kCount, kTrans, row, site);
}
inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                              SIMT_SITE) {
  simt::multiply_16x8x16(d, a, b, simt::Half::bf16, site);
}
inline void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                             SIMT_SITE) {
  simt::multiply_16x8x16(d, a, b, simt::Half::f16, site);
}

}  // namespace lmx::ptx
