// common/convert.h: 16-bit floats on the host, by bits.
#pragma once
#include <bit>
#include <cstdint>

namespace lmx {
struct Bf16 {
  uint16_t bits;
};
using F16 = _Float16;

inline float to_float(float x) { return x; }
inline float to_float(F16 x) { return static_cast<float>(x); }
inline float to_float(Bf16 x) { return std::bit_cast<float>(uint32_t{x.bits} << 16); }

template <typename T>
T from_float(float x) {
  return static_cast<T>(x);
}
template <>
inline Bf16 from_float<Bf16>(float x) {  // round to nearest even; NaN stays NaN
  const auto u = std::bit_cast<uint32_t>(x);
  if (x != x) return {static_cast<uint16_t>(u >> 16 | 0x40)};
  return {static_cast<uint16_t>((u + 0x7fff + (u >> 16 & 1)) >> 16)};
}
}  // namespace lmx
