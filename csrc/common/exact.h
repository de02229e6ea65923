// common/exact.h: arithmetic with the same bits on every backend and instruction-set level.
//
// What decides a token id may use only this: IEEE additions, multiplications and divisions,
// explicit fma(), and the functions below, in the order written here. The build forbids the
// compiler to fuse a * b + c (-ffp-contract=off, -fmad=false). The templates take F = float on the
// host and the device, and the SIMD type Vec of vec.h, which supplies its own fma, round_even and
// scale_exp2.
#pragma once
#include <cmath>
#include <cstring>

#include "hostdev.h"

namespace lmx::exact {
LMX_HD float fma(float a, float b, float c) {
#ifdef __CUDA_ARCH__
  return __fmaf_rn(a, b, c);
#else
  return __builtin_fmaf(a, b, c);
#endif
}

LMX_HD double fma(double a, double b, double c) {
#ifdef __CUDA_ARCH__
  return __fma_rn(a, b, c);
#else
  return __builtin_fma(a, b, c);
#endif
}

LMX_HD float round_even(float x) {
#ifdef __CUDA_ARCH__
  return rintf(x);
#else
  return __builtin_rintf(x);
#endif
}

template <typename To, typename From>
LMX_HD To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

// ---- powers of two ----------------------------------------------------------------------
// p * 2^e for p in [0.5, 2) and an integer e <= 0; 0 where the result would be below 2^-126, or e
// is NaN.
constexpr float kMinExponent = -125.f;
LMX_HD float scale_exp2(float p, float e) {
  if (!(e >= kMinExponent)) return 0.f;
  return bits_as<float>(bits_as<int32_t>(p) + static_cast<int32_t>(e) * (1 << 23));
}

// 2^e for an integer e <= 0; 0 below 2^-1022 and for -inf and NaN.
LMX_HD double pow2(float e) {
  if (!(e >= -1022.f)) return 0.0;
  return bits_as<double>((static_cast<int64_t>(e) + 1023) << 52);
}

// 2^f for |f| <= 0.5, relative error below 1.3 units in the last place. The coefficients are the
// minimax polynomial of degree 6 through p(0) = 1 (Remez exchange; 2.6e-9 before rounding).
template <typename F>
LMX_HD F exp2_fraction(F f) {
  F p = F(0.00015594676f);
  p = fma(p, f, F(0.0013406643f));
  p = fma(p, f, F(0.009617693f));
  p = fma(p, f, F(0.055503104f));
  p = fma(p, f, F(0.24022652f));
  p = fma(p, f, F(0.69314724f));
  return fma(p, f, F(1.f));
}

// ---- softmax weights ----------------------------------------------------------------------
// The weight of a logit is e^(logit / temperature) = 2^(x * scale), scale = log2(e) / temperature,
// kept as w * 2^top with an integer `top`. Then changing top is exact, so a weight does not depend
// on the block, tile or thread that computed it: equal logits have equal weights, and one pass over
// a row is enough.
constexpr float kLog2E = 1.44269504f;
constexpr double kLn2 = 0.693147180559945309417;
constexpr float kMinTemperature = 1e-3f;  // below it a draw is the argmax
// Beyond |x * scale| = 2^23 the fraction is lost, so finite logits count as that bound at most
// (+inf too). At temperature 1 it is a logit of 5.8 million, at the least temperature one of 5,800.
constexpr float kMaxExponent = 8388608.f;

LMX_HD float weight_scale(float temperature) { return kLog2E / temperature; }

// x within the bound; -inf, which has no weight, and NaN stay.
LMX_HD float cap_logit(float x, float scale) {
  float bound = kMaxExponent / scale;
  if (bound > 3.4028235e38f) bound = 3.4028235e38f;  // a temperature near the largest float
  if (x > bound) return bound;
  return x < -bound && x > -INFINITY ? -bound : x;
}

// Whether a group of logits with this largest one needs cap_logit. Below half the bound none of
// them is above it, and one below it weighs 0 either way.
LMX_HD bool needs_cap(float largest, float scale) {
  return !(fabsf(largest) * scale < 0.5f * kMaxExponent);
}

// The least integer at or above x * scale, for the largest logit x of a group; -inf: no logit has
// weight; NaN: one is NaN.
LMX_HD float weight_top(float x, float scale) { return ceilf(cap_logit(x, scale) * scale); }

// 2^(x * scale - top) for a capped x up to the one that gave top: at most 1, or, where x * scale is
// large and its rounding shows, 1.5.
template <typename F>
LMX_HD F weight(F x, F scale, F top) {
  const F n = round_even(x * scale);
  return scale_exp2(exp2_fraction(fma(x, scale, F(0.f) - n)), n - top);
}

// ---- logarithm ----------------------------------------------------------------------------
// ln x for a finite normal x > 0, relative error below 1e-14: x = 2^e m with m in [sqrt(1/2),
// sqrt(2)), ln m = 2 atanh(s), s = (m - 1) / (m + 1), by its Taylor series in s^2 (s^2 < 0.0295).
LMX_HD double log(double x) {
  const auto bits = bits_as<int64_t>(x);
  int64_t e = (bits >> 52) - 1023;
  double m = bits_as<double>((bits & 0xfffffffffffffll) | 0x3ff0000000000000ll);
  if (m > 1.4142135623730951) m = m * 0.5, ++e;
  const double s = (m - 1.0) / (m + 1.0), z = s * s;
  double p = 1.0 / 17;
  for (int k = 15; k > 0; k -= 2) p = fma(p, z, 1.0 / k);
  return fma(static_cast<double>(e), kLn2, 2.0 * s * p);
}
}  // namespace lmx::exact
