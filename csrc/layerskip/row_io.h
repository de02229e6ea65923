// csrc/layerskip/row_io.h: pieces of rows as floats and back. Include it only from kernel files.
#pragma once
#include <type_traits>

#include "../common/vec.h"

namespace lmx::layerskip::LMX_ISA {
using namespace lmx::LMX_ISA;

template <typename T>
void widen(const T* from, int64_t n, float* to) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(to + i, load(from + i));
  for (; i < n; ++i) to[i] = to_float(from[i]);
}

#if defined(__AVX512F__)
inline void store_as(F16* p, Vec v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_maskz_cvtps_ph(0xffff, v.raw, _MM_FROUND_TO_NEAREST_INT));
}
#else
inline void store_as(F16* p, Vec v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm256_cvtps_ph(v.raw, _MM_FROUND_TO_NEAREST_INT));
}
#endif

template <typename T>
void narrow(const float* from, int64_t n, T* to) {
  int64_t i = 0;
  if constexpr (std::is_same_v<T, F16>)
    for (; i + kLanes <= n; i += kLanes) store_as(to + i, load(from + i));
  for (; i < n; ++i) to[i] = from_float<T>(from[i]);
}
}  // namespace lmx::layerskip::LMX_ISA
