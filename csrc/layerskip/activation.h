// csrc/layerskip/activation.h: activation functions, with the same bits on every backend and level.
//   relu(x) = max(x, 0), sigmoid(x) = 1 / (1 + e^-x), silu(x) = x sigmoid(x)
//   gelu_erf(x) = x Phi(x), gelu_tanh(x) = x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3))
// Absolute error below 2^-21 max(|x|, 1). NaN stays NaN. Written without branches: a loop over them
// becomes SIMD code.
// Source: GELU, arXiv 1606.08415, section 2; SiLU, arXiv 1702.03118, equation 5.
#pragma once
#include "../common/exact.h"

namespace lmx::layerskip {
enum class Activation : int { none, relu, gelu_tanh, gelu_erf, silu, tanh, sigmoid };

namespace activation {
// e^x; 0 below -87 and infinite above 88; NaN stays.
LMX_HD float exp(float x) {
  const bool in_range = x >= -87.f && x <= 88.f;
  const float n = in_range ? exact::round_even(x * exact::kLog2E) : 0.f;
  // x - n ln 2; the first factor has 15 bits, so its product with n is exact.
  float r = exact::fma(n, -0.693145752f, x);
  r = exact::fma(n, -1.42860677e-06f, r);
  const float power = exact::bits_as<float>((static_cast<int32_t>(n) + 127) << 23);
  float e = exact::exp2_fraction(r * exact::kLog2E) * power;
  e = x < -87.f ? 0.f : e;
  return x > 88.f ? INFINITY : e;
}

LMX_HD float sigmoid(float x) { return 1.f / (1.f + exp(-x)); }
LMX_HD float silu(float x) { return x / (1.f + exp(-x)); }

// The odd polynomial is the minimax one on [0, 0.625]; beyond it 1 - 2 / (e^2x + 1) loses little.
LMX_HD float tanh(float x) {
  const float a = fabsf(x), z = x * x;
  const float far = 1.f - 2.f / (exp(a + a) + 1.f);
  float p = -0.00571703119f;
  p = exact::fma(p, z, 0.0206505749f);
  p = exact::fma(p, z, -0.0537434965f);
  p = exact::fma(p, z, 0.133314908f);
  p = exact::fma(p, z, -0.333332837f);
  const float near = exact::fma(x * z, p, x);
  return a < 0.625f ? near : copysignf(far, x);  // NaN: far
}

// The distribution function of the standard normal law. erfc(z) = e^(-z^2) Q(t) for z >= 0, with
// t = 1 / (1 + 0.3275911 z); Q is the minimax polynomial for z <= 6 (7.5e-8 in relative terms).
LMX_HD float normal_cdf(float x) {
  const float z = fabsf(x) * 0.707106769f;
  const float t = 1.f / exact::fma(z, 0.3275911f, 1.f);
  float q = -0.143815428f;
  q = exact::fma(q, t, 0.507834017f);
  q = exact::fma(q, t, -0.424985886f);
  q = exact::fma(q, t, 0.47063148f);
  q = exact::fma(q, t, 0.0163793117f);
  q = exact::fma(q, t, 0.208553925f);
  q = exact::fma(q, t, 0.180326f);
  q = exact::fma(q, t, 0.185076535f);
  const float tail = 0.5f * q * t * exp(-z * z);
  return x < 0.f ? tail : 1.f - tail;
}
LMX_HD float gelu_erf(float x) { return x * normal_cdf(x); }

constexpr float kTwoSqrt2OverPi = 1.59576912f;
LMX_HD float gelu_tanh(float x) {
  const float cubic = exact::fma(x * x * 0.044715f, x, x);
  return x * sigmoid(kTwoSqrt2OverPi * cubic);
}
}  // namespace activation

// f applied by kind; a loop of its own per kind, so that each is SIMD code.
template <typename F>
LMX_HD void visit_activation(Activation kind, const F& f) {
  switch (kind) {
    case Activation::none: return f([](float x) { return x; });
    case Activation::relu: return f([](float x) { return x < 0.f ? 0.f : x; });
    case Activation::gelu_tanh: return f([](float x) { return activation::gelu_tanh(x); });
    case Activation::gelu_erf: return f([](float x) { return activation::gelu_erf(x); });
    case Activation::silu: return f([](float x) { return activation::silu(x); });
    case Activation::tanh: return f([](float x) { return activation::tanh(x); });
    case Activation::sigmoid: return f([](float x) { return activation::sigmoid(x); });
  }
}
}  // namespace lmx::layerskip
