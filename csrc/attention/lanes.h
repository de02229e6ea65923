// csrc/attention/lanes.h: 16 elements at a time as floats, in SIMD registers. Include it only from
// kernel files.
//
// A dot product over head_dim has 8 running sums: sum c takes the elements at place c mod 8, in
// ascending order, from 0; the result is ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7)). The sum
// of a chunk's weights has 16, of which c and c + 8 are added first. That is the same at every
// level.
#pragma once
#include <algorithm>
#include <type_traits>

#include "../common/step.h"

namespace lmx::attention::LMX_ISA {
using namespace lmx::LMX_ISA;

// Register r of the step at p.
inline Vec load_lanes(const float* p, int r) { return load(p + r * kLanes); }
inline Vec load_lanes(const F16* p, int r) { return load(p + r * kLanes); }

inline Step fma(Step a, Step b, Step c) {
  for (int i = 0; i < kRegs; ++i) c.reg[i] = fma(a.reg[i], b.reg[i], c.reg[i]);
  return c;
}
inline Step fma(Vec a, Step b, Step c) {
  for (int i = 0; i < kRegs; ++i) c.reg[i] = fma(a, b.reg[i], c.reg[i]);
  return c;
}

// bfloat16 comes apart with a shift and a mask: elements 0, 2, .. 14, then 1, 3, .. 15. A row of a
// head is kept in that order wherever it is kept as floats: see place_of.
#if defined(__AVX512F__)
inline Vec load_lanes(const Bf16* p, int) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m512i both = _mm512_maskz_broadcast_i64x4(0xff, half);
  const __m512i shift = _mm512_setr_epi32(16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0);
  const __m512i up = _mm512_maskz_sllv_epi32(0xffff, both, shift);
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  return _mm512_castsi512_ps(_mm512_and_si512(up, upper));
}
inline __m256 halves(const Step& s) {
  const __m512i bits = _mm512_castps_si512(s.reg[0].raw);
  const __m256i lower = _mm512_maskz_extracti32x8_epi32(0xff, bits, 0);
  const __m256i upper = _mm512_maskz_extracti32x8_epi32(0xff, bits, 1);
  return _mm256_add_ps(_mm256_castsi256_ps(lower), _mm256_castsi256_ps(upper));
}
#else
inline Vec load_lanes(const Bf16* p, int r) {
  const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  return _mm256_castsi256_ps(r ? _mm256_and_si256(both, upper) : _mm256_slli_epi32(both, 16));
}
inline __m256 halves(const Step& s) { return _mm256_add_ps(s.reg[0].raw, s.reg[1].raw); }
#endif

template <typename T>
Step load_step(const T* p) {
  Step s;
  for (int r = 0; r < kRegs; ++r) s.reg[r] = load_lanes(p, r);
  return s;
}

// Where element d of a row is kept.
template <typename T>
constexpr int place_of(int d) {
  if (!std::is_same_v<T, Bf16>) return d;
  return d / kStep * kStep + d % 2 * (kStep / 2) + d % kStep / 2;
}

// Eight running sums become one, four times.
inline __m128 fold4(__m256 a, __m256 b, __m256 c, __m256 d) {
  const __m256 abcd = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  return _mm_add_ps(_mm256_castps256_ps128(abcd), _mm256_extractf128_ps(abcd, 1));
}
inline float fold_step(const Step& s) {
  const __m256 f = halves(s);
  return _mm_cvtss_f32(fold4(f, f, f, f));
}

// The elements at places 8 h to 8 h + 7 of a step, 256 bits at every level.
inline __m256 load_half(const float* p, int h) { return _mm256_loadu_ps(p + 8 * h); }
inline __m256 load_half(const F16* p, int h) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8 * h)));
}
inline __m256 load_half(const Bf16* p, int h) {
  const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  return _mm256_castsi256_ps(h ? _mm256_and_si256(both, upper) : _mm256_slli_epi32(both, 16));
}

// The first n <= 16 elements, zeros behind them.
template <typename T>
Step load_part(const T* p, int n) {
  T whole[kStep] = {};
  std::copy_n(p, n, whole);
  return load_step(whole);
}

// Rounded to T's precision, of normal floats up to 2; for F16 without the limits of its exponent,
// so that a weight times a power of two is rounded alike.
template <typename T>
Vec rounded(Vec v) {
  if constexpr (std::is_same_v<T, float>) {
    return v;
  } else {
    constexpr int kDropped = std::is_same_v<T, Bf16> ? 16 : 13;
#if defined(__AVX512F__)
    const __m512i bits = _mm512_castps_si512(v.raw);
    const __m512i last =
        _mm512_and_si512(_mm512_maskz_srli_epi32(0xffff, bits, kDropped), _mm512_set1_epi32(1));
    const __m512i half = _mm512_set1_epi32((1 << (kDropped - 1)) - 1);
    const __m512i sum =
        _mm512_maskz_add_epi32(0xffff, bits, _mm512_maskz_add_epi32(0xffff, last, half));
    return _mm512_castsi512_ps(_mm512_and_si512(sum, _mm512_set1_epi32(-(1 << kDropped))));
#else
    const __m256i bits = _mm256_castps_si256(v.raw);
    const __m256i last = _mm256_and_si256(_mm256_srli_epi32(bits, kDropped), _mm256_set1_epi32(1));
    const __m256i half = _mm256_set1_epi32((1 << (kDropped - 1)) - 1);
    const __m256i sum = _mm256_add_epi32(bits, _mm256_add_epi32(last, half));
    return _mm256_castsi256_ps(_mm256_and_si256(sum, _mm256_set1_epi32(-(1 << kDropped))));
#endif
  }
}
}  // namespace lmx::attention::LMX_ISA
