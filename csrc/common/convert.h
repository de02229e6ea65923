// common/convert.h: 16-bit floats on the host, by bits. Include it only from kernel files: it needs
// F16C, and GCC 11 has no _Float16.
#pragma once
#include <immintrin.h>

#include <bit>
#include <cstdint>

namespace lmx {
struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};

inline float to_float(float x) { return x; }
inline float to_float(F16 x) { return _cvtsh_ss(x.bits); }
inline float to_float(Bf16 x) { return std::bit_cast<float>(uint32_t{x.bits} << 16); }

template <typename T>
T from_float(float x) = delete;
template <>
inline float from_float<float>(float x) {
  return x;
}
template <>
inline F16 from_float<F16>(float x) {
  return {_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT)};
}
template <>
inline Bf16 from_float<Bf16>(float x) {  // round to nearest even; NaN stays NaN
  const auto u = std::bit_cast<uint32_t>(x);
  if (x != x) return {static_cast<uint16_t>(u >> 16 | 0x40)};
  return {static_cast<uint16_t>((u + 0x7fff + (u >> 16 & 1)) >> 16)};
}
}  // namespace lmx
